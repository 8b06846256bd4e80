"""What came back at `connect`. A bot prints it, and decides."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum


class RecoveredStatus(StrEnum):
    """NEW: nothing was ever stored. CLEAN: the last session was closed. CRASHED: it was not."""

    NEW = "NEW"
    CLEAN = "CLEAN"
    CRASHED = "CRASHED"


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """The recovered state in figures."""

    status: RecoveredStatus
    entries: dict[str, int]
    """Map name -> number of keys."""
    from_outbox: int
    """Changes that the persistence process did not have yet; they came from this side's outbox."""
    ts_last: int
    """When the persistence process received its newest change, ns UTC; 0 if there is none."""
    previous_used: tuple[str, ...] = ()
    """Maps whose current file was damaged: the generation before it was brought forward, nothing is lost."""
    set_aside: int = 0
    """Changes that no longer belong to this history; they are kept in a file beside the outbox."""

    @property
    def age(self) -> float | None:
        """Seconds since the newest change arrived; None if there is none."""
        return max(0.0, time.time() - self.ts_last / 1e9) if self.ts_last else None

    @property
    def degraded(self) -> bool:
        """Whether something was not as it should be."""
        return bool(self.previous_used or self.set_aside)

    def __str__(self) -> str:
        maps = ", ".join(f"{name} {count}" for name, count in self.entries.items()) or "no maps"
        parts = [f"{self.status}: {maps}"]
        if self.from_outbox:
            parts.append(f"{self.from_outbox} changes from the outbox")
        if self.age is not None:
            parts.append(f"newest {self.age:.1f} s old")
        if self.previous_used:
            parts.append(f"previous generation used for {', '.join(self.previous_used)}")
        if self.set_aside:
            parts.append(f"{self.set_aside} changes of another history set aside")
        return "; ".join(parts)
