"""Read the folder of an outbox: its identity, its segments, and the one unbroken chain that they hold.

    IDENTITY      who this outbox is: replaced atomically at each start (`Identity`, msgpack, CRC-32 in front)
    LOCK          flock'ed by the owner for life; never mapped, renamed or deleted
    00000007.seg  segments in the order of their numbers (`protocol.segments`)
    *.tmp         unfinished work of a killed life; worth nothing

A later segment may repeat earlier changes (a fold before the segments it replaces are gone, or a copy of a
segment that failed to sync): it then reaches at least as far, and stands in their place.

The first segment of a life gets its name only when it holds every leftover that this life took over. So from then
on the segments of former lives say nothing, even if a power cut brings them back.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import msgspec

from protocol.crc import crc32
from protocol.disk import Disk
from protocol.errors import Damaged, ForeignStore
from protocol.frames import Record
from protocol.segments import Segment, boot_mark, decode_segment

IDENTITY_FILE, LOCK_FILE, SEGMENT_SUFFIX = "IDENTITY", "LOCK", ".seg"

_REMEDY = (
    "What the persistence process has acknowledged is safe there: 'outlive accept {0}' puts this outbox into "
    "quarantine and goes on from that state; docs/recovery.md says what may be lost."
)


class Identity(msgspec.Struct, frozen=True):
    """Who an outbox is. `life` counts its openings; `store_id` is the store it last opened at (empty: none yet)."""

    namespace: str
    identity: bytes
    life: int
    store_id: bytes = b""


class OutboxContents(NamedTuple):
    """What an outbox holds."""

    identity: Identity | None
    segments: list[Segment]
    records: list[Record]
    """The unbroken chain above `acked`, oldest first."""
    acked: int
    shipped: int
    """Highest seq that may ever have reached a socket."""
    epoch: int
    """Of the newest life that wrote here; 0 if none did."""
    last: int
    """Highest seq known to this outbox: recorded, or acknowledged and gone."""
    set_aside: list[Record]
    """Unsynced records behind a hole that a power cut tore; they can't be used."""
    same_boot: bool


def segment_path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{number:08d}{SEGMENT_SUFFIX}")


def segment_number(path: str) -> int:
    """0 for a name that is not ours, such as a person's copy has: it is read all the same."""
    stem = os.path.basename(path)[: -len(SEGMENT_SUFFIX)]
    return int(stem) if stem.isascii() and stem.isdigit() else 0


def encode_identity(identity: Identity) -> bytes:
    body = msgspec.msgpack.encode(identity)
    return crc32(body).to_bytes(4, "little") + body


def decode_identity(path: str, data: bytes) -> Identity:
    """Raises `Damaged`."""
    if len(data) < 4 or crc32(data[4:]) != int.from_bytes(data[:4], "little"):
        raise Damaged(path, 0, "the identity of an outbox fails its check", _REMEDY.format("NAMESPACE"))
    try:
        return msgspec.msgpack.decode(data[4:], type=Identity)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(path, 4, f"no identity: {error}", _REMEDY.format("NAMESPACE")) from None


def read_outbox(disk: Disk, folder: str, namespace: str, boot_id: str) -> OutboxContents:
    """Read everything. Raises `Damaged` where something recorded may be missing, `ForeignStore` for a renamed one."""
    names = disk.listdir(folder) if disk.exists(folder) else []
    identity = None
    if IDENTITY_FILE in names:
        path = os.path.join(folder, IDENTITY_FILE)
        identity = decode_identity(path, disk.read_file(path))
    paths = [os.path.join(folder, n) for n in names if n.endswith(SEGMENT_SUFFIX)]
    segments = [decode_segment(path, disk.read_file(path)) for path in paths]
    life = max((s.head.life for s in segments), default=0)
    live = [s for s in segments if s.head.life == life]
    if identity is None and live:  # a person deleted the file: the segments know it, too
        head = live[-1].head
        identity = Identity(head.namespace, head.identity, head.life, head.store_id)
    _check_owner(folder, namespace, identity, segments)
    acked = max((s.acked for s in live), default=0)
    synced = max((s.synced for s in live), default=0)
    same_boot = bool(live) and live[-1].head.boot == boot_mark(boot_id)
    chain, aside = _join(live, acked, synced, same_boot, namespace)
    last = chain[-1].seq if chain else acked
    shipped = max((s.shipped for s in live), default=0)
    return OutboxContents(
        identity, segments, chain, acked, max(acked, shipped) if same_boot else last,
        max((s.head.epoch for s in segments), default=0), last, aside, same_boot,
    )  # fmt: skip


def _check_owner(folder: str, namespace: str, identity: Identity | None, segments: list[Segment]) -> None:
    """Everything here is of one outbox, that of `namespace`. Raises `ForeignStore`."""
    if identity is not None and identity.namespace != namespace:
        raise ForeignStore(
            f"{folder} is the outbox of namespace {identity.namespace!r}, not {namespace!r}: "
            "was it renamed or copied? " + _remedy(namespace)
        )
    for segment in segments:
        if identity is not None and (segment.head.namespace, segment.head.identity) != (namespace, identity.identity):
            raise ForeignStore(
                f"{segment.path} is a segment of another outbox, of namespace {segment.head.namespace!r}: take it "
                "out, and put back the one that belongs there. " + _remedy(namespace)
            )


def _join(
    segments: list[Segment], acked: int, synced: int, same_boot: bool, namespace: str
) -> tuple[list[Record], list[Record]]:
    """The unbroken chain above `acked`, and what a power cut left unusable behind it.

    Only the last record may be torn; under the same boot nothing valid of this life can follow a bad one, and what
    was synced is never torn. But a later segment may repeat what is bad in one that it has replaced.
    """
    chain: list[Record] = []
    hole: Damaged | None = None
    segments = _newest(segments)
    for index, segment in enumerate(segments):
        before = chain[-1].seq if chain else 0
        if not segment.records:
            hole = hole or _hole(segment, before, acked, namespace)
            continue
        if segment.base < before:
            if segment.last < before:
                raise Damaged(segment.path, 0, "a segment repeats an older part of the chain", _remedy(namespace))
            chain = [r for r in chain if r.seq <= segment.base]
        expected = max(chain[-1].seq if chain else 0, acked)
        if segment.base > expected:
            if same_boot or synced > expected:
                raise hole or _gap(segments[index - 1] if index else None, segment, expected, namespace)
            lost = [r for s in segments[index:] for r in s.records if r.seq > expected]
            return [r for r in chain if r.seq > acked], lost
        chain.extend(segment.records)
        hole = _hole(segment, segment.last, acked, namespace)
    chain = [r for r in chain if r.seq > acked]
    if hole is not None and same_boot:
        raise hole
    if synced > max(acked, chain[-1].seq if chain else 0):
        what = f"synced changes up to {synced} are missing"
        raise hole or Damaged(segments[-1].path, segments[-1].end, what, _remedy(namespace))
    return chain, []


def _newest(segments: list[Segment]) -> list[Segment]:
    """Without those that a later one stands in for: a power cut may have brought some of them back, in any order."""
    newest: list[Segment] = []
    base, last = 2**64, 0  # of what reaches back the furthest
    for segment in reversed(segments):
        if segment.records and base <= segment.base and segment.last <= last:
            continue
        newest.append(segment)
        if segment.records and segment.base < base:
            base, last = segment.base, segment.last
    return newest[::-1]


def _hole(segment: Segment, last: int, acked: int, namespace: str) -> Damaged | None:
    """What to say if nothing stands in for the bad record behind change `last`; None if that is not needed any more."""
    if segment.beyond is None or segment.beyond_seq <= acked:
        return None
    what = f"the record behind change {last} is damaged, and a valid one follows at byte {segment.beyond}"
    return Damaged(segment.path, segment.end, what, _remedy(namespace))


def _gap(before: Segment | None, segment: Segment, last: int, namespace: str) -> Damaged:
    """What is missing stood at the end of the segment before, or in one between."""
    what = f"changes {last + 1} to {segment.base} are missing"
    if before is None:
        return Damaged(segment.path, 0, f"{what} before this segment", _remedy(namespace))
    what = f"{what} between here and {segment.path}; this one ends"
    return Damaged(before.path, before.end, what, _remedy(namespace))


def _remedy(namespace: str) -> str:
    return _REMEDY.format(namespace)
