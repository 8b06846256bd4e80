"""The outbox of the model: the files of a folder, what a power cut may leave of them, and what the code reads there.

Reading is the code's own: the files are laid out as bytes and given to `read_outbox`, so that its chain, its marks,
its `floor` and what it calls damage move the model. A slot holds one record; unequal lengths only move the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from itertools import chain, combinations, product
from typing import NamedTuple

from protocol.frames import Record, encode_record
from protocol.outbox_files import (
    IDENTITY_FILE,
    Identity,
    OutboxContents,
    encode_identity,
    read_outbox,
    segment_path,
)
from protocol.segments import ACKED_AT, RECORDS_AT, SHIPPED_AT, SYNCED_AT, SegmentHead, boot_mark, write_mark

STORE = b"S" * 16
FOLDER = "/outbox"
EMPTY_SLOT = bytes(48)
"""Zeros in the place of a record of usual length."""

Slots = tuple[Record | None, ...]


class Marks(NamedTuple):
    acked: int
    synced: int
    shipped: int


class SegmentFile(NamedTuple):
    """One segment: what reads give, and what a power cut is sure to keep."""

    life: int
    epoch: int
    boot: int
    floor: int
    slots: Slots
    marks: Marks
    medium: Slots
    medium_marks: Marks
    adrift: tuple[int, ...] = ()
    """Slots that a failed sync dropped: a later one may succeed without them."""

    def store(self, slot: int, record: Record) -> SegmentFile:
        """A store through the mapping."""
        adrift = tuple(a for a in self.adrift if a != slot)
        return self._replace(slots=(*self.slots[:slot], record, *self.slots[slot + 1 :]), adrift=adrift)

    def mark(self, **marks: int) -> SegmentFile:
        return self._replace(marks=self.marks._replace(**marks))

    @property
    def medium_differs(self) -> bool:
        return self.medium != self.slots or self.medium_marks != self.marks or bool(self.adrift)

    def sync(self) -> SegmentFile:
        kept = (m if n in self.adrift else s for n, (s, m) in enumerate(zip(self.slots, self.medium, strict=True)))
        return self._replace(medium=tuple(kept), medium_marks=self.marks)

    def fail_sync(self) -> SegmentFile:
        lost = [n for n, (s, m) in enumerate(zip(self.slots, self.medium, strict=True)) if s != m]
        return self._replace(adrift=tuple(lost))

    def after_power_cuts(self) -> Iterator[SegmentFile]:
        """Any of the slots that were not synced may be what they were, and the marks too: they share a sector."""
        ways = [(s,) if s == m else (s, m) for s, m in zip(self.slots, self.medium, strict=True)]
        marks = (self.marks,) if self.marks == self.medium_marks else (self.marks, self.medium_marks)
        for slots, kept in product(product(*ways), marks):
            yield self._replace(slots=slots, medium=slots, marks=kept, medium_marks=kept, adrift=())


class NameChange(NamedTuple):
    """A name given to file `fid`, or taken away (fid 0), and not durable yet."""

    number: int
    fid: int


class Folder(NamedTuple):
    """The directory of an outbox. `files` has file `fid` at fid - 1; `pending` names are left to chance by a cut."""

    identity: bytes
    life: int = 0
    boot: int = 1
    files: tuple[SegmentFile, ...] = ()
    names: tuple[tuple[int, int], ...] = ()
    durable: tuple[tuple[int, int], ...] = ()
    pending: tuple[NameChange, ...] = ()
    made: bool = False
    """Whether the directory itself is durable."""

    def file(self, fid: int) -> SegmentFile:
        return self.files[fid - 1]

    def put(self, fid: int, file: SegmentFile) -> Folder:
        return self._replace(files=(*self.files[: fid - 1], file, *self.files[fid:]))

    def add(self, file: SegmentFile) -> tuple[Folder, int]:
        return self._replace(files=(*self.files, file)), len(self.files) + 1

    def rename(self, *changes: NameChange) -> Folder:
        return self._replace(names=_renamed(self.names, changes), pending=self.pending + changes)

    def sync_names(self) -> Folder:
        return self._replace(durable=self.names, pending=())

    @property
    def newest(self) -> int:
        return max((number for number, _ in self.names), default=0)

    def number_of(self, fid: int) -> int:
        return next(number for number, named in self.names if named == fid)

    def after_power_cuts(self) -> Iterator[Folder]:
        if not self.made:
            another = bytes([self.identity[0] + 16]) * 16  # who finds no folder is a new outbox
            yield Folder(another, boot=self.boot + 1)
        subsets = chain.from_iterable(combinations(self.pending, n) for n in range(len(self.pending) + 1))
        for names in dict.fromkeys(_renamed(self.durable, kept) for kept in subsets):
            fids = sorted({fid for _, fid in names})
            renumbered = {fid: n for n, fid in enumerate(fids, 1)}
            named = tuple((number, renumbered[fid]) for number, fid in names)
            for files in product(*(tuple(self.file(fid).after_power_cuts()) for fid in fids)):
                yield Folder(self.identity, self.life, self.boot + 1, files, named, named, (), self.made)

    @property
    def is_durable(self) -> bool:
        """Whether a power cut would change nothing."""
        named = self.made and not self.pending and self.durable == self.names
        return named and not any(file.medium_differs for file in self.files)

    def with_power(self) -> Folder:
        """As if everything were durable: where the power is not cut any more, that makes no difference."""
        files = tuple(
            file._replace(medium=file.slots, medium_marks=file.marks, adrift=()) if file.medium_differs else file
            for file in self.files
        )
        return self._replace(files=files, durable=self.names, pending=(), made=True)

    def after_kill(self) -> Folder:
        """Nothing is lost but what has no name."""
        return self.tidy(())[0]

    def tidy(self, used: tuple[int, ...]) -> tuple[Folder, dict[int, int]]:
        """Forget files that nobody can see any more; the new fid of each that is left."""
        seen = {*used, *(f for _, f in self.names), *(f for _, f in self.durable), *(c.fid for c in self.pending)}
        fids = {fid: n for n, fid in enumerate(sorted(seen - {0}), 1)} | {0: 0}
        if len(fids) == len(self.files) + 1:
            return self, fids
        return self._replace(
            files=tuple(self.file(fid) for fid in fids if fid),
            names=tuple((n, fids[f]) for n, f in self.names),
            durable=tuple((n, fids[f]) for n, f in self.durable),
            pending=tuple(NameChange(c.number, fids[c.fid]) for c in self.pending),
        ), fids

    def read(self) -> OutboxContents:
        """What the code makes of it. Raises `Damaged`."""
        files = tuple((number, self.file(fid)) for number, fid in self.names)
        return _read(self.identity, self.life, self.boot, files)


def _renamed(names: tuple[tuple[int, int], ...], changes: tuple[NameChange, ...]) -> tuple[tuple[int, int], ...]:
    found = dict(names)
    for number, fid in changes:
        found.pop(number, None)
        if fid:
            found[number] = fid
    return tuple(sorted(found.items()))


class _Shelf:
    """As much of a disk as reading an outbox needs."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents

    def exists(self, path: str) -> bool:
        return True

    def listdir(self, path: str) -> list[str]:
        return sorted(map(os.path.basename, self.contents))

    def read_file(self, path: str) -> bytes:
        return self.contents[path]


@cache
def _read(identity: bytes, life: int, boot: int, files: tuple[tuple[int, SegmentFile], ...]) -> OutboxContents:
    contents = {segment_path(FOLDER, number): _encode(identity, file) for number, file in files}
    if life:
        contents[f"{FOLDER}/{IDENTITY_FILE}"] = encode_identity(Identity("bot", identity, life))
    return read_outbox(_Shelf(contents), FOLDER, "bot", boot_name(boot))  # type: ignore[arg-type]


def _encode(identity: bytes, file: SegmentFile) -> bytes:
    records = b"".join(encode_record(*slot) if slot else EMPTY_SLOT for slot in file.slots)
    capacity = RECORDS_AT + len(records)
    boot = boot_mark(boot_name(file.boot))
    head = bytearray(SegmentHead(STORE, identity, boot, file.life, file.epoch, capacity, "bot", file.floor).encode())
    for offset, value in zip((ACKED_AT, SYNCED_AT, SHIPPED_AT), file.marks, strict=True):
        write_mark(memoryview(head), offset, value)
    return bytes(head) + records


def boot_name(boot: int) -> str:
    return f"boot {boot}"
