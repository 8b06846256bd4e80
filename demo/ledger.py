"""A bot's own bookkeeping of a trade: from a position and an execution to the next position."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from demo.matching import average
from demo.messages import Trade
from demo.prices import Bar
from demo.strategy import entry_side
from protocol.records import OrderSide, Position, Side


class Booked(NamedTuple):
    """Result of a trade. Money in quote currency, fees included."""

    position: Position | None
    realized: Decimal
    round_trip: Decimal | None
    """What the position brought in all, when this trade closed it."""


def booked(position: Position | None, trade: Trade) -> Booked:
    """Raises ValueError for a trade that would turn the position around: no strategy here sends one."""
    if position is None:
        return _opened(trade)
    if trade.trade_id in position.trade_ids:
        raise ValueError(f"trade {trade.trade_id} is already in the position of {trade.symbol}")
    if trade.side is entry_side(position.side):
        return _increased(position, trade)
    return _reduced(position, trade)


def _opened(trade: Trade) -> Booked:
    position = Position(
        symbol=trade.symbol,
        side=Side.LONG if trade.side is OrderSide.BUY else Side.SHORT,
        quantity=trade.quantity,
        entry_price=trade.price,
        realized_pnl=-trade.fee,
        opening_order_ids=(trade.client_order_id,),
        trade_ids=(trade.trade_id,),
        ts_opened=trade.ts,
        ts_last=trade.ts,
    )
    return Booked(position, -trade.fee, None)


def _increased(position: Position, trade: Trade) -> Booked:
    orders = dict.fromkeys((*position.opening_order_ids, trade.client_order_id))
    position = position.replace(
        quantity=position.quantity + trade.quantity,
        entry_price=average(position.entry_price, position.quantity, trade.price, trade.quantity),
        realized_pnl=position.realized_pnl - trade.fee,
        opening_order_ids=tuple(orders),
        trade_ids=(*position.trade_ids, trade.trade_id),
        ts_last=trade.ts,
    )
    return Booked(position, -trade.fee, None)


def _reduced(position: Position, trade: Trade) -> Booked:
    if trade.quantity > position.quantity:
        raise ValueError(f"trade {trade.trade_id} is larger than the position in {trade.symbol}")
    gain = trade.price - position.entry_price
    realized = (gain if position.side is Side.LONG else -gain) * trade.quantity - trade.fee
    total = position.realized_pnl + realized
    if trade.quantity == position.quantity:
        return Booked(None, realized, total)
    position = position.replace(
        quantity=position.quantity - trade.quantity,
        realized_pnl=total,
        trade_ids=(*position.trade_ids, trade.trade_id),
        ts_last=trade.ts,
    )
    return Booked(position, realized, None)


def unrealized(position: Position, bar: Bar) -> Decimal:
    """At the close of `bar`."""
    gain = bar.close - position.entry_price
    return (gain if position.side is Side.LONG else -gain) * position.quantity
