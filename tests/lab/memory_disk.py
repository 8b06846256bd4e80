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
from hashlib import blake2b

from protocol.disk import Disk

SECTOR = 512
FIRST_FD = 1_000_000  # no descriptor of the kernel's: to use one without the disk is an error


class ShortWrite(OSError):
    """Raised by `on_call`: write the first `written` bytes, then fail with `errno`."""

    def __init__(self, number: int, written: int) -> None:
        super().__init__(number, os.strerror(number))
        self.written = written


class Change:
    """Something done to a file or a directory that no sync has made durable. `unit`s of it survive each on its own."""

    __slots__ = ("at", "data", "length", "made", "name", "node")

    def __init__(self, *, at: int = 0, data: bytes = b"", length: int = -1, name: str = "", made: str = "",
                 node: Node | None = None) -> None:  # fmt: skip
        self.at, self.data, self.length = at, data, length
        """A write of `data` at `at`; or, with `length` >= 0, a truncation."""
        self.name, self.made, self.node = name, made, node
        """In a directory: `name` is gone (if not empty), `made` (if not empty) now names `node`."""


class File:
    def __init__(self) -> None:
        self.written = bytearray()
        """What reads give."""
        self.durable = b""
        self.pending: list[Change] = []
        self.adrift: list[Change] = []
        """Dropped by a failed sync: read back as written, never made durable by a later sync."""

    def add(self, change: Change) -> None:
        self.pending.append(change)
        put(self.written, change)

    def sync(self) -> None:
        content = bytearray(self.durable)
        for change in self.pending:
            put(content, change)
        self.adrift = [one for one in self.adrift if not any(_overlap(one, new) for new in self.pending)]
        self.durable, self.pending = bytes(content), []

    def drop(self) -> None:
        self.adrift += _sectors(self.pending)
        self.pending = []

    def copy(self, memo: dict[int, Node]) -> File:
        if id(self) not in memo:
            other = memo[id(self)] = File()
            other.written, other.durable = bytearray(self.written), self.durable
            other.pending, other.adrift = list(self.pending), list(self.adrift)
        found = memo[id(self)]
        assert isinstance(found, File)
        return found


class Folder:
    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}
        self.pending: list[Change] = []

    def add(self, change: Change) -> None:
        self.pending.append(change)
        rename(self.names, change)

    def sync(self) -> None:
        for change in self.pending:
            rename(self.durable, change)
        self.pending = []

    def drop(self) -> None:
        """A directory's sync that fails leaves its changes to chance, as before."""

    def copy(self, memo: dict[int, Node]) -> Folder:
        if id(self) in memo:
            found = memo[id(self)]
            assert isinstance(found, Folder)
            return found
        other = Folder()
        memo[id(self)] = other
        other.names = {name: node.copy(memo) for name, node in self.names.items()}
        other.durable = {name: node.copy(memo) for name, node in self.durable.items()}
        other.pending = [
            Change(name=one.name, made=one.made, node=one.node.copy(memo) if one.node else None) for one in self.pending
        ]
        return other


Node = File | Folder


def put(content: bytearray, change: Change) -> None:
    if change.length >= 0:
        del content[change.length :]
        content.extend(bytes(change.length - len(content)))
        return
    content.extend(bytes(max(0, change.at - len(content))))
    content[change.at : change.at + len(change.data)] = change.data


def rename(names: dict[str, Node], change: Change) -> None:
    names.pop(change.name, None)
    if change.made and change.node is not None:
        names[change.made] = change.node


def _sectors(changes: list[Change]) -> list[Change]:
    """The writes among `changes` cut where a torn write can tear; truncations as they are."""
    out = []
    for one in changes:
        if one.length >= 0:
            out.append(one)
            continue
        at = one.at
        while at < one.at + len(one.data):
            end = min((at // SECTOR + 1) * SECTOR, one.at + len(one.data))
            out.append(Change(at=at, data=one.data[at - one.at : end - one.at]))
            at = end
    return out


def _overlap(one: Change, other: Change) -> bool:
    if other.length >= 0:
        return one.at >= other.length
    return one.at < other.at + len(other.data) and other.at < one.at + max(1, len(one.data))


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
                            file.add(Change(at=at, data=stored[at : at + SECTOR]))

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
                folder.add(Change(made=name, node=File()))
            elif flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            file = self._file(path)
            if flags & os.O_TRUNC:
                file.add(Change(length=0))
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
            file.add(Change(at=at, data=data[: short.written]))
            raise
        file.add(Change(at=at, data=data))
        return len(data)

    def read_file(self, path: str) -> bytes:
        with self._lock:
            self._call("read_file", path)
            return bytes(self._file(path).written)

    def size(self, fd: int) -> int:
        with self._lock:
            return len(self._open[fd][0].written)

    def truncate(self, fd: int, length: int) -> None:
        with self._lock:
            self._call("truncate", self._open[fd][1])
            self._open[fd][0].add(Change(length=length))

    def preallocate(self, fd: int, length: int) -> None:
        with self._lock:
            file, path, _ = self._open[fd]
            self._call("preallocate", path)
            if len(file.written) < length:
                file.add(Change(length=length))

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
                folder.add(Change(name=name, made=made, node=node))
            else:
                other.add(Change(made=made, node=node))
                folder.add(Change(name=name))

    def link_or_copy(self, source: str, target: str) -> None:
        with self._lock:
            self._call("link_or_copy", source)
            folder, name = self._place(target)
            if name in folder.names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            folder.add(Change(made=name, node=self._file(source)))

    def unlink(self, path: str) -> None:
        with self._lock:
            self._call("unlink", path)
            self._file(path)
            folder, name = self._place(path)
            folder.add(Change(name=name))

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
                folder.add(Change(made=name, node=Folder()))

    def rmdir(self, path: str) -> None:
        with self._lock:
            self._call("rmdir", path)
            if self._folder(path).names:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            folder, name = self._place(path)
            folder.add(Change(name=name))


Choice = tuple[int, str]
"""An un-synced unit by its number, and what is left of it: "kept", and for a growing file also "zeros", "garbage"."""


class Moment:
    """The disk at one instant, not to be changed any more."""

    def __init__(self, root: Folder) -> None:
        self._root = root

    def after_kill(self) -> MemoryDisk:
        """Everything written is there; what was not synced still is not."""
        return MemoryDisk(self._root.copy({}))

    def units(self) -> list[tuple[Node, Change, tuple[str, ...]]]:
        """All that may survive a cut or not, each with the ways in which it may."""
        found: list[tuple[Node, Change, tuple[str, ...]]] = []
        for node in _nodes(self._root):
            if isinstance(node, Folder):
                found += [(node, change, ("kept",)) for change in node.pending]
                continue
            for change in (*node.adrift, *_sectors(node.pending)):
                grows = change.length < 0 and change.at >= len(node.durable)
                found.append((node, change, ("kept", "zeros", "garbage") if grows else ("kept",)))
        return found

    def after_power_cuts(self, limit: int, chance: random.Random) -> Iterator[MemoryDisk]:
        """Each state that a cut may leave, once: all of them where there are at most `limit`, else nothing unsynced,
        everything, each prefix, each unit alone, all but each, and by chance up to `limit`.
        """
        units, seen = self.units(), set[bytes]()
        for choice in itertools.islice(_choices([ways for _, _, ways in units], limit, chance), 4 * limit):
            disk = self._left(dict(choice), units)
            if (mark := fingerprint(disk.root)) not in seen:
                seen.add(mark)
                yield disk
            if len(seen) >= limit:
                return

    def after_power_cut(self, chance: random.Random) -> MemoryDisk:
        """One state that a cut may leave."""
        units = self.units()
        return self._left(dict(_by_chance([ways for _, _, ways in units], chance)), units)

    def _left(self, kept: dict[int, str], units: list[tuple[Node, Change, tuple[str, ...]]]) -> MemoryDisk:
        by_node: dict[int, list[Change]] = {}
        for number, way in sorted(kept.items()):
            node, change, _ = units[number]
            by_node.setdefault(id(node), []).append(_as(change, way))
        return MemoryDisk(_rebuilt(self._root, by_node, {}))


def _as(change: Change, way: str) -> Change:
    if way == "kept":
        return change
    return Change(at=change.at, data=bytes(len(change.data)) if way == "zeros" else b"\xa5" * len(change.data))


def _nodes(root: Folder) -> list[Node]:
    """Every file and folder that has or may have a name, each once."""
    found: dict[int, Node] = {}
    todo: list[Node] = [root]
    while todo:
        node = todo.pop()
        if id(node) in found:
            continue
        found[id(node)] = node
        if isinstance(node, Folder):
            todo += [*node.names.values(), *node.durable.values(), *(c.node for c in node.pending if c.node)]
    return list(found.values())


def _rebuilt(folder: Folder, kept: dict[int, list[Change]], memo: dict[int, Node]) -> Folder:
    """`folder` on a medium of its own: what was durable, and of the rest what is `kept`."""
    names = dict(folder.durable)
    for change in kept.get(id(folder), ()):
        rename(names, change)
    made = Folder()
    memo[id(folder)] = made
    for name, node in names.items():
        if id(node) not in memo:
            if isinstance(node, Folder):
                _rebuilt(node, kept, memo)
            else:
                content = bytearray(node.durable)
                for change in kept.get(id(node), ()):
                    put(content, change)
                file = memo[id(node)] = File()
                file.written, file.durable = content, bytes(content)
        made.names[name] = memo[id(node)]
    made.durable = dict(made.names)
    return made


def _choices(ways: list[tuple[str, ...]], limit: int, chance: random.Random) -> Iterator[list[Choice]]:
    total = 1
    for one in ways:
        total *= len(one) + 1
        if total > limit:
            yield from _some_choices(ways, chance)
            return
    options = [[None, *((number, way) for way in one)] for number, one in enumerate(ways)]
    for choice in itertools.product(*options):
        yield [one for one in choice if one is not None]


def _some_choices(ways: list[tuple[str, ...]], chance: random.Random) -> Iterator[list[Choice]]:
    everything: list[Choice] = [(number, "kept") for number in range(len(ways))]
    yield []
    yield everything
    for number in everything:
        yield [number]
        yield [one for one in everything if one != number]
        yield everything[: number[0]]
    while True:
        yield _by_chance(ways, chance)


def _by_chance(ways: list[tuple[str, ...]], chance: random.Random) -> list[Choice]:
    return [(number, chance.choice(one)) for number, one in enumerate(ways) if chance.random() < 0.5]


def fingerprint(root: Folder) -> bytes:
    """Equal for disks with equal names and contents."""
    digest = blake2b(digest_size=16)
    ids: dict[int, int] = {}

    def add(node: Node) -> None:
        if id(node) in ids:
            digest.update(b"=%d" % ids[id(node)])
            return
        ids[id(node)] = len(ids)
        if isinstance(node, File):
            digest.update(b"f%d:" % len(node.written) + node.written)
            return
        for name in sorted(node.names):
            digest.update(b"d" + name.encode() + b"/")
            add(node.names[name])
        digest.update(b".")

    add(root)
    return digest.digest()
