"""What a bot and the paper exchange say to each other (msgpack, tagged), and the records both keep.

One request, one reply. Orders travel as `PendingOrder`, the bot's own record: the venue fills in its side of it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias

import msgspec

from demo.prices import Day
from protocol.records import OrderSide, PendingOrder, Record


class Trade(Record):
    """One execution, as the venue tells it."""

    trade_id: str
    client_order_id: str
    symbol: str
    side: OrderSide
    quantity: Decimal
    price: Decimal
    fee: Decimal
    """Quote currency."""
    ts: int


class Account(Record):
    """Where a strategy stands in the replay, and what it is worth (quote currency)."""

    name: str
    day: int = -1
    """Newest day whose fills are applied and whose decisions are stored."""
    realized_pnl: Decimal = Decimal(0)
    equity: Decimal = Decimal(0)
    """At the last close, open positions included."""


# Requests


class Step(msgspec.Struct, frozen=True, tag="step"):
    """Move my clock to `day` and fill my resting orders from it. The same day again: the same answer."""

    account: str
    day: int


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """A new order. NOT idempotent: sent twice it is two orders, as at real venues."""

    account: str
    order: PendingOrder


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Cancel what is open under this client order id."""

    account: str
    client_order_id: str


class Lookup(msgspec.Struct, frozen=True, tag="lookup"):
    """What do you know under this client order id? Answered by every order that came with it."""

    account: str
    client_order_id: str


class History(msgspec.Struct, frozen=True, tag="history"):
    """The `count` days up to and including `day`."""

    day: int
    count: int


class Statement(msgspec.Struct, frozen=True, tag="statement"):
    """My books: clock, positions, open orders; with `full` also every trade and the count of each order id."""

    account: str
    full: bool = False


Request: TypeAlias = Step | Submit | Cancel | Lookup | History | Statement


# Replies


class Stepped(msgspec.Struct, frozen=True, kw_only=True, tag="stepped"):
    """What the day brought: its bars, this account's trades, and each order that changed, as it is now."""

    day: Day
    trades: list[Trade]
    orders: list[PendingOrder]


class Orders(msgspec.Struct, frozen=True, tag="orders"):
    """Zero or more orders, oldest first."""

    orders: list[PendingOrder]


class Days(msgspec.Struct, frozen=True, kw_only=True, tag="days"):
    days: list[Day]
    last: int
    """Index of the last day of the replay."""


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """The venue's view of a position. `quantity` is signed: negative is short."""

    quantity: Decimal
    entry_price: Decimal


class Books(msgspec.Struct, frozen=True, kw_only=True, tag="books"):
    """The venue's books of one account."""

    day: int
    holdings: dict[str, Holding]
    open_orders: list[PendingOrder]
    orders: int
    """Orders ever received."""
    duplicates: int
    """Of these, how many came under a client order id that had been used before."""
    realized_pnl: Decimal
    trades: list[Trade]
    """Empty unless asked for."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request makes no sense; nothing was changed."""

    message: str


Reply: TypeAlias = Stepped | Orders | Days | Books | Failed

encode = msgspec.msgpack.Encoder().encode
_request = msgspec.msgpack.Decoder(Step | Submit | Cancel | Lookup | History | Statement)
_reply = msgspec.msgpack.Decoder(Stepped | Orders | Days | Books | Failed)


def decode_request(data: bytes) -> Request:
    """Raises `msgspec.MsgspecError`."""
    request: Request = _request.decode(data)
    return request


def decode_reply(data: bytes) -> Reply:
    """Raises `msgspec.MsgspecError`."""
    reply: Reply = _reply.decode(data)
    return reply
