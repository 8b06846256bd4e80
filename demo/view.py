"""What people see of a run: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.chaos import Kill
from demo.observe import Sight
from demo.prices import load_days
from demo.scene import progress
from supervisor.status_view import size

PLAIN_EVERY = 2.0  # seconds between plain lines
_LAST_KILLS = 6
_STATES = {"running": "green", "done": "bold blue", "starting": "yellow", "backoff": "yellow", "fatal": "bold red"}


class View(Protocol):
    """Shows a run while it lasts."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, now: float, sight: Sight, kills: Sequence[Kill]) -> None:
        """`now`: seconds since the start."""
        ...


def make_view(console: Console) -> View:
    return LiveView(console) if console.is_terminal else PlainView(console)


class LiveView:
    """A picture that is drawn again in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, now: float, sight: Sight, kills: Sequence[Kill]) -> None:
        self._live.update(picture(now, sight, kills), refresh=True)


class PlainView:
    """A line now and then, and one for each kill."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told, self._next = 0, 0.0

    def __enter__(self) -> PlainView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, now: float, sight: Sight, kills: Sequence[Kill]) -> None:
        for kill in kills[self._told :]:
            self._print(kill.at, "kill -9 " + _victims(kill))
        self._told = len(kills)
        if now >= self._next:
            self._next = now + PLAIN_EVERY
            self._print(now, plain_line(sight))

    def _print(self, now: float, text: str) -> None:
        self._console.print(f"{now:6.1f} s  {text}", markup=False, highlight=False, soft_wrap=True)


def plain_line(sight: Sight) -> str:
    """The picture in one line."""
    programs = sight.status.programs if sight.status is not None else []
    parts = [f"{p.name} {p.state} pid {p.pid or '-'}, restarts {p.restarts}, {size(p.rss)}" for p in programs]
    for name, books in sight.books.items():
        held = ", ".join(f"{symbol} {holding.quantity}" for symbol, holding in books.holdings.items()) or "flat"
        parts.append(f"{name} {_date(books.day)}: {held}, {len(books.open_orders)} open of {books.orders} orders")
    return " | ".join([*parts, _persistence_line(sight)])


def picture(now: float, sight: Sight, kills: Sequence[Kill]) -> RenderableType:
    killed = sum(len(kill.victims) for kill in kills)
    title = Text(f"Outlive: {now:.0f} s, {killed} processes killed in {len(kills)} strikes", style="bold")
    last = "\n".join(f"{kill.at:6.1f} s  kill -9 {_victims(kill)}" for kill in kills[-_LAST_KILLS:])
    return Group(title, _programs(sight), _accounts(sight), Text(_persistence_line(sight)), Text(last, style="red"))


def _programs(sight: Sight) -> Table:
    table = Table("process", "state", "pid", "restarts", "memory", title_justify="left")
    for program in sight.status.programs if sight.status is not None else []:
        state = Text(program.state, style=_STATES.get(program.state, ""))
        row = (str(program.pid or "-"), str(program.restarts), size(program.rss))
        table.add_row(program.name, state, *row)
    return table


def _accounts(sight: Sight) -> Table:
    table = Table("bot", "market day", "done", "position", "open orders", "orders", "realized")
    for name, books in sight.books.items():
        held = [f"{symbol} {h.quantity:+} at {h.entry_price:.2f}" for symbol, h in books.holdings.items()]
        resting = [
            f"{order.symbol} {order.side} {order.quantity} {order.type} {order.price or order.trigger_price or ''}"
            for order in books.open_orders
        ]
        table.add_row(
            name,
            _date(books.day),
            f"{progress(books.day):.0%}",
            "\n".join(held) or "flat",
            "\n".join(resting) or "none",
            str(books.orders),
            f"{books.realized_pnl:,.0f}",
        )
    return table


def _persistence_line(sight: Sight) -> str:
    totals, report = sight.totals, sight.report
    counted = f"{totals.saves} saves, {totals.received} changes, {totals.coalesced} coalesced, {totals.commits} commits"
    if report is None:
        return f"persistence is away; so far {counted}"
    return f"{counted}, change to disk {report.lag_last * 1000:.1f} ms (p99 {report.lag_p99 * 1000:.1f} ms)"


def _victims(kill: Kill) -> str:
    return " and ".join(f"{name} ({pid})" for name, pid in kill.victims)


def _date(day: int) -> str:
    return load_days()[day].date if day >= 0 else "not started"
