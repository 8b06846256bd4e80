"""An error at one call of the disk, once, a few times, or until somebody heals it."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from protocol.disk import Disk
from tests.lab.memory_disk import File, Folder, MemoryDisk, Node, ShortWrite

WRITES = frozenset({"write", "pwrite", "zero_fill"})
GROWS = WRITES | {"open", "mkdir", "link_or_copy", "replace"}
SYNCS = frozenset({"fsync", "fdatasync", "fsync_dir"})
CHANGES = GROWS | SYNCS | {"truncate", "unlink"}
CALLS = CHANGES | {"read_file"}
OURS = ("writer", "checkpointer", "recovery")
"""The threads that have calls of their own; all others count as "main"."""


class Fault(NamedTuple):
    """What goes wrong: from one call on, those of these `kinds` fail with `number`, `times` times."""

    name: str
    number: int
    kinds: frozenset[str]
    times: int | None = 1
    """None: until the disk is healed."""
    written: int | None = None
    """Bytes that a write leaves before it fails."""

    def lasting(self, times: int | None) -> Fault:
        return self._replace(times=times)

    def __str__(self) -> str:
        return f"{self.name}, {'for ever' if self.times is None else f'{self.times} times'}"


BROKEN = Fault("EIO", errno.EIO, CALLS)
FAILED_SYNC = Fault("failed sync", errno.EIO, SYNCS)
FULL = Fault("ENOSPC", errno.ENOSPC, GROWS)
FULL_SHORT = Fault("ENOSPC after a short write", errno.ENOSPC, WRITES, written=9)
READ_ONLY = Fault("EROFS", errno.EROFS, CHANGES - SYNCS)
FORBIDDEN = Fault(
    "EACCES", errno.EACCES, frozenset({"open", "mkdir", "link_or_copy", "replace", "unlink", "read_file"})
)
NO_DESCRIPTORS = Fault("EMFILE", errno.EMFILE, frozenset({"open", "read_file", "fsync_dir"}))
FAULTS = (BROKEN, FAILED_SYNC, FULL, FULL_SHORT, READ_ONLY, FORBIDDEN, NO_DESCRIPTORS)


class Call(NamedTuple):
    """One call of the disk: the `number`-th of its thread."""

    thread: str
    number: int
    name: str
    path: str


class Faults:
    """A disk's `on_call`: counts the calls of each thread, and from call `at` on (thread, number) has the fault.

    Each thread counts for itself: so a number names the same call in each run, however the threads take turns.
    """

    def __init__(self, fault: Fault | None = None, at: tuple[str, int] = ("", 0), below: str = "") -> None:
        self._fault, self._at, self._below = fault, at, below
        self._count: Counter[str] = Counter()
        self.calls: list[Call] = []
        self.struck: list[Call] = []
        self.healed = False
        self.on_strike: Callable[[], None] = lambda: None

    def __call__(self, name: str, path: str) -> None:
        thread = threading.current_thread().name
        thread = thread if thread in OURS else "main"
        call = Call(thread, self._count[thread], name, path)
        self._count[thread] += 1
        self.calls.append(call)
        if self._strikes(call):
            self.on_strike()
            self.struck.append(call)
            assert self._fault is not None
            raise _error(self._fault, call)

    def heal(self) -> None:
        self.healed = True

    def has_lied(self) -> bool:
        """Whether a file was called unreadable by the medium: a map's may then be taken for damaged."""
        read = any(call.name == "read_file" for call in self.struck)
        return read and self._fault is not None and self._fault.number == errno.EIO

    def _strikes(self, call: Call) -> bool:
        fault = self._fault
        if fault is None or self.healed or call.name not in fault.kinds or not call.path.startswith(self._below):
            return False
        if not self.struck:
            return call.thread == self._at[0] and call.number >= self._at[1]
        return fault.times is None or len(self.struck) < fault.times


def _error(fault: Fault, call: Call) -> OSError:
    if fault.written is not None:
        error: OSError = ShortWrite(fault.number, fault.written)
        error.filename = call.path
        return error
    return OSError(fault.number, os.strerror(fault.number), call.path)


class WatchedDisk(MemoryDisk):
    """A disk in memory that tells when a file whose sync has failed is synced again."""

    def __init__(self, root: Folder | None = None) -> None:
        super().__init__(root)
        self.left_behind: dict[int, File] = {}
        self.synced_again: list[str] = []

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        fd = super().open(path, flags, mode)
        if flags & os.O_TRUNC:  # begun anew, all of it written again
            self.left_behind.pop(id(self._open[fd][0]), None)
        return fd

    def _sync(self, name: str, node: Node, path: str) -> None:
        if id(node) in self.left_behind:
            self.synced_again.append(path)
        try:
            super()._sync(name, node, path)
        except OSError:
            if isinstance(node, File):
                self.left_behind[id(node)] = node
            raise


class HookedDisk(Disk):
    """The real disk, with `on_call` before each call, as `MemoryDisk` has it. A short write leaves its first bytes."""

    def __init__(self) -> None:
        self.on_call: Callable[[str, str], None] = lambda name, path: None
        self._paths: dict[int, str] = {}

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        self.on_call("open", path)
        fd = super().open(path, flags, mode)
        self._paths[fd] = path
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> None:
        try:
            self.on_call("write", self._paths[fd])
        except ShortWrite as short:
            os.write(fd, data[: short.written])
            raise
        super().write(fd, data)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        try:
            self.on_call("pwrite", self._paths[fd])
        except ShortWrite as short:
            os.pwrite(fd, data[: short.written], offset)
            raise
        super().pwrite(fd, data, offset)

    def read_file(self, path: str) -> bytes:
        self.on_call("read_file", path)
        return super().read_file(path)

    def truncate(self, fd: int, length: int) -> None:
        self.on_call("truncate", self._paths[fd])
        super().truncate(fd, length)

    def fsync(self, fd: int) -> None:
        if fd in self._paths:  # a directory's goes through `fsync_dir`
            self.on_call("fsync", self._paths[fd])
        super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        self.on_call("fdatasync", self._paths[fd])
        super().fdatasync(fd)

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        super().close(fd)

    def fsync_dir(self, path: str) -> None:
        self.on_call("fsync_dir", path)
        super().fsync_dir(path)

    def replace(self, source: str, target: str) -> None:
        self.on_call("replace", source)
        super().replace(source, target)

    def link_or_copy(self, source: str, target: str) -> None:
        self.on_call("link_or_copy", source)
        super().link_or_copy(source, target)

    def unlink(self, path: str) -> None:
        self.on_call("unlink", path)
        super().unlink(path)

    def mkdir(self, path: str) -> None:
        self.on_call("mkdir", path)
        super().mkdir(path)
