"""Log files: NAME.log, and what was in it before in NAME.log.1, NAME.log.2. A full disk loses lines, never a process.

`LogFile` has one writer, the supervisor; it is rotated by rename. A `ProgramLog` is written by the program itself:

* Its descriptor (O_APPEND) is the program's stdout and stderr. The kernel has every line before `print` returns, so
  no death of anybody loses one, and a supervisor that is slow, stopped or gone keeps nobody waiting.
* The program holds that file for as long as it lives, so a rename would not part it from it. `cut` copies the oldest
  bytes into NAME.log.1 and takes them from the front of the file in one step of the kernel (FALLOC_FL_COLLAPSE_RANGE:
  ext4, XFS): what is printed meanwhile stays. Elsewhere the file is truncated at once after the last look for more.
* A position is counted from the opening of the log, whatever was cut since.
* Its size is reserved on the disk (FALLOC_FL_KEEP_SIZE), so that `print` doesn't fail in a bot when the disk is full.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading

_SLACK = 1 << 20
"""Bytes reserved beyond the size at which a log is cut: what is printed until somebody gets round to it."""
_COPY_BYTES = 1 << 20
_KEEP_SIZE, _COLLAPSE_RANGE = 0x01, 0x08
_FULL = (errno.ENOSPC, errno.EDQUOT)


class LogFile:
    """A log of the supervisor's own."""

    def __init__(self, path: str, max_bytes: int, keep: int) -> None:
        self.path, self._max_bytes, self._keep = path, max_bytes, keep
        self._fd = -1
        self._size = 0
        self._torn = False
        with contextlib.suppress(OSError):  # tried again at every write
            self._open()

    def write(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        try:
            if self._fd < 0:
                self._open()
            line = b"\n" + data if self._torn else data  # a full disk takes half a line: the next is whole again
            written = os.write(self._fd, line)
            self._size += written
            self._torn = 0 < written < len(line)
        except OSError:
            pass

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = _open(self.path)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            shift(self.path, self._keep)
            if self._keep > 0:
                os.replace(self.path, f"{self.path}.1")
            else:
                os.unlink(self.path)


class ProgramLog:
    """A log that a program writes into itself. The loop's, but for `cut`, which another thread may call."""

    def __init__(self, path: str, max_bytes: int, keep: int) -> None:
        self.path, self._max_bytes, self._keep = path, max_bytes, keep
        self._fd = -1
        self._gone = 0
        """Bytes taken from the front since it was opened."""
        self.opened = 0
        """How often: another number is another file."""
        self._cutting = threading.Lock()
        self.ready()

    def ready(self) -> int:
        """The descriptor, for a program to be started; -1 where no file can be had now."""
        if self._fd >= 0 and self._was_taken_away():
            self.close()
        if self._fd < 0:
            with contextlib.suppress(OSError):
                self._fd = _open(self.path)
                self.opened += 1
                _reserve(self._fd, self._max_bytes)
        return self._fd

    def write(self, line: bytes) -> None:
        """A whole line of the supervisor's own."""
        with contextlib.suppress(OSError):
            size = os.fstat(self.ready()).st_size
            torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
            os.write(self._fd, b"\n" + line if torn else line)

    def read(self, position: int, limit: int) -> tuple[int, bytes]:
        """(where it begins, bytes) at `position`, or behind it if that was cut away. Nothing while it is being cut."""
        if self._fd < 0 or not self._cutting.acquire(blocking=False):
            return position, b""
        try:
            at = max(position - self._gone, 0)
            if at > os.fstat(self._fd).st_size:
                at = 0  # somebody has emptied it, or it was begun anew
            return at + self._gone, os.pread(self._fd, limit, at)
        except OSError:
            return position, b""
        finally:
            self._cutting.release()

    @property
    def end(self) -> int:
        """The position behind its last byte."""
        try:
            return self._gone + os.fstat(self._fd).st_size
        except OSError:
            return self._gone

    @property
    def is_too_big(self) -> bool:
        return self.end - self._gone > self._max_bytes

    def cut(self) -> int:
        """Move all but the newest bytes into NAME.log.1 and so on; how many were lost for want of space."""
        try:
            fd = os.dup(self._fd)
        except OSError:
            return 0
        lost = 0
        try:
            while (size := os.fstat(fd).st_size) > self._max_bytes:
                self._collapse(fd, size - (self._keep + 2) * self._max_bytes)  # would fall out at once
                lost += self._cut_once(fd)
            _reserve(fd, self._max_bytes)
        except OSError:
            pass  # it stays as big as it is, and is tried again
        finally:
            os.close(fd)
        return lost

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _was_taken_away(self) -> bool:
        """Somebody has moved or deleted the file: then the next life begins a new one."""
        try:
            there, ours = os.stat(self.path), os.fstat(self._fd)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def _cut_once(self, fd: int) -> int:
        """One NAME.log.1 more; how many bytes were lost for want of space. Raises `OSError`."""
        count = _whole_blocks(fd, self._max_bytes)
        copied = self._copy(fd, count)
        with contextlib.suppress(OSError):
            os.fdatasync(fd)  # otherwise the kernel does it in the next step, and who prints waits for the disk
        if self._collapse(fd, count):
            return 0 if copied else count
        return self._truncate(fd, count, copied)

    def _collapse(self, fd: int, count: int) -> bool:
        """Whether the first `count` bytes, in whole blocks, were taken from the front."""
        count = _whole_blocks(fd, count)
        if count <= 0:
            return False
        with self._cutting:
            done = _fallocate(fd, _COLLAPSE_RANGE, 0, count)
            self._gone += count if done else 0
        return done

    def _truncate(self, fd: int, count: int, copied: bool) -> int:
        """Where nothing can be taken from the front: copy also what is behind `count`, and empty the file."""
        with self._cutting:
            kept = copied and self._keep > 0
            size = os.fstat(fd).st_size
            enough = size + self._max_bytes  # who prints faster than this copies would never let it end
            count = _copy(fd, f"{self.path}.1", count, enough) if kept else size
            os.ftruncate(fd, 0)  # as soon after the last look for more as can be
            self._gone += count
        return 0 if copied else count

    def _copy(self, fd: int, count: int) -> bool:
        """The first `count` bytes -> NAME.log.1. On a full disk the oldest files make room; False if none is left."""
        if self._keep <= 0:
            return True
        while True:
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self.path}.new")  # of a copy that somebody's death has ended
                _copy(fd, f"{self.path}.new", 0, count)
                shift(self.path, self._keep)
                os.replace(f"{self.path}.new", f"{self.path}.1")
                return True
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self.path}.new")
                if error.errno not in _FULL:
                    raise
                if not _drop_oldest(self.path, self._keep):
                    return False


def shift(path: str, keep: int) -> None:
    """PATH.1 -> PATH.2 and so on; the oldest falls out. Raises `OSError`."""
    for number in range(keep - 1, 0, -1):
        if os.path.exists(f"{path}.{number}"):
            os.replace(f"{path}.{number}", f"{path}.{number + 1}")


def _drop_oldest(path: str, keep: int) -> bool:
    for number in range(keep, 0, -1):
        if os.path.exists(f"{path}.{number}"):
            os.unlink(f"{path}.{number}")
            return True
    return False


def _whole_blocks(fd: int, count: int) -> int:
    """Of `count` bytes those that can be collapsed: the kernel wants whole blocks, and never all of the file."""
    status = os.fstat(fd)
    return max(0, min(count, status.st_size - 1) // status.st_blksize * status.st_blksize)


def _copy(fd: int, path: str, start: int = 0, end: int | None = None) -> int:
    """Bytes [start, end) of the file to the end of another; where it stopped. Raises `OSError`."""
    target = _open(path)
    try:
        at = start
        while data := os.pread(fd, _COPY_BYTES if end is None else min(_COPY_BYTES, end - at), at):
            at += os.write(target, data)
        return at
    finally:
        os.close(target)


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _reserve(fd: int, max_bytes: int) -> None:
    """At best; a file system that can't is no reason to stop."""
    _fallocate(fd, _KEEP_SIZE, 0, max_bytes + _SLACK)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """fallocate(2), which the standard library has without modes only; False where the kernel or the disk refuses."""
    libc = ctypes.CDLL(None)
    call = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if call is None:
        return False
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return int(call(fd, mode, offset, length)) == 0
