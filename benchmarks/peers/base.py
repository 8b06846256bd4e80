"""What every store in the comparison can do, so that one loop measures all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

from benchmarks.values import Item


class Promise(StrEnum):
    """What a change has survived when `put` has returned."""

    KILL = "survives kill -9"
    POWER = "survives a power cut"
    SIMPLE = "simple"
    """No such promise, or none that is written down: what one finds first."""


class Peer(ABC):
    """A store in a folder of its own. What is put is a value; it is pickled in `put`, as its user would have to."""

    name: ClassVar[str]
    promise: ClassVar[Promise]
    setting: ClassVar[str]
    """How it was opened, in its own words."""
    needs: ClassVar[str] = ""
    """The module that has to be installed."""
    is_floor: ClassVar[bool] = False
    """Not a store: the least work with which the promise can be kept. It only puts."""
    is_ours: ClassVar[bool] = False
    slow: ClassVar[bool] = False
    """A put costs so much that it gets fewer of them."""
    has_transactions: ClassVar[bool] = True
    is_shared: ClassVar[bool] = False
    """Several threads may put at once."""

    @classmethod
    def missing(cls) -> str:
        """Why it can't take part here; empty if it can."""
        return "" if not cls.needs or find_spec(cls.needs) else f"not installed: {cls.needs}"

    @classmethod
    def module(cls) -> Any:
        """The module behind it, imported when it is wanted."""
        return import_module(cls.needs)

    @abstractmethod
    def __init__(self, folder: str) -> None:
        """Open what is in `folder`, or begin there."""

    def prepare(self, value: Any) -> Any:
        """What is handed to `put` for `value`; not timed."""
        return value

    @abstractmethod
    def put(self, key: str, value: Any) -> None:
        """Store it; on return the promise holds."""

    def put_many(self, items: Sequence[Item]) -> None:
        """Store all of them or none."""
        raise NotImplementedError(f"{self.name} has no transactions")

    def __getitem__(self, key: str) -> Any:
        """The value. Raises KeyError."""
        raise NotImplementedError(f"{self.name} is not a store")

    def load(self) -> dict[str, Any]:
        """Everything, as a dict."""
        raise NotImplementedError(f"{self.name} is not a store")

    def twin(self) -> Peer:
        """For another thread: another connection to the same store, or itself."""
        return self

    def settle(self) -> None:  # noqa: B027 (most have nothing to end)
        """End what goes on in the background, so that the next one is not measured with it. Not timed."""

    def pids(self) -> list[int]:
        """Processes of its own that work for it."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Leave in order."""
