"""The rules that stand above a strategy: pure functions on `RiskState` and `SymbolControl`.

* A day's loss over the limit halts trading until the next day.
* A drawdown over the limit throws the kill switch. It is latched: no restart and no good day lifts it. In the replay a
  rule plays the person who does: `review` lifts it when the lock that came with it has run out, and starts to count
  the drawdown anew.
* A trade that lost money blocks new entries in its symbol for a while.
"""

from __future__ import annotations

from decimal import Decimal

from demo.prices import DAY_NS
from protocol.records import OrderSide, RiskLimits, RiskLock, RiskState, SymbolControl, TradingState

START_EQUITY = Decimal(1_000_000)
LIMITS = RiskLimits(max_daily_loss=Decimal(25_000), max_drawdown=Decimal("0.15"))
COOLDOWN_NS = 5 * DAY_NS
REVIEW_NS = 60 * DAY_NS
_KEEPER = "risk"


def first_risk_state(scope: str) -> RiskState:
    return RiskState(scope=scope, day_start_equity=START_EQUITY, peak_equity=START_EQUITY, limits=LIMITS)


def on_day(risk: RiskState, date: str, equity: Decimal, ts: int) -> RiskState:
    """The state on `date`: unchanged within the day; a new day forgets the last one's loss, never a kill switch."""
    if risk.trading_day == date:
        return risk
    state = TradingState.HALTED if risk.kill_switch else TradingState.ACTIVE
    return risk.replace(
        trading_day=date, day_start_equity=equity, realized_pnl_day=Decimal(0), trading_state=state, ts_last=ts
    )


def on_trade(risk: RiskState, realized: Decimal, ts: int) -> RiskState:
    """`realized`: quote currency, fees included."""
    return risk.replace(realized_pnl_day=risk.realized_pnl_day + realized, ts_last=ts)


def on_round_trip(
    risk: RiskState, control: SymbolControl, realized: Decimal, ts: int
) -> tuple[RiskState, SymbolControl]:
    """A position was closed with this result in all."""
    if realized >= 0:
        return risk.replace(consecutive_losses=0, ts_last=ts), control
    control = control.replace(ts_cooldown_until=ts + COOLDOWN_NS, ts_last=ts)
    return risk.replace(consecutive_losses=risk.consecutive_losses + 1, ts_last=ts), control


def at_close(risk: RiskState, equity: Decimal, ts: int) -> RiskState:
    """Compare the day's close with the limits."""
    risk = risk.replace(peak_equity=max(risk.peak_equity, equity), ts_last=ts)
    limits = risk.limits
    drawdown = 1 - equity / risk.peak_equity
    if limits.max_drawdown is not None and drawdown > limits.max_drawdown and not risk.kill_switch:
        reason = f"drawdown of {drawdown:.1%} on {risk.trading_day}"
        return risk.replace(trading_state=TradingState.HALTED, kill_switch=True, kill_switch_reason=reason)
    if limits.max_daily_loss is not None and risk.day_start_equity - equity > limits.max_daily_loss:
        return risk.replace(trading_state=TradingState.HALTED)
    return risk


def locked(control: SymbolControl, reason: str, ts: int) -> SymbolControl:
    """Locked until somebody has had time to look."""
    lock = RiskLock(reason=reason, locked_by=_KEEPER, ts_until=ts + REVIEW_NS)
    return control.replace(
        buying_enabled=False, selling_enabled=False, disable_reasons=(reason,), risk_locks=(lock,), ts_last=ts
    )


def unlocked(control: SymbolControl, ts: int) -> SymbolControl:
    return control.replace(buying_enabled=True, selling_enabled=True, disable_reasons=(), risk_locks=(), ts_last=ts)


def is_due_for_review(control: SymbolControl, ts: int) -> bool:
    return any(lock.ts_until is not None and lock.ts_until <= ts for lock in control.risk_locks)


def reviewed(risk: RiskState, equity: Decimal, ts: int) -> RiskState:
    """What the person does after a kill switch."""
    return risk.replace(
        kill_switch=False,
        kill_switch_reason=None,
        trading_state=TradingState.ACTIVE,
        peak_equity=equity,
        ts_last=ts,
    )


def may_enter(risk: RiskState, control: SymbolControl, side: OrderSide, ts: int) -> bool:
    """Whether a new position may be opened by an order of this side."""
    enabled = control.buying_enabled if side is OrderSide.BUY else control.selling_enabled
    return risk.trading_state is TradingState.ACTIVE and enabled and ts >= control.ts_cooldown_until
