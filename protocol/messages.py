"""What the processes say, as typed messages (msgpack, tagged).

    PUSH -> PULL      Delta, records, records, ...      (`protocol.frames`; no reply: confirm is the reply)
    REQ  -> ROUTER    one `Request`
    ROUTER -> REQ     one `Reply`; behind `Opened` the parts that `encode_items` made, three for each map

Bytes that are no message raise `MalformedMessage`, which carries them; nothing else escapes from here.
Seqs are those of the namespace; ids are 16 random bytes; times are ns UTC unless they say otherwise.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import accumulate
from typing import TypeAlias

import msgspec

from protocol.crc import crc32
from protocol.errors import MalformedMessage
from protocol.limits import PROTOCOL_VERSION


class Delta(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Changes (base, upto] of a session, in the records that follow.

    Accepted when base <= applied < upto; ignored when already applied; dropped, and told by the next confirm, when
    base > applied.
    """

    namespace: str
    epoch: int
    base: int
    upto: int
    identity: bytes = b""
    """Outbox whose session this is: two histories may give the same epoch. Empty: whoever has the epoch."""


# Requests


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Let me own this namespace, and give me its state. Answered by `Opened` or `Refused`.

    `(identity, life, attempt)` makes it idempotent: the server refuses what is not newer, per identity.
    """

    namespace: str
    identity: bytes
    life: int
    attempt: int
    boot_id: str
    host: str
    pid: int
    store_id: bytes
    """Store that this outbox belongs to; empty if it never opened anywhere."""
    epoch: int
    """Newest epoch in the outbox; 0 if none."""
    acked: int
    """Highest seq that a server has ever acknowledged to this outbox."""
    last: int
    """Highest seq that the outbox knows."""
    takeover: bool = False
    version: int = PROTOCOL_VERSION


class Confirm(msgspec.Struct, frozen=True, kw_only=True, tag="confirm"):
    """Tell me when `upto` is durable, or after `wait` seconds (bounded by the server). Also the sign of life."""

    namespace: str
    epoch: int
    store_id: bytes
    acked: int
    upto: int
    wait: float
    identity: bytes = b""
    """See `Delta`."""


class Close(msgspec.Struct, frozen=True, kw_only=True, tag="close"):
    """Everything up to `upto` is sent and I am leaving. Answered when it is durable, and the session closed."""

    namespace: str
    epoch: int
    upto: int
    identity: bytes = b""
    """See `Delta`."""


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """How are you? Answered by `StatusReport`."""


class Accept(msgspec.Struct, frozen=True, kw_only=True, tag="accept"):
    """A person says: the live session of `namespace` is right, this server's older state is not."""

    namespace: str


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    """A person says: delete all maps of `namespace` for good (its epoch stays)."""

    namespace: str


Request: TypeAlias = Open | Confirm | Close | Status | Accept | Forget


# Replies


class OpenedMap(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One map of the snapshot; its items follow in three message parts."""

    name: str
    entries: int
    previous_used: bool
    """The current file was damaged and the generation before it was brought forward."""


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The namespace is yours, and this is its state, all of it durable."""

    store_id: bytes
    instance: str
    epoch: int
    since: int
    """Oldest epoch since which this identity has opened without a break; older leftovers are another history's."""
    applied: int
    """Newest change in the snapshot."""
    new: bool
    """Nothing was ever stored here."""
    closed: bool
    """The last session left by `close`."""
    ts_last: int
    """When the newest change arrived; 0 if none."""
    maps: list[OpenedMap]


class Confirmed(msgspec.Struct, frozen=True, kw_only=True, tag="confirmed"):
    """How far your changes are. A new `instance` means: the process was restarted, ship again from `applied`."""

    instance: str
    applied: int
    durable: int
    gap: bool = False
    """A delta was dropped because changes before it are missing: ship again from `applied`."""
    snapshot_wanted: bool = False
    """A person accepted your state: send the whole of it as one record behind `applied`."""
    store_id: bytes = b""
    """With `snapshot_wanted`: the store that you belong to from now on."""


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """It is done, durably. `message` is for people."""

    message: str = ""


class NamespaceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What `outlive status` shows of one namespace. Ages in seconds."""

    name: str
    epoch: int
    applied: int
    durable: int
    maps: dict[str, int]
    """Map name -> entries."""
    session: str
    """open | silent | closed | refused"""
    heard_ago: float | None
    received: int
    """Changes received since the process started."""
    coalesced: int
    """Of these, how many never reached the disk because a newer one replaced them first."""
    refused: str = ""
    degraded: list[str] = []
    """Maps whose current file could not be used at the start; the generation before was brought forward."""
    lag: float = 0.0
    """Age of the oldest change that is not durable yet."""


class StatusReport(msgspec.Struct, frozen=True, kw_only=True, tag="status_report"):
    """How the persistence process is. Lags in seconds, sizes in bytes."""

    instance: str
    pid: int
    data_dir: str
    state: str
    """recovering | serving | disk_full | stopping"""
    uptime: float
    lsn: int
    commits: int
    saves: int
    """Pickle files written."""
    journal_bytes: int
    lag_last: float
    """From the arrival of a change to the return of its fdatasync, newest batch."""
    lag_p99: float
    """The same, 99th percentile of the last thousand batches."""
    fsync_last: float = 0.0
    """Seconds that the newest batch took to append and sync."""
    fsync_p99: float = 0.0
    disk_free: int = -1
    """Bytes that this user may still write; -1 unknown."""
    unsaved: int = 0
    """Maps that have changed since their pickle file was written."""
    failed_saves: int = 0
    """One after the other, until one succeeds."""
    stale_refused: int
    malformed: int
    namespaces: list[NamespaceStatus]


class RefusedCode(StrEnum):
    """Why a request was refused."""

    RECOVERING = "recovering"
    STOPPING = "stopping"
    STALE_OPEN = "stale_open"
    SESSION_ALIVE = "session_alive"
    FOREIGN_STORE = "foreign_store"
    STATE_WENT_BACK = "state_went_back"
    NAMESPACE_DAMAGED = "namespace_damaged"
    FENCED = "fenced"
    NOT_ALLOWED = "not_allowed"
    MALFORMED = "malformed"
    VERSION = "version"
    UNKNOWN_NAMESPACE = "unknown_namespace"


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """No, and why. `message` is for people; `number` belongs to the code (percent recovered, newest life ...)."""

    code: RefusedCode
    message: str
    number: int = 0


Reply: TypeAlias = Opened | Confirmed | Done | StatusReport | Refused

encode = msgspec.msgpack.Encoder().encode

_NO_MESSAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # the last: a field nested without end

_delta = msgspec.msgpack.Decoder(Delta)
_request = msgspec.msgpack.Decoder(Open | Confirm | Close | Status | Accept | Forget)
_reply = msgspec.msgpack.Decoder(Opened | Confirmed | Done | StatusReport | Refused)


def decode_delta(data: bytes | memoryview) -> Delta:
    """Raises `MalformedMessage`."""
    try:
        return _delta.decode(data)
    except _NO_MESSAGE as error:
        raise MalformedMessage(f"no delta: {error}", bytes(data)) from None


def decode_request(data: bytes | memoryview) -> Request:
    """Raises `MalformedMessage`."""
    try:
        request: Request = _request.decode(data)
    except _NO_MESSAGE as error:
        raise MalformedMessage(f"no request: {error}", bytes(data)) from None
    return request


def decode_reply(data: bytes | memoryview) -> Reply:
    """Raises `MalformedMessage`."""
    try:
        reply: Reply = _reply.decode(data)
    except _NO_MESSAGE as error:
        raise MalformedMessage(f"no reply: {error}", bytes(data)) from None
    return reply


# The items of a map, in three parts: keys one behind the other, values likewise, and the values' lengths


def encode_items(items: Mapping[bytes, bytes]) -> tuple[bytes, bytes, bytes]:
    """Encoded items -> (keys, values, lengths); keys are self-delimiting, lengths are u32, CRC-32 of all at the end.

    No object is made per item: a server that answers `open` with a million of them serves nobody else meanwhile.
    """
    keys, values = b"".join(items), b"".join(items.values())
    lengths = array("I", map(len, items.values())).tobytes()
    return keys, values, lengths + crc32(values, crc32(keys)).to_bytes(4, "little")


def decode_items(parts: Sequence[bytes | memoryview], entries: int) -> tuple[bytes | memoryview, Iterator[bytes]]:
    """(keys, values, lengths) -> (joined keys, each value's bytes). Raises `MalformedMessage`."""
    if len(parts) != 3:
        raise MalformedMessage(f"{len(parts)} parts for the items of a map", b"")
    keys, values, lengths = parts
    sizes = array("I")
    if len(lengths) != 4 * entries + 4:
        raise MalformedMessage(f"{len(lengths)} bytes of lengths for {entries} items", bytes(lengths[:64]))
    sizes.frombytes(lengths[:-4])
    if sum(sizes) != len(values) or crc32(values, crc32(keys)) != int.from_bytes(lengths[-4:], "little"):
        raise MalformedMessage("the items of a map fail their check", bytes(lengths[-4:]))
    return keys, _slices(values, sizes)


def _slices(values: bytes | memoryview, sizes: array[int]) -> Iterator[bytes]:
    ends = list(accumulate(sizes, initial=0))
    return map(bytes(values).__getitem__, map(slice, ends, ends[1:]))
