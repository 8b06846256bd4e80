"""What the tests of the demo share: an exchange in memory, and whole replays of a few years."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from demo.books import ExchangeBooks
from demo.bot import STRATEGIES, Bot
from demo.client import DirectChannel, Venue
from demo.messages import Books
from demo.prices import load_days
from tests.demo.stand_in import DyingChannel, Killed, StandInState

Fault = Callable[[str], None]


def no_fault(step: str) -> None:
    """Nothing happens."""


class Replay:
    """One strategy over the first `days` days; killed wherever `fault` says so, and started again."""

    def __init__(self, name: str, days: int, fault: Fault = no_fault) -> None:
        self.name = name
        self.books = ExchangeBooks(days=load_days()[:days])
        self.store: dict[str, dict[object, object]] = {}
        self.fault = fault
        self.lives = 0
        self.bot = self.new_life()

    def new_life(self) -> Bot:
        self.lives += 1
        channel = DyingChannel(DirectChannel(self.books), self._strike)
        venue = Venue(channel, self.name)
        self.bot = Bot(StandInState(self.store, self._strike), venue, STRATEGIES[self.name](), second_look=0)
        return self.bot

    def _strike(self, step: str) -> None:
        self.fault(step)

    def run(self, after_day: Callable[[Bot], None] = lambda bot: None) -> Books:
        while True:
            try:
                self.bot.start()
                while not self.bot.finished:
                    self.bot.trade_day()
                    after_day(self.bot)
                return self.statement()
            except Killed:
                self.new_life()

    def statement(self) -> Books:
        return Venue(DirectChannel(self.books), self.name).statement(full=True)


class EveryPlaceOnce:
    """Kills once at each place: a request (by its contents) or a commit (by what was stored before it)."""

    def __init__(self) -> None:
        self.places: set[str] = set()

    def __call__(self, step: str) -> None:
        if step not in self.places:
            self.places.add(step)
            raise Killed(step)


class AtRandom:
    """Kills at one step in `one_in`."""

    def __init__(self, seed: int, one_in: int) -> None:
        self._random, self._one_in = random.Random(seed), one_in

    def __call__(self, step: str) -> None:
        if self._random.randrange(self._one_in) == 0:
            raise Killed(step)


@pytest.fixture
def books() -> Iterator[ExchangeBooks]:
    exchange = ExchangeBooks()
    yield exchange
    exchange.close()


@pytest.fixture
def venue(books: ExchangeBooks) -> Venue:
    return Venue(DirectChannel(books), "tester")
