"""What a namespace was told to do, the state after each of its records, and what recovery may make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from persistence_proc.recovery import Recovered
from protocol.changes import Change, encode_changes
from protocol.frames import encode_record
from protocol.messages import Delta, encode
from tests.lab.bot import Bot

Ordered = dict[str, list[tuple[bytes, bytes]]]


Life = tuple[str, int]
"""(map, incarnation)"""


class Kept(NamedTuple):
    """What somebody was told of one namespace: the newest durable change, the newest epoch that was handed out, and
    the maps of which two generations are saved."""

    acknowledged: int = 0
    epoch: int = 0
    saved_twice: frozenset[Life] = frozenset()


class History(Bot):
    """One namespace: what it did, and what was said about it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.kept = Kept()

    def message(self, epoch: int, changes: Sequence[Change]) -> list[bytes]:
        """The message that says the newest record."""
        head = Delta(namespace=self.name, epoch=epoch, base=self.applied - 1, upto=self.applied)
        return [encode(head), encode_record(self.applied, epoch, 1, encode_changes(changes))]

    def note(self, **told: int | frozenset[Life]) -> None:
        self.kept = self.kept._replace(**told)  # type: ignore[arg-type]

    def forget_after(self, applied: int) -> None:
        """A restart has lost the records behind `applied`, of which nobody was told."""
        del self.states[applied + 1 :]


class Outcome(NamedTuple):
    """What a recovery gave of one namespace."""

    applied: int
    epoch: int
    maps: Ordered
    generations: dict[Life, int]
    """How many good files each map has."""


Found = dict[str, Outcome]


def outcomes(recovered: Recovered) -> Found:
    """By namespace. A recovery from a cut or a kill refuses nothing and finds no file that can't be used."""
    assert not recovered.refused, f"refused after a mere power cut or kill: {recovered.refused}"
    degraded = [key for key, one in recovered.maps.items() if one.previous_used]
    assert not degraded, f"degraded after a mere power cut or kill: {recovered.notes}"
    found = {name: Outcome(entry.applied, entry.epoch, {}, {}) for name, entry in recovered.namespaces.items()}
    for (namespace, name), one in recovered.maps.items():
        found[namespace].maps[name] = list(one.items.items())
        files = (one.entry.current is not None) + (one.entry.previous is not None)
        found[namespace].generations[name, one.entry.incarnation] = files
    return found


def check(history: History, kept: Kept, found: Outcome | None) -> None:
    """Nothing acknowledged is lost, no epoch is handed out twice, and the state is a prefix, order included."""
    name, got = history.name, found or Outcome(0, 0, {}, {})
    assert got.applied >= kept.acknowledged, (
        f"{name}: change {kept.acknowledged} was acknowledged, and {got.applied} is the last that came back"
    )
    assert got.applied <= history.applied, f"{name}: change {got.applied} was never made"
    assert got.epoch >= kept.epoch, f"{name}: epoch {kept.epoch} was handed out, and would be again after {got.epoch}"
    wanted = {one: list(items.items()) for one, items in history.states[got.applied].items()}
    assert got.maps == wanted, f"{name}: not the state after change {got.applied}: {got.maps}, not {wanted}"
    for life in kept.saved_twice & got.generations.keys():
        assert got.generations[life] == 2, f"{name}/{life[0]}: a generation that was saved is gone"
