"""A persistence process without sockets on a disk that fails, two bots that believe only replies, and an oracle.

What a bot was told is kept with what the disk held at that moment: a kill and a power cut then, followed by a recovery
on a disk that works, have to bring it back.
"""

from __future__ import annotations

import logging
import os
import random
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from persistence_proc import checkpoints, journal, writer
from persistence_proc.checkpointer import SaveAbandoned, Saved
from persistence_proc.journal_format import scan_segment
from persistence_proc.mailbox import Mailbox
from persistence_proc.paths import Paths
from persistence_proc.recovery import Recovered, recover
from persistence_proc.security import Access
from persistence_proc.service import CannotKeep, Service
from protocol.changes import encode_changes
from protocol.disk import Disk
from protocol.errors import OutliveError
from protocol.frames import encode_record
from protocol.limits import CONFIRM_WAIT
from protocol.messages import (
    Close,
    Confirm,
    Confirmed,
    Delta,
    Done,
    Opened,
    Refused,
    decode_items,
    decode_reply,
    encode,
)
from tests.faults.disk_faults import Faults, WatchedDisk
from tests.lab.bot import Bot
from tests.lab.memory_disk import MemoryDisk, Moment
from tests.persistence_proc.raw_session import open_request

FOLDER = "/state"
NAMES = ("bot", "other")
HANG = 15.0  # seconds in which everything is acknowledged again, or the process has ended
ENOUGH = 5  # times that a fault "for ever" is seen before the disk is healed
MOMENTS = 4  # failed calls, and acknowledgements behind them, at which everything could end

WENT_ON, ENDED, REFUSED, NOT_STARTED = "went on", "ended", "refused a namespace", "did not start"


class Past(NamedTuple):
    """What an earlier life left: the disk, each bot's states, and how far each was acknowledged."""

    moment: Moment
    states: list[list[dict[str, dict[bytes, bytes]]]]
    acknowledged: list[int]
    lives: int


NOTHING = Past(Moment(MemoryDisk().root), [[{}], [{}]], [0, 0], 0)


class World:
    """One life of a service on `disk`, beginning with its recovery."""

    def __init__(self, past: Past, faults: Faults, script: random.Random) -> None:
        self.disk = WatchedDisk(past.moment.after_kill().root)
        self.disk.on_call = faults
        self.faults, self.script, self._life = faults, script, past.lives + 1
        self.bots = [Bot(name) for name in NAMES]
        for bot, states, acknowledged in zip(self.bots, past.states, past.acknowledged, strict=True):
            bot.states, bot.acknowledged = list(states), acknowledged
        self.moments: list[tuple[Moment, list[int]]] = []
        self.problems: list[str] = []
        """What no failure of the disk excuses."""
        self._asked: dict[str, bool] = {}
        self._opened: set[str] = set()
        self._closed: set[str] = set()
        self._refused: list[Refused] = []
        faults.on_strike = self._keep_moment

    # Told

    def acknowledged(self) -> list[int]:
        return [bot.acknowledged for bot in self.bots]

    def _keep_moment(self) -> None:
        """What could be left, now that a call is about to fail or a bot has been told something."""
        told = self.acknowledged()  # first: it may grow at any time
        if len(self.moments) < MOMENTS:
            self.moments.append((self.disk.moment(), told))

    def _send(self, address: bytes, parts: list[bytes]) -> None:
        bot = self.bots[NAMES.index(address.decode())]
        reply = decode_reply(parts[0])
        self._asked[bot.name] = False
        if isinstance(reply, Refused):
            self._refused.append(reply)
            return
        if isinstance(reply, Confirmed):
            bot.acknowledged = max(bot.acknowledged, reply.durable)
        elif isinstance(reply, Opened):
            self._check_opened(bot, reply, parts[1:])
        else:
            assert isinstance(reply, Done)
            bot.acknowledged = len(bot.states) - 1
            self._closed.add(bot.name)
        if self.faults.struck:
            self._keep_moment()

    def _check_opened(self, bot: Bot, opened: Opened, parts: list[bytes]) -> None:
        self._opened.add(bot.name)
        assert bot.acknowledged <= opened.applied, "something acknowledged is not in the state that open gives"
        told = {}
        for index, one in enumerate(opened.maps):
            _, values = decode_items(parts[3 * index : 3 * index + 3], one.entries)
            told[one.name] = list(values)
        assert told == {name: list(items.values()) for name, items in bot.states[opened.applied].items()}
        del bot.states[opened.applied + 1 :]  # what an earlier life never told the journal is gone
        bot.acknowledged = opened.applied

    # Living

    def live(self, changes: int) -> str:
        """Recover, open, change and settle, leave, stop; how it ended."""
        try:
            recovered = recover(self.disk, FOLDER)
        except (OSError, OutliveError) as error:
            if isinstance(error, OSError) and not error.filename:
                self.problems.append(f"an error that names no file: {error!r}")
            return NOT_STARTED
        if any(one.previous_used for one in recovered.maps.values()) and not self.faults.has_lied():
            self.problems.append("a map's file was taken for damaged, and the medium had not said so")
        self.mailbox: Mailbox[object] = Mailbox()
        self.service = Service(self.disk, Paths(FOLDER), recovered, "i", Access(), self.mailbox, self._send)
        try:
            with self._watched():
                return self._serve(changes)
        finally:
            self.service.stop()
            self.mailbox.close()

    def _serve(self, changes: int) -> str:
        try:
            self._open()
            if self._refused:
                return REFUSED
            for number in range(changes):
                self._change(self.script.choice(self.bots))
                if self.script.random() < 0.3 or number == changes - 1:
                    self._until(self._settled, f"the acknowledgement of everything ({self.acknowledged()})")
            self._leave()
        except CannotKeep as error:
            if not isinstance(error.__cause__, OSError):
                self.problems.append(f"the process ends for {error.__cause__!r}")
            return ENDED
        return WENT_ON

    def _open(self) -> None:
        for bot in self.bots:
            self._ask(bot, open_request(bot.name, life=self._life, last=len(bot.states) - 1, acked=bot.acknowledged))
        self._until(lambda: self._turn() or self._refused or len(self._opened) == len(NAMES), "the open")

    def _change(self, bot: Bot) -> None:
        applied, epoch = len(bot.states) - 1, self.service.store.namespaces[bot.name].epoch
        record = encode_record(applied + 1, epoch, 1, encode_changes(bot.change(self.script)))
        head = Delta(namespace=bot.name, epoch=epoch, base=applied, upto=applied + 1)
        self.service.receive_delta([encode(head), record], "")
        self._turn()

    def _leave(self) -> None:
        """As bots do, and then the server."""
        for bot in self.bots:
            self._until(lambda bot=bot: self._turn() or not self._asked[bot.name], "the last confirm")
            self._ask(bot, Close(namespace=bot.name, epoch=self._epoch(bot), upto=len(bot.states) - 1))
            self._until(lambda bot=bot: self._turn(ask=False) or bot.name in self._closed, "the close")
        self._until(lambda: self._turn(hurry=True, ask=False) or self.service.is_saved, "the last saves")
        if any(state.is_dirty for one in self.service.store.namespaces.values() for state in one.maps.values()):
            self.problems.append("a map is said to be saved, and its file lacks something")

    def _until(self, condition: Callable[[], object], what: str) -> None:
        """Turn until it is true; between the turns wait for a report of the threads."""
        end = time.monotonic() + HANG
        while not condition():
            assert time.monotonic() < end, f"{what} did not come within {HANG} s"
            select.select([self.mailbox.fileno()], [], [], 0.001)

    def _settled(self) -> bool:
        self._turn()
        told = all(bot.acknowledged == len(bot.states) - 1 for bot in self.bots)
        return told and self.service.checkpoints.is_clean

    def _turn(self, hurry: bool = False, ask: bool = True) -> None:
        """One turn of the server's loop, and what the bots ask meanwhile."""
        if len(self.faults.struck) >= ENOUGH:
            self.faults.heal()
        for report in self.mailbox.take():
            if isinstance(report, Saved) and not isinstance(report.error, OSError | SaveAbandoned | None):
                self.problems.append(f"a save failed with {report.error!r}")
            self.service.note(report)
        for bot in self.bots if ask else ():
            if bot.name in self._opened and not self._asked[bot.name]:
                self._ask(bot, Confirm(
                    namespace=bot.name, epoch=self._epoch(bot), store_id=b"", acked=bot.acknowledged,
                    upto=len(bot.states) - 1, wait=CONFIRM_WAIT,
                ))  # fmt: skip
        self.service.turn(hurry)

    def _epoch(self, bot: Bot) -> int:
        return self.service.store.namespaces[bot.name].epoch

    def _ask(self, bot: Bot, request: Confirm | Close) -> None:
        self._asked[bot.name] = True
        self.service.requests.handle(bot.name.encode(), "", request, self.service._clock())

    # Silence

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Nothing but the disk's errors goes wrong in a thread, and no thread is gone before it is told to."""
        log, handler = logging.getLogger("persistence"), _Listener(self.problems)
        hook, threading.excepthook = threading.excepthook, lambda args: self.problems.append(repr(args.exc_value))
        log.addHandler(handler)
        try:
            yield
            for thread in (self.service._checkpointer._thread,):
                if not thread.is_alive():
                    self.problems.append(f"the thread {thread.name} is gone")
        finally:
            log.removeHandler(handler)
            threading.excepthook = hook


class _Listener(logging.Handler):
    """Housekeeping that failed for something else than the disk."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__()
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        args = record.args if isinstance(record.args, tuple) else ()
        if "housekeeping" in record.msg and not isinstance(args[0], OSError):
            self._problems.append(record.getMessage())


# The oracle


def check(
    disk: Disk, bots: list[Bot], acknowledged: list[int], degraded: bool = False, folder: str = FOLDER
) -> Recovered:
    """Recover: nothing refused, everything acknowledged there, each namespace the state after one of its changes."""
    recovered = recover(disk, folder)
    recovered.journal.close()
    assert not recovered.refused
    assert degraded or not any(one.previous_used for one in recovered.maps.values()), recovered.notes
    for bot, least in zip(bots, acknowledged, strict=True):
        entry = recovered.namespaces.get(bot.name)
        applied = entry.applied if entry else 0
        assert applied >= least, f"{bot.name}: change {least} was acknowledged, and {applied} is all that is left"
        found = {key[1]: list(one.items.items()) for key, one in recovered.maps.items() if key[0] == bot.name}
        wanted = {name: list(items.items()) for name, items in bot.states[applied].items()}
        assert found == wanted, f"{bot.name}: not the state after change {applied}"
    return recovered


def check_ends(world: World, chance: random.Random, cuts: int) -> int:
    """Each moment that was kept, and the present: killed, and the power cut in `cuts` ways; how many recoveries."""
    degraded = world.faults.has_lied()
    world.disk.on_call = lambda name, path: None
    moments = [*world.moments, (world.disk.moment(), world.acknowledged())]
    for moment, told in moments:
        check(moment.after_kill(), world.bots, told, degraded)
        for _ in range(cuts):
            check(moment.after_power_cut(chance), world.bots, told, degraded)
    return len(moments) * (1 + cuts)


def an_earlier_life(script: random.Random, changes: int) -> Past:
    """Two namespaces, maps with files and without, a frame that was never synced, and the beginning of one more."""
    lived = [NOTHING]
    world = World(NOTHING, Faults(), script)

    def keep(name: str, path: str) -> None:
        if name == "fdatasync":
            told = world.acknowledged()
            lived[0] = Past(world.disk.moment(), [list(bot.states) for bot in world.bots], told, 1)

    world.disk.on_call = keep
    assert world.live(changes) == WENT_ON
    left = lived[0].moment.after_kill()
    _tear(left)
    return lived[0]._replace(moment=left.moment())


def _tear(disk: MemoryDisk) -> None:
    journal = Paths(FOLDER).journal
    path = f"{journal}/{max(name for name in disk.listdir(journal) if name.endswith('.log'))}"
    fd = disk.open(path, 0)
    disk.pwrite(fd, b"OJF1torn", scan_segment(path, memoryview(disk.read_file(path))).end)
    disk.close(fd)


def spill(disk: MemoryDisk, source: str, target: str) -> None:
    """Write what a disk in memory holds below `source` to the real directory `target`."""
    for name in disk.listdir(source):
        if disk.is_dir(f"{source}/{name}"):
            os.makedirs(f"{target}/{name}", mode=0o700, exist_ok=True)
            spill(disk, f"{source}/{name}", f"{target}/{name}")
        else:
            with open(f"{target}/{name}", "wb") as file:
                file.write(disk.read_file(f"{source}/{name}"))


def make_everything_happen_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments, a save for each change, and no rest."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 6144)
    monkeypatch.setattr(writer, "ROTATE_BYTES", 2048)
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(checkpoints, "MIN_INTERVAL", 0.0)
    monkeypatch.setattr(checkpoints, "REST_SHARE", 0.0)
    monkeypatch.setattr(checkpoints, "RETRY_REST", 0.001)
    monkeypatch.setattr(checkpoints, "TRIM_INTERVAL", 0.0)
