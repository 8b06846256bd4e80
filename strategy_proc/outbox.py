"""The outbox of a namespace: every change is appended to a mapped file, and so survives the process.

Three parties work on it; each keeps to its own side:

* The caller (`append`, under the session's put lock): stores a record through the mapping, or behind a sync through
  the file; rings for a pump that sleeps. It switches to the prepared spare when a segment is full, and makes one itself
  only when a burst outruns the pump or a record is too large for it.
* The pump (`unshipped`, `mark_*`, `maintain`; one thread): reads what is published, keeps a spare ready, reuses or
  removes what is acknowledged, folds what an absent persistence process has not taken.
* `sync` (any thread): makes durable what is recorded.

The invariants are in `outbox_chain`, the file format is in `protocol.segments`.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress

from protocol.changes import decode_changes, encode_changes
from protocol.crc import crc32
from protocol.disk import Disk
from protocol.errors import ChangeTooLarge, OutboxFull, SessionClosed
from protocol.frames import BODY, CRC, HEADER_BYTES, Record, record_bytes
from protocol.limits import MAX_FOLD_BYTES
from protocol.outbox_files import (
    IDENTITY_FILE,
    SEGMENT_SUFFIX,
    Identity,
    OutboxContents,
    encode_identity,
    read_outbox,
    segment_number,
)
from protocol.segments import ACKED_AT, RECORDS_AT, SEGMENT_BYTES, SHIPPED_AT, SegmentHead, boot_mark
from strategy_proc.outbox_chain import SegmentChain
from strategy_proc.outbox_lock import OutboxLock
from strategy_proc.outbox_reader import OutboxReader
from strategy_proc.outbox_segment import Marks, OpenSegment, OutboxFolder

__all__ = ["Outbox", "OutboxLock"]

_pack_body, _pack_crc = BODY.pack, CRC.pack


class Outbox(SegmentChain):
    """See the module. `load`, then `begin`; before `begin` there is nothing to append to."""

    def __init__(self, disk: Disk, folder: str, boot_id: str, contents: OutboxContents, identity: Identity) -> None:
        super().__init__(disk, folder)
        self.contents, self.identity = contents, identity
        """What former lives left here, and who this outbox is from now on."""
        self._boot_id = boot_id
        self._reader = OutboxReader()
        self._epoch = 0
        self.doorbell: threading.Lock | None = None
        """Set by a pump that has gone to sleep; the next change releases it, and the pump with it."""

    @property
    def seq(self) -> int:
        """The last recorded change."""
        return self.tail[2]

    @classmethod
    def load(cls, disk: Disk, folder: str, namespace: str, boot_id: str) -> Outbox:
        """Read the outbox and start a new life of it. Raises `Damaged` or `ForeignStore`; OSError."""
        parent = os.path.dirname(folder)
        disk.mkdir(parent)
        disk.mkdir(folder)
        for name in disk.listdir(folder):
            if name.endswith(".tmp"):
                disk.unlink(os.path.join(folder, name))
        contents = read_outbox(disk, folder, namespace, boot_id)
        old = contents.identity
        if old is None:
            identity = Identity(namespace, uuid.uuid4().bytes, 1)
        else:
            identity = Identity(namespace, old.identity, old.life + 1, old.store_id)
        outbox = cls(disk, folder, boot_id, contents, identity)
        outbox._write_identity()  # syncs the folder too
        for path in (parent, os.path.dirname(parent)):  # on every start: a killed one may not have got here
            disk.fsync_dir(path)
        return outbox

    def skip_life(self, number: int) -> None:
        """Be newer than life `number`, which the server has seen of this outbox (its folder was restored)."""
        old = self.identity
        self.identity = Identity(old.namespace, old.identity, max(old.life, number) + 1, old.store_id)
        self._write_identity()

    def begin(self, store_id: bytes, epoch: int, applied: int, leftovers: list[Record]) -> None:
        """Start appending behind `leftovers` (the records that the store at `applied` lacks; their spans are kept).

        They are copied into a first segment of this life, which takes the place of all former ones. Raises OSError.
        """
        identity = self.identity
        if identity.store_id != store_id:  # only in its first life; each file made durable here is waited for
            identity = self.identity = Identity(identity.namespace, identity.identity, identity.life, store_id)
            self._write_identity()
        head = SegmentHead(
            store_id, identity.identity, boot_mark(self._boot_id), identity.life, epoch, 0, identity.namespace
        )
        old = [os.path.join(self.folder, n) for n in self._disk.listdir(self.folder) if n.endswith(SEGMENT_SUFFIX)]
        self._files = OutboxFolder(self._disk, self.folder, head, max(map(segment_number, old), default=0))
        self._epoch = epoch
        seq = leftovers[-1].seq if leftovers else applied
        self.acked = self._acked_durably = applied
        self.shipped = min(max(self.contents.shipped, applied), seq)
        first = self._files.create(leftovers, Marks(applied, self.shipped), _room(leftovers))
        first.base = leftovers[0].base if leftovers else applied
        self._files.warm(first)
        self.tail = (first, first.end, seq)
        self.synced = seq
        self._in_use = True
        self._files.name(first)
        self._files.sync()
        for path in old:  # from here on they say nothing, even if a power cut brings them back
            self._disk.unlink(path)
        self.maintain()

    # The caller's side

    def append(self, payload: bytes) -> int:
        """Record one change and return its seq. Raises `OutboxFull`, nothing recorded, when there is no room."""
        segment, start, seq = self.tail
        seq += 1
        length = len(payload)
        end = start + ((length + 31) & -8)  # record_bytes(length)
        if end > segment.capacity:
            self._make_room(end - start)
            return self.append(payload)
        body = _pack_body(length, seq, self._epoch, 1) + payload
        if start < segment.clean_to:
            segment.put_clean(self._disk, start, _pack_crc(crc32(body)) + body)
        else:
            segment.mapping[start : start + HEADER_BYTES + length] = _pack_crc(crc32(body)) + body
        self.tail = (segment, end, seq)
        if self.doorbell is not None:
            self.ring()
        return seq

    def ring(self) -> None:
        """Wake the pump, if it waits for something to be recorded. Takes a microsecond and waits for nothing."""
        bell, self.doorbell = self.doorbell, None
        if bell is not None:
            with suppress(RuntimeError):  # it is ringing
                bell.release()

    def _make_room(self, size: int) -> None:
        segment, self._spare = self._spare, None
        if segment is not None and RECORDS_AT + size > segment.capacity:
            segment, self._spare = None, segment
        if segment is None:
            segment = self._make(max(size, SEGMENT_BYTES - RECORDS_AT))
        self._switch(segment)

    def _make(self, size: int) -> OpenSegment:
        """A segment made by the caller itself, for a record too large for a spare or a burst that outran the pump.

        The exception to "never asks for a disk"; not when the disk is known to be full.
        """
        segment = None
        try:
            if self.full_disk is not None:
                raise self.full_disk
            segment = self._files.create((), Marks(self.acked, self.shipped), size)
            self._files.name(segment)
            if self._spare is not None:
                self._files.name(self._spare)  # numbers are the order: it comes behind the new one
            self._files.sync_names()
        except OSError as error:
            if segment is not None:
                self._files.give_up(segment)
            if self._files.closed:
                raise SessionClosed("the session was closed while a change waited for room") from error
            raise OutboxFull(f"no room for another segment in {self.folder}: {error}") from error
        return segment

    # The pump's side

    def unshipped(self, from_seq: int, max_bytes: int) -> tuple[int, int, list[bytes]] | None:
        """The run of whole records behind `from_seq`: (base, upto, their bytes in parts), or None if there is none.

        At most `max_bytes`, but at least one record. `from_seq` inside a fold's span gives the fold with its own base.
        Raises LookupError when those records are no longer here. Cost is O(1) + the bytes where the last call ended.
        """
        tail = self.tail
        return self._reader.read(tail, self._older(tail[0]), from_seq, max_bytes)

    def mark_shipped(self, seq: int) -> None:
        """Before it is handed to a socket: from now on everything up to `seq` may have been seen."""
        if seq > self.shipped:
            self.shipped = seq
            self.tail[0].mark(self._disk, SHIPPED_AT, seq)

    def mark_acked(self, seq: int) -> None:
        """Everything up to `seq` is durable in the persistence process."""
        if seq > self.acked:
            self.acked = seq
            self.tail[0].mark(self._disk, ACKED_AT, seq)

    def replace_all(self, base: int, payload: bytes | Sequence[bytes], store_id: bytes = b"") -> None:
        """Let one record (base, seq + 1] of these changes stand for everything recorded so far. Raises OSError.

        `store_id`: the store that takes it from now on, when it is another one.

        For a person's decision that our state is the right one. Called by the pump, under the put lock. The new seq
        makes the record newer than whatever was acknowledged by the store that went back. Raises `ChangeTooLarge`
        for what no server would take.
        """
        if not isinstance(payload, bytes):
            payload = encode_changes([change for part in payload for change in decode_changes(part)])
        if len(payload) > MAX_FOLD_BYTES:
            raise ChangeTooLarge(f"a state of {len(payload)} bytes can't be sent: the limit is {MAX_FOLD_BYTES}")
        with self._files_lock:
            if store_id not in (b"", self.identity.store_id):
                self._adopt(store_id)
            seq = max(self.seq, base) + 1
            records = [Record(seq, self._epoch, seq - base, payload)]
            segment = self._files.create(records, Marks(base, base), _room(records))
            self._files.name(segment)
            old = [*self._older(self.tail[0]), self.tail[0]]
            if self._spare is not None:
                old.append(self._spare)  # its head says what was acknowledged before
            self._sealed, self._spare, self._folded_bytes = [], None, 0
            self.acked = self.shipped = self._acked_durably = base
            self.synced = seq
            self.tail = (segment, segment.end, seq)
            self._reader.forget()
            self._out_of_use += old
            self._obsolete += [gone.path for gone in old]
        self.maintain()

    def _adopt(self, store_id: bytes) -> None:
        """Belong to another store, durably, before anything is recorded for it."""
        old = self.identity
        self.identity = Identity(old.namespace, old.identity, old.life, store_id)
        self._write_identity()
        self._files.belong_to(store_id)

    # Leaving

    def close(self) -> None:
        """Unmap everything. The files stay, for the next life."""
        with self._files_lock:
            if self._in_use:
                self._files.leave()
            self.drop_in_child()

    def drop_in_child(self) -> None:
        """In a forked child: close descriptors and mappings (which have no pages here), take no lock."""
        if self._in_use:
            self._in_use = False
            spare = [self._spare] if self._spare else []
            active = self.tail[0]
            for segment in [*self._older(active), *self._out_of_use, *spare, active]:
                segment.close(self._disk)
            self._files.close()
            self._sealed, self._out_of_use, self._spare = [], [], None

    def _write_identity(self) -> None:
        self._disk.replace_file(os.path.join(self.folder, IDENTITY_FILE), encode_identity(self.identity))


def _room(records: Sequence[Record]) -> int:
    """What is left of a regular segment behind `records`."""
    return max(0, SEGMENT_BYTES - RECORDS_AT - sum(record_bytes(len(r.payload)) for r in records))
