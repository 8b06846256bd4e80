"""A stand-in for a session: plain dicts with transactions, a store that outlives a bot, and deaths on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from demo.client import DirectChannel
from demo.messages import Reply, Request


class Killed(BaseException):
    """The bot is dead; not an Exception, so that nothing in it can catch it."""


class StandInState:
    """The maps survive in `store`; a transaction that does not end puts everything back, as recovery would."""

    def __init__(self, store: dict[str, dict[Any, Any]], fault: Callable[[str], None] = lambda step: None) -> None:
        self.store = store
        self._fault = fault

    def map(self, name: str, kind: Any, /) -> dict[Any, Any]:
        return self.store.setdefault(name, {})

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        before = {name: copy(items) for name, items in self.store.items()}
        place = self._place()
        try:
            yield
            self._fault(f"before the commit behind {place}")
        except BaseException:
            for name, items in self.store.items():
                items.clear()
                items.update(before[name])
            raise
        self._fault(f"after the commit behind {place}")

    def _place(self) -> str:
        """Names this moment of the bot's history; trades only grow in number."""
        small = {name: items for name, items in self.store.items() if name != "trades"}
        return f"{small!r} and {len(self.store.get('trades', ()))} trades"


class DyingChannel:
    """Kills the bot before a request leaves it, and after the exchange has acted but before the bot hears of it."""

    def __init__(self, channel: DirectChannel, fault: Callable[[str], None]) -> None:
        self._channel, self._fault = channel, fault

    def ask(self, request: Request, tries: int = 1) -> Reply:
        self._fault(f"before {request!r}")
        reply = self._channel.ask(request)
        self._fault(f"after {request!r}")
        return reply
