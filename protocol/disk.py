"""The one module that touches the disk.

Everything durable goes through a `Disk` that is handed in, so that tests can put a disk that forgets, fails or
counts in its place. A method is one system call, or the shortest run of them that has one meaning; none of them
retries a failed sync (a second fsync may succeed without having written anything: "fsyncgate", LWN 752063).
"""

from __future__ import annotations

import errno
import fcntl
import functools
import mmap
import os
import stat
import sys
from collections.abc import Callable, Iterable
from typing import Concatenate, ParamSpec

from protocol.errors import InsecureDirectory

_F_FULLFSYNC = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's cache
_WRITE_SLICE = 64 * 2**20  # a single write(2) is cut at 2 GiB by Linux, smaller by some file systems

_P = ParamSpec("_P")
_OnFile = Callable[Concatenate["Disk", int, _P], None]


def _naming_its_file(call: _OnFile[_P]) -> _OnFile[_P]:
    """A failed call on a descriptor names the file, as one on a path does by itself."""

    @functools.wraps(call)
    def named(disk: Disk, fd: int, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            call(disk, fd, *args, **kwargs)
        except OSError as error:
            if error.filename is None:
                error.filename = _path_of(fd)
            raise

    return named


class Disk:
    """System calls on files, with full writes and syncs that mean what they say. Raises OSError."""

    # Files

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Open and return a descriptor that is closed on exec."""
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    @_naming_its_file
    def write(self, fd: int, data: bytes | memoryview) -> None:
        """Write all of `data` at the descriptor's position."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view[:_WRITE_SLICE]) :]

    @_naming_its_file
    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        view = memoryview(data)
        while view:
            n = os.pwrite(fd, view[:_WRITE_SLICE], offset)
            view, offset = view[n:], offset + n

    def read_file(self, path: str) -> bytes:
        """The whole file. A failed read names it, as a failed open does by itself."""
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            error.filename = path
            raise

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    @_naming_its_file
    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    @_naming_its_file
    def preallocate(self, fd: int, length: int) -> None:
        """Reserve blocks for the first `length` bytes, so that a full disk is an error here and not later."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, length)
        else:
            self.zero_fill(fd, length)

    def zero_fill(self, fd: int, length: int) -> None:
        """Write zeros over the first `length` bytes: later fdatasyncs then carry no metadata."""
        zeros = bytes(min(length, 2**20))
        for offset in range(0, length, len(zeros) or 1):
            self.pwrite(fd, zeros[: length - offset], offset)

    def map(self, fd: int, length: int) -> mmap.mmap:
        """Map `length` bytes shared and writable; a forked child does not get the mapping."""
        mapping = mmap.mmap(fd, length)
        if hasattr(mmap, "MADV_DONTFORK"):
            mapping.madvise(mmap.MADV_DONTFORK)
        return mapping

    def store(self, fd: int, mapping: mmap.mmap, data: bytes, offset: int) -> None:
        """Store into a mapped file through its descriptor: the page cache is the same, and no page fault is met.

        A page that a sync has cleaned faults at the next store through the mapping, and on ext4 the fault makes the
        sync after it commit the file system's journal, three to four times the cost of writing the page.
        """
        self.pwrite(fd, data, offset)

    def warm(self, mapping: mmap.mmap, start: int) -> None:
        """Fill `mapping` with zeros from `start` on, so that a later store there meets no page fault.

        The kernel copies them in, without the GIL: in another thread nobody waits for it.
        """
        with memoryview(mapping) as whole, whole[start:] as view, open("/dev/zero", "rb", buffering=0) as zeros:
            zeros.readinto(view)

    # Making durable

    @_naming_its_file
    def fsync(self, fd: int) -> None:
        """Data and metadata of the file are on the medium when this returns. Not of one that was removed meanwhile."""
        _check_not_removed(fd)
        if _F_FULLFSYNC is not None:
            fcntl.fcntl(fd, _F_FULLFSYNC)
        else:
            os.fsync(fd)

    @_naming_its_file
    def fdatasync(self, fd: int) -> None:
        """Data of the file, also what was dirtied through a mapping (so on Linux), is on the medium."""
        if _F_FULLFSYNC is not None or not hasattr(os, "fdatasync"):
            self.fsync(fd)
        else:
            _check_not_removed(fd)
            os.fdatasync(fd)

    def sync_map(self, fd: int, mapping: mmap.mmap) -> None:
        """What was stored through `mapping` is on the medium.

        Linux writes a mapping's dirty pages in fdatasync, which releases the GIL; POSIX promises it for msync only.
        """
        if sys.platform != "linux":
            mapping.flush()
        self.fdatasync(fd)

    def fsync_dir(self, path: str) -> None:
        """The directory's entries (created, renamed, unlinked) are on the medium."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.fsync(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some file systems have no directory sync and need none
                raise
        finally:
            os.close(fd)

    # Names

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def link_or_copy(self, source: str, target: str) -> None:
        """Give `source` a second name; where the file system has no hard links, a synced copy."""
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
                raise
            self.write_file(target, self.read_file(source))

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)

    def file_bytes(self, path: str) -> int:
        """The length of the file `path`."""
        return os.path.getsize(path)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def mkdir(self, path: str) -> None:
        """Make a private directory (0700) if it is not there; its parent must be."""
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    # Short runs with one meaning

    def write_file(self, path: str, data: bytes) -> None:
        """Create `path` with `data`, synced. The name is durable only after the directory's sync."""
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self.write(fd, data)
            self.fsync(fd)
        finally:
            self.close(fd)

    def replace_file(self, path: str, data: bytes) -> None:
        """Put `data` in the place of `path`, atomically and durably: all or nothing, after any crash."""
        temporary = f"{path}.tmp"
        self.write_file(temporary, data)
        self.replace(temporary, path)
        self.fsync_dir(os.path.dirname(path) or ".")

    def sync_file(self, path: str) -> None:
        """What other processes wrote to `path` is on the medium."""
        fd = self.open(path, os.O_RDWR)
        try:
            self.fsync(fd)
        finally:
            self.close(fd)


def _check_not_removed(fd: int) -> None:
    """Raise OSError if the file has no name any more: what nobody finds again is not safe, however well synced."""
    # By its path, not by fstat: a file whose times were asked for gets new ones at its next write, and fdatasync then
    # commits the file system's journal too (measured: put + sync 2.0x of the floor instead of 1.5x).
    if (_path_of(fd) or "").endswith(" (deleted)"):
        raise OSError(errno.ESTALE, "removed while it was in use")


def _path_of(fd: int) -> str | None:
    """The path of an open file, where the system tells."""
    try:
        if hasattr(fcntl, "F_GETPATH"):  # macOS
            return os.fsdecode(fcntl.fcntl(fd, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None


def check_private(path: str) -> None:
    """Raise `InsecureDirectory` unless `path` is a directory of ours that nobody else can enter."""
    info = os.stat(path)
    mode = stat.S_IMODE(info.st_mode)
    if not stat.S_ISDIR(info.st_mode):
        raise InsecureDirectory(f"{path} is not a directory")
    if info.st_uid != os.geteuid():
        raise InsecureDirectory(f"{path} belongs to user {info.st_uid}, not to us ({os.geteuid()})")
    if mode & 0o077:
        raise InsecureDirectory(f"{path} has mode {mode:04o}, open to others; make it private: chmod 700 {path}")


def lock_holders(path: str) -> list[int]:
    """Process ids that hold a flock on `path` (Linux: /proc/locks; elsewhere unknown, so empty)."""
    try:
        info = os.stat(path)
        with open("/proc/locks") as locks:
            lines = locks.readlines()
    except OSError:
        return []
    place = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    return sorted(set(_pids_at(place, lines)) | _open_by(path)) if any(place in x for x in lines) else []


def _pids_at(place: str, lines: Iterable[str]) -> list[int]:
    fields = [line.split() for line in lines]
    return [int(f[4]) for f in fields if len(f) > 5 and f[1] == "FLOCK" and f[5] == place and int(f[4]) > 0]


def _open_by(path: str) -> set[int]:
    """A forked child inherits a flock without being named in /proc/locks: look who has the file open."""
    holders: set[int] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") == os.path.realpath(path):
                    holders.add(int(pid))
        except OSError:
            continue
    return holders


def boot_id() -> str:
    """Names this boot of the machine; page-cache contents live exactly as long. Empty where unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""
