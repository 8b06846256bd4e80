"""Twenty years of daily bars of two indices; see data/README.md for their source."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path

import msgspec

DATA = Path(__file__).with_name("data")
SYMBOLS = {"SPX": "sp500.csv", "COMP": "nasdaq.csv"}
DAY_NS = 24 * 3600 * 10**9
_CLOSING_HOUR = 21  # UTC; the bar is known then


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One trading day of one symbol. Prices in quote currency per unit."""

    ts: int
    """The close, ns UTC."""
    date: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """The bars of one trading day, by symbol."""

    index: int
    """0 is the first day of the replay."""
    bars: dict[str, Bar]

    @property
    def ts(self) -> int:
        return next(iter(self.bars.values())).ts

    @property
    def date(self) -> str:
        return next(iter(self.bars.values())).date


@cache
def load_days() -> tuple[Day, ...]:
    """All days, oldest first. Raises ValueError when the files don't list the same days."""
    columns = {symbol: _load_bars(DATA / name) for symbol, name in SYMBOLS.items()}
    days = []
    for index, row in enumerate(zip(*columns.values(), strict=True)):
        if len({bar.date for bar in row}) != 1:
            raise ValueError(f"the price files disagree about day {index}: {[bar.date for bar in row]}")
        days.append(Day(index=index, bars=dict(zip(columns, row, strict=True))))
    return tuple(days)


def _load_bars(path: Path) -> list[Bar]:
    with path.open(newline="") as file:
        return [_bar(row) for row in csv.DictReader(file)]


def _bar(row: dict[str, str]) -> Bar:
    closing = datetime.fromisoformat(row["date"]).replace(hour=_CLOSING_HOUR, tzinfo=UTC)
    prices = {name: Decimal(row[name]) for name in ("open", "high", "low", "close")}
    return Bar(ts=int(closing.timestamp()) * 10**9, date=row["date"], **prices)
