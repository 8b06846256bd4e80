"""Wait for a condition instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONG = 30.0  # seconds; a deadline is there to end a hang, not to measure: generous, for a loaded machine


def wait_until(condition: Callable[[], T], deadline: float = LONG, what: str = "") -> T:
    """Return the first true result of `condition`. Raises AssertionError after `deadline` seconds."""
    end = time.monotonic() + deadline
    pause = 0.0005
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            name = what or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"{name} was not true within {deadline} s; it is {result!r}")
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
