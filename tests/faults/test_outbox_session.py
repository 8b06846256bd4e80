"""An error at the N-th call of the disk under a session: its maps and its outbox go on saying the same.

The session is the real one, on a real outbox on a disk in memory; its pump is a stand-in that works when it is woken.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from protocol.errors import FlushTimeout, OutboxFull, SyncFailed
from protocol.keys import encode_key
from protocol.values import Trust, ValueCodec
from strategy_proc.recovered import Recovered, RecoveredStatus
from strategy_proc.session import Session
from tests.crash.outbox_world import World, small_segments
from tests.faults.test_outbox import each_fault, leave
from tests.lab.effort import Effort

__all__ = ["small_segments"]
pytestmark = pytest.mark.usefixtures("small_segments")


class NoLock:
    """Nobody else is there."""

    def release(self) -> None: ...


class PumpOnDemand:
    """Ships, hears and keeps house when it is woken; survives what the disk does to it, as the real one does."""

    def __init__(self, session: Session, world: World) -> None:
        self._session, self._world = session, world

    def wake(self) -> None:
        with suppress(OSError):
            self._world.acknowledge()
        self._session._note_durable(self._world.durable)

    def beat(self) -> None: ...

    def leave(self, timeout: float) -> bool:
        return True

    def stop(self) -> None: ...


class Bot:
    """A session and the plain dicts that its maps should equal."""

    def __init__(self, world: World) -> None:
        nothing = Recovered(status=RecoveredStatus.NEW, entries={}, from_outbox=0, ts_last=0)
        self.world = world
        self.session = Session("bot", world.epoch, world, NoLock(), ValueCodec(Trust()), {}, nothing)
        self.session._pump = PumpOnDemand(self.session, world)
        self.maps = {name: self.session.map(name) for name in "mn"}
        self.model: dict[str, dict[str, Any]] = {"m": {}, "n": {}}

    def put(self, key: str, size: int) -> None:
        with suppress(OutboxFull):
            self.maps["m"][key] = "x" * size
            self.model["m"][key] = "x" * size

    def delete(self, key: str) -> None:
        with suppress(OutboxFull, KeyError):
            del self.maps["m"][key]
            del self.model["m"][key]

    def transaction(self, durable: bool = False) -> None:
        """Whole or not at all, P4: also when only its sync has failed, which is whole."""
        before = self.world.returned
        with suppress(OutboxFull, SyncFailed):
            with self.session.transaction(durable=durable):
                self.maps["m"]["t"] = self.maps["n"]["t"] = before
                self.maps["n"]["u"] = "y" * 600
        if self.world.returned > before:
            self.model["m"]["t"] = self.model["n"]["t"] = before
            self.model["n"]["u"] = "y" * 600

    def sync(self) -> None:
        with suppress(SyncFailed):
            self.session.sync()

    def flush(self) -> None:
        upto = self.world.returned
        try:
            self.session.flush(timeout=0)
        except FlushTimeout:
            assert self.world.durable < upto, "confirmed, and yet flush() said that it was not"
        else:
            assert self.world.durable >= upto, "flush() has returned before it was durable (P2)"

    def check(self) -> None:
        """What the maps say, what they would compare with, and what is recorded."""
        recorded = self.world.states[-1]
        for name, found in self.maps.items():
            assert dict(found) == self.model[name], "a refused change is in the map, or one that returned is not"
            assert {encode_key(k): v for k, v in found._recorded.items()} == recorded.get(name, {})
        assert self.session.unsaved() == {}


def work(world: World) -> None:
    bot = Bot(world)
    for turn in range(3):
        bot.put("a", 700)
        bot.transaction()
        bot.sync()
        bot.put(f"b{turn}", 1800)
        bot.check()
        bot.transaction(durable=True)
        bot.delete("a")
        bot.put("c", 40)
        bot.flush()
        bot.check()


def test_an_error_at_any_call_leaves_map_and_outbox_of_one_mind(lab: Effort) -> None:
    for world in each_fault(lab, World.start, work):
        leave(lab, world)
        world.sync_twice()
        leave(lab, world)


def test_a_session_whose_disk_is_broken_for_good_closes_all_the_same(lab: Effort) -> None:
    def close(world: World) -> None:
        bot = Bot(world)
        bot.put("a", 700)
        bot.sync()
        with suppress(FlushTimeout):
            bot.session.close(timeout=0)
        assert not world.disk._open, "a descriptor is left open"

    for world in each_fault(lab, World.start, close):
        leave(lab, world)
