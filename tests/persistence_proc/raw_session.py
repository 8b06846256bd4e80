"""A strategy's side of the wire, without any of its code: raw sockets and the messages of `protocol.messages`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import zmq

from protocol.changes import CLEAR, DELETE, INSERT, REPLACE, Change, encode_changes
from protocol.endpoints import parse_endpoint, read_endpoint_file
from protocol.frames import encode_record
from protocol.keys import decode_keys, encode_key
from protocol.messages import (
    Close,
    Confirm,
    Confirmed,
    Delta,
    Open,
    Opened,
    Refused,
    Reply,
    Request,
    Status,
    StatusReport,
    decode_items,
    decode_reply,
    encode,
)
from tests.waiting import LONG, wait_until

State = dict[str, dict[object, bytes]]


def insert(name: str, key: object, value: bytes = b"v") -> Change:
    return INSERT, name, encode_key(key), value


def replace(name: str, key: object, value: bytes) -> Change:
    return REPLACE, name, encode_key(key), value


def delete(name: str, key: object) -> Change:
    return DELETE, name, encode_key(key), b""


def clear(name: str) -> Change:
    return CLEAR, name, b"", b""


def open_request(namespace: str = "bot", **fields: Any) -> Open:
    """What an outbox that is new to the world asks, unless `fields` say otherwise."""
    known: dict[str, Any] = {
        "identity": b"i" * 16, "life": 1, "attempt": 1, "boot_id": "boot", "host": "here", "pid": os.getpid(),
        "store_id": b"", "epoch": 0, "acked": 0, "last": 0,
    }  # fmt: skip
    return Open(namespace=namespace, **{**known, **fields})


class RawSession:
    """One outbox's worth of a namespace. Each request gets a fresh REQ socket if the one before was not answered."""

    def __init__(
        self, data_dir: str | os.PathLike[str], namespace: str = "bot", identity: bytes = b"", boot_id: str = "boot"
    ) -> None:
        self.data_dir = os.fspath(data_dir)
        self.namespace, self.identity, self.boot_id = namespace, identity or os.urandom(16), boot_id
        self.life, self.epoch, self.seq, self.store_id = 1, 0, 0, b""
        self._context: zmq.Context[Any] = zmq.Context()
        self._requests = self._deltas = None
        self.connect()

    def connect(self) -> None:
        """Connect to whoever serves the data directory now."""
        file = wait_until(lambda: read_endpoint_file(self.data_dir))
        endpoint = parse_endpoint(file.address)
        for socket in (self._requests, self._deltas):
            if socket is not None:
                socket.close(0)
        self._requests = self._context.socket(zmq.REQ)
        self._requests.connect(endpoint.requests)
        self._deltas = self._context.socket(zmq.PUSH)
        self._deltas.connect(endpoint.deltas)

    def __enter__(self) -> RawSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(0)

    # Requests

    def ask(self, request: Request | bytes) -> Reply:
        return self.ask_parts(request)[0]

    def ask_parts(self, request: Request | bytes) -> tuple[Reply, list[bytes]]:
        """Send one request, and wait for its reply and the parts behind it."""
        self._requests.send(request if isinstance(request, bytes) else encode(request))
        assert self._requests.poll(round(LONG * 1000)), "no reply"
        head, *parts = self._requests.recv_multipart()
        return decode_reply(head), parts

    def open_request(self, **fields: Any) -> Open:
        known: dict[str, Any] = {
            "identity": self.identity, "life": self.life, "boot_id": self.boot_id, "store_id": self.store_id,
            "epoch": self.epoch, "acked": self.seq, "last": self.seq, "namespace": self.namespace,
        }  # fmt: skip
        return open_request(**{**known, **fields})

    def open(self, **fields: Any) -> Opened:
        """Open, and remember what was said."""
        return self.open_state(**fields)[0]

    def open_state(self, **fields: Any) -> tuple[Opened, State]:
        """Open; the state as map -> key -> value's bytes."""
        reply, parts = self.ask_parts(self.open_request(**fields))
        assert isinstance(reply, Opened), reply
        self.epoch, self.seq, self.store_id = reply.epoch, reply.applied, reply.store_id
        self.life += 1
        return reply, state_of(reply, parts)

    def refused_open(self, **fields: Any) -> Refused:
        reply = self.ask(self.open_request(**fields))
        assert isinstance(reply, Refused), reply
        return reply

    def confirm(self, upto: int | None = None, wait: float = 1.0, **fields: Any) -> Reply:
        known: dict[str, Any] = {
            "namespace": self.namespace, "epoch": self.epoch, "store_id": self.store_id, "acked": 0,
            "upto": self.seq if upto is None else upto, "wait": wait,
        }  # fmt: skip
        return self.ask(Confirm(**{**known, **fields}))

    def flush(self) -> Confirmed:
        """Wait until everything sent is durable."""

        def durable() -> Confirmed | None:
            reply = self.confirm()
            assert isinstance(reply, Confirmed), reply
            return reply if reply.durable >= self.seq else None

        return wait_until(durable)

    def close(self) -> Reply:
        return self.ask(Close(namespace=self.namespace, epoch=self.epoch, upto=self.seq))

    def status(self) -> StatusReport:
        report = self.ask(Status())
        assert isinstance(report, StatusReport)
        return report

    # Deltas

    def put(self, *changes: Change) -> None:
        """One record with these changes, sent at once."""
        self.seq += 1
        self.send(self.seq - 1, [changes])

    def send(self, base: int, records: Sequence[Sequence[Change]], epoch: int | None = None) -> None:
        """A delta of records behind `base`, each of span 1."""
        at = self.epoch if epoch is None else epoch
        parts = [encode_record(base + n, at, 1, encode_changes(r)) for n, r in enumerate(records, 1)]
        head = Delta(namespace=self.namespace, epoch=at, base=base, upto=base + len(records))
        self.send_raw(encode(head), b"".join(parts))

    def send_raw(self, *parts: bytes) -> None:
        self._deltas.send_multipart(parts)


def state_of(opened: Opened, parts: list[bytes]) -> State:
    """The snapshot behind an `Opened`."""
    state: State = {}
    for index, one in enumerate(opened.maps):
        keys, values = decode_items(parts[3 * index : 3 * index + 3], one.entries)
        state[one.name] = dict(zip(decode_keys(keys), values, strict=True))
    return state
