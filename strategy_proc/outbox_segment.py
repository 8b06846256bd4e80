"""An outbox segment in use: its descriptor, its mapping, and how far it is filled; and the folder they live in.

A file gets its number only when it is whole and synced; until then it is a `.tmp`, which the next start deletes.
Acknowledged segments lose their number before they are written over, and the directory is synced in between: so a
power cut never shows a half rewritten file under a number.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from protocol.disk import Disk
from protocol.errors import Damaged, MalformedMessage
from protocol.frames import BODY, CRC, HEADER_BYTES, Record, decode_records, encode_record, record_at, record_bytes
from protocol.outbox_files import segment_path
from protocol.segments import ACKED_AT, RECORDS_AT, SEGMENT_BYTES, SHIPPED_AT, SegmentHead, encode_mark, write_mark

_KEPT_FOR_REUSE = 2  # one to become the next spare and one in reserve
_DAMAGED_MAPPING = "This machine is failing; what was acknowledged is safe in the persistence process."


class Marks(NamedTuple):
    """What a new segment says from its first moment."""

    acked: int
    shipped: int


class OpenSegment:
    """A mapped segment file. Of the one that is appended to, `end` and `last` are kept by the outbox."""

    __slots__ = (
        "base", "capacity", "clean_to", "end", "fd", "last", "mapping", "path", "poisoned", "synced_end", "view",
    )  # fmt: skip

    def __init__(self, path: str, fd: int, mapping: mmap.mmap) -> None:
        self.path, self.fd, self.mapping = path, fd, mapping
        self.view = memoryview(mapping)
        self.capacity = len(mapping)
        self.base = self.last = 0  # covers (base, last]
        self.end = self.synced_end = RECORDS_AT
        self.clean_to = 0  # a record that begins before this, in the page where a sync ended, is stored by `put_clean`
        self.poisoned = False  # a sync of it has failed: its pages may be clean and yet not on the medium

    def note_synced(self, end: int) -> None:
        """Everything up to `end` was synced, and every page is clean."""
        self.synced_end = end
        self.clean_to = (end // mmap.PAGESIZE + 1) * mmap.PAGESIZE

    def put_clean(self, disk: Disk, offset: int, record: bytes) -> None:
        """Store a record where a sync has left the page clean. Ctrl-C behind it leaves none: the caller has none."""
        try:
            self._store(disk, offset, record)
        except BaseException:
            self.mapping[offset : offset + CRC.size] = bytes(CRC.size)
            raise

    def mark(self, disk: Disk, offset: int, seq: int) -> None:
        """Store a mark."""
        if self.clean_to:
            self._store(disk, offset, encode_mark(seq))
        else:
            write_mark(self.view, offset, seq)

    def _store(self, disk: Disk, offset: int, data: bytes) -> None:
        """See `Disk.store`. What the file refuses, the mapping takes."""
        try:
            disk.store(self.fd, self.mapping, data, offset)
        except OSError:
            self.mapping[offset : offset + len(data)] = data

    def walk(self, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(offset behind it, base, seq) of each record from `offset` on. Cost is O(1) each."""
        while offset < end:
            length, seq, _, span = BODY.unpack_from(self.mapping, offset + 4)
            offset += record_bytes(length)
            yield offset, seq - span, seq

    def records(self) -> list[Record]:
        """The records of a sealed segment. Raises `Damaged` when the mapping is not what was stored."""
        try:
            return decode_records(bytes(self.view[RECORDS_AT : self.end]))
        except MalformedMessage:
            offset = RECORDS_AT
            while (record := record_at(self.view, offset)) is not None:
                offset += record_bytes(len(record.payload))
            raise Damaged(self.path, offset, "a record changed in memory", _DAMAGED_MAPPING) from None

    def close(self, disk: Disk) -> None:
        try:
            self.view.release()
            self.mapping.close()
        except BufferError:  # forked in the middle of a read: it goes when that view goes
            pass
        fd, self.fd = self.fd, -1
        if fd >= 0:
            disk.close(fd)


class OutboxFolder:
    """Makes, names, reuses and removes segment files. One maker at a time, except for `name` and `create`."""

    def __init__(self, disk: Disk, path: str, head: SegmentHead, newest: int) -> None:
        self._disk, self._path, self._head = disk, path, head
        self._temporary = itertools.count(1)
        self._retired: list[OpenSegment] = []  # without number, but a power cut may bring the number back
        self._reusable: list[OpenSegment] = []
        self.names = threading.Lock()  # held for a rename, never for a sync
        self.newest = newest
        """The highest number in use."""
        self.closed = False
        """The numbers are another session's from now on."""
        self._named = self._named_durably = 0  # how many names were given; of these, how many no power cut takes back

    def belong_to(self, store_id: bytes) -> None:
        """What is made from now on names this store."""
        self._head = self._head._replace(store_id=store_id)

    def create(self, records: Sequence[Record], marks: Marks, room: int = 0) -> OpenSegment:
        """A synced segment without number, holding `records` and `room` bytes more. Raises OSError."""
        encoded = [encode_record(r.seq, self._head.epoch, r.span, r.payload) for r in records]
        used = RECORDS_AT + sum(map(len, encoded))
        head = self._encode_head(used + room, 0, marks)
        path = self._temporary_path()
        fd = self._disk.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            self._disk.preallocate(fd, used + room)
            self._disk.zero_fill(fd, used + room)
            self._disk.pwrite(fd, head + b"".join(encoded), 0)
            self._disk.fsync(fd)
            segment = OpenSegment(path, fd, self._disk.map(fd, used + room))
        except BaseException:
            self._disk.close(fd)
            with suppress(OSError):  # the next start removes it
                self._disk.unlink(path)
            raise
        segment.end = segment.synced_end = used
        if records:
            segment.base, segment.last = records[0].base, records[-1].seq
        return segment

    def spare(self, marks: Marks) -> OpenSegment:
        """An empty synced segment without number, a reused one if there is one. Raises OSError."""
        if not self._reusable:
            try:
                return self.create((), marks, SEGMENT_BYTES - RECORDS_AT)
            except OSError:
                if not self._retired:
                    raise
                self.sync()  # a full disk: what was retired has its room already
        old = self._reusable.pop()
        old.view.release()
        segment = OpenSegment(old.path, old.fd, old.mapping)  # to whoever remembers the old one this is another
        try:
            segment.view[:RECORDS_AT] = self._encode_head(segment.capacity, old.last, marks)
            segment.view[RECORDS_AT : RECORDS_AT + HEADER_BYTES] = bytes(HEADER_BYTES)
            self._disk.sync_map(segment.fd, segment.mapping)
        except OSError:
            self.give_up(segment)
            raise
        return segment

    def warm(self, segment: OpenSegment) -> None:
        """Take the page faults of an empty segment that nobody stores to yet; a few µs each, one for 20 small changes.

        Its zeros needn't be durable: behind the first record's, which are, nothing is read.
        """
        with suppress(OSError):
            self._disk.warm(segment.mapping, segment.end)

    def name(self, segment: OpenSegment) -> int:
        """Give `segment` the next number. Raises OSError; also when the session has left: the next one counts on."""
        with self.names:
            if self.closed:
                raise OSError(errno.ESTALE, "the session was closed meanwhile")
            path = segment_path(self._path, self.newest + 1)
            self._disk.replace(segment.path, path)
            segment.path = path
            self.newest += 1
            self._named += 1
            return self.newest

    def put_over(self, segment: OpenSegment, old: OpenSegment) -> None:
        """Give `segment` the number of `old`; durable after `sync`. `old` stays readable through its mapping."""
        try:
            self._disk.replace(segment.path, old.path)
        except OSError:
            self.give_up(segment)
            raise
        segment.path = old.path
        self._named += 1

    @property
    def names_are_durable(self) -> bool:
        """Whether every file is found under its name after a power cut."""
        return self._named_durably >= self._named

    def sync_names(self) -> None:
        """Names given before the call are durable when this returns."""
        named = self._named
        self._disk.fsync_dir(self._path)
        self._named_durably = max(self._named_durably, named)

    def sync(self) -> None:
        """Names given and taken away are durable when this returns."""
        self.sync_names()
        self._reusable += self._retired
        self._retired = []

    def retire(self, segment: OpenSegment) -> None:
        """Take an acknowledged segment out of use."""
        spoiled = segment.poisoned or segment.capacity != SEGMENT_BYTES
        if spoiled or len(self._retired) + len(self._reusable) >= _KEPT_FOR_REUSE:
            self.delete(segment)
            return
        path = self._temporary_path()
        self._disk.replace(segment.path, path)
        segment.path = path
        self._retired.append(segment)

    def delete(self, segment: OpenSegment) -> None:
        self._disk.unlink(segment.path)
        segment.close(self._disk)

    def give_up(self, segment: OpenSegment) -> None:
        """Remove a segment that no change has reached, behind another error. If it stays, it says nothing."""
        with suppress(OSError):
            self._disk.unlink(segment.path)
        segment.close(self._disk)

    def leave(self) -> None:
        """Give no more numbers: a change of another thread may still be on its way to one."""
        with self.names:
            self.closed = True

    def close(self) -> None:
        for segment in self._retired + self._reusable:
            segment.close(self._disk)
        self._retired, self._reusable = [], []

    def _temporary_path(self) -> str:
        """A name that no other life of this outbox uses."""
        return os.path.join(self._path, f"{self._head.life}-{next(self._temporary)}.tmp")

    def _encode_head(self, capacity: int, floor: int, marks: Marks) -> bytes:
        head = bytearray(self._head._replace(capacity=capacity, floor=floor).encode())
        write_mark(memoryview(head), ACKED_AT, marks.acked)
        write_mark(memoryview(head), SHIPPED_AT, marks.shipped)
        return bytes(head)
