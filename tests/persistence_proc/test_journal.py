"""The journal: what is read back after appends, rotations, faults and damage."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from persistence_proc import journal as journal_module
from persistence_proc.journal import (
    Books,
    Catalog,
    Commit,
    Generation,
    Journal,
    JournalContents,
    MapEntry,
    NamespaceEntry,
    Section,
    read_journal,
)
from persistence_proc.journal_format import HEADER_BYTES, RawFrame, decode_frame, segment_name
from protocol.changes import CLEAR, DELETE, DROP, INSERT, Change
from protocol.disk import Disk
from protocol.errors import Damaged

STORE = b"s" * 16
EMPTY = Catalog(STORE, [], [], [])


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 16384)


def commit(seq: int, *changes: Change) -> Commit:
    entry = NamespaceEntry("bot", epoch=1, applied=seq)
    return Commit([Section(entry, list(changes) or [(INSERT, "m", b"K\1", b"value%d" % seq)])])


class Harness:
    """One journal in one folder, with LSNs that count themselves."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self.folder = str(folder / "journal")
        self.disk = disk or Disk()
        self.journal = Journal.start(self.disk, self.folder, STORE, EMPTY, 1)

    def write(self, frames: int = 1) -> None:
        for _ in range(frames):
            lsn = self.journal.last_lsn + 1
            self.journal.append(lsn, commit(lsn))
            self.journal.sync()

    def rotate(self) -> None:
        self.journal.rotate(self.journal.last_lsn + 1, EMPTY)

    def read(self) -> JournalContents:
        contents = read_journal(Disk(), self.folder)
        assert contents is not None
        return contents

    def lsns(self) -> list[int]:
        return [lsn for lsn, _ in self.read().frames()]

    def segment(self, first: int) -> Path:
        return Path(self.folder, segment_name(first))

    def frame_ends(self, first: int) -> list[int]:
        data = self.segment(first).read_bytes()
        return [f.end for f in journal_module.frames_in(memoryview(data))]

    def change(self, first: int, at: int, new: bytes) -> None:
        data = bytearray(self.segment(first).read_bytes())
        data[at : at + len(new)] = new
        self.segment(first).write_bytes(data)

    def flip(self, first: int, at: int) -> None:
        self.change(first, at, bytes([self.segment(first).read_bytes()[at] ^ 1]))


@pytest.fixture
def journal(tmp_path: Path) -> Harness:
    return Harness(tmp_path)


def test_a_folder_without_segments_holds_no_journal(tmp_path: Path) -> None:
    assert read_journal(Disk(), str(tmp_path)) is None
    assert read_journal(Disk(), str(tmp_path / "nowhere")) is None


def test_what_is_appended_is_read_back_in_order(journal: Harness) -> None:
    journal.write(3)
    contents = journal.read()
    assert list(contents.frames()) == [(1, EMPTY), (2, commit(2)), (3, commit(3)), (4, commit(4))]
    assert (contents.torn, contents.damage, contents.last_lsn) == (None, None, 4)


def test_reading_can_begin_behind_an_lsn(journal: Harness) -> None:
    journal.write(2)
    journal.rotate()
    journal.write(2)
    assert [lsn for lsn, _ in journal.read().frames(above=2)] == [3, 4, 5, 6]
    assert [lsn for lsn, _ in journal.read().frames(above=5)] == [6]


def test_a_segment_is_full_of_zeros_in_advance(journal: Harness) -> None:
    data = journal.segment(1).read_bytes()
    assert len(data) == 16384
    assert not any(data[journal.journal.used :])


def test_a_frame_larger_than_the_segment_makes_the_file_grow(journal: Harness) -> None:
    journal.journal.append(2, commit(2, (INSERT, "m", b"K\1", bytes(50_000))))
    journal.write()
    assert journal.lsns() == [1, 2, 3]


def test_a_rotation_goes_on_in_the_next_segment(journal: Harness) -> None:
    journal.write(2)
    journal.rotate()
    journal.write()
    assert [first for first, _ in journal.journal.segments] == [1, 4]
    assert journal.lsns() == [1, 2, 3, 4, 5]


def test_a_spare_is_used_once_and_leaves_nothing_behind(journal: Harness) -> None:
    journal.journal.prepare_spare()
    journal.journal.prepare_spare()
    journal.rotate()
    assert sorted(os.listdir(journal.folder)) == [segment_name(1), segment_name(2)]
    journal.rotate()
    assert journal.lsns() == [1, 2, 3]


def test_whole_segments_below_an_lsn_are_deleted_and_the_current_one_never(journal: Harness) -> None:
    for _ in range(3):
        journal.write(2)
        journal.rotate()
    assert [first for first, _ in journal.journal.segments] == [1, 4, 7, 10]
    journal.journal.delete_before(6)
    assert [first for first, _ in journal.journal.segments] == [4, 7, 10]
    journal.journal.delete_before(1000)
    assert [first for first, _ in journal.journal.segments] == [10]
    assert journal.lsns() == [10]
    assert journal.journal.total_bytes == journal.journal.used


def test_a_lsn_out_of_order_is_a_mistake_of_the_caller(journal: Harness) -> None:
    with pytest.raises(ValueError, match="LSN 3 after 1"):
        journal.journal.append(3, commit(3))


# Damage


def test_a_truncated_last_frame_is_ignored_at_every_length(journal: Harness) -> None:
    journal.write(2)
    start, end = journal.frame_ends(1)[-2:]
    whole = journal.segment(1).read_bytes()
    for cut in range(start, end):
        zeros = bytes(len(whole) - cut)
        journal.segment(1).write_bytes(whole[:cut] + zeros)
        if whole[cut:end].strip(b"\0"):
            assert journal.lsns() == [1, 2], cut
            torn = journal.read().torn
            assert (torn is None) == (cut == start)
            assert torn is None or torn.offset == start
        journal.segment(1).write_bytes(whole[:cut])
        assert journal.lsns()[:2] == [1, 2]


def test_a_flipped_byte_in_the_last_frame_is_a_torn_tail(journal: Harness) -> None:
    journal.write(2)
    start = journal.frame_ends(1)[-2]
    length = journal.frame_ends(1)[-1] - start
    journal.flip(1, start + HEADER_BYTES)
    torn = journal.read().torn
    assert torn is not None
    assert (torn.path, torn.offset) == (str(journal.segment(1)), start)
    assert length - 8 < torn.length <= length


def test_every_flipped_byte_in_the_middle_is_reported(journal: Harness) -> None:
    journal.write(3)
    start, end = journal.frame_ends(1)[1:3]
    whole = journal.segment(1).read_bytes()
    padding = len(whole[start:end]) - len(whole[start:end].rstrip(b"\0"))
    for at in range(start, end - padding):
        journal.flip(1, at)
        with pytest.raises(Damaged) as caught:
            journal.read()
        assert (caught.value.path, caught.value.offset) == (str(journal.segment(1)), start)
        journal.segment(1).write_bytes(whole)


def test_a_lost_page_in_the_middle_is_reported(journal: Harness) -> None:
    journal.write(100)
    journal.change(1, 4096, bytes(512))
    with pytest.raises(Damaged, match="a valid one follows"):
        journal.read()


def test_a_damaged_catalog_of_the_newest_segment_is_reported(journal: Harness) -> None:
    journal.write()
    journal.flip(1, HEADER_BYTES)
    with pytest.raises(Damaged, match="first frame"):
        journal.read()


def test_a_segment_under_another_name_is_reported(journal: Harness) -> None:
    journal.segment(1).rename(journal.segment(7))
    with pytest.raises(Damaged, match="begins with LSN 1"):
        journal.read()


def test_damage_in_an_older_segment_ends_the_run_there(journal: Harness) -> None:
    for _ in range(2):
        journal.write(3)
        journal.rotate()
    journal.flip(5, journal.frame_ends(5)[0] + HEADER_BYTES)
    contents = journal.read()
    assert [lsn for lsn, _ in contents.frames()] == [9]
    assert contents.damage is not None
    assert contents.damage.path == str(journal.segment(5))
    assert contents.unusable == [str(journal.segment(1)), str(journal.segment(5))]


def test_a_missing_segment_in_the_middle_ends_the_run_there(journal: Harness) -> None:
    for _ in range(2):
        journal.write(3)
        journal.rotate()
    journal.segment(5).unlink()
    contents = journal.read()
    assert contents.first_lsn == 9
    assert "frames 5 to 8 are missing" in str(contents.damage)


def test_a_torn_tail_behind_which_a_new_segment_goes_on_is_no_damage(journal: Harness) -> None:
    journal.write(2)
    journal.flip(1, journal.frame_ends(1)[1] + HEADER_BYTES)
    Journal.start(Disk(), journal.folder, STORE, EMPTY, 3)
    contents = journal.read()
    assert [lsn for lsn, _ in contents.frames()] == [1, 2, 3]
    assert contents.damage is None


def test_stale_bytes_of_another_segment_do_not_continue_a_chain(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    one, other = Harness(tmp_path / "a"), Harness(tmp_path / "b")
    one.write(1)
    other.write(2)
    start, end = other.frame_ends(1)[1:3]
    one.change(1, one.frame_ends(1)[-1], other.segment(1).read_bytes()[start:end])
    assert one.lsns() == [1, 2]


# Faults


class FaultyDisk(Disk):
    """Fails one kind of call when told to."""

    def __init__(self) -> None:
        self.write_part: int | None = None
        self.failing: set[str] = set()

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        if "pwrite" in self.failing:
            super().pwrite(fd, memoryview(data)[: self.write_part], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        super().pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        if "fdatasync" in self.failing:
            raise OSError(errno.EIO, "Input/output error")
        super().fdatasync(fd)

    def fsync(self, fd: int) -> None:
        if "fsync" in self.failing:
            raise OSError(errno.EIO, "Input/output error")
        super().fsync(fd)

    def fsync_dir(self, path: str) -> None:
        if "fsync_dir" in self.failing:
            raise OSError(errno.EIO, "Input/output error")
        super().fsync_dir(path)


def test_an_append_that_meets_a_full_disk_can_be_made_again(tmp_path: Path) -> None:
    disk = FaultyDisk()
    harness = Harness(tmp_path, disk)
    harness.write()
    disk.write_part, disk.failing = 20, {"pwrite"}
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            harness.journal.append(3, commit(3))
        assert harness.lsns() == [1, 2]
        assert harness.read().torn is None
    disk.failing.clear()
    harness.write(2)
    assert harness.lsns() == [1, 2, 3, 4]


def test_an_append_is_taken_back_also_where_no_file_may_grow(tmp_path: Path) -> None:
    disk = UngrowingDisk()
    harness = Harness(tmp_path, disk)
    harness.write()
    disk.may_not_grow = True
    with pytest.raises(OSError, match="too large"):
        harness.journal.append(3, commit(3))
    assert not harness.journal.poisoned
    assert harness.lsns() == [1, 2]
    disk.may_not_grow = False
    harness.write(2)
    assert harness.lsns() == [1, 2, 3, 4]


class UngrowingDisk(Disk):
    """While told so, it writes half of what it is given, and lets no file grow (RLIMIT_FSIZE)."""

    may_not_grow = False

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        if self.may_not_grow:
            super().pwrite(fd, data[: len(data) // 2], offset)
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        super().pwrite(fd, data, offset)

    def truncate(self, fd: int, length: int) -> None:
        if self.may_not_grow and length > self.size(fd):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        super().truncate(fd, length)


def test_a_rotation_whose_name_is_not_durable_leaves_no_segment_to_go_on_in(tmp_path: Path) -> None:
    disk = FaultyDisk()
    harness = Harness(tmp_path, disk)
    harness.write()
    disk.failing = {"fsync_dir"}
    with pytest.raises(OSError, match="Input/output"):
        harness.rotate()
    disk.failing.clear()
    with pytest.raises(OSError, match="nothing more"):
        harness.write()
    assert harness.lsns() == [1, 2, 3]


def test_after_a_failed_sync_the_journal_takes_nothing_more(tmp_path: Path) -> None:
    disk = FaultyDisk()
    harness = Harness(tmp_path, disk)
    harness.journal.append(2, commit(2))
    disk.failing = {"fdatasync"}
    with pytest.raises(OSError, match="Input/output"):
        harness.journal.sync()
    disk.failing.clear()
    assert harness.journal.poisoned
    for call in (harness.journal.sync, lambda: harness.journal.append(3, commit(3)), harness.rotate):
        with pytest.raises(OSError, match="takes nothing more"):
            call()


def test_a_new_segment_supersedes_the_frame_whose_sync_failed(tmp_path: Path) -> None:
    disk = FaultyDisk()
    harness = Harness(tmp_path, disk)
    harness.write()
    harness.journal.append(3, commit(3))
    disk.failing = {"fdatasync"}
    with pytest.raises(OSError, match="Input/output"):
        harness.journal.sync()
    disk.failing.clear()
    harness.journal = Journal.start(disk, harness.folder, STORE, EMPTY, 3)
    harness.journal.append(4, commit(3))
    harness.journal.sync()
    assert list(harness.read().frames()) == [(1, EMPTY), (2, commit(2)), (3, EMPTY), (4, commit(3))]


@pytest.mark.parametrize("failing", ["pwrite", "fsync"])
def test_a_rotation_that_fails_leaves_the_old_segment_in_use(tmp_path: Path, failing: str) -> None:
    disk = FaultyDisk()
    harness = Harness(tmp_path, disk)
    harness.write()
    disk.failing = {failing}
    with pytest.raises(OSError, match=r"No space|Input/output"):
        harness.rotate()
    disk.failing.clear()
    harness.write()
    harness.rotate()
    assert harness.lsns() == [1, 2, 3, 4]
    assert sorted(os.listdir(harness.folder)) == [segment_name(1), segment_name(4)]


def test_unfinished_files_of_a_killed_life_are_cleared(journal: Harness) -> None:
    journal.journal.prepare_spare()
    Path(journal.folder, "next.tmp").write_bytes(b"half")
    Journal.start(Disk(), journal.folder, STORE, EMPTY, 2)
    assert sorted(os.listdir(journal.folder)) == [segment_name(1), segment_name(2)]


# The books


def test_the_books_follow_creation_change_drop_and_creation_anew() -> None:
    books = Books(EMPTY)
    books.apply(2, commit(1))
    books.apply(3, commit(2, (DELETE, "m", b"K\1", b"")))
    assert books.catalog(STORE).maps == [MapEntry("bot", "m", 2, 3)]
    books.apply(4, commit(3, (DROP, "m", b"", b""), (INSERT, "m", b"K\1", b"v")))
    assert books.catalog(STORE).maps == [MapEntry("bot", "m", 4, 4)]
    books.apply(5, commit(4, (DROP, "m", b"", b"")))
    assert books.catalog(STORE) == Catalog(STORE, [commit(4).sections[0].entry], [], [("bot", "m", 2), ("bot", "m", 4)])


def test_a_catalog_says_the_same_as_the_commits_before_it() -> None:
    one, other = Books(EMPTY), Books(EMPTY)
    one.apply(2, commit(1))
    other.read(one.catalog(STORE))
    for lsn, change in ((3, (CLEAR, "m", b"", b"")), (4, (INSERT, "n", b"K\1", b"v"))):
        one.apply(lsn, commit(lsn, change))
        other.apply(lsn, commit(lsn, change))
    assert one.catalog(STORE) == other.catalog(STORE)


@pytest.mark.parametrize(
    ("current", "previous", "lsn", "past"),
    [(None, None, 1, False), (9, None, 5, False), (9, 4, 4, True), (9, 4, 5, False), (9, 8, 1000, True)],
)
def test_a_map_is_past_what_both_generations_hold(
    current: int | None, previous: int | None, lsn: int, past: bool
) -> None:
    files = [Generation(g, 0) if g is not None else None for g in (current, previous)]
    assert MapEntry("bot", "m", 1, 8, *files).is_past(lsn) is past


def test_a_payload_nested_without_end_is_damage() -> None:
    payload = b"\x82\xa4type\xa6commit\xa1x" + b"\x91" * 100_000
    with pytest.raises(Damaged, match="no catalog and no commit"):
        decode_frame("x.log", RawFrame(0, 0, b"", 1, memoryview(payload)))
