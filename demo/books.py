"""The paper exchange's books: what the outside world knows, kept in SQLite.

* One request is one transaction; it is committed before the answer leaves.
* Each account has a clock of its own, moved by its owner, day by day. So a bot that was dead for a while finds the
  market where it left it, and the trades of a run depend on nothing but the prices and the bot's orders.
* Nothing here protects a bot from itself: the same client order id sent twice is two orders, and both trade.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import msgspec

from demo.matching import average, book, execution, fee, refusal, serving_rank
from demo.messages import (
    Books,
    Cancel,
    Days,
    Failed,
    History,
    Holding,
    Lookup,
    Orders,
    Reply,
    Request,
    Statement,
    Step,
    Stepped,
    Submit,
    Trade,
)
from demo.prices import Day, load_days
from protocol.records import OrderSide, OrderStatus, PendingOrder, TimeInForce

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, day INTEGER, realized_pnl TEXT);
CREATE TABLE IF NOT EXISTS orders (account TEXT, number INTEGER, client_order_id TEXT, is_open INTEGER,
    day_changed INTEGER, data TEXT, PRIMARY KEY (account, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_id ON orders (account, client_order_id);
CREATE INDEX IF NOT EXISTS by_day ON orders (account, day_changed);
CREATE INDEX IF NOT EXISTS still_open ON orders (account) WHERE is_open;
CREATE TABLE IF NOT EXISTS trades (account TEXT, number INTEGER, day INTEGER, data TEXT,
    PRIMARY KEY (account, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS trades_by_day ON trades (account, day);
CREATE TABLE IF NOT EXISTS holdings (account TEXT, symbol TEXT, data TEXT, PRIMARY KEY (account, symbol));
"""
_order = msgspec.json.Decoder(PendingOrder)
_trade = msgspec.json.Decoder(Trade)
_holding = msgspec.json.Decoder(Holding)


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


class ExchangeBooks:
    """Answers requests; `path` is the SQLite file, None keeps the books in memory. Not thread-safe."""

    def __init__(self, path: Path | None = None, days: tuple[Day, ...] | None = None) -> None:
        self._days = load_days() if days is None else days
        self._db = sqlite3.connect(":memory:" if path is None else path, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _SCHEMA)

    def close(self) -> None:
        self._db.close()

    def answer(self, request: Request) -> Reply:
        """One request, one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            reply = self._answer(request)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        return reply

    def _answer(self, request: Request) -> Reply:
        match request:
            case Step():
                return self._step(request)
            case Submit():
                return self._submit(request)
            case Cancel():
                return self._cancel(request)
            case Lookup():
                return Orders(self._orders(request.account, "client_order_id = ?", request.client_order_id))
            case History():
                first = max(0, request.day - request.count + 1)
                return Days(days=list(self._days[first : request.day + 1]), last=len(self._days) - 1)
            case Statement():
                return self._statement(request)

    # Orders

    def _submit(self, request: Submit) -> Reply:
        self._clock(request.account)  # makes the account on first use
        number = self._count("orders", request.account) + 1
        reason = refusal(request.order)
        order = request.order.replace(
            exchange_order_id=f"{request.account}-{number}",
            status=OrderStatus.REJECTED if reason else OrderStatus.ACCEPTED,
            filled_quantity=Decimal(0),
            ts_last=request.order.ts_created,
        )
        self._db.execute(
            "INSERT INTO orders VALUES (?, ?, ?, ?, NULL, ?)",
            (request.account, number, order.client_order_id, reason is None, _text(order)),
        )
        return Orders([order])

    def _cancel(self, request: Cancel) -> Reply:
        for order in self._orders(request.account, "is_open AND client_order_id = ?", request.client_order_id):
            self._put_order(request.account, order.replace(status=OrderStatus.CANCELED))
        return Orders(self._orders(request.account, "client_order_id = ?", request.client_order_id))

    # The clock

    def _step(self, request: Step) -> Reply:
        clock = self._clock(request.account)
        if not (request.day in (clock, clock + 1) and 0 <= request.day < len(self._days)):
            return Failed(f"{request.account} is at day {clock} of {len(self._days)}, not before {request.day}")
        day = self._days[request.day]
        if request.day == clock + 1:
            self._db.execute("UPDATE accounts SET day = ? WHERE name = ?", (request.day, request.account))
            self._trade_day(request.account, day)
        changed = self._orders(request.account, "day_changed = ?", request.day)
        return Stepped(day=day, trades=self._trades(request.account, request.day), orders=changed)

    def _trade_day(self, account: str, day: Day) -> None:
        for order in sorted(self._orders(account, "is_open"), key=serving_rank):
            self._serve(account, order, day)
        holdings = self._holdings(account)
        for order in self._orders(account, "is_open"):
            if order.reduce_only and order.symbol not in holdings:
                self._put_order(account, order.replace(status=OrderStatus.CANCELED, ts_last=day.ts), day)
            elif order.time_in_force is TimeInForce.DAY:
                self._put_order(account, order.replace(status=OrderStatus.EXPIRED, ts_last=day.ts), day)

    def _serve(self, account: str, order: PendingOrder, day: Day) -> None:
        executed = execution(order, day.bars[order.symbol])
        if executed is None:
            return
        price, quantity = executed
        holding = self._holdings(account).get(order.symbol)
        if order.reduce_only:
            against = holding is not None and (holding.quantity > 0) == (order.side is OrderSide.SELL)
            quantity = min(quantity, abs(holding.quantity)) if holding is not None and against else Decimal(0)
        if quantity:
            self._execute(account, order, holding, price, quantity, day)

    def _execute(
        self,
        account: str,
        order: PendingOrder,
        holding: Holding | None,
        price: Decimal,
        quantity: Decimal,
        day: Day,
    ) -> None:
        number = self._count("trades", account) + 1
        trade = Trade(
            trade_id=f"{account}-t{number}",
            client_order_id=order.client_order_id,
            symbol=order.symbol,
            side=order.side,
            quantity=quantity,
            price=price,
            fee=fee(price, quantity),
            ts=day.ts,
        )
        row = (account, number, day.index, _text(trade))
        self._db.execute("INSERT INTO trades VALUES (?, ?, ?, ?)", row)
        signed = quantity if order.side is OrderSide.BUY else -quantity
        after, realized = book(holding, signed, price)
        self._put_holding(account, order.symbol, after)
        self._realize(account, realized - trade.fee)
        filled = order.filled_quantity + quantity
        done = filled == order.quantity or order.reduce_only
        before = order.average_price if order.average_price is not None else price
        filled_order = order.replace(
            filled_quantity=filled,
            average_price=average(before, order.filled_quantity, price, quantity),
            status=OrderStatus.FILLED if done else OrderStatus.PARTIALLY_FILLED,
            ts_last=day.ts,
        )
        self._put_order(account, filled_order, day)

    # Reading

    def _statement(self, request: Statement) -> Reply:
        account = request.account
        day = self._clock(account)
        orders = self._count("orders", account)
        distinct = "SELECT count(DISTINCT client_order_id) FROM orders WHERE account = ?"
        realized = self._db.execute("SELECT realized_pnl FROM accounts WHERE name = ?", (account,)).fetchone()[0]
        return Books(
            day=day,
            holdings=self._holdings(account),
            open_orders=self._orders(account, "is_open"),
            orders=orders,
            duplicates=orders - self._db.execute(distinct, (account,)).fetchone()[0],
            realized_pnl=Decimal(realized),
            trades=self._trades(account) if request.full else [],
        )

    def _clock(self, account: str) -> int:
        self._db.execute("INSERT OR IGNORE INTO accounts VALUES (?, -1, '0')", (account,))
        return int(self._db.execute("SELECT day FROM accounts WHERE name = ?", (account,)).fetchone()[0])

    def _count(self, table: str, account: str) -> int:
        query = f"SELECT coalesce(max(number), 0) FROM {table} WHERE account = ?"
        return int(self._db.execute(query, (account,)).fetchone()[0])

    def _orders(self, account: str, where: str, *values: object) -> list[PendingOrder]:
        query = f"SELECT data FROM orders WHERE account = ? AND {where} ORDER BY number"
        return [_order.decode(data) for (data,) in self._db.execute(query, (account, *values))]

    def _trades(self, account: str, day: int | None = None) -> list[Trade]:
        query = "SELECT data FROM trades WHERE account = ? AND day >= ? AND day <= ? ORDER BY number"
        first, last = (0, len(self._days)) if day is None else (day, day)
        return [_trade.decode(data) for (data,) in self._db.execute(query, (account, first, last))]

    def _holdings(self, account: str) -> dict[str, Holding]:
        query = "SELECT symbol, data FROM holdings WHERE account = ? ORDER BY symbol"
        return {symbol: _holding.decode(data) for symbol, data in self._db.execute(query, (account,))}

    # Writing

    def _put_order(self, account: str, order: PendingOrder, day: Day | None = None) -> None:
        """`day` is given when the market changed the order, not its owner: only that is news to tell in a step."""
        number = int(str(order.exchange_order_id).rpartition("-")[2])
        news: Iterable[object] = () if day is None else (day.index,)
        self._db.execute(
            f"UPDATE orders SET is_open = ?, data = ?{', day_changed = ?' if day else ''}"
            " WHERE account = ? AND number = ?",
            (not order.status.is_settled, _text(order), *news, account, number),
        )

    def _put_holding(self, account: str, symbol: str, holding: Holding | None) -> None:
        self._db.execute("DELETE FROM holdings WHERE account = ? AND symbol = ?", (account, symbol))
        if holding is not None:
            self._db.execute("INSERT INTO holdings VALUES (?, ?, ?)", (account, symbol, _text(holding)))

    def _realize(self, account: str, money: Decimal) -> None:
        row = self._db.execute("SELECT realized_pnl FROM accounts WHERE name = ?", (account,)).fetchone()
        total = str(Decimal(row[0]) + money)
        self._db.execute("UPDATE accounts SET realized_pnl = ? WHERE name = ?", (total, account))
