"""Mean reversion: bid below a market that fell too far (offer above one that rose too far), and wait for the mean.

Both ways out rest at the venue: a limit at the mean takes the profit, a stop limits the loss. Entries are good for a
day.
"""

from __future__ import annotations

from decimal import Decimal

from demo.strategy import CENT, Decision, View, Wish, deviation, entry_side, exit_side, mean, sized, true_range
from protocol.records import OrderType, Position, Side, TimeInForce

BAND_DAYS = 20
TREND_DAYS = 200
BAND = Decimal("1.2")  # deviations from the mean that are too far
BID_DISTANCE = Decimal("0.3")  # daily ranges between the close and the limit
STOP_RANGES = Decimal(3)
MAX_DAYS = 15  # calendar days in the market, then out
RISK = Decimal("0.015")
_DAY_NS = 24 * 3600 * 10**9


class Reversion:
    name = "reversion"

    def decide(self, view: View) -> Decision:
        if len(view.bars) < TREND_DAYS:
            return Decision()
        if view.position is not None:
            return _manage(view, view.position)
        return Decision() if view.entries else _enter(view)


def _enter(view: View) -> Decision:
    closes = [bar.close for bar in view.bars[-TREND_DAYS:]]
    close, band = closes[-1], closes[-BAND_DAYS:]
    middle, width, trend = mean(band), BAND * deviation(band), mean(closes)
    if close < middle - width and close > trend:
        side, sign = Side.LONG, -1
    elif close > middle + width and close < trend:
        side, sign = Side.SHORT, 1
    else:
        return Decision()
    reach = true_range(view.bars[-BAND_DAYS - 1 :])
    limit = (close + sign * BID_DISTANCE * reach).quantize(CENT)
    quantity = sized(RISK, STOP_RANGES * reach, limit, view.equity)
    wish = Wish("entry", entry_side(side), OrderType.LIMIT, quantity, limit, time_in_force=TimeInForce.DAY)
    return Decision(orders=[wish])


def _manage(view: View, position: Position) -> Decision:
    today = view.bars[-1]
    out = exit_side(position.side)
    if not view.exits:
        return _protect(view, position)
    if today.ts - position.ts_opened > MAX_DAYS * _DAY_NS and not _leaving(view):
        return Decision(
            cancel=[order.client_order_id for order in view.exits],
            orders=[Wish("timeout", out, OrderType.MARKET, position.quantity, reduce_only=True)],
        )
    return Decision()


def _protect(view: View, position: Position) -> Decision:
    sign = 1 if position.side is Side.LONG else -1
    reach = true_range(view.bars[-BAND_DAYS - 1 :])
    target = mean([bar.close for bar in view.bars[-BAND_DAYS:]])
    least = position.entry_price + sign * reach / 2  # never a target on the wrong side of the entry
    target = (max(target, least) if sign > 0 else min(target, least)).quantize(CENT)
    stop = (position.entry_price - sign * STOP_RANGES * reach).quantize(CENT)
    out, quantity = exit_side(position.side), position.quantity
    return Decision(
        orders=[
            Wish("stop", out, OrderType.STOP_MARKET, quantity, None, stop, True),
            Wish("target", out, OrderType.LIMIT, quantity, target, None, True),
        ],
        position=position.replace(stop_loss_price=stop, take_profit_price=target),
    )


def _leaving(view: View) -> bool:
    return any(order.type is OrderType.MARKET for order in view.exits)
