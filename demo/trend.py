"""Trend following: buy new highs, sell new lows short, and let a trailing stop end the trade."""

from __future__ import annotations

from decimal import Decimal

from demo.strategy import CENT, Decision, View, Wish, entry_side, exit_side, sized, true_range
from protocol.records import OrderType, Position, Side, TrailingStop

CHANNEL = 100  # days; a close beyond the extremes of the days before is a break-out
RANGE_DAYS = 20
STOP_RANGES = Decimal(4)  # distance of the stop, in daily ranges
MIN_MOVE = Decimal("0.25")  # of the offset: a smaller move of the stop isn't worth an order
RISK = Decimal("0.03")


class Trend:
    name = "trend"

    def decide(self, view: View) -> Decision:
        if len(view.bars) <= CHANNEL:
            return Decision()
        if view.position is not None:
            return _follow(view, view.position)
        return Decision() if view.entries else _enter(view)


def _enter(view: View) -> Decision:
    today, before = view.bars[-1], view.bars[-CHANNEL - 1 : -1]
    if today.close > max(bar.high for bar in before):
        side = Side.LONG
    elif today.close < min(bar.low for bar in before):
        side = Side.SHORT
    else:
        return Decision()
    quantity = sized(RISK, _offset(view), today.close, view.equity)
    return Decision(orders=[Wish("entry", entry_side(side), OrderType.MARKET, quantity)])


def _follow(view: View, position: Position) -> Decision:
    """Raise the watermark, and move the stop at the venue when it is worth it."""
    trailing = position.trailing_stop or TrailingStop(offset=_offset(view), active=True)
    long = position.side is Side.LONG
    today = view.bars[-1]
    best = today.high if long else today.low
    if trailing.watermark is not None:
        best = max(best, trailing.watermark) if long else min(best, trailing.watermark)
    trailing = trailing.replace(watermark=best)
    stop = best - trailing.offset if long else best + trailing.offset
    placed = view.exits
    current = position.stop_loss_price
    if placed and current is not None and abs(stop - current) < MIN_MOVE * trailing.offset:
        return Decision(position=position.replace(trailing_stop=trailing))
    wish = Wish("stop", exit_side(position.side), OrderType.STOP_MARKET, position.quantity, None, stop, True)
    return Decision(
        cancel=[order.client_order_id for order in placed],
        orders=[wish],
        position=position.replace(trailing_stop=trailing, stop_loss_price=stop),
    )


def _offset(view: View) -> Decimal:
    return (true_range(view.bars[-RANGE_DAYS - 1 :]) * STOP_RANGES).quantize(CENT)
