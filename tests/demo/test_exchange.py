"""The paper exchange: it fills from the bars, remembers everything, and protects nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from demo.books import ExchangeBooks
from demo.client import DirectChannel, SocketChannel, Venue, VenueError
from demo.messages import Step
from demo.prices import load_days
from protocol.records import OrderSide, OrderStatus, OrderType, PendingOrder, TimeInForce

BAR = load_days()[1].bars["SPX"]  # open 1228.10, high 1246.11, low 1228.10, close 1244.78


def an_order(name: str = "a", **fields: object) -> PendingOrder:
    basic: dict[str, object] = {
        "client_order_id": name,
        "symbol": "SPX",
        "side": OrderSide.BUY,
        "type": OrderType.MARKET,
        "quantity": Decimal("2.00"),
    }
    return PendingOrder(**{**basic, **fields})  # type: ignore[arg-type]


def test_the_same_client_order_id_sent_twice_is_executed_twice(venue: Venue) -> None:
    venue.step(0)
    venue.submit(an_order())
    venue.submit(an_order())
    assert [trade.client_order_id for trade in venue.step(1).trades] == ["a", "a"]
    books = venue.statement()
    assert (books.orders, books.duplicates, books.holdings["SPX"].quantity) == (2, 1, Decimal("4.00"))
    assert len(venue.lookup("a")) == 2


def test_an_unknown_order_id_is_answered_by_no_orders(venue: Venue) -> None:
    assert venue.lookup("never sent") == []


def test_an_order_is_live_from_the_next_day_on(venue: Venue) -> None:
    venue.step(0)
    accepted = venue.submit(an_order())
    assert accepted.status is OrderStatus.ACCEPTED
    (trade,) = venue.step(1).trades
    assert trade.price == (BAR.open * Decimal("1.0002")).quantize(Decimal("0.01"))


def test_the_same_step_again_gives_the_same_answer(venue: Venue) -> None:
    venue.step(0)
    venue.submit(an_order())
    assert venue.step(1) == venue.step(1)
    assert len(venue.statement(full=True).trades) == 1


def test_a_step_too_far_is_refused(venue: Venue) -> None:
    venue.step(0)
    with pytest.raises(VenueError, match="at day 0"):
        venue.step(2)


@pytest.mark.parametrize(
    ("kind", "side", "level", "price"),
    [
        (OrderType.LIMIT, OrderSide.BUY, "1240", "1228.10"),  # the open is better than the limit
        (OrderType.LIMIT, OrderSide.BUY, "1228.09", None),
        (OrderType.LIMIT, OrderSide.SELL, "1240", "1240"),
        (OrderType.LIMIT, OrderSide.SELL, "1246.12", None),
        (OrderType.STOP_MARKET, OrderSide.BUY, "1240", "1240.25"),
        (OrderType.STOP_MARKET, OrderSide.BUY, "1246.12", None),
        (OrderType.STOP_MARKET, OrderSide.SELL, "1230", "1227.85"),  # opened below the trigger
        (OrderType.STOP_MARKET, OrderSide.SELL, "1228.09", None),
    ],
)
def test_limits_and_stops_trade_where_the_bar_allows(
    venue: Venue, kind: OrderType, side: OrderSide, level: str, price: str | None
) -> None:
    venue.step(0)
    field = "price" if kind is OrderType.LIMIT else "trigger_price"
    venue.submit(an_order(type=kind, side=side, **{field: Decimal(level)}))
    trades = venue.step(1).trades
    assert [trade.price for trade in trades] == ([] if price is None else [Decimal(price)])


def test_a_limit_that_is_barely_touched_is_filled_by_half_and_a_day_order_expires(venue: Venue) -> None:
    venue.step(0)
    order = an_order(type=OrderType.LIMIT, side=OrderSide.SELL, price=Decimal(1246), time_in_force=TimeInForce.DAY)
    venue.submit(order)
    stepped = venue.step(1)
    assert [trade.quantity for trade in stepped.trades] == [Decimal("1.00")]
    assert [(o.status, o.filled_quantity) for o in stepped.orders] == [(OrderStatus.EXPIRED, Decimal("1.00"))]


def test_what_only_reduces_does_nothing_without_a_position(venue: Venue) -> None:
    venue.step(0)
    venue.submit(an_order(reduce_only=True))
    stepped = venue.step(1)
    assert not stepped.trades
    assert [order.status for order in stepped.orders] == [OrderStatus.CANCELED]


def test_when_stop_and_target_are_both_reached_the_stop_is_served(venue: Venue) -> None:
    venue.step(0)
    venue.submit(an_order("entry"))
    venue.step(1)
    out = {"side": OrderSide.SELL, "reduce_only": True}
    venue.submit(an_order("target", type=OrderType.LIMIT, price=Decimal(1000), **out))
    venue.submit(an_order("stop", type=OrderType.STOP_MARKET, trigger_price=Decimal(2000), **out))
    stepped = venue.step(2)
    assert [trade.client_order_id for trade in stepped.trades] == ["stop"]
    assert {o.client_order_id: o.status for o in stepped.orders}["target"] is OrderStatus.CANCELED
    assert not venue.statement().holdings


def test_a_cancelled_order_does_not_trade(venue: Venue) -> None:
    venue.step(0)
    venue.submit(an_order())
    assert [order.status for order in venue.cancel("a")] == [OrderStatus.CANCELED]
    assert [order.status for order in venue.cancel("a")] == [OrderStatus.CANCELED]
    assert not venue.step(1).trades


def test_an_order_type_that_is_not_traded_is_rejected(venue: Venue) -> None:
    assert venue.submit(an_order(type=OrderType.STOP_LIMIT)).status is OrderStatus.REJECTED


def test_accounts_have_clocks_and_books_of_their_own(books: ExchangeBooks) -> None:
    one, other = Venue(DirectChannel(books), "one"), Venue(DirectChannel(books), "other")
    one.step(0)
    one.step(1)
    other.submit(an_order())
    assert (one.statement().day, other.statement().day) == (1, -1)
    assert (one.statement().orders, other.statement().orders) == (0, 1)


def test_the_books_survive_the_process(tmp_path: Path) -> None:
    books = ExchangeBooks(tmp_path / "books.sqlite")
    venue = Venue(DirectChannel(books), "tester")
    venue.step(0)
    venue.submit(an_order())
    before = venue.step(1)
    books.close()
    again = ExchangeBooks(tmp_path / "books.sqlite")
    assert Venue(DirectChannel(again), "tester").step(1) == before
    again.close()


@pytest.fixture
def exchange_address(tmp_path: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="outlive-") as short:
        address = f"ipc://{short}/exchange"
        command = [sys.executable, "-m", "demo.exchange", "--dir", str(tmp_path / "books"), "--address", address]
        process = subprocess.Popen(command, env=dict(os.environ))
        yield address
        process.terminate()
        assert process.wait(10) == 0


def test_the_exchange_serves_over_a_socket_and_stops_on_sigterm(exchange_address: str) -> None:
    channel = SocketChannel(exchange_address)
    venue = Venue(channel, "tester")
    assert venue.step(0) == DirectChannel(ExchangeBooks()).ask(Step("tester", 0))
    venue.submit(an_order())
    assert [order.client_order_id for order in venue.statement().open_orders] == ["a"]
    with pytest.raises(VenueError):
        venue.step(7)
    channel.close()
