"""The disk that forgets, itself: what a kill and a power cut leave."""

from __future__ import annotations

import errno
import os
import random

import pytest

from persistence_proc.recovery import recover
from tests.lab.memory_disk import MemoryDisk, ShortWrite, fingerprint


def made(disk: MemoryDisk, path: str, data: bytes, synced: bool = False) -> int:
    fd = disk.open(path, os.O_RDWR | os.O_CREAT)
    disk.pwrite(fd, data, 0)
    if synced:
        disk.fsync(fd)
        disk.fsync_dir(os.path.dirname(path))
    return fd


def contents(disk: MemoryDisk, path: str) -> bytes | None:
    return disk.read_file(path) if disk.exists(path) else None


def cuts(disk: MemoryDisk, path: str) -> set[bytes | None]:
    return {contents(left, path) for left in disk.moment().after_power_cuts(1000, random.Random(1))}


def test_a_kill_keeps_what_was_written_and_a_cut_may_lose_it() -> None:
    disk = MemoryDisk()
    made(disk, "/a", b"x")
    assert contents(disk.moment().after_kill(), "/a") == b"x"
    assert cuts(disk, "/a") == {None, b"", b"x", b"\0", b"\xa5"}


def test_a_cut_keeps_what_was_synced() -> None:
    disk = MemoryDisk()
    made(disk, "/a", b"x", synced=True)
    assert cuts(disk, "/a") == {b"x"}


def test_an_overwrite_that_was_not_synced_is_torn_at_sectors() -> None:
    disk = MemoryDisk()
    fd = made(disk, "/a", b"o" * 1024, synced=True)
    disk.pwrite(fd, b"n" * 1024, 0)
    old, new = b"o" * 512, b"n" * 512
    assert cuts(disk, "/a") == {old + old, old + new, new + old, new + new}


def test_a_rename_that_was_not_synced_may_be_lost_but_is_not_torn() -> None:
    disk = MemoryDisk()
    made(disk, "/a", b"old", synced=True)
    made(disk, "/b", b"new", synced=True)
    disk.replace("/b", "/a")
    assert cuts(disk, "/a") == {b"old", b"new"}


def test_names_are_lost_out_of_order() -> None:
    disk = MemoryDisk()
    made(disk, "/a", b"", synced=True)
    disk.unlink("/a")
    made(disk, "/b", b"")
    left = [(x.exists("/a"), x.exists("/b")) for x in disk.moment().after_power_cuts(100, random.Random(1))]
    assert sorted(left) == [(False, False), (False, True), (True, False), (True, True)]


def test_no_state_comes_twice_and_all_are_counted() -> None:
    disk = MemoryDisk()
    fd = made(disk, "/a", b"o" * 1024, synced=True)
    disk.pwrite(fd, b"n" * 1024, 0)
    disk.pwrite(fd, b"m" * 512, 1024)
    disk.replace("/a", "/b")
    left = [fingerprint(x.root) for x in disk.moment().after_power_cuts(1000, random.Random(1))]
    assert len(left) == len(set(left)) == disk.moment().cuts(1000) == 2 * (2 * 2 + 2 * 2 * 3)
    assert disk.moment().cuts(31) is None
    assert len(list(disk.moment().after_power_cuts(10, random.Random(1)))) == 10


def test_a_sector_is_left_as_it_was_at_some_time() -> None:
    disk = MemoryDisk()
    fd = made(disk, "/a", b"....", synced=True)
    for at in range(2):
        disk.pwrite(fd, b"x", at)
    assert cuts(disk, "/a") == {b"....", b"x...", b"xx.."}


def test_contents_that_nobody_reads_are_not_varied() -> None:
    disk = MemoryDisk()
    made(disk, "/a.tmp", b"x" * 2048)
    assert disk.moment().cuts(10, lambda name: name.endswith(".tmp")) == 2


def test_a_store_through_a_mapping_is_lost_unless_it_is_synced() -> None:
    disk = MemoryDisk()
    fd = made(disk, "/a", bytes(1024), synced=True)
    mapping = disk.map(fd, 1024)
    mapping[600:601] = b"x"
    assert contents(disk.moment().after_kill(), "/a") == bytes(600) + b"x" + bytes(423)
    assert len(cuts(disk, "/a")) == 2
    disk.sync_map(fd, mapping)
    assert len(cuts(disk, "/a")) == 1


def test_what_a_failed_sync_dropped_is_not_made_durable_by_the_next() -> None:
    disk = MemoryDisk()
    fd = made(disk, "/a", b"o", synced=True)
    disk.pwrite(fd, b"n", 0)
    disk.on_call = fail_at("fsync")
    with pytest.raises(OSError, match="Input/output"):
        disk.fsync(fd)
    disk.on_call = lambda name, path: None
    disk.fsync(fd)
    assert contents(disk, "/a") == b"n"
    assert cuts(disk, "/a") == {b"o", b"n"}


def test_a_short_write_leaves_its_first_bytes() -> None:
    disk = MemoryDisk()
    fd = made(disk, "/a", b"")

    def short(name: str, path: str) -> None:
        raise ShortWrite(errno.ENOSPC, 2)

    disk.on_call = short
    with pytest.raises(OSError, match="space"):
        disk.pwrite(fd, b"abc", 0)
    disk.on_call = lambda name, path: None
    assert contents(disk, "/a") == b"ab"


def test_a_store_on_it_is_recovered_with_no_look_at_the_real_disk() -> None:
    disk = MemoryDisk()
    first = recover(disk, "/state")
    first.journal.close()
    disk.mkdir("/state/bot")
    disk.write_file("/state/bot/stray.pkl", b"no map file")
    again = recover(disk, "/state")
    again.journal.close()
    assert again.next_lsn == first.next_lsn + 1
    assert disk.listdir("/state/quarantine") == ["bot-stray.pkl.1"], "a folder on this disk was not looked into"


def fail_at(call: str):  # type: ignore[no-untyped-def]
    def on_call(name: str, path: str) -> None:
        if name == call:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return on_call
