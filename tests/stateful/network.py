"""The network between pumps and the persistence process: what was sent waits here until it is delivered, lost,
duplicated or late, as the state machine likes.

Replies are never late: a REQ socket that gave up is closed, and what comes for it then is dropped by ZeroMQ.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from protocol.messages import Reply, Request, decode_reply, encode

Message = list[bytes]


class Network:
    """What is on its way. `up`: somebody listens."""

    def __init__(self) -> None:
        self.up = False
        self.deltas: list[Message] = []
        self.requests: list[tuple[bytes, bytes]] = []
        self.late_deltas: list[Message] = []
        self.late_requests: list[tuple[bytes, bytes]] = []
        self.wires: dict[bytes, Wire] = {}
        self._numbers = itertools.count(1)

    def address(self, wire: Wire) -> bytes:
        """A fresh socket's; the one before gets nothing more."""
        self.wires = {address: other for address, other in self.wires.items() if other is not wire}
        address = b"%s %d" % (wire.namespace.encode(), next(self._numbers))
        self.wires[address] = wire
        return address

    def reply(self, address: bytes, parts: Message) -> Reply:
        """What the persistence process says to somebody; gone if he has given up."""
        reply = decode_reply(parts[0])
        wire = self.wires.get(address)
        if wire is not None and wire.waiting:
            wire.replies.append((reply, parts[1:]))
        return reply

    def take_deltas(self) -> list[Message]:
        taken, self.deltas = self.deltas, []
        return taken

    def take_requests(self) -> list[tuple[bytes, bytes]]:
        taken, self.requests = self.requests, []
        return taken

    def server_gone(self) -> None:
        """Its peers notice: whoever waits for a reply asks again."""
        self.up = False
        for wire in list(self.wires.values()):
            wire.abandon()

    # Weather

    def lose(self, index: int) -> None:
        if self.deltas:
            del self.deltas[index % len(self.deltas)]
        elif self.requests:
            del self.requests[index % len(self.requests)]

    def duplicate(self, index: int) -> None:
        """A copy that arrives some day."""
        if self.deltas:
            self.late_deltas.append(self.deltas[index % len(self.deltas)])
        if self.requests:
            self.late_requests.append(self.requests[index % len(self.requests)])

    def delay(self, index: int) -> None:
        if self.deltas:
            self.late_deltas.append(self.deltas.pop(index % len(self.deltas)))
        if self.requests:
            self.late_requests.append(self.requests.pop(index % len(self.requests)))

    def arrive_late(self, index: int) -> None:
        """Behind everything that is on its way."""
        if self.late_deltas:
            self.deltas.append(self.late_deltas.pop(index % len(self.late_deltas)))
        if self.late_requests:
            self.requests.append(self.late_requests.pop(index % len(self.late_requests)))


class Wire:
    """What one session has of the network: its PUSH socket, and the client of its requests."""

    def __init__(self, network: Network, namespace: str) -> None:
        self._network, self.namespace = network, namespace
        self.waiting = False
        self.replies: list[tuple[Reply, Message]] = []

    # As a `DeltaSocket`

    def takes(self) -> bool:
        return self._network.up

    def send_delta(self, parts: Sequence[bytes]) -> bool:
        self._network.deltas.append([bytes(part) for part in parts])
        return True

    # As a `RequestClient`

    def send(self, request: Request) -> None:
        self.waiting = True
        address = self._network.address(self)
        if self._network.up:
            self._network.requests.append((address, encode(request)))

    def has_reply(self) -> bool:
        return bool(self.replies)

    def take_reply(self) -> tuple[Reply, Message] | None:
        if not self.replies:
            return None
        self.waiting = False
        return self.replies.pop(0)

    def abandon(self) -> None:
        self.waiting = False
        self.replies.clear()


def namespace_of(address: bytes) -> str:
    return address.split()[0].decode()
