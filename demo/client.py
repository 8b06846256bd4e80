"""The bot's connection to the exchange.

Every request but a new order may be repeated, and is, until it is answered. A new order is sent once: when its answer
stays away, nobody knows whether it arrived, and `VenueTimeout` says so; the caller looks it up.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import zmq

from demo.books import ExchangeBooks
from demo.messages import (
    Books,
    Cancel,
    Days,
    Failed,
    History,
    Lookup,
    Orders,
    Reply,
    Request,
    Statement,
    Step,
    Stepped,
    Submit,
    decode_reply,
    encode,
)
from protocol.records import PendingOrder

TIMEOUT_MS = 2000
TRIES = 10
_T = TypeVar("_T")


class VenueTimeout(Exception):
    """The exchange did not answer; what was asked may or may not have happened."""


class VenueError(Exception):
    """The exchange refused the request."""


class Channel(Protocol):
    """How a request gets to the books and the reply back."""

    def ask(self, request: Request, tries: int = TRIES) -> Reply:
        """Raises `VenueTimeout` after `tries` time-outs."""
        ...


class SocketChannel:
    """Over a REQ socket, which is closed and opened again after a time-out."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket: zmq.Socket[bytes] | None = None

    def ask(self, request: Request, tries: int = TRIES) -> Reply:
        for _ in range(tries):
            socket = self._connected()
            socket.send(encode(request))
            if socket.poll(TIMEOUT_MS):
                return decode_reply(socket.recv())
            self.close()
        raise VenueTimeout(f"{self._address} did not answer {type(request).__name__}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            self._socket = zmq.Context.instance().socket(zmq.REQ)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.connect(self._address)
        return self._socket


class DirectChannel:
    """To books in this process: for tests, and for the run that nobody disturbs."""

    def __init__(self, books: ExchangeBooks) -> None:
        self._books = books

    def ask(self, request: Request, tries: int = TRIES) -> Reply:
        return self._books.answer(request)


class Venue:
    """The exchange as one account sees it."""

    def __init__(self, channel: Channel, account: str) -> None:
        self._channel = channel
        self._account = account

    def submit(self, order: PendingOrder) -> PendingOrder:
        """Send a new order, once. Raises `VenueTimeout` when nobody knows whether it arrived."""
        return self._expect(Orders, Submit(self._account, order), tries=1).orders[0]

    def lookup(self, client_order_id: str) -> list[PendingOrder]:
        """Every order that came under this id, oldest first."""
        return self._expect(Orders, Lookup(self._account, client_order_id)).orders

    def cancel(self, client_order_id: str) -> list[PendingOrder]:
        """Cancel what is open under this id; what there is under it now."""
        return self._expect(Orders, Cancel(self._account, client_order_id)).orders

    def step(self, day: int) -> Stepped:
        """Move this account's clock to `day`; the same day again gives the same answer."""
        return self._expect(Stepped, Step(self._account, day))

    def history(self, day: int, count: int) -> Days:
        return self._expect(Days, History(day, count))

    def statement(self, full: bool = False) -> Books:
        return self._expect(Books, Statement(self._account, full))

    def _expect(self, kind: type[_T], request: Request, tries: int = TRIES) -> _T:
        reply = self._channel.ask(request, tries)
        if isinstance(reply, Failed):
            raise VenueError(reply.message)
        if not isinstance(reply, kind):
            raise VenueError(f"{type(reply).__name__} is no answer to {type(request).__name__}")
        return reply
