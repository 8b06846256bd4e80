"""An outbox on a disk in memory, the server in three numbers, and the one line of history that is true.

`look` is called at every instant at which a crash could strike: before each call of the disk and behind each put.
`check` reads what a crash left, with the product's own reader, for every server that may be there: one that lost
what it had applied and not synced, one that had not, and all between.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest

from protocol.changes import CLEAR, DELETE, DROP, INSERT, REPLACE, Change, apply_change, decode_changes, encode_changes
from protocol.errors import OutboxFull, StateRefused, SyncFailed
from protocol.frames import decode_records
from protocol.outbox_files import Identity, OutboxContents, read_outbox
from strategy_proc import outbox as outbox_module
from strategy_proc import outbox_chain, outbox_segment
from strategy_proc.outbox import Outbox
from tests.lab.memory_disk import MemoryDisk
from tests.strategy_proc.outboxes import NAMESPACE, STORE, insert, replay

DATA_DIR = "/state"
FOLDER = f"{DATA_DIR}/{NAMESPACE}/outbox"
SEGMENT = 2048  # bytes: a head and three sectors of records, so that two big puts fill it
SMALL, BIG = 40, 700  # bytes of a value: several in one sector, or one over two or three
Maps = dict[str, dict[bytes, bytes]]


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that a few puts fill."""
    for module in (outbox_module, outbox_segment):
        monkeypatch.setattr(module, "SEGMENT_BYTES", SEGMENT)


class WouldWait(Exception):
    """Another thread would wait for this lock; here nothing else goes on meanwhile, so it goes away."""


class Impatient:
    """Stands for `_files_lock` where one thread plays two."""

    def __init__(self) -> None:
        self._held = False

    def __enter__(self) -> None:
        if self._held:
            raise WouldWait
        self._held = True

    def __exit__(self, *error: object) -> None:
        self._held = False


class World:
    """See the module. All randomness is `chance`'s; `busy`: others put and sync whenever the disk is called."""

    def __init__(self, chance: random.Random, busy: bool = False, disk: MemoryDisk | None = None) -> None:
        self.chance, self.busy = chance, busy
        self.look: Callable[[World], None] | None = None
        self.before_call: Callable[[str, str], None] = lambda name, path: None
        """May raise, for the call to fail."""
        self.boot = 1
        self.folded = False
        """A fold has been made: a record may say the same in other words."""
        self.torn = False
        """A power cut has struck, and no life has begun since."""
        self.epoch = self.shipped = self.applied = self.durable = 0
        """`shipped`: handed to a socket in any life. `applied` and `durable` are the server's, each at least the next;
        what it has told the outbox, `acked`, is at most `durable`."""
        self._boundaries: set[int] = set()  # where this server stood on its way from `durable` to `applied`
        self.history: list[bytes] = []
        """The payload of change n at n - 1."""
        self.states: list[Maps] = [{}]
        """The maps after change n."""
        self.returned = self.synced = 0
        """The change up to which puts have returned, and syncs."""
        self.identity: Identity | None = None
        self.outbox: Outbox | None = None
        self._unique = itertools.count(1)
        self._putting = False
        self._use(disk or MemoryDisk())
        self.disk.mkdir(DATA_DIR)
        self.disk.fsync_dir("/")

    def _use(self, disk: MemoryDisk) -> None:
        self.disk = disk
        disk.on_call = self._called

    def fork(self, left: MemoryDisk) -> World:
        """Another world, with what a crash left of this one's disk."""
        other = copy.copy(self)
        other.history, other.states = self.history.copy(), self.states.copy()
        other.outbox = other.look = None
        other._boundaries = set(self._boundaries)
        other._putting = False
        other.disk = left
        return other

    def _called(self, name: str, path: str) -> None:
        if self.look is not None:
            self.look(self)
        self.before_call(name, path)
        if self.busy and self._another_thread_may_put():
            with suppress(OutboxFull):
                self.append(encode_changes(self.some_changes(1, SMALL)))
            if self.chance.random() < 0.25:
                with suppress(WouldWait, SyncFailed):
                    self.sync()

    def _another_thread_may_put(self) -> bool:
        outbox = self.outbox
        return (
            outbox is not None and not self._putting and not outbox.put_lock._is_owned()  # type: ignore[attr-defined]
            and not outbox._files.names.locked()
        )  # fmt: skip

    # The caller

    def put(self, size: int = SMALL) -> None:
        self.record(self.some_changes(1, size))

    def transaction(self) -> None:
        """A record of several changes, over several sectors."""
        self.record(self.some_changes(3, BIG // 2))

    def record(self, changes: list[Change]) -> None:
        self.append(encode_changes(changes))
        if self.look is not None:
            self.look(self)

    @property
    def seq(self) -> int:
        return self._live.seq

    @property
    def tail(self) -> tuple[Any, int, int]:
        return self._live.tail

    def append(self, payload: bytes) -> int:
        """As the outbox's, and it becomes the truth. Raises `OutboxFull`, nothing recorded."""
        self.history.append(payload)
        self.states.append(after(self.states[-1], [payload]))
        self._putting = True
        try:
            seq = self._live.append(payload)
        except BaseException:
            del self.history[-1:], self.states[-1:]
            raise
        finally:
            self._putting = False
        assert seq == len(self.history)
        self.returned = seq
        return seq

    def some_changes(self, count: int, size: int) -> list[Change]:
        """Changes that a session could make: only a key that is there is replaced or deleted, no value comes twice."""
        maps, changes = {name: dict(items) for name, items in self.states[-1].items()}, list[Change]()
        for _ in range(count):
            name, key = self.chance.choice("mn"), insert(self.chance.randrange(4))[2]
            present = key in maps.get(name, ())
            op = self.chance.choice((REPLACE, REPLACE, DELETE) if present else (INSERT,))
            if self.chance.random() < 0.05:
                op = self.chance.choice((CLEAR, DROP))
            value = b"%d." % next(self._unique) * (size // 4) if op in (INSERT, REPLACE) else b""
            changes.append((op, name, key if op <= DELETE else b"", value[:size]))
            apply_change(maps.setdefault(name, {}), op, key, value[:size])
        return changes

    def roll(self) -> None:
        """Fill the segment, so that the next one is in use."""
        before = self._live.tail[0]
        while self._live.tail[0] is before:
            self.put(BIG)

    def sync(self) -> None:
        upto = self.returned
        self._live.sync()
        self.synced = max(self.synced, upto)

    def sync_twice(self) -> None:
        """The first may tell of what has failed before; the second must not fail."""
        with suppress(SyncFailed):
            self.sync()
        self.sync()
        assert self.synced == self.returned

    # The pump and the server

    def ship(self, arrives: bool = True) -> None:
        """Hand everything to a socket; the server applies it, unless it is lost on the way."""
        outbox = self._live
        while (run := outbox.unshipped(self.applied, 2**20)) is not None:
            base, upto, parts = run
            outbox.mark_shipped(upto)
            self.shipped = max(self.shipped, upto)
            if not arrives:
                return
            records = list(decode_records(b"".join(parts)))
            assert base <= self.applied
            self._same(replay(records, self.states[self.applied]), upto, "what is shipped differs from what was put")
            self._boundaries.update(record.seq for record in records)
            self.applied = upto

    def server_positions(self) -> list[int]:
        """Where a killed server may be found: it applies records whole, and syncs behind any of them."""
        between = {seq for seq in self._boundaries if self.durable < seq < self.applied}
        return sorted({self.durable, self.applied, *between})

    def lose(self) -> None:
        self.ship(arrives=False)

    def keep(self) -> None:
        """The server syncs what it has applied; its reply is lost."""
        self.durable = self.applied

    def forget(self) -> None:
        """The server is killed and has what was durable."""
        self.applied = self.durable
        self._boundaries = set()

    def acknowledge(self) -> None:
        """Shipped, applied, durable, told; what is not needed any more is reused or removed."""
        self.ship()
        self.keep()
        self._live.mark_acked(self.durable)
        self._live.maintain()

    def maintain(self) -> None:
        self._live.maintain()

    def compact(self) -> None:
        """Fold what is not acknowledged, after enough of it."""
        while sum(s.last > self._live.acked for s in self._live._sealed) < 2:
            self.roll()
        self.folded = True
        with mock.patch.object(outbox_chain, "COMPACT_AT", 0):  # worth its work however little there is
            self._live.maintain()

    def close(self) -> None:
        self._live.close()
        assert not self.disk._open, "a descriptor is left open"

    def drop_in_child(self) -> None:
        """Nothing is shared with a child."""

    def leave(self) -> None:
        """Cleanly, and come back."""
        self.acknowledge()
        self.close()
        self.kill()

    @property
    def _live(self) -> Outbox:
        assert self.outbox is not None
        return self.outbox

    # Crashes

    def kill(self) -> None:
        self.live_again(self.disk.moment().after_kill(), power_cut=False)

    def cut(self) -> None:
        self.live_again(self.disk.moment().after_power_cut(self.chance), power_cut=True)

    def live_again(self, left: MemoryDisk, power_cut: bool) -> None:
        """The next life, on what a crash left. What came back is the truth from now on."""
        found = self.check(left, power_cut)
        self.boot += power_cut
        self.torn = self.torn or power_cut
        self.applied = self.durable = self.chance.choice(self.server_positions())
        self._boundaries = set()
        self._keep_only(max(found.last, self.applied))
        self.outbox = None
        self._use(left)
        self.start()

    def start(self) -> None:
        outbox = Outbox.load(self.disk, FOLDER, NAMESPACE, boot_name(self.boot))
        leftovers = [r for r in outbox.contents.records if r.seq > self.applied]
        self.identity = outbox.identity
        self.epoch += 1
        try:
            outbox.begin(STORE, self.epoch, self.applied, leftovers)
        except OSError:
            outbox.close()
            assert not self.disk._open, "a descriptor is left open"
            raise
        outbox._files_lock = Impatient()  # type: ignore[assignment]
        self.outbox, self.torn = outbox, False
        assert outbox.seq == self.returned
        self.synced = self.returned  # `begin` has copied the leftovers into a synced segment: that is its claim

    def _keep_only(self, upto: int) -> None:
        del self.history[upto:], self.states[upto + 1 :]
        self.returned, self.synced, self.shipped = upto, min(self.synced, upto), min(self.shipped, upto)

    def check(self, left: MemoryDisk, power_cut: bool) -> OutboxContents:
        """Promises P1 to P4 and P6 on what a kill or a power cut left."""
        crash = "power cut" if power_cut else "kill"
        try:
            found = read_outbox(left, FOLDER, NAMESPACE, boot_name(self.boot + power_cut))
        except StateRefused as error:
            raise AssertionError(f"a {crash} is no damage (P6): {error}") from error
        assert power_cut or self.torn or not found.set_aside, "a kill tears no hole, yet records are set aside (P1)"
        assert found.shipped >= min(self.shipped, found.last), "what a socket had counts as never seen (rule 8)"
        self._check_identity(found, crash)
        for applied in self.server_positions():
            self._check_leftovers(found, applied, crash, self.synced if power_cut else self.returned)
        return found

    def _check_identity(self, found: OutboxContents, crash: str) -> None:
        if self.identity is not None:
            assert found.identity is not None, f"after a {crash} the outbox does not know who it is"
            assert found.identity.identity == self.identity.identity, f"after a {crash} the outbox is somebody else"
            assert found.identity.life >= self.identity.life, f"after a {crash} a life that has opened is forgotten"

    def _check_leftovers(self, found: OutboxContents, applied: int, crash: str, floor: int) -> None:
        leftovers = [r for r in found.records if r.seq > applied]
        upto = leftovers[-1].seq if leftovers else applied
        assert found.acked <= applied, f"acknowledged says {found.acked}, the server has {applied} (P6)"
        assert not leftovers or leftovers[0].base <= applied, f"changes above {applied} are gone after a {crash}"
        assert upto >= floor, f"change {floor} is lost, {upto} is the last after a {crash} (P1, P2)"
        assert upto <= len(self.history), f"change {upto} of a lost future is back after a {crash} (P3)"
        for record in leftovers:
            if record.span == 1 and not self.folded:
                assert record.payload == self.history[record.seq - 1], f"change {record.seq} is another one (P3, P4)"
        self._same(replay(leftovers, self.states[applied]), upto, f"after a {crash}, server at {applied} (P3, P4)")

    def _same(self, found: dict[str, list[tuple[bytes, bytes]]], upto: int, what: str) -> None:
        assert found == replay([], self.states[upto]), f"not the state after change {upto}: {what}"


def boot_name(number: int) -> str:
    return f"boot {number}"


def after(maps: Maps, payloads: list[bytes]) -> Maps:
    """`maps` with more changes; nothing given is touched."""
    out = {name: dict(items) for name, items in maps.items()}
    for op, name, key, value in itertools.chain(*map(decode_changes, payloads)):
        apply_change(out.setdefault(name, {}), op, key, value)
    return out
