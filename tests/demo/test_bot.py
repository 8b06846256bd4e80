"""The bot's skeleton: killed anywhere, it ends with the same trades, and no order is sent twice."""

from __future__ import annotations

from typing import Any

import pytest

from demo.bot import STRATEGIES, Bot
from demo.client import DirectChannel, Venue, VenueTimeout
from demo.messages import Books, Lookup, Reply, Request, Submit
from demo.prices import DAY_NS, load_days
from demo.risk import COOLDOWN_NS, REVIEW_NS
from protocol.records import OrderStatus, RiskState, TradingState
from tests.demo.conftest import AtRandom, EveryPlaceOnce, Replay
from tests.demo.stand_in import Killed, StandInState

DAYS = 420
WHOLE = len(load_days())
both_strategies = pytest.mark.parametrize("name", sorted(STRATEGIES))


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, tuple[Books, dict[str, dict[Any, Any]]]]:
    """What each strategy does when nobody kills it."""
    replays = {name: Replay(name, DAYS) for name in STRATEGIES}
    return {name: (replay.run(), replay.store) for name, replay in replays.items()}


@both_strategies
def test_both_strategies_trade(name: str, undisturbed: dict[str, Any]) -> None:
    books, _ = undisturbed[name]
    assert len(books.trades) > 5
    assert books.duplicates == 0


@both_strategies
def test_a_bot_killed_at_every_place_ends_with_the_same_trades(name: str, undisturbed: dict[str, Any]) -> None:
    books, store = undisturbed[name]
    fault = EveryPlaceOnce()
    replay = Replay(name, DAYS, fault)
    assert replay.run() == books
    assert replay.store == store
    assert replay.lives > 2 * DAYS
    requests = ["Step", "Submit", "Lookup", *(["Cancel"] if name == "trend" else [])]
    for kind in (f"{when} {what}" for when in ("before", "after") for what in (*requests, "the commit")):
        assert any(place.startswith(kind) for place in fault.places), kind


@both_strategies
@pytest.mark.parametrize("seed", range(5))
def test_a_bot_killed_at_random_ends_with_the_same_trades(name: str, seed: int, undisturbed: dict[str, Any]) -> None:
    replay = Replay(name, DAYS, AtRandom(seed, one_in=15))
    assert replay.run() == undisturbed[name][0]
    assert replay.store == undisturbed[name][1]
    assert replay.lives > 20


@both_strategies
def test_the_bot_ends_with_what_the_exchange_has(name: str, undisturbed: dict[str, Any]) -> None:
    books, store = undisturbed[name]
    assert list(store["trades"].values()) == books.trades
    assert store["account"][name].realized_pnl == books.realized_pnl
    assert set(store["active_positions"]) == set(books.holdings)
    assert set(store["pending_orders"]) == {order.client_order_id for order in books.open_orders}


def test_an_order_is_looked_up_before_anything_is_sent_again() -> None:
    requests: list[Request] = []

    class Recording(DirectChannel):
        def ask(self, request: Request, tries: int = 1) -> Reply:
            requests.append(request)
            return super().ask(request)

    def dies_with_the_order_on_its_way(step: str) -> None:
        if step.startswith("after Submit"):
            raise Killed

    replay = Replay("trend", DAYS, dies_with_the_order_on_its_way)
    with pytest.raises(Killed):
        replay.bot.start()
        while True:
            replay.bot.trade_day()
    (intent,) = [o for o in replay.bot.orders.values() if o.status is OrderStatus.INITIALIZED]
    bot = Bot(StandInState(replay.store), Venue(Recording(replay.books), "trend"), STRATEGIES["trend"](), 0)
    bot.start()
    assert requests[0] == Lookup("trend", intent.client_order_id)
    assert not any(isinstance(request, Submit) for request in requests)
    assert bot.orders[intent.client_order_id].status is OrderStatus.ACCEPTED


@pytest.mark.parametrize("arrives", [True, False])
def test_an_order_without_an_answer_is_looked_up_and_sent_at_most_once(arrives: bool) -> None:
    """The answer to every order's first sending is lost; the order itself only when `arrives` is False."""
    replay = Replay("trend", DAYS)
    lost: set[str] = set()

    class Deaf(DirectChannel):
        def ask(self, request: Request, tries: int = 1) -> Reply:
            if isinstance(request, Submit) and request.order.client_order_id not in lost:
                lost.add(request.order.client_order_id)
                if arrives:
                    super().ask(request)
                raise VenueTimeout
            return super().ask(request)

    bot = Bot(StandInState(replay.store), Venue(Deaf(replay.books), "trend"), STRATEGIES["trend"](), 0)
    bot.start()
    while not bot.finished:
        bot.trade_day()
    assert replay.statement().orders == len(lost)
    assert replay.statement().duplicates == 0


class Watch:
    """Collects the risk state of every day."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.days: list[tuple[int, RiskState, int]] = []

    def __call__(self, bot: Bot) -> None:
        risk = bot.risks[self.name]
        entries = sum(not order.reduce_only for order in bot.orders.values())
        self.days.append((risk.ts_last, risk, entries))


@pytest.mark.parametrize("one_in", [10**9, 40])
def test_a_thrown_kill_switch_stays_thrown_until_somebody_has_looked(one_in: int) -> None:
    watch = Watch("trend")
    Replay("trend", WHOLE, AtRandom(seed=1, one_in=one_in)).run(after_day=watch)
    thrown = [(ts, risk, entries) for ts, risk, entries in watch.days if risk.kill_switch]
    reasons = {risk.kill_switch_reason for _, risk, _ in thrown}
    assert reasons
    for reason in reasons:
        halted = [(ts, risk, entries) for ts, risk, entries in thrown if risk.kill_switch_reason == reason]
        assert all(risk.trading_state is TradingState.HALTED and entries == 0 for _, risk, entries in halted)
        assert halted[-1][0] - halted[0][0] >= REVIEW_NS - 7 * DAY_NS
        after = [risk for ts, risk, _ in watch.days if ts > halted[-1][0]]
        assert not after or after[0].trading_state is TradingState.ACTIVE


def test_a_daily_loss_halts_for_the_day_only() -> None:
    watch = Watch("trend")
    Replay("trend", WHOLE).run(after_day=watch)
    risks = [risk for _, risk, _ in watch.days]
    halted = [at for at, r in enumerate(risks) if r.trading_state is TradingState.HALTED and not r.kill_switch]
    assert halted
    assert all(watch.days[at][2] == 0 for at in halted)
    assert any(risks[at + 1].trading_state is TradingState.ACTIVE for at in halted)


@both_strategies
def test_the_cooldown_after_a_loss_is_respected(name: str) -> None:
    cooldowns: dict[str, set[int]] = {}

    def note(bot: Bot) -> None:
        for symbol, control in bot.controls.items():
            cooldowns.setdefault(symbol, set()).add(control.ts_cooldown_until)

    replay = Replay(name, 1500)
    entered: dict[str, set[int]] = {}

    def note_entries(bot: Bot) -> None:
        note(bot)
        for order in bot.orders.values():
            if not order.reduce_only:
                entered.setdefault(order.symbol, set()).add(order.ts_created)

    replay.run(after_day=note_entries)
    ends = {symbol: times - {0} for symbol, times in cooldowns.items()}
    assert any(ends.values())
    for symbol, times in entered.items():
        for end in ends[symbol]:
            assert not any(end - COOLDOWN_NS <= ts < end for ts in times)


@both_strategies
def test_without_the_look_up_the_exchange_would_show_duplicates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a verdict of 0 duplicates means something."""
    monkeypatch.setattr(Bot, "_look_up", lambda self, order: [])
    replay = Replay(name, 300, EveryPlaceOnce())
    assert replay.run().duplicates > 0
