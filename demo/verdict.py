"""The verdict: what must be true after a run, however many processes were killed in it.

The bots' state is read as any Python program can read it: `pickle.load` of the files in the data directory.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from demo.books import ExchangeBooks
from demo.bot import STRATEGIES, Bot
from demo.chaos import Kill
from demo.client import DirectChannel, Venue
from demo.messages import Books
from demo.prices import load_days
from protocol.records import OrderStatus, PendingOrder, Side
from strategy_proc.testing import MemoryStore

MAPS = ("active_positions", "pending_orders", "symbol_controls", "risk_state", "account", "trades")
Maps = dict[str, dict[Any, Any]]


class Check(NamedTuple):
    """One line of the verdict."""

    what: str
    found: str
    holds: bool


class Run(NamedTuple):
    """The end of one bot's run: the exchange's books and the bot's own maps."""

    books: Books
    maps: Maps


def undisturbed_run(name: str) -> Run:
    """The whole replay in this process: the same bot, the same exchange, real maps in memory, and nobody kills."""
    exchange = ExchangeBooks()
    venue = Venue(DirectChannel(exchange), name)
    with MemoryStore().connect(name, verify=False) as state:
        bot = Bot(state, venue, STRATEGIES[name]())
        bot.start()
        while not bot.finished:
            bot.trade_day()
        run = Run(venue.statement(full=True), {map_name: dict(state.map(map_name)) for map_name in MAPS})
    exchange.close()
    return run


def stored_run(name: str, venue: Venue, state: Path) -> Run:
    """What a stopped run has left at the exchange and on disk."""
    return Run(venue.statement(full=True), {map_name: _load(state / name / f"{map_name}.pkl") for map_name in MAPS})


def _load(path: Path) -> dict[Any, Any]:
    """A map's file; a map that never had an entry has none, and the comparison with the exchange would tell."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        items: dict[Any, Any] = pickle.load(file)
    return items


def judge(
    runs: dict[str, Run], undisturbed: dict[str, Run], kills: Sequence[Kill], restarts: dict[str, int]
) -> list[Check]:
    """All checks, in the order in which they are read. `restarts`: of each program, as the supervisor counted."""
    killed = Counter(name for kill in kills for name, _ in kill.victims)
    others = {name: count - killed[name] for name, count in restarts.items() if count > killed[name]}
    survived = all(restarts.get(name, 0) >= count for name, count in killed.items())
    orders = sum(run.books.orders for run in runs.values())
    duplicates = sum(run.books.duplicates for run in runs.values())
    trades = sum(len(run.books.trades) for run in runs.values())
    checks = [
        Check("kills survived", f"{killed.total()} processes in {len(kills)} strikes", survived),
        Check("other deaths", ", ".join(f"{name} {count}" for name, count in others.items()) or "0", not others),
        Check("orders at the exchange", f"{orders}, {trades} trades", orders > 0 and trades > 0),
        Check("duplicates", str(duplicates), duplicates == 0),
    ]
    for name, run in runs.items():
        expected = undisturbed[name]
        days = run.books.day + 1
        checks += [
            Check(f"{name}: replay", f"{days} of {len(load_days())} days", days == len(load_days())),
            Check(f"{name}: state equal to the exchange's", *_agrees(run)),
            Check(f"{name}: trades equal to the undisturbed run", *_compared(run.books.trades, expected.books.trades)),
            Check(f"{name}: state equal to the undisturbed run", *_same_maps(run.maps, expected.maps)),
        ]
    return checks


def show_verdict(checks: Sequence[Check], console: Console) -> bool:
    """Print it; whether all of it holds."""
    table = Table("verdict", "", "", show_edge=False)
    for check in checks:
        table.add_row(check.what, escape(check.found), "[green]yes[/]" if check.holds else "[bold red]NO[/]")
    console.print(table)
    return all(check.holds for check in checks)


def _agrees(run: Run) -> tuple[str, bool]:
    """The bot's positions, open orders, trades and money against the exchange's."""
    books, maps = run.books, run.maps
    held = {
        symbol: (position.quantity if position.side is Side.LONG else -position.quantity, position.entry_price)
        for symbol, position in maps["active_positions"].items()
    }
    open_orders: dict[str, PendingOrder] = maps["pending_orders"]
    sent = {name: order.exchange_order_id for name, order in open_orders.items()}
    realized = sum((account.realized_pnl for account in maps["account"].values()), Decimal(0))
    differences = [
        what
        for what, same in {
            "positions": held == {s: (h.quantity, h.entry_price) for s, h in books.holdings.items()},
            "open orders": sent == {o.client_order_id: o.exchange_order_id for o in books.open_orders},
            "an order not sent": all(o.status is not OrderStatus.INITIALIZED for o in open_orders.values()),
            "trades": list(maps["trades"].values()) == books.trades,
            "money": realized == books.realized_pnl,
        }.items()
        if not same
    ]
    counts = f"{len(held)} positions, {len(sent)} open orders, {len(books.trades)} trades"
    return (f"differs in {', '.join(differences)}" if differences else counts), not differences


def _compared(trades: Sequence[Any], expected: Sequence[Any]) -> tuple[str, bool]:
    for at, (trade, other) in enumerate(zip(trades, expected, strict=False)):
        if trade != other:
            return f"trade {at + 1} is {trade}, not {other}", False
    return f"{len(trades)} of {len(expected)}", len(trades) == len(expected)


def _same_maps(maps: Maps, expected: Maps) -> tuple[str, bool]:
    different = [name for name in MAPS if maps[name] != expected[name]]
    entries = sum(len(items) for items in maps.values())
    return (
        f"differs in {', '.join(different)}" if different else f"{entries} entries in {len(MAPS)} maps"
    ), not different
