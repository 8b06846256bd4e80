"""What a strategy is: a pure function of what its bot knows at the close of a day.

So after a crash the same day leads to the same decision, and the same decision has the same order ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple, Protocol

from demo.prices import Bar
from protocol.records import OrderSide, OrderType, PendingOrder, Position, Side, TimeInForce

CENT = Decimal("0.01")
LOT = Decimal("0.01")


class View(NamedTuple):
    """One symbol at the close of a day."""

    symbol: str
    bars: Sequence[Bar]
    """Up to and including this day, oldest first."""
    position: Position | None
    orders: Sequence[PendingOrder]
    """Open orders of the symbol, without those that are being cancelled."""
    equity: Decimal

    @property
    def entries(self) -> list[PendingOrder]:
        return [order for order in self.orders if not order.reduce_only]

    @property
    def exits(self) -> list[PendingOrder]:
        return [order for order in self.orders if order.reduce_only]


class Wish(NamedTuple):
    """An order that a strategy wants. `purpose` names it within its symbol and day."""

    purpose: str
    side: OrderSide
    type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    trigger_price: Decimal | None = None
    reduce_only: bool = False
    time_in_force: TimeInForce = TimeInForce.GTC


class Decision(NamedTuple):
    """What to do with one symbol; cancels come before new orders."""

    cancel: Sequence[str] = ()
    orders: Sequence[Wish] = ()
    position: Position | None = None
    """The position with its new stops, when they changed."""


class Strategy(Protocol):
    name: str

    def decide(self, view: View) -> Decision: ...


def entry_side(side: Side) -> OrderSide:
    return OrderSide.BUY if side is Side.LONG else OrderSide.SELL


def exit_side(side: Side) -> OrderSide:
    return OrderSide.SELL if side is Side.LONG else OrderSide.BUY


def sized(risk: Decimal, distance: Decimal, price: Decimal, equity: Decimal) -> Decimal:
    """Quantity that loses `risk` of the equity over `distance`, and costs at most half of the equity."""
    return min(equity * risk / distance, equity / 2 / price).quantize(LOT)


def mean(values: Sequence[Decimal]) -> Decimal:
    return sum(values, Decimal(0)) / len(values)


def deviation(values: Sequence[Decimal]) -> Decimal:
    middle = mean(values)
    return mean([(value - middle) ** 2 for value in values]).sqrt()


def true_range(bars: Sequence[Bar]) -> Decimal:
    """Mean daily range of the bars, gaps included."""
    pairs = pairwise(bars)
    return mean([max(bar.high, last.close) - min(bar.low, last.close) for last, bar in pairs])
