"""Files and folders as a memory disk keeps them: what reads give, what is on the medium, and what may be.

A sector (512 bytes) is written whole or not at all, each on its own: on the medium is its last durable content or any
that it had since. A file's length likewise. A folder's change (a name made, moved or removed) happens whole or not.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

SECTOR = 512


class File:
    """One file's contents. `medium` is what certainly lasts; `history` what each sector has held since."""

    def __init__(self, content: bytes = b"") -> None:
        self.written = bytearray(content)
        """What reads give."""
        self.medium = bytes(content)
        self.history: dict[int, list[bytes]] = {}
        """Sector number -> its contents since the last good sync, oldest first."""
        self.lengths: list[int] = []
        self._dirty: set[int] = set()
        """Sectors that the next sync writes. After a failed one that is none of those it should have written: they
        are read back as if they had been, and are on the medium by chance only."""
        self._length_dirty = False

    def put(self, at: int, data: bytes) -> None:
        before = len(self.written)
        self.written.extend(bytes(max(0, at - before)))
        self.written[at : at + len(data)] = data
        self._note(at, at + len(data), before)

    def truncate(self, length: int) -> None:
        before = len(self.written)
        del self.written[length:]
        self._note(length, before, before)
        self.written.extend(bytes(length - len(self.written)))
        self._note(length, length, before)

    def sync(self) -> None:
        """What was written since the last try is durable; what that one dropped is not."""
        length = len(self.written) if self._length_dirty else len(self.medium)
        content = bytearray(self.medium[:length])
        content.extend(bytes(length - len(content)))
        for number in self._dirty:
            start = number * SECTOR
            content[start : start + SECTOR] = self._sector(number)[: max(0, length - start)]
            del self.history[number]
        self.medium = bytes(content)
        if self._length_dirty:
            self.lengths = []
        self.drop()

    def drop(self) -> None:
        """A sync has failed: the kernel takes what it should have written for written ("fsyncgate", LWN 752063)."""
        self._dirty, self._length_dirty = set(), False

    def options(self, number: int, length: int) -> list[bytes]:
        """What a cut may leave of a sector in a file of `length` bytes, the durable content first, the newest last."""
        start = number * SECTOR
        found = [self.medium[start : start + SECTOR], *self.history.get(number, ())]
        if start >= len(self.medium) and number in self.history:  # where the file was growing
            found[1:1] = [b"", b"\xa5" * SECTOR]
        size = min(SECTOR, length - start)
        return [one[:size].ljust(size, b"\0") for one in found]

    def possible_lengths(self) -> list[int]:
        """The lengths that a cut may leave, the durable one first, the newest last."""
        return [len(self.medium), *self.lengths]

    def changed(self, length: int) -> list[int]:
        """The sectors of a file of `length` bytes that a cut may leave in more than one way."""
        return sorted(number for number in self.history if number * SECTOR < length)

    def copy(self, memo: dict[int, Node]) -> File:
        if id(self) not in memo:
            other = memo[id(self)] = File()
            other.written, other.medium = bytearray(self.written), self.medium
            other.history = {number: list(contents) for number, contents in self.history.items()}
            other.lengths, other._dirty = list(self.lengths), set(self._dirty)
            other._length_dirty = self._length_dirty
        found = memo[id(self)]
        assert isinstance(found, File)
        return found

    def _sector(self, number: int) -> bytes:
        return bytes(self.written[number * SECTOR : (number + 1) * SECTOR]).ljust(SECTOR, b"\0")

    def _note(self, start: int, end: int, before: int) -> None:
        """Sectors of bytes [start, end) were changed; the file was `before` bytes long."""
        for number in range(start // SECTOR, -(-end // SECTOR)):
            self.history.setdefault(number, []).append(self._sector(number))
            self._dirty.add(number)
        if len(self.written) != before:
            self.lengths.append(len(self.written))
            self._length_dirty = True


class Renaming(NamedTuple):
    """A change of a folder: `gone` names nothing any more (if not empty), `made` (if not empty) names `node`."""

    gone: str
    made: str = ""
    node: Node | None = None

    def apply(self, names: dict[str, Node]) -> None:
        names.pop(self.gone, None)
        if self.made and self.node is not None:
            names[self.made] = self.node


class Folder:
    """Names as they are, as the medium certainly has them, and what was done since that one was told."""

    def __init__(self, names: dict[str, Node] | None = None) -> None:
        self.names: dict[str, Node] = names or {}
        self.durable: dict[str, Node] = dict(self.names)
        self.pending: list[Renaming] = []

    def add(self, change: Renaming) -> None:
        self.pending.append(change)
        change.apply(self.names)

    def sync(self) -> None:
        self.durable, self.pending = dict(self.names), []

    def drop(self) -> None:
        """A folder's sync that fails leaves its changes to chance, as before."""

    def copy(self, memo: dict[int, Node]) -> Folder:
        if id(self) not in memo:
            other = Folder()
            memo[id(self)] = other
            other.names = {name: node.copy(memo) for name, node in self.names.items()}
            other.durable = {name: node.copy(memo) for name, node in self.durable.items()}
            other.pending = [one._replace(node=one.node.copy(memo) if one.node else None) for one in self.pending]
        found = memo[id(self)]
        assert isinstance(found, Folder)
        return found


Node = File | Folder


def fingerprint(root: Folder, unsynced: bool = False) -> bytes:
    """Equal for disks with equal names and contents; with `unsynced` only if a cut may leave the same of them, too."""
    digest = blake2b(digest_size=16)
    ids: dict[int, int] = {}

    def add(node: Node) -> None:
        if id(node) in ids:
            digest.update(b"=%d" % ids[id(node)])
            return
        ids[id(node)] = len(ids)
        if isinstance(node, File):
            digest.update(b"f%d:" % len(node.written) + node.written)
            if unsynced and (node.history or node.lengths):
                digest.update(repr((node.medium, sorted(node.history.items()), node.lengths)).encode())
            return
        names(node.names)
        if unsynced and node.pending:
            names(node.durable)
            for one in node.pending:
                digest.update(f"{one.gone}>{one.made}/".encode())
                names({one.made: one.node} if one.node else {})

    def names(some: dict[str, Node]) -> None:
        for name in sorted(some):
            digest.update(b"d" + name.encode() + b"/")
            add(some[name])
        digest.update(b".")

    add(root)
    return digest.digest()
