"""What recovery does in every case, as a table. `docs/recovery.md` says the same in prose; a test walks it.

The columns are what was found: how the journal is, how much of a map's life it holds, and what the two generations
of its file are. The first row that fits decides.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class JournalState(StrEnum):
    """How the journal is."""

    NONE = "no journal and no store"
    LOST = "no segment, though the store is there"
    CLEAN = "clean"
    TORN = "a torn last frame"
    HOLED = "damaged or missing before its newest unbroken run"
    BROKEN = "damaged before the tail of its newest segment"


class Life(StrEnum):
    """What the journal knows of a map."""

    UNKNOWN = "not known, or dropped"
    WHOLE = "every change since it was created"
    PART = "exists; its first changes are no longer in the journal"


class FileState(StrEnum):
    """What a generation of a map's file is."""

    MISSING = "missing"
    GOOD = "whole, and the journal holds what came after it"
    DAMAGED = "fails its check"
    FOREIGN = "of another store, map, incarnation, or older than known"
    BEHIND = "whole, but the journal since then is gone"
    AHEAD = "beyond the journal's end"


class Action(StrEnum):
    """What is done about a map."""

    NOTHING = "nothing to do"
    LOAD_CURRENT = "load it and replay what is newer"
    LOAD_PREVIOUS = "load the generation before, replay, report degraded"
    REBUILD = "replay all of its life from the journal"
    SET_ASIDE = "quarantine the files"
    REFUSE_NAMESPACE = "refuse this namespace, serve the others"
    REFUSE_START = "refuse to start"


class Case(NamedTuple):
    """What was found about one map."""

    journal: JournalState
    life: Life
    current: FileState
    previous: FileState


class Row(NamedTuple):
    """A line of the table; None fits everything."""

    action: Action
    journal: frozenset[JournalState] | None = None
    life: frozenset[Life] | None = None
    current: frozenset[FileState] | None = None
    previous: frozenset[FileState] | None = None

    def fits(self, case: Case) -> bool:
        columns = (self.journal, self.life, self.current, self.previous)
        return all(wanted is None or found in wanted for wanted, found in zip(columns, case, strict=True))


_MISSING, _AHEAD, _GOOD = (frozenset({f}) for f in (FileState.MISSING, FileState.AHEAD, FileState.GOOD))
_NONE, _HOLED = (frozenset({j}) for j in (JournalState.NONE, JournalState.HOLED))
_UNUSABLE = frozenset({JournalState.LOST, JournalState.BROKEN})
_UNKNOWN, _LIFE = (frozenset({n}) for n in (Life.UNKNOWN, Life.WHOLE))

TABLE: tuple[Row, ...] = (
    Row(Action.NOTHING, journal=_NONE, life=_UNKNOWN, current=_MISSING, previous=_MISSING),
    Row(Action.REFUSE_START, journal=_NONE),
    Row(Action.REFUSE_START, journal=_UNUSABLE),
    Row(Action.REFUSE_START, current=_AHEAD),
    Row(Action.REFUSE_START, previous=_AHEAD),
    Row(Action.NOTHING, life=_UNKNOWN, current=_MISSING, previous=_MISSING),
    Row(Action.SET_ASIDE, life=_UNKNOWN),
    Row(Action.LOAD_CURRENT, current=_GOOD),
    Row(Action.LOAD_PREVIOUS, previous=_GOOD),
    Row(Action.REBUILD, life=_LIFE),
    Row(Action.REFUSE_START, journal=_HOLED),
    Row(Action.REFUSE_NAMESPACE),
)


def decide(case: Case) -> Action:
    """The action of the first row that fits."""
    return next(row.action for row in TABLE if row.fits(case))
