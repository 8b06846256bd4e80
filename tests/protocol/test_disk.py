from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.disk import Disk, boot_id, check_private, lock_holders
from protocol.errors import InsecureDirectory
from tests.processes import WorkerProcess


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.mark.skipif(sys.platform != "linux", reason="the file that opens and can't be read is Linux's")
def test_a_failed_read_names_the_file(disk: Disk) -> None:
    with pytest.raises(OSError, match="/proc/self/mem"):
        disk.read_file("/proc/self/mem")


def test_replace_file_is_all_or_nothing_and_leaves_no_temporary(disk: Disk, data_dir: Path) -> None:
    path = str(data_dir / "file")
    disk.replace_file(path, b"one")
    disk.replace_file(path, b"two")
    assert disk.read_file(path) == b"two"
    assert disk.listdir(str(data_dir)) == ["file"]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_the_old_file(data_dir: Path) -> None:
    class FullDisk(Disk):
        def fsync(self, fd: int) -> None:
            raise OSError(errno.ENOSPC, "full")

    path = str(data_dir / "file")
    Disk().replace_file(path, b"one")
    with pytest.raises(OSError, match="full"):
        FullDisk().replace_file(path, b"two")
    assert Disk().read_file(path) == b"one"


def test_short_writes_are_continued(disk: Disk, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write, real_pwrite = os.write, os.pwrite
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:3]))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real_pwrite(fd, data[:3], offset))
    fd = disk.open(str(data_dir / "f"), os.O_RDWR | os.O_CREAT)
    disk.write(fd, b"0123456789")
    disk.pwrite(fd, b"abcdefgh", 1)
    monkeypatch.undo()
    assert disk.read_file(str(data_dir / "f")) == b"0abcdefgh9"
    disk.close(fd)


def test_a_signal_in_the_middle_neither_fails_a_write_nor_cuts_it_short(disk: Disk) -> None:
    data = bytes(range(256)) * 4096
    writer, got = threading.get_ident(), bytearray()
    reading, writing = os.pipe()

    def read_between_signals() -> None:
        while len(got) < len(data):
            signal.pthread_kill(writer, signal.SIGUSR1)  # the pipe is full most of the time: write(2) is interrupted
            got.extend(os.read(reading, 50_000))

    reader = threading.Thread(target=read_between_signals)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        reader.start()
        disk.write(writing, data)
    finally:
        reader.join()
        signal.signal(signal.SIGUSR1, before)
        os.close(reading)
        os.close(writing)
    assert bytes(got) == data


@pytest.mark.parametrize("call", ["write", "pwrite", "zero_fill"])
def test_a_write_that_fails_behind_a_short_one_is_an_error_that_names_the_file(
    disk: Disk, data_dir: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    room = [5]

    def until_full(write: Callable[..., int]) -> Callable[..., int]:
        def some(fd: int, data: bytes, *offset: int) -> int:
            if not room[0]:
                raise OSError(errno.ENOSPC, "full")
            done = write(fd, data[: min(3, room[0])], *offset)
            room[0] -= done
            return done

        return some

    monkeypatch.setattr(os, "write", until_full(os.write))
    monkeypatch.setattr(os, "pwrite", until_full(os.pwrite))
    fd = disk.open(str(data_dir / "f"), os.O_RDWR | os.O_CREAT)
    arguments = {"write": (b"0123456789",), "pwrite": (b"0123456789", 0), "zero_fill": (10,)}[call]
    with pytest.raises(OSError, match=r"full: '.*/f'"):
        getattr(disk, call)(fd, *arguments)
    assert disk.size(fd) == 5
    disk.close(fd)


def test_a_failed_call_on_a_descriptor_names_the_file(disk: Disk, data_dir: Path) -> None:
    path = str(data_dir / "f")
    disk.write_file(path, b"")
    fd = disk.open(path, os.O_RDONLY)
    failing = (
        lambda: disk.write(fd, b"x"), lambda: disk.pwrite(fd, b"x", 0), lambda: disk.zero_fill(fd, 1),
        lambda: disk.truncate(fd, 1), lambda: disk.preallocate(fd, 1),
    )  # fmt: skip
    for call in failing:
        with pytest.raises(OSError, match=path):
            call()
    disk.close(fd)


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_a_failed_sync_names_the_file(disk: Disk, data_dir: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    monkeypatch.setattr("protocol.disk._F_FULLFSYNC", None)
    fd = disk.open(str(data_dir / "f"), os.O_RDWR | os.O_CREAT)
    with pytest.raises(OSError, match=str(data_dir / "f")):
        getattr(disk, call)(fd)
    disk.close(fd)
    if call == "fsync":
        with pytest.raises(OSError, match=str(data_dir)):
            disk.fsync_dir(str(data_dir))


def test_preallocated_and_zero_filled_files_have_their_length(disk: Disk, data_dir: Path) -> None:
    for fill in (disk.preallocate, disk.zero_fill):
        fd = disk.open(str(data_dir / "f"), os.O_RDWR | os.O_CREAT)
        fill(fd, 3 * 2**20 + 5)
        assert disk.size(fd) == 3 * 2**20 + 5
        disk.truncate(fd, 0)
        disk.close(fd)


def test_a_store_through_a_mapping_is_in_the_file(disk: Disk, data_dir: Path) -> None:
    fd = disk.open(str(data_dir / "f"), os.O_RDWR | os.O_CREAT)
    disk.preallocate(fd, 4096)
    with disk.map(fd, 4096) as mapping:
        mapping[5:8] = b"abc"
        disk.sync_map(fd, mapping)
    assert disk.read_file(str(data_dir / "f"))[5:8] == b"abc"
    disk.close(fd)


def test_a_descriptor_is_not_inherited(disk: Disk, data_dir: Path) -> None:
    fd = disk.open(str(data_dir / "f"), os.O_RDWR | os.O_CREAT)
    run = subprocess.run([sys.executable, "-c", f"import os; os.fstat({fd})"], capture_output=True, close_fds=False)
    disk.close(fd)
    assert run.returncode != 0


def test_a_second_name_is_a_link_or_else_a_copy(disk: Disk, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (str(data_dir / name) for name in "abc")
    disk.write_file(a, b"data")
    disk.link_or_copy(a, b)
    assert os.stat(a).st_ino == os.stat(b).st_ino

    def no_links(*_: str) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    disk.link_or_copy(a, c)
    assert disk.read_file(c) == b"data"
    assert os.stat(a).st_ino != os.stat(c).st_ino
    monkeypatch.undo()
    with pytest.raises(FileExistsError):
        disk.link_or_copy(a, b)


def test_a_made_directory_is_private_and_making_it_again_is_no_error(disk: Disk, data_dir: Path) -> None:
    path = str(data_dir / "sub")
    disk.mkdir(path)
    disk.mkdir(path)
    check_private(path)
    assert disk.exists(path)
    disk.rmdir(path)
    assert not disk.exists(path)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o777])
def test_a_directory_open_to_others_is_refused_with_its_mode(data_dir: Path, mode: int) -> None:
    data_dir.chmod(mode)
    with pytest.raises(InsecureDirectory, match=f"{mode:04o}.*chmod 700"):
        check_private(str(data_dir))
    data_dir.chmod(0o700)


def test_a_directory_of_somebody_else_and_a_file_are_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data_dir / "file").touch()
    with pytest.raises(InsecureDirectory, match="not a directory"):
        check_private(str(data_dir / "file"))
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InsecureDirectory, match="belongs to user"):
        check_private(str(data_dir))


HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the holders are read from /proc")
def test_the_holders_of_a_lock_are_named(data_dir: Path) -> None:
    path = data_dir / "LOCK"
    path.touch()
    assert lock_holders(str(path)) == []
    with WorkerProcess(HOLDER, str(path)) as worker:
        assert worker.read_line() == "held"
        assert worker.pid in lock_holders(str(path))
        fd = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
    assert lock_holders(str(path)) == []
    assert lock_holders(str(data_dir / "missing")) == []


def test_the_boot_id_is_the_same_within_a_boot() -> None:
    assert boot_id() == boot_id()


def test_a_warmed_mapping_holds_zeros_behind_what_it_held(disk: Disk, data_dir: Path) -> None:
    path = data_dir / "f"
    path.write_bytes(b"head" + b"x" * 100_000)
    fd = disk.open(str(path), os.O_RDWR)
    mapping = disk.map(fd, 100_004)
    disk.warm(mapping, 4)
    assert mapping[:] == b"head" + bytes(100_000)
    mapping.close()
    disk.close(fd)


@pytest.mark.parametrize("sync", ["fsync", "fdatasync"])
def test_a_file_that_was_removed_is_never_safe(data_dir: Path, sync: str) -> None:
    disk, path = Disk(), str(data_dir / "file")
    fd = disk.open(path, os.O_RDWR | os.O_CREAT)
    disk.unlink(path)
    with pytest.raises(OSError, match="removed while it was in use"):
        getattr(disk, sync)(fd)
    disk.close(fd)
