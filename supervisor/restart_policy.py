"""When to start a dead program again.

* The first restart is at once: a bot's crash must cost no more time than its own start.
* Deaths that follow each other quickly wait longer each time, with jitter, so that programs that fail for one
  reason (an exchange that is down) don't come back in step.
* Too many deaths within a window are FATAL. Then it is tried again slowly, for ever: a bot with open positions is
  never given up for good. A life of `stable_after` seconds ends both.

Times are seconds of the monotonic clock that is handed in; nothing here waits.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from supervisor.config import RestartSettings


class Verdict(NamedTuple):
    """Start it again after `delay` seconds."""

    delay: float
    fatal: bool = False


class RestartPolicy:
    """The memory of one program's deaths."""

    def __init__(
        self,
        settings: RestartSettings,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._settings, self._clock, self._uniform = settings, clock, uniform
        self._started = clock()
        self._deaths: deque[float] = deque()
        self._quick = 0
        self._fatal = False

    def started(self) -> None:
        """A process of the program was started now."""
        self._started = self._clock()

    def died(self) -> Verdict:
        """It died now, unasked."""
        now = self._clock()
        if now - self._started >= self._settings.stable_after:
            self._quick, self._fatal = 0, False
        self._deaths.append(now)
        while self._deaths[0] <= now - self._settings.window:
            self._deaths.popleft()
        if self._fatal or len(self._deaths) >= self._settings.limit:
            self._fatal = True
            return Verdict(self._settings.fatal_retry, fatal=True)
        self._quick += 1
        return Verdict(self._delay())

    def forgive(self) -> None:
        """A person started it: begin anew."""
        self._deaths.clear()
        self._quick, self._fatal = 0, False

    def _delay(self) -> float:
        if self._quick == 1:
            return 0.0
        exponent = min(self._quick - 2, 32)  # beyond it the maximum has long been reached; a float can't overflow
        full = min(self._settings.backoff_first * 2.0**exponent, self._settings.backoff_max)
        return self._uniform(full / 2, full)
