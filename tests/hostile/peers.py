"""Peers without manners: raw bytes on a socket of ours, ZMTP spoken by hand, and ZeroMQ sockets of the wrong kind."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from typing import Any

import zmq

from tests.waiting import wait_until

SECONDS = 10.0  # for a reply of the kernel's or of libzmq's; a deadline, no measure
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)  # ZMTP 3.0, 64 bytes


def raw(address: str) -> socket.socket:
    """A connected socket of the kernel's, for ipc or tcp."""
    scheme, _, place = address.partition("://")
    if scheme == "ipc":
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.settimeout(SECONDS)
        wait_until(lambda: _connects(one, place), SECONDS, "being let in")
        return one
    host, _, port = place.rpartition(":")
    return socket.create_connection((host, int(port)), SECONDS)


def _connects(one: socket.socket, place: str) -> bool:
    """False while the queue of those who want in is full, which for TCP the kernel waits out by itself."""
    try:
        one.connect(place)
    except BlockingIOError:
        return False
    return True


def frame(body: bytes, flags: int = 0) -> bytes:
    """A ZMTP 3 frame. Flags: 1 more, 4 command."""
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | 2]) + len(body).to_bytes(8, "big") + body


def ready(kind: str, **properties: bytes) -> bytes:
    """The command that ends a handshake."""
    body = b"\x05READY"
    for name, value in {"Socket-Type": kind.encode(), **properties}.items():
        body += bytes([len(name)]) + name.encode() + len(value).to_bytes(4, "big") + value
    return frame(body, 4)


def zmtp(address: str, kind: str) -> socket.socket:
    """A peer that has shaken hands by itself, and may now send what it likes. Costs no thread and no ZeroMQ."""
    one = raw(address)
    one.sendall(GREETING + ready(kind))
    heard = b""
    while len(heard) < 64 or b"READY" not in heard:
        chunk = one.recv(4096)
        if not chunk:
            raise ConnectionError("refused in the handshake")
        heard += chunk
    return one


def is_dropped(one: socket.socket) -> bool:
    """Wait until the other side has closed the connection; false if it has not within the deadline."""
    try:
        while one.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


SHAKEN = GREETING + ready("DEALER")
RUDE = [
    b"", b"\0", b"\xff", b"\xff\0\0\0\0\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
    b"\x01\x00", b"\x01\x7f", b"\x06\x00hello", b"\x01\x00\x05\x00hell", b"\xff\0\0\0\0\0\0\0\x01\x7f",  # ZMTP 1
    b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x05\x00\x00", b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x06\x00\x05hello",  # ZMTP 2
    GREETING[:20], GREETING, GREETING.replace(b"NULL", b"PLAI"), GREETING.replace(b"NULL", b"EVIL"),
    GREETING[:10] + b"\x04\x09" + GREETING[12:], GREETING[:10] + b"\0\0" + GREETING[12:],
    GREETING + b"\x04\xff", GREETING + frame(b"\x05READY", 4), GREETING + frame(b"\x05ERROR\xff", 4),
    GREETING + frame(b"\x05READY\x0bSocket-Type\xff\xff\xff\xff", 4), GREETING + ready("NOTHING"),
    GREETING + ready("PULL"), GREETING + ready("ROUTER"), GREETING + ready("DEALER", Identity=b"i" * 300),
    GREETING + ready("PUSH", Identity=b""), GREETING + frame(b"message before the handshake"),
    SHAKEN + b"\x02" + b"\xff" * 8, SHAKEN + b"\x02" + (2**30 + 1).to_bytes(8, "big"), SHAKEN + b"\x40\x05hello",
    SHAKEN + b"\x06" + (2**62).to_bytes(8, "big"), SHAKEN + frame(b"\x04PING\0\0" + b"c" * 200, 4),
    SHAKEN + frame(b"\x09SUBSCRIBE", 4), SHAKEN + b"\x01\x00" * 500, SHAKEN + b"\x01\x05part",
]  # fmt: skip
"""What a stranger, an old program or a broken one says first, and then leaves."""


@contextlib.contextmanager
def zeromq(address: str, kind: int, linger: int = 0, **options: Any) -> Iterator[zmq.Socket[bytes]]:
    """A ZeroMQ socket of any kind, connected. `linger`: ms for what is not sent yet when the block ends."""
    with zmq.Context() as context, context.socket(kind) as one:
        one.linger = linger
        for name, value in options.items():
            setattr(one, name, value)
        one.connect(address)
        yield one
        one.close()


def garbage(chance: random.Random) -> list[bytes]:
    """A message of some parts of nothing."""
    return [chance.randbytes(chance.choice((0, 1, 5, 40, 300))) for _ in range(chance.randrange(1, 12))]
