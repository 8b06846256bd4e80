"""A disk in memory that knows what was synced, and can be left at any call in every way that a real disk may be.

Two things can end a moment. A kill keeps everything that was written: the kernel has it. A power cut keeps what was
synced, and of the rest an arbitrary part: any of the 512-byte sectors of each write since, any truncation, any name
made, moved or removed in a directory that was not synced; where a file was growing, zeros or garbage may stand.
A sync that fails drops what it should have written: a later sync may succeed without it ("fsyncgate", LWN 752063).

    disk = MemoryDisk()
    disk.mkdir("/state")
    ... work on it ...
    for left in disk.moment().after_power_cuts(limit=1000, chance=random.Random(1)):
        recover(left, "/state")                    # each a MemoryDisk of its own, nothing unsynced on it
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import random
import threading
from collections.abc import Callable, Iterator

from protocol.disk import Disk
from tests.lab import power_cuts
from tests.lab.medium import SECTOR, File, Folder, Node, Renaming, fingerprint
from tests.lab.power_cuts import Unread

__all__ = ["MemoryDisk", "Moment", "ShortWrite", "fingerprint"]

FIRST_FD = 1_000_000  # no descriptor of the kernel's: to use one without the disk is an error


class ShortWrite(OSError):
    """Raised by `on_call`: write the first `written` bytes, then fail with `errno`."""

    def __init__(self, number: int, written: int) -> None:
        super().__init__(number, os.strerror(number))
        self.written = written


class Mapping(mmap.mmap):
    """A mapped file: stores are found by comparison at the next call, and before it is closed."""

    disk: MemoryDisk

    def close(self) -> None:
        if not self.closed:
            self.disk.harvest()
        super().close()


class MemoryDisk(Disk):
    """See the module. `on_call(name, path)` is called before each call; what it raises is what the call raises."""

    def __init__(self, root: Folder | None = None) -> None:
        self.root = root or Folder()
        self.on_call: Callable[[str, str], None] = lambda name, path: None
        self._lock = threading.RLock()
        self._open: dict[int, tuple[File, str, int]] = {}
        self._fds = itertools.count(FIRST_FD)
        self._mappings: list[tuple[File, Mapping]] = []

    def moment(self) -> Moment:
        """Everything as it is now, stores through mappings included."""
        with self._lock:
            self.harvest()
            return Moment(self.root.copy({}))

    def harvest(self) -> None:
        """Find what was stored through mappings since the last look."""
        with self._lock:
            self._mappings = [(file, mapping) for file, mapping in self._mappings if not mapping.closed]
            for file, mapping in self._mappings:
                stored = mapping[:]
                if stored != file.written[: len(stored)]:
                    for at in range(0, len(stored), SECTOR):
                        if stored[at : at + SECTOR] != file.written[at : at + SECTOR]:
                            file.put(at, stored[at : at + SECTOR])

    def _call(self, name: str, path: str) -> None:
        self.harvest()
        self.on_call(name, path)

    def _node(self, path: str) -> Node:
        node: Node = self.root
        for part in filter(None, path.split("/")):
            if not isinstance(node, Folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if part not in node.names:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            node = node.names[part]
        return node

    def _file(self, path: str) -> File:
        node = self._node(path)
        if not isinstance(node, File):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return node

    def _folder(self, path: str) -> Folder:
        node = self._node(path)
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return node

    def _place(self, path: str) -> tuple[Folder, str]:
        folder, name = os.path.split(path)
        return self._folder(folder), name

    # Files

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        with self._lock:
            self._call("open", path)
            folder, name = self._place(path)
            if name not in folder.names:
                if not flags & os.O_CREAT:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                folder.add(Renaming("", name, File()))
            elif flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            file = self._file(path)
            if flags & os.O_TRUNC:
                file.truncate(0)
            fd = next(self._fds)
            self._open[fd] = file, path, 0
            return fd

    def close(self, fd: int) -> None:
        with self._lock:
            del self._open[fd]

    def write(self, fd: int, data: bytes | memoryview) -> None:
        with self._lock:
            file, path, at = self._open[fd]
            self._open[fd] = file, path, at + self._write("write", file, path, at, bytes(data))

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        with self._lock:
            file, path, _ = self._open[fd]
            self._write("pwrite", file, path, offset, bytes(data))

    def _write(self, name: str, file: File, path: str, at: int, data: bytes) -> int:
        try:
            self._call(name, path)
        except ShortWrite as short:
            file.put(at, data[: short.written])
            raise
        file.put(at, data)
        return len(data)

    def read_file(self, path: str) -> bytes:
        with self._lock:
            try:
                self._call("read_file", path)
            except OSError as error:
                error.filename = path  # as `Disk` does
                raise
            return bytes(self._file(path).written)

    def size(self, fd: int) -> int:
        with self._lock:
            return len(self._open[fd][0].written)

    def truncate(self, fd: int, length: int) -> None:
        with self._lock:
            self._call("truncate", self._open[fd][1])
            self._open[fd][0].truncate(length)

    def preallocate(self, fd: int, length: int) -> None:
        with self._lock:
            file, path, _ = self._open[fd]
            self._call("preallocate", path)
            if len(file.written) < length:
                file.truncate(length)

    def zero_fill(self, fd: int, length: int) -> None:
        with self._lock:
            file, path, _ = self._open[fd]
            self._write("zero_fill", file, path, 0, bytes(length))

    def map(self, fd: int, length: int) -> mmap.mmap:
        with self._lock:
            file, path, _ = self._open[fd]
            self._call("map", path)
            mapping = Mapping(-1, length)
            mapping.disk = self
            mapping[:] = bytes(file.written[:length])
            self._mappings.append((file, mapping))
            return mapping

    def store(self, fd: int, mapping: mmap.mmap, data: bytes, offset: int) -> None:
        with self._lock:
            self._call("store", self._open[fd][1])
            mapping[offset : offset + len(data)] = data

    # Making durable

    def fsync(self, fd: int) -> None:
        with self._lock:
            file, path, _ = self._open[fd]
            self._sync("fsync", file, path)

    def fdatasync(self, fd: int) -> None:
        with self._lock:
            file, path, _ = self._open[fd]
            self._sync("fdatasync", file, path)

    def sync_map(self, fd: int, mapping: mmap.mmap) -> None:
        with self._lock:
            file, path, _ = self._open[fd]
            self._sync("sync_map", file, path)

    def fsync_dir(self, path: str) -> None:
        with self._lock:
            self._sync("fsync_dir", self._folder(path), path)

    def _sync(self, name: str, node: Node, path: str) -> None:
        try:
            self._call(name, path)
        except OSError:
            node.drop()
            raise
        node.sync()

    # Names

    def replace(self, source: str, target: str) -> None:
        with self._lock:
            self._call("replace", source)
            node = self._node(source)
            (folder, name), (other, made) = self._place(source), self._place(target)
            if other.names.get(made) is node:
                return  # two names of one file: POSIX does nothing
            if folder is other:
                folder.add(Renaming(name, made, node))
            else:
                other.add(Renaming("", made, node))
                folder.add(Renaming(name))

    def link_or_copy(self, source: str, target: str) -> None:
        with self._lock:
            self._call("link_or_copy", source)
            folder, name = self._place(target)
            if name in folder.names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            folder.add(Renaming("", name, self._file(source)))

    def unlink(self, path: str) -> None:
        with self._lock:
            self._call("unlink", path)
            self._file(path)
            folder, name = self._place(path)
            folder.add(Renaming(name))

    def exists(self, path: str) -> bool:
        with self._lock:
            try:
                self._node(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def is_dir(self, path: str) -> bool:
        with self._lock:
            return self.exists(path) and isinstance(self._node(path), Folder)

    def file_bytes(self, path: str) -> int:
        with self._lock:
            return len(self._file(path).written)

    def listdir(self, path: str) -> list[str]:
        with self._lock:
            return sorted(self._folder(path).names)

    def mkdir(self, path: str) -> None:
        with self._lock:
            self._call("mkdir", path)
            folder, name = self._place(path)
            if name not in folder.names:
                folder.add(Renaming("", name, Folder()))

    def rmdir(self, path: str) -> None:
        with self._lock:
            self._call("rmdir", path)
            if self._folder(path).names:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            folder, name = self._place(path)
            folder.add(Renaming(name))


class Moment:
    """The disk at one instant, not to be changed any more."""

    def __init__(self, root: Folder) -> None:
        self._root = root

    def after_kill(self) -> MemoryDisk:
        """Everything written is there; what was not synced still is not."""
        return MemoryDisk(self._root.copy({}))

    def fingerprint(self) -> bytes:
        """Equal for moments that may leave the same."""
        return fingerprint(self._root, unsynced=True)

    def cuts(self, limit: int, unread: Unread = lambda name: False) -> int | None:
        """How many states a power cut may leave; None if more than `limit`."""
        every = power_cuts.every(self._root, limit, unread)
        return None if every is None else power_cuts.count(every, limit)

    def after_power_cuts(
        self, limit: int, chance: random.Random, unread: Unread = lambda name: False
    ) -> Iterator[MemoryDisk]:
        """Each state that a cut may leave, once: all of them where there are at most `limit`, else those at the edges
        and some by chance, up to `limit`. The contents of files whose name is `unread` are not varied.
        """
        every = power_cuts.every(self._root, limit, unread)
        if every is not None:
            yield from map(MemoryDisk, power_cuts.made(self._root, every))
            return
        seen: set[bytes] = set()
        for root in itertools.islice(power_cuts.some(self._root, chance, unread), 4 * limit):
            if (mark := fingerprint(root)) not in seen:
                seen.add(mark)
                yield MemoryDisk(root)
            if len(seen) >= limit:
                return

    def after_power_cut(self, chance: random.Random) -> MemoryDisk:
        """One state that a cut may leave."""
        return MemoryDisk(power_cuts.by_chance(self._root, chance))
