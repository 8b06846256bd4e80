"""Recover every disk that a moment may leave, and check what comes back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from persistence_proc.recovery import recover
from protocol.errors import StateRefused
from tests.crash.store_history import Found, check, outcomes
from tests.crash.store_world import FOLDER, Entropy, World
from tests.lab.effort import Effort
from tests.lab.memory_disk import MemoryDisk, Moment, fingerprint

QUARANTINE = f"{FOLDER}/quarantine"


def is_temporary(name: str) -> bool:
    """Recovery removes these unread; `_recover` makes sure of it."""
    return name.endswith(".tmp")


class Lost(BaseException):
    """A promise was broken at some call to the disk."""


class Judge:
    """Knows the disks that it has seen, so that each is recovered once.

    `limit`: cuts of one moment. `lives`: how many recoveries are themselves killed, and their power cut, at each of
    their calls, one in the other.
    """

    def __init__(self, lab: Effort, entropy: Entropy, limit: int, lives: int = 0) -> None:
        self.lives = lives
        self._lab, self._entropy, self._limit = lab, entropy, limit
        self._chance = lab.chance("judge")
        self._once: dict[bytes, Found] = {}
        self._reached: dict[tuple[bytes, int], list[Found]] = {}
        self._left: dict[tuple[bytes, int], list[Found]] = {}

    def watch(self, world: World) -> None:
        """Judge every instant of `world` from here on."""

        def watch() -> None:
            try:
                self.judge(world)
            except AssertionError as error:  # the product catches what is an Exception: its threads go on
                raise Lost(*error.args) from error

        world.watch = watch

    def judge(self, world: World) -> None:
        """Whatever a kill or a power cut leaves of `world` right now is recovered as it was promised."""
        state = self._entropy.state
        for found in self._outcomes(world.disk.moment(), self.lives, "a workload"):
            for history, kept in zip(world.histories, world.kept, strict=True):
                check(history, kept, found.get(history.name))
        self._entropy.state = state

    def _outcomes(self, moment: Moment, lives: int, where: str) -> list[Found]:
        """Everything that recovery may make of what is left of `moment`."""
        self._lab.count(f"moments of {where}")
        key = moment.fingerprint(), lives
        if key not in self._left:
            self._left[key] = _distinct(self._reachable(left, lives) for left in self._states(moment))
        return self._left[key]

    def _states(self, moment: Moment) -> Iterator[MemoryDisk]:
        """What may be left of a moment, and the tally."""
        lab, states = self._lab, 0
        yield moment.after_kill()
        for left in moment.after_power_cuts(self._limit, self._chance, is_temporary):
            yield left
            states += 1
        lab.count("kills")
        lab.count("power cuts", states)
        sampled = states == self._limit and moment.cuts(self._limit, is_temporary) is None
        lab.count("different moments, a sample of cuts" if sampled else "different moments, every cut")

    def _reachable(self, left: MemoryDisk, lives: int) -> list[Found]:
        """Every outcome of recovering `left`, itself cut short up to `lives` times before it gets through."""
        key = fingerprint(left.root, unsynced=True), lives
        if key not in self._reached:
            moments: list[Moment] = []
            found, end = self._recover(left, moments if lives else None)
            for again in self._states(end):
                twice = self._recovered(again)
                assert twice == found, f"recovering twice gives something else than once: {twice}, not {found}"
            inside = [self._outcomes(moment, lives - 1, "recovery") for moment in moments]
            self._reached[key] = _distinct([[found], *inside])
        return self._reached[key]

    def _recovered(self, left: MemoryDisk) -> Found:
        mark = fingerprint(left.root)
        if mark not in self._once:
            self._once[mark] = self._recover(left, None)[0]
        return self._once[mark]

    def _recover(self, left: MemoryDisk, moments: list[Moment] | None) -> tuple[Found, Moment]:
        """What comes back, and the disk afterwards; at each call on the way it is noted in `moments`."""

        def on_call(name: str, path: str) -> None:
            assert not (name == "read_file" and is_temporary(path)), f"recovery reads {path}"
            if moments is not None:
                moments.append(left.moment())

        self._lab.count("recoveries")
        self._entropy.restart(fingerprint(left.root))
        left.on_call = on_call
        try:
            recovered = recover(left, FOLDER)
        except StateRefused as refusal:
            raise AssertionError(f"refused to start after a mere power cut or kill: {refusal}") from refusal
        recovered.journal.close()
        kept = left.listdir(QUARANTINE) if left.exists(QUARANTINE) else []
        assert not [name for name in kept if name.startswith("journal-")], f"a hole in the journal: {recovered.notes}"
        found = outcomes(recovered)
        return found, left.moment()


def _distinct(lists: Iterable[list[Found]]) -> list[Found]:
    out: list[Found] = []
    for found in itertools.chain.from_iterable(lists):
        if found not in out:
            out.append(found)
    return out
