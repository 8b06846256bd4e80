"""The power is cut at any call to the disk: what was acknowledged comes back, as a prefix, and nothing is refused.

A real service with its threads works on a disk that remembers what was synced; see `forgetful_disk`. Every run is a
seed; the calls at which the power is cut, what the bots do and what the cut leaves follow from it (how the threads
interleave does not).
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from persistence_proc import checkpoints, journal, writer
from persistence_proc.mailbox import Mailbox
from persistence_proc.paths import Paths
from persistence_proc.recovery import Recovered, recover
from persistence_proc.security import Access
from persistence_proc.service import Service
from protocol.changes import CLEAR, DELETE, DROP, INSERT, REPLACE, Change, apply_change, encode_changes
from protocol.disk import Disk
from protocol.frames import encode_record
from protocol.messages import Delta, encode
from tests.persistence_proc.forgetful_disk import ForgetfulDisk, Moment
from tests.persistence_proc.raw_session import clear, delete, insert, open_request, replace
from tests.waiting import wait_until

NAMESPACES = ("bot", "other")
SEEDS = range(int(os.environ.get("OUTLIVE_SEEDS", "5")))
STEPS = 300
"""Calls that change the disk in one run, about."""
MOMENTS = 10
Maps = dict[str, dict[bytes, bytes]]


@pytest.fixture(autouse=True)
def _everything_happens_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 16384)
    monkeypatch.setattr(writer, "ROTATE_BYTES", 4096)
    monkeypatch.setattr(checkpoints, "MIN_INTERVAL", 0.0)
    monkeypatch.setattr(checkpoints, "REST_SHARE", 0.0)
    monkeypatch.setattr(checkpoints, "TRIM_INTERVAL", 0.0)


class Bot:
    """What one namespace was told to do, and the state after each of its changes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.states: list[Maps] = [{}]
        self.acknowledged = 0

    def change(self, chance: random.Random) -> list[Change]:
        """The next record: a put, a transaction over maps, a drop ..."""
        changes = [self._one(chance) for _ in range(chance.choice((1, 1, 2, 5)))]
        state = {name: dict(items) for name, items in self.states[-1].items()}
        for op, name, key, value in changes:
            if op == DROP:
                state.pop(name, None)
            elif op != DELETE or name in state:
                apply_change(state.setdefault(name, {}), op, key, value)
        self.states.append(state)
        return changes

    def _one(self, chance: random.Random) -> Change:
        name, key = chance.choice(("a", "a", "b", "c")), chance.randrange(12)
        value = b"%d." % len(self.states) * chance.choice((1, 1, 100))
        kind = chance.choices((INSERT, REPLACE, DELETE, CLEAR, DROP), (8, 8, 4, 1, 1))[0]
        if kind == DELETE:
            return delete(name, key)
        if kind in (CLEAR, DROP):
            return kind, *clear(name)[1:]
        return insert(name, key, value) if kind == INSERT else replace(name, key, value)


class World:
    """A service on a forgetful disk, and some moments of it with what was acknowledged by then."""

    def __init__(self, folder: str, seed: int, disk: ForgetfulDisk) -> None:
        self.chance = random.Random(seed)
        self.bots = [Bot(name) for name in NAMESPACES]
        self.moments: list[tuple[Moment, list[int]]] = []
        self._disk, self._steps = disk, itertools.count()
        self._wanted = set(self.chance.sample(range(STEPS), MOMENTS))
        disk.on_step = self._on_step
        self.mailbox: Mailbox[object] = Mailbox()
        recovered = recover(disk, folder)
        self.service = Service(disk, Paths(folder), recovered, "i", Access(), self.mailbox, lambda address, parts: None)

    def _on_step(self) -> None:
        if next(self._steps) in self._wanted:
            acknowledged = [bot.acknowledged for bot in self.bots]  # first: it may grow at any time
            self.moments.append((self._disk.moment(), acknowledged))

    def turn(self) -> None:
        for report in self.mailbox.take():
            self.service.note(report)
        self.service.turn()
        for bot in self.bots:
            if bot.name in self.service.store.namespaces:
                bot.acknowledged = self.service.store.namespaces[bot.name].durable

    def live(self, changes: int) -> None:
        """Open, change, now and then wait for everything; then stop as the server does."""
        for bot in self.bots:
            self.service.requests.handle(b"", "", open_request(bot.name), self.service._clock())
        for _ in range(changes):
            bot = self.chance.choice(self.bots)
            applied = len(bot.states) - 1
            record = encode_record(applied + 1, 1, 1, encode_changes(bot.change(self.chance)))
            head = Delta(namespace=bot.name, epoch=1, base=applied, upto=applied + 1)
            self.service.receive_delta([encode(head), record], "")
            self.turn()
            if self.chance.random() < 0.1:
                wait_until(self._all_durable)
        wait_until(self._is_saved)

    def _all_durable(self) -> bool:
        self.turn()
        return all(bot.acknowledged == len(bot.states) - 1 for bot in self.bots)

    def _is_saved(self) -> bool:
        self.turn()
        self.service.checkpoints.step(self.service._clock(), hurry=True)
        return self.service.is_saved

    def stop(self) -> None:
        self.service.stop()
        self.mailbox.close()


def check(folder: str, disk: Disk, world: World, acknowledged: Sequence[int]) -> Recovered:
    """Recover: nothing refused, nothing acknowledged lost, and each namespace a prefix of what was done to it."""
    recovered = recover(disk, folder)
    recovered.journal.close()
    assert not recovered.refused
    assert not any(one.previous_used for one in recovered.maps.values()), recovered.notes
    for bot, least in zip(world.bots, acknowledged, strict=True):
        entry = recovered.namespaces.get(bot.name)
        applied = entry.applied if entry else 0
        assert applied >= least, "something acknowledged is lost"
        found = {key[1]: list(one.items.items()) for key, one in recovered.maps.items() if key[0] == bot.name}
        assert found == {name: list(items.items()) for name, items in bot.states[applied].items()}
    return recovered


def applied_of(recovered: Recovered) -> list[int]:
    return [recovered.namespaces[name].applied if name in recovered.namespaces else 0 for name in NAMESPACES]


def recover_and_cut_again(folder: str, disk: ForgetfulDisk, world: World, acknowledged: Sequence[int]) -> None:
    """A recovery on `disk`, the power cut at one of its calls too, and what comes back then."""
    moments: list[Moment] = []
    steps, at = itertools.count(), world.chance.randrange(40)
    disk.on_step = lambda: moments.append(disk.moment()) if next(steps) == at else None
    once = check(folder, disk, world, acknowledged)
    for moment in moments:
        moment.cut_power(f"{folder}-cut", world.chance)
        check(f"{folder}-cut", Disk(), world, acknowledged)
    disk.on_step = lambda: None
    disk.moment().cut_power(f"{folder}-end", world.chance)
    again = check(f"{folder}-end", Disk(), world, applied_of(once))
    assert again.namespaces == once.namespaces


@pytest.mark.parametrize("seed", SEEDS)
def test_kills_and_power_cuts_at_any_call_lose_nothing_acknowledged(data_dir: Path, seed: int) -> None:
    live = data_dir / "live"
    live.mkdir()
    disk = ForgetfulDisk(str(live))
    world = World(str(live), seed, disk)
    try:
        world.live(changes=100)
    finally:
        world.stop()
    for number, (moment, acknowledged) in enumerate(world.moments):
        killed, cut = str(data_dir / f"{number}-killed"), str(data_dir / f"{number}-cut")
        recover_and_cut_again(killed, moment.kill(killed), world, acknowledged)
        moment.cut_power(cut, world.chance)
        recover_and_cut_again(cut, ForgetfulDisk(cut), world, acknowledged)
