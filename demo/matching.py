"""How the paper exchange executes: pure functions of an order, a bar and a holding.

An order that arrives after a day's close is live from the next day's open: that is the latency of this venue in
market time. Within a bar the order of events is unknown, so stops are served before limits: the worse case for the bot.
"""

from __future__ import annotations

from decimal import Decimal

from demo.messages import Holding
from demo.prices import Bar
from protocol.records import OrderSide, OrderType, PendingOrder

CENT = Decimal("0.01")
AVERAGE = Decimal("0.000001")  # both sides round an average price to this
FEE_RATE = Decimal("0.0002")
SLIPPAGE = Decimal("0.0002")  # of orders that take liquidity
FULL_FILL_MARGIN = Decimal("0.001")  # a limit that the bar barely touches is filled by half

_SERVED = {OrderType.MARKET: 0, OrderType.STOP_MARKET: 1, OrderType.LIMIT: 2}


def serving_rank(order: PendingOrder) -> int:
    return _SERVED[order.type]


def refusal(order: PendingOrder) -> str | None:
    """Why this venue does not take the order, or None."""
    if order.type not in _SERVED:
        return f"order type {order.type} is not traded here"
    if order.quantity <= 0:
        return "quantity must be positive"
    if order.type is OrderType.LIMIT and order.price is None:
        return "a limit order needs a price"
    if order.type is OrderType.STOP_MARKET and order.trigger_price is None:
        return "a stop order needs a trigger price"
    return None


def execution(order: PendingOrder, bar: Bar) -> tuple[Decimal, Decimal] | None:
    """(price, quantity) at which `order` trades in `bar`, or None."""
    buys = order.side is OrderSide.BUY
    left = order.quantity - order.filled_quantity
    if order.type is OrderType.MARKET:
        return _slipped(bar.open, buys), left
    if order.type is OrderType.STOP_MARKET:
        assert order.trigger_price is not None
        if buys and bar.high >= order.trigger_price:
            return _slipped(max(bar.open, order.trigger_price), buys), left
        if not buys and bar.low <= order.trigger_price:
            return _slipped(min(bar.open, order.trigger_price), buys), left
        return None
    assert order.price is not None
    return _limit_execution(order, order.price, bar, left)


def _limit_execution(order: PendingOrder, limit: Decimal, bar: Bar, left: Decimal) -> tuple[Decimal, Decimal] | None:
    buys = order.side is OrderSide.BUY
    beyond = limit - bar.low if buys else bar.high - limit
    if beyond < 0:
        return None
    price = min(bar.open, limit) if buys else max(bar.open, limit)
    touched_only = beyond < limit * FULL_FILL_MARGIN and not order.reduce_only
    half = (order.quantity / 2).quantize(order.quantity)
    return price, min(left, half) if touched_only and half > 0 else left


def _slipped(price: Decimal, buys: bool) -> Decimal:
    return (price * (1 + SLIPPAGE if buys else 1 - SLIPPAGE)).quantize(CENT)


def fee(price: Decimal, quantity: Decimal) -> Decimal:
    return (price * quantity * FEE_RATE).quantize(CENT)


def average(price: Decimal, quantity: Decimal, more_price: Decimal, more_quantity: Decimal) -> Decimal:
    """Average price of two quantities of the same sign."""
    total = price * quantity + more_price * more_quantity
    return (total / (quantity + more_quantity)).quantize(AVERAGE)


def book(holding: Holding | None, signed: Decimal, price: Decimal) -> tuple[Holding | None, Decimal]:
    """The holding after trading `signed` at `price`, and what was realized (before fees)."""
    if holding is None:
        return Holding(quantity=signed, entry_price=price), Decimal(0)
    if (holding.quantity > 0) == (signed > 0):
        entry = average(holding.entry_price, holding.quantity, price, signed)
        return Holding(quantity=holding.quantity + signed, entry_price=entry), Decimal(0)
    closed = max(signed, -holding.quantity) if holding.quantity > 0 else min(signed, -holding.quantity)
    realized = (price - holding.entry_price) * -closed
    left, rest = holding.quantity + closed, signed - closed
    if rest:
        return Holding(quantity=rest, entry_price=price), realized
    return (Holding(quantity=left, entry_price=holding.entry_price) if left else None), realized
