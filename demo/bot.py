"""A crash-safe bot: `python -m demo.bot trend|reversion`, under the supervisor.

It may be killed between any two lines. What makes that harmless:

* An order's intent (INITIALIZED, with its final client order id) is stored durably before the order is sent.
* After a restart every order that is not settled is looked up at the exchange before anything is sent; only what the
  exchange does not know is sent.
* A fill is one transaction: the trade's id, the order, the position, the money and the risk state, or none of them.
  A trade whose id is stored is not applied again.
* A day's decisions and the day's number are one transaction. Before it the day is lived again, with the same result,
  because the exchange's answer and the strategy are deterministic; after it the orders are only carried out.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import AbstractContextManager
from decimal import Decimal
from types import FrameType
from typing import Any, Protocol

from demo import risk as rules
from demo.client import SocketChannel, Venue, VenueTimeout
from demo.ledger import booked, unrealized
from demo.messages import Account, Stepped, Trade
from demo.prices import SYMBOLS, Bar, Day
from demo.reversion import Reversion
from demo.strategy import Decision, Strategy, View, Wish, exit_side
from demo.trend import Trend
from protocol.records import (
    OrderStatus,
    OrderType,
    PendingOrder,
    Position,
    RiskState,
    SymbolControl,
)

STRATEGIES: dict[str, Callable[[], Strategy]] = {"trend": Trend, "reversion": Reversion}
WINDOW = 210  # days of history that a strategy sees
SECOND_LOOK = 0.1  # seconds; an order of the life before may still be on the wire
BEAT_EVERY = 0.5  # seconds


class State(Protocol):
    """What the bot needs of a session of `strategy_proc`."""

    def map(self, name: str, kind: Any, /) -> MutableMapping[str, Any]: ...

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[object]: ...


class Bot:
    """One strategy, its state, and its account at the exchange."""

    def __init__(self, state: State, venue: Venue, strategy: Strategy, second_look: float = SECOND_LOOK) -> None:
        self._state, self._venue, self._strategy = state, venue, strategy
        self._second_look = second_look
        self.positions: MutableMapping[str, Position] = state.map("active_positions", Position)
        self.orders: MutableMapping[str, PendingOrder] = state.map("pending_orders", PendingOrder)
        self.controls: MutableMapping[str, SymbolControl] = state.map("symbol_controls", SymbolControl)
        self.risks: MutableMapping[str, RiskState] = state.map("risk_state", RiskState)
        self.accounts: MutableMapping[str, Account] = state.map("account", Account)
        self.trades: MutableMapping[str, Trade] = state.map("trades", Trade)
        self._bars: dict[str, deque[Bar]] = {symbol: deque(maxlen=WINDOW) for symbol in SYMBOLS}
        self._last_day = -1
        self.found_again = self.sent_again = 0
        """Intents of the life before that the exchange turned out to have, and those that it had not."""

    # One life

    def start(self) -> None:
        """Make the first state if there is none, settle what the life before left open, learn the history."""
        name = self._strategy.name
        if name not in self.accounts:
            with self._state.transaction():
                self.accounts[name] = Account(name=name, equity=rules.START_EQUITY)
                self.risks[name] = rules.first_risk_state(name)
                for symbol in SYMBOLS:
                    self.controls[symbol] = SymbolControl(symbol=symbol)
        self._settle()
        history = self._venue.history(self.account.day, WINDOW)
        self._last_day = history.last
        for day in history.days:
            self._remember(day)

    @property
    def account(self) -> Account:
        return self.accounts[self._strategy.name]

    @property
    def finished(self) -> bool:
        """Whether the replay is over."""
        return self.account.day == self._last_day

    @property
    def progress(self) -> float:
        """Part of the replay that is done, 0 to 1."""
        return (self.account.day + 1) / (self._last_day + 1)

    def trade_day(self) -> None:
        """Live through the next day: fills, decisions, orders."""
        stepped = self._venue.step(self.account.day + 1)
        for order, fills in _in_order_of_trades(stepped):
            self._apply(order, fills, stepped.day)
        self._remember(stepped.day)
        self._close_day(stepped.day)
        self._carry_out()

    def _remember(self, day: Day) -> None:
        for symbol, bar in day.bars.items():
            self._bars[symbol].append(bar)

    # Orders and the exchange

    def _settle(self) -> None:
        """Ask the exchange about every order that is not settled, then go on where the life before stopped."""
        for order in list(self.orders.values()):
            found = self._look_up(order)
            if order.status is OrderStatus.INITIALIZED:
                self.found_again += bool(found)
                self.sent_again += not found
            if order.status is OrderStatus.PENDING_CANCEL:
                continue
            if found:  # its fills come with the day they belong to
                number = found[0].exchange_order_id
                status = OrderStatus.REJECTED if found[0].status is OrderStatus.REJECTED else OrderStatus.ACCEPTED
                self._note(order.replace(exchange_order_id=number, status=status))
            elif order.exchange_order_id is None:
                self._note(order.replace(status=OrderStatus.INITIALIZED))
        self._carry_out()

    def _look_up(self, order: PendingOrder) -> list[PendingOrder]:
        found = self._venue.lookup(order.client_order_id)
        if not found and self._second_look:
            time.sleep(self._second_look)
            found = self._venue.lookup(order.client_order_id)
        return found

    def _carry_out(self) -> None:
        """Do at the exchange what is stored as meant: cancels first, then new orders, in the order of the intents."""
        meant = list(self.orders.values())
        for order in meant:
            if order.status is OrderStatus.PENDING_CANCEL:
                self._venue.cancel(order.client_order_id)
                del self.orders[order.client_order_id]
        for order in meant:
            now = self.orders.get(order.client_order_id)
            if now is not None and now.status is OrderStatus.INITIALIZED:  # a lost answer may have settled it already
                self._send(now)

    def _send(self, order: PendingOrder) -> None:
        try:
            self._note(self._venue.submit(order))
        except VenueTimeout:
            self._note(order.replace(status=OrderStatus.UNKNOWN))
            self._settle()

    def _note(self, order: PendingOrder) -> None:
        """Store what is known of an order now; settled without a fill means gone."""
        if order.status.is_settled:
            del self.orders[order.client_order_id]
        elif self.orders.get(order.client_order_id) != order:
            self.orders[order.client_order_id] = order

    # Fills

    def _apply(self, order: PendingOrder, trades: list[Trade], day: Day) -> None:
        """One order's news of a day, in one transaction; nothing if it was applied before."""
        fresh = [trade for trade in trades if trade.trade_id not in self.trades]
        if not fresh and order.client_order_id not in self.orders:
            return
        with self._state.transaction():
            for trade in fresh:
                self._book(trade, day)
            if order.status.is_settled:
                self.orders.pop(order.client_order_id, None)
            else:
                self.orders[order.client_order_id] = order

    def _book(self, trade: Trade, day: Day) -> None:
        self.trades[trade.trade_id] = trade
        result = booked(self.positions.get(trade.symbol), trade)
        if result.position is None:
            del self.positions[trade.symbol]
        else:
            self.positions[trade.symbol] = result.position
        account = self.account
        risk = rules.on_trade(self._risk_on(day), result.realized, trade.ts)
        if result.round_trip is not None:
            control = self.controls[trade.symbol]
            risk, self.controls[trade.symbol] = rules.on_round_trip(risk, control, result.round_trip, trade.ts)
        self.risks[account.name] = risk
        self.accounts[account.name] = account.replace(realized_pnl=account.realized_pnl + result.realized)

    def _risk_on(self, day: Day) -> RiskState:
        return rules.on_day(self.risks[self._strategy.name], day.date, self.account.equity, day.ts)

    # Decisions

    def _close_day(self, day: Day) -> None:
        """Risk, then decisions: one transaction, durable when it means orders."""
        account = self.account
        open_gains = (unrealized(held, day.bars[held.symbol]) for held in self.positions.values())
        equity = rules.START_EQUITY + account.realized_pnl + sum(open_gains, Decimal(0))
        before = self._risk_on(day)
        risk = rules.at_close(before, equity, day.ts)
        controls = dict(self.controls)
        if risk.kill_switch and not before.kill_switch:
            reason = str(risk.kill_switch_reason)
            controls = {symbol: rules.locked(control, reason, day.ts) for symbol, control in controls.items()}
        elif any(rules.is_due_for_review(control, day.ts) for control in controls.values()):
            risk = rules.reviewed(risk, equity, day.ts)
            controls = {symbol: rules.unlocked(control, day.ts) for symbol, control in controls.items()}
        decisions = {symbol: self._decide(symbol, risk, controls[symbol], equity, day.ts) for symbol in SYMBOLS}
        with self._state.transaction(durable=any(d.orders or d.cancel for d in decisions.values())):
            for symbol, decision in decisions.items():
                self._store(symbol, decision, day)
            for symbol, control in controls.items():
                if self.controls[symbol] != control:
                    self.controls[symbol] = control
            self.risks[account.name] = risk
            self.accounts[account.name] = account.replace(day=day.index, equity=equity)

    def _decide(self, symbol: str, risk: RiskState, control: SymbolControl, equity: Decimal, ts: int) -> Decision:
        orders = [order for order in self.orders.values() if order.symbol == symbol]
        position = self.positions.get(symbol)
        if risk.kill_switch:
            return _leave(position, orders)
        decision = self._strategy.decide(View(symbol, list(self._bars[symbol]), position, orders, equity))
        allowed = [
            wish for wish in decision.orders if wish.reduce_only or rules.may_enter(risk, control, wish.side, ts)
        ]
        return decision._replace(orders=allowed)

    def _store(self, symbol: str, decision: Decision, day: Day) -> None:
        for client_order_id in decision.cancel:
            cancelled = self.orders[client_order_id].replace(status=OrderStatus.PENDING_CANCEL, ts_last=day.ts)
            self.orders[client_order_id] = cancelled
        intents = [self._intent(symbol, wish, day) for wish in decision.orders]
        for intent in intents:
            self.orders[intent.client_order_id] = intent
        position = decision.position or self.positions.get(symbol)
        protective = tuple(intent.client_order_id for intent in intents if intent.reduce_only)
        if position is not None and protective:
            position = position.replace(protective_order_ids=protective)
        if position is not None and position != self.positions.get(symbol):
            self.positions[symbol] = position.replace(ts_last=day.ts)

    def _intent(self, symbol: str, wish: Wish, day: Day) -> PendingOrder:
        """The signal names the order, so that one signal is one order, however often it is seen."""
        signal_key = f"{symbol}:{day.date}:{wish.purpose}"
        return PendingOrder(
            client_order_id=f"{self._strategy.name}:{signal_key}",
            symbol=symbol,
            side=wish.side,
            type=wish.type,
            quantity=wish.quantity,
            price=wish.price,
            trigger_price=wish.trigger_price,
            time_in_force=wish.time_in_force,
            reduce_only=wish.reduce_only,
            signal_key=signal_key,
            ts_created=day.ts,
            ts_last=day.ts,
        )


def _in_order_of_trades(stepped: Stepped) -> list[tuple[PendingOrder, list[Trade]]]:
    """Each changed order with its trades, in the order in which the exchange executed; without trades last."""
    fills: dict[str, list[Trade]] = {}
    for trade in stepped.trades:
        fills.setdefault(trade.client_order_id, []).append(trade)
    ranks = {client_order_id: rank for rank, client_order_id in enumerate(fills)}
    orders = sorted(stepped.orders, key=lambda order: ranks.get(order.client_order_id, len(ranks)))
    return [(order, fills.get(order.client_order_id, [])) for order in orders]


def _leave(position: Position | None, orders: Iterable[PendingOrder]) -> Decision:
    """The kill switch: everything off, and out at the market."""
    leaving = [order for order in orders if order.type is OrderType.MARKET and order.reduce_only]
    cancel = [order.client_order_id for order in orders if order not in leaving]
    if position is None or leaving:
        return Decision(cancel=cancel)
    out = Wish("leave", exit_side(position.side), OrderType.MARKET, position.quantity, reduce_only=True)
    return Decision(cancel=cancel, orders=[out])


class Pace:
    """Spreads the replay over `seconds` from `start` (Unix time), which a restarted bot shares: it catches up."""

    def __init__(self, start: float, seconds: float) -> None:
        self._start, self._seconds = start, seconds
        self.stopping = False

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def wait(self, progress: float, beat: Callable[[], object]) -> None:
        due = self._start + progress * self._seconds
        while not self.stopping and (left := due - time.time()) > 0:
            time.sleep(min(left, BEAT_EVERY))
            beat()


def main() -> None:
    from strategy_proc import connect

    if len(sys.argv) != 2 or sys.argv[1] not in STRATEGIES or "DEMO_EXCHANGE" not in os.environ:
        sys.exit(f"usage: python -m demo.bot {'|'.join(STRATEGIES)}, with the exchange's address in DEMO_EXCHANGE")
    strategy = STRATEGIES[sys.argv[1]]()
    pace = Pace(float(os.environ.get("DEMO_START", "0")), float(os.environ.get("DEMO_SECONDS", "0")))
    signal.signal(signal.SIGTERM, pace.stop)
    with connect() as state:
        print(f"{strategy.name}: {state.recovered}", flush=True)
        bot = Bot(state, Venue(SocketChannel(os.environ["DEMO_EXCHANGE"]), strategy.name), strategy)
        bot.start()
        if bot.found_again or bot.sent_again:
            found, sent = bot.found_again, bot.sent_again
            print(
                f"{strategy.name}: killed while sending: {found} orders found at the exchange, {sent} sent now",
                flush=True,
            )
        beaten = 0.0
        while not (bot.finished or pace.stopping):
            bot.trade_day()
            if time.monotonic() - beaten > BEAT_EVERY:
                state.beat()
                beaten = time.monotonic()
            pace.wait(bot.progress, state.beat)
    print(f"{strategy.name}: {'the replay is over' if bot.finished else 'stopped'}", flush=True)


if __name__ == "__main__":
    main()
