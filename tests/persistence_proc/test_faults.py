"""Full disks and failed syncs: nothing is acknowledged that is not durable, and nothing is lost."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence_proc.mailbox import Mailbox
from persistence_proc.paths import Paths
from persistence_proc.recovery import recover
from persistence_proc.security import Access
from persistence_proc.service import CannotKeep, Service
from protocol.changes import Change, encode_changes
from protocol.disk import Disk
from protocol.frames import encode_record
from protocol.keys import encode_key
from protocol.messages import Confirm, Confirmed, Delta, Open, decode_reply, encode
from tests.persistence_proc.raw_session import insert, open_request
from tests.waiting import wait_until


class FaultyDisk(Disk):
    """A disk that fails on demand."""

    def __init__(self) -> None:
        self.full = threading.Event()
        self.failing_syncs = 0

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        if self.full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        super().pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise OSError(errno.EIO, "Input/output error")
        super().fdatasync(fd)


class Harness:
    """A service without sockets: requests in, replies out."""

    def __init__(self, data_dir: Path, disk: Disk) -> None:
        self.mailbox: Mailbox[object] = Mailbox()
        self.replies: list[bytes] = []
        recovered = recover(disk, str(data_dir))
        self.service = Service(
            disk,
            Paths(str(data_dir)),
            recovered,
            "i",
            Access(),
            self.mailbox,
            lambda _, parts: self.replies.extend(parts),
        )
        self.applied = 0

    def turn(self) -> None:
        for report in self.mailbox.take():
            self.service.note(report)
        self.service.turn()

    def ask(self, request: Open | Confirm) -> object:
        """The reply; turns the loop until it is there."""
        self.replies.clear()
        self.service.requests.handle(b"me", "", request, self.service._clock())

        def reply() -> bytes | None:
            self.turn()
            return self.replies[0] if self.replies else None

        return decode_reply(wait_until(reply))

    def open(self, life: int = 1) -> None:
        self.ask(open_request(life=life, last=self.applied))

    def put(self, key: int) -> None:
        self.apply(insert("a", key))
        self.turn()

    def apply(self, change: Change) -> None:
        self.applied += 1
        record = encode_record(self.applied, 1, 1, encode_changes([change]))
        delta = Delta(namespace="bot", epoch=1, base=self.applied - 1, upto=self.applied)
        self.service.receive_delta([encode(delta), record], "")

    def confirm(self, wait: float) -> Confirmed:
        reply = self.ask(Confirm(namespace="bot", epoch=1, store_id=b"", acked=0, upto=self.applied, wait=wait))
        assert isinstance(reply, Confirmed)
        return reply

    def close(self) -> None:
        self.service.stop()
        self.mailbox.close()


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def harness(data_dir: Path, disk: FaultyDisk) -> Iterator[Harness]:
    one = Harness(data_dir, disk)
    one.open()
    yield one
    one.close()


def keys_after_restart(data_dir: Path) -> list[bytes]:
    recovered = recover(Disk(), str(data_dir))
    recovered.journal.close()
    return list(recovered.maps["bot", "a"].items)


def test_a_full_disk_acknowledges_nothing_and_goes_on_when_there_is_space(harness: Harness, disk: FaultyDisk) -> None:
    harness.put(1)
    assert harness.confirm(1.0).durable == 1
    disk.full.set()
    for key in range(2, 20):
        harness.put(key)
    wait_until(lambda: harness.turn() or harness.service.disk_full)
    stuck = harness.confirm(0.05)
    assert (stuck.applied, stuck.durable) == (19, 1)
    disk.full.clear()
    wait_until(lambda: harness.confirm(1.0).durable == 19)
    assert harness.service.disk_full is None


def test_a_failed_sync_is_left_behind_with_its_segment(data_dir: Path, disk: FaultyDisk) -> None:
    harness = Harness(data_dir, disk)
    harness.open()
    harness.put(1)
    assert harness.confirm(1.0).durable == 1
    disk.failing_syncs = 1
    harness.put(2)
    wait_until(lambda: harness.confirm(1.0).durable == 2)
    harness.put(3)
    wait_until(lambda: harness.confirm(1.0).durable == 3)
    assert len(harness.service.writer.journal.segments) == 2
    harness.close()
    assert keys_after_restart(data_dir) == [encode_key(n) for n in (1, 2, 3)]


def test_a_map_created_by_a_batch_whose_sync_failed_is_saved_and_recovered(data_dir: Path, disk: FaultyDisk) -> None:
    harness = Harness(data_dir, disk)
    harness.open()
    disk.failing_syncs = 1
    harness.put(1)
    wait_until(lambda: harness.confirm(1.0).durable == 1)
    wait_until(lambda: harness.turn() or harness.service.store.saves >= 1)
    harness.close()
    assert keys_after_restart(data_dir) == [encode_key(1)]


def test_two_failed_syncs_in_a_row_end_the_process_and_lose_nothing_acknowledged(
    data_dir: Path, disk: FaultyDisk
) -> None:
    harness = Harness(data_dir, disk)
    harness.open()
    harness.put(1)
    assert harness.confirm(1.0).durable == 1
    disk.failing_syncs = 2
    harness.put(2)
    with pytest.raises(CannotKeep):
        wait_until(lambda: harness.turn() or False)
    harness.close()
    assert keys_after_restart(data_dir)[0] == encode_key(1)


def test_the_journal_is_rotated_and_trimmed_and_idle_maps_do_not_hold_it(data_dir: Path) -> None:
    harness = Harness(data_dir, Disk())
    harness.open()
    harness.put(0)
    harness.confirm(1.0)
    big = b"x" * 2**20

    def write_more() -> bool:
        harness.apply(insert("busy", harness.applied % 3, big + b"%d" % harness.applied))
        harness.confirm(1.0)
        segments = harness.service.writer.journal.segments
        return segments[0][0] > 3  # the segment with the idle map's only frame has gone

    wait_until(write_more)
    idle = harness.service.store.map(("bot", "a"))
    assert idle is not None
    assert idle.previous is not None
    harness.close()
    assert keys_after_restart(data_dir) == [encode_key(0)]


def test_a_map_is_saved_also_when_nothing_comes_after_a_rotation(harness: Harness) -> None:
    harness.put(1)
    harness.confirm(1.0)
    harness.apply(insert("a", 2, b"x" * (7 * 2**20)))  # more than a segment takes before it is rotated
    harness.confirm(1.0)
    wait_until(lambda: harness.turn() or len(harness.service.writer.journal.segments) > 1)

    def saved() -> bool:
        harness.turn()
        harness.service.turn(hurry=True)
        return harness.service.is_saved

    wait_until(saved, 10.0)
