"""Resident memory against a limit: a warning before it, once, until there is air again."""

from __future__ import annotations

from typing import Literal

WARN_AT = 0.8
"""Part of the limit at which a person is told, while there is time to look."""


class MemoryWatch:
    """The memory of one process. What `judge` says is news: it is said once."""

    def __init__(self) -> None:
        self._warned = False

    def judge(self, resident: int, limit: int | None) -> Literal["", "heavy", "overweight"]:
        """Bytes, bytes. "overweight" as often as it is so."""
        if limit is None or resident <= limit * WARN_AT:
            self._warned = False
            return ""
        if resident > limit:
            return "overweight"
        warned, self._warned = self._warned, True
        return "" if warned else "heavy"
