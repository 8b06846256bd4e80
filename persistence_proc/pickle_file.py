"""One map as one pickle file: save it atomically, load it without running anything.

`pickle.load` reads the file as a plain dict. A value is embedded as the call `pickle.loads(bytes)`, so this process
never looks inside. The opcodes are few and written here directly; the reader below knows exactly these:

    file    = PROTO 5, "pickle", "loads", STACK_GLOBAL, MEMOIZE, POP, EMPTY_DICT, slice*, STOP, trailer
    slice   = MARK, item{1,1000}, SETITEMS
    item    = key (`protocol.keys`), BINGET 0, SHORT_BINBYTES len8 | BINBYTES len32, value, TUPLE1, REDUCE

The trailer, which `pickle.load` never reads (196 bytes, little endian):

    magic 16, store id 16, incarnation u64, LSN u64, entries u64, length of the pickle u64,
    namespace 64, map 64 (both NUL-padded), CRC-32 of everything before it u32
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from struct import Struct, error, pack
from typing import NamedTuple

from persistence_proc.paths import TEMPORARY_SUFFIX, current_path, previous_path
from protocol.crc import crc32
from protocol.disk import Disk
from protocol.errors import Damaged

MAGIC = b"outlive-pickle-1"
SLICE = 1000
"""Items joined for one write: small enough that other threads wait for milliseconds only."""
SYNC_EVERY = 2 * 2**20
"""Bytes of a file after which it is synced: a commit of the journal waits behind all that is on its way to the disk."""

_HEAD = b"\x80\x05\x8c\x06pickle\x8c\x05loads\x93\x940}"
_STOP = b"."
_BEFORE_SHORT = [b"h\0C%c" % length for length in range(256)]
_BEHIND = b"\x85R"
_TRAILER = Struct("<16s16sQQQQ64s64s")
_U32 = Struct("<I")
TRAILER_BYTES = _TRAILER.size + _U32.size
_REMEDY = "Put the file back from a backup, or see docs/recovery.md."

# Opcodes of the reader
_MARK, _SETITEMS, _STOP_OP, _BINGET, _SHORT_STR = 0x28, 0x75, 0x2E, 0x68, 0x8C
_SHORT_BYTES, _LONG_BYTES = 0x43, 0x42
_FIXED = {0x4B: 2, 0x4D: 3, 0x4A: 5, 0x28: 1, 0x29: 1, 0x85: 1, 0x86: 1, 0x87: 1, 0x74: 1}  # opcode -> bytes
_LEN8, _LEN32 = frozenset(b"\x8cC\x8a"), frozenset(b"XB\x8b")


class Trailer(NamedTuple):
    """Whose contents a file holds, and as of which LSN."""

    store_id: bytes
    namespace: str
    map: str
    incarnation: int
    lsn: int


class SavedFile(NamedTuple):
    """A file that is durable under its name. `size` in bytes, trailer included."""

    crc: int
    size: int


class CheckedFile(NamedTuple):
    """A file whose every byte passed its check."""

    trailer: Trailer
    crc: int


class LoadedMap(NamedTuple):
    """A checked file's contents. `items`: encoded key -> pickled value, in order."""

    trailer: Trailer
    items: dict[bytes, bytes]
    crc: int


def save_map(
    disk: Disk,
    folder: str,
    name: str,
    items: Iterable[tuple[bytes, bytes]],
    count: int,
    trailer: Trailer,
    *,
    before_rename: Callable[[], None],
    between_pieces: Callable[[], None] = lambda: None,
) -> SavedFile:
    """Put a new generation in place, durably; the one before it stays beside it. All or nothing, after any crash.

    `before_rename` returns when the journal is durable up to the trailer's LSN, or raises: then nothing has changed.
    `between_pieces` is called behind every thousand items. Raises OSError; ValueError if there are not `count` items.
    """
    temporary = os.path.join(folder, f"{name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        saved = _write(disk, temporary, items, count, trailer, between_pieces)
        before_rename()
        keep_previous(disk, folder, name)
        disk.replace(temporary, current_path(folder, name))
    except BaseException:
        _discard(disk, temporary)
        raise
    disk.fsync_dir(folder)
    return saved


def keep_previous(disk: Disk, folder: str, name: str) -> None:
    """Make the current file the previous one too, by a second link: it is never without its name."""
    current, previous = current_path(folder, name), previous_path(folder, name)
    if not disk.exists(current):
        return
    link = previous + TEMPORARY_SUFFIX
    _discard(disk, link)
    disk.link_or_copy(current, link)
    disk.replace(link, previous)
    _discard(disk, link)  # a rename between two links of one file does nothing and leaves both


def check_map(disk: Disk, path: str) -> CheckedFile:
    """Check one file without looking at its items. Raises as `load_map` does."""
    data = disk.read_file(path)
    trailer, _, _ = _read_trailer(path, data)
    return CheckedFile(trailer, _U32.unpack_from(data, len(data) - _U32.size)[0])


def load_map(disk: Disk, path: str) -> LoadedMap:
    """Read one file. Raises `Damaged` for anything that `save_map` did not write, OSError if it is not there."""
    data = disk.read_file(path)
    trailer, count, length = _read_trailer(path, data)
    try:
        items = _read_items(data, length)
    except (IndexError, error, ValueError) as problem:
        raise Damaged(path, 0, f"not the opcodes of a map file ({problem})", _REMEDY) from None
    if len(items) != count:
        raise Damaged(path, length, f"{len(items)} entries where {count} were saved", _REMEDY)
    return LoadedMap(trailer, items, _U32.unpack_from(data, len(data) - _U32.size)[0])


def _write(
    disk: Disk, path: str, items: Iterable[tuple[bytes, bytes]], count: int, trailer: Trailer,
    between_pieces: Callable[[], None],
) -> SavedFile:  # fmt: skip
    fd = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        crc, size, synced = 0, 0, 0
        for chunk in _chunks(items, count, trailer):
            crc = crc32(chunk, crc)
            size += len(chunk)
            disk.write(fd, chunk)
            if size - synced >= SYNC_EVERY:
                disk.fdatasync(fd)
                synced = size
            between_pieces()
        disk.write(fd, _U32.pack(crc))
        disk.fsync(fd)
    finally:
        disk.close(fd)
    return SavedFile(crc, size + _U32.size)


def _chunks(items: Iterable[tuple[bytes, bytes]], count: int, trailer: Trailer) -> Iterator[bytes]:
    """Everything but the CRC, in pieces of at most `SLICE` items."""
    yield _HEAD
    length, written, rest = len(_HEAD) + len(_STOP), 0, iter(items)
    while batch := list(islice(rest, SLICE)):
        chunk = encode_slice(batch)
        length += len(chunk)
        written += len(batch)
        yield chunk
    if written != count:
        raise ValueError(f"{written} items of map {trailer.map!r}, not {count}: it changed while it was saved")
    yield _STOP + _TRAILER.pack(
        MAGIC, trailer.store_id, trailer.incarnation, trailer.lsn, count, length,
        trailer.namespace.encode(), trailer.map.encode(),
    )  # fmt: skip


def encode_slice(batch: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The opcodes that put these items into the dict."""
    parts = [b"("]
    for key, value in batch:
        length = len(value)
        parts += (key, _BEFORE_SHORT[length] if length < 256 else b"h\0B" + pack("<I", length), value, _BEHIND)
    parts.append(b"u")
    return b"".join(parts)


def _read_trailer(path: str, data: bytes) -> tuple[Trailer, int, int]:
    """(trailer, entries, length of the pickle)."""
    at = len(data) - TRAILER_BYTES
    if at < 0 or data[at : at + len(MAGIC)] != MAGIC:
        raise Damaged(path, max(at, 0), "no trailer of ours: the file is cut short, or not a map file", _REMEDY)
    body = memoryview(data)[: -_U32.size]
    if crc32(body) != _U32.unpack_from(data, len(body))[0]:
        raise Damaged(path, 0, f"the contents ({len(data)} bytes) fail their check; they begin", _REMEDY)
    _, store_id, incarnation, lsn, count, length, namespace, name = _TRAILER.unpack_from(data, at)
    if length != at:
        raise Damaged(path, at, f"a pickle of {at} bytes where {length} were saved, ending", _REMEDY)
    return Trailer(store_id, _name(namespace), _name(name), incarnation, lsn), count, length


def _name(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", "replace")


def _read_items(data: bytes, length: int) -> dict[bytes, bytes]:
    """The items of the pickle in data[:length]. Raises IndexError, struct.error or ValueError off the grammar."""
    if not data.startswith(_HEAD):
        raise ValueError("another beginning")
    items: dict[bytes, bytes] = {}
    at = len(_HEAD)
    while data[at] == _MARK:
        at += 1
        while data[at] != _SETITEMS:
            end = at + 2 + data[at + 1] if data[at] == _SHORT_STR else _key_end(data, at)
            if data[end] != _BINGET:  # a key of several opcodes, a tuple for instance
                end = _key_end(data, at)
            start = end + 4 if data[end + 2] == _SHORT_BYTES else end + 7
            size = data[end + 3] if data[end + 2] == _SHORT_BYTES else _long(data, end + 2)
            key, at = data[at:end], start + size
            if data[at : at + 2] != _BEHIND:
                raise ValueError(f"no value ends at byte {at}")
            items[key] = data[start:at]
            at += 2
        at += 1
    if data[at] != _STOP_OP or at + 1 != length:
        raise ValueError(f"no end at byte {at}")
    return items


def _long(data: bytes, at: int) -> int:
    if data[at] != _LONG_BYTES:
        raise ValueError(f"no value at byte {at}")
    return int(_U32.unpack_from(data, at + 1)[0])


def _key_end(data: bytes, at: int) -> int:
    """Behind the key at `at`: where BINGET begins the value, an opcode that no key contains."""
    while (op := data[at]) != _BINGET:
        if op in _LEN8:
            at += 2 + data[at + 1]
        elif op in _LEN32:
            at += 5 + int(_U32.unpack_from(data, at + 1)[0])
        elif op in _FIXED:
            at += _FIXED[op]
        else:
            raise ValueError(f"no key at byte {at}")
    return at


def _discard(disk: Disk, path: str) -> None:
    try:
        disk.unlink(path)
    except OSError:
        pass
