"""Full disks and failed syncs: nothing is acknowledged that is not durable, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from persistence_proc import checkpointer, checkpoints, journal, security, server, writer
from persistence_proc.checkpointer import Checkpointer, Saved, SaveJob
from persistence_proc.mailbox import Mailbox
from persistence_proc.map_state import MapState
from persistence_proc.paths import Paths
from persistence_proc.recovery import recover
from persistence_proc.security import make_private_directory
from persistence_proc.server import Server
from persistence_proc.service import CannotKeep
from persistence_proc.settings import check_settings
from protocol.disk import Disk
from protocol.keys import encode_key
from tests.lab.memory_disk import MemoryDisk
from tests.persistence_proc.raw_session import insert
from tests.persistence_proc.service_harness import FaultyDisk, Harness
from tests.waiting import wait_until


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
        n = harness.applied
        change = insert("busy", n % 3, big + b"%d" % n)
        harness.send(change)
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
    harness.send(insert("a", 2, b"x" * (7 * 2**20)))  # more than a segment takes before it is rotated
    harness.confirm(1.0)
    wait_until(lambda: harness.turn() or len(harness.service.writer.journal.segments) > 1)
    harness.wait_saved()


def test_a_catalog_larger_than_a_segment_does_not_make_each_commit_begin_one(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "ROTATE_BYTES", 0)  # so that any catalog is larger
    harness.send(*[insert(f"map{n}", 0) for n in range(100)])
    wait_until(lambda: harness.confirm(1.0).durable == harness.applied)
    before, commits = harness.service.store.last_lsn, harness.service.store.commits
    for key in range(20):
        harness.put(key)
        wait_until(lambda: harness.confirm(1.0).durable == harness.applied)
    commits = harness.service.store.commits - commits
    assert harness.service.store.last_lsn - before <= commits + commits // 4


def test_any_failure_of_the_writer_ends_the_process(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("never seen before")

    monkeypatch.setattr(journal, "encode_payload", fail)
    harness.put(1)
    with pytest.raises(CannotKeep, match="never seen before"):
        wait_until(lambda: harness.turn() or False)


def test_any_failure_of_a_save_is_reported_and_the_save_is_made_again(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Disk):
        failures = 2

        def link_or_copy(self, source: str, target: str) -> None:
            self.failures -= 1
            if self.failures >= 0:
                raise RuntimeError("never seen before")
            super().link_or_copy(source, target)

    monkeypatch.setattr(checkpoints, "RETRY_REST", 0.0)
    disk = Failing()
    harness = Harness(data_dir, disk)
    harness.open()
    for key in range(2):
        harness.put(key)
        harness.wait_saved()
    assert disk.failures < 0
    harness.close()


def test_a_namespace_folder_that_a_person_removed_is_made_again(
    harness: Harness, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "RETRY_REST", 0.0)
    harness.put(1)
    harness.wait_saved()
    (data_dir / "bot").rename(data_dir / "elsewhere")
    harness.put(2)
    harness.wait_saved()
    assert (data_dir / "bot" / "a.pkl").exists()


def test_a_save_that_waited_for_a_full_disk_does_not_count_as_work(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine times its duration is rest: an hour of full disk would end in nine hours without a save."""
    now = 0.0
    monkeypatch.setattr(checkpointer, "time", SimpleNamespace(monotonic=lambda: now))
    mailbox: Mailbox[object] = Mailbox()
    saver = Checkpointer(Disk(), Paths(str(data_dir)), bytes(16), mailbox)
    began = []
    monkeypatch.setattr(saver, "_await_batch", lambda job: began.append(now) or Checkpointer._await_batch(saver, job))
    saver.start()
    saver.save(SaveJob(("bot", "a"), MapState(), {}, 0, 7))
    wait_until(lambda: began)
    now = 3600.0
    saver.durable(7)
    (saved,) = wait_until(mailbox.take)
    assert isinstance(saved, Saved)
    assert saved.file is not None
    assert saved.seconds == 0.0
    saver.stop()
    mailbox.close()


def test_a_signal_ends_a_recovery_at_its_next_step(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(data_dir, Disk())
    harness.open()
    harness.put(1)
    harness.wait_saved()
    harness.close()
    monkeypatch.setattr(server.signal, "signal", lambda number, handler: None)
    one = Server(check_settings(str(data_dir)))
    one._on_signal(0, None)
    before = sorted((data_dir / "journal").iterdir())
    assert one.run() == 0
    assert sorted((data_dir / "journal").iterdir()) == before
    assert keys_after_restart(data_dir) == [encode_key(1)]


def test_the_directories_above_a_new_data_directory_are_durable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "check_private", lambda path: None)  # owners and modes are not a memory disk's
    disk = MemoryDisk()
    make_private_directory(disk, "/a/b/state")
    (left,) = disk.moment().after_power_cuts(100, random.Random(0))
    assert left.is_dir("/a/b/state")
