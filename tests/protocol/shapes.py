"""Types that bots store, and some that they had better not."""

from __future__ import annotations

import os
import threading
from collections import namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, IntFlag, StrEnum
from typing import Any, NamedTuple

import msgspec

from protocol.records import Record


class Colour(Enum):
    RED = 1
    GREEN = "green"


class Flags(IntFlag):
    A = 1
    B = 2


class Word(StrEnum):
    YES = "yes"


class Point(NamedTuple):
    x: int
    y: int


OldPoint = namedtuple("OldPoint", "x y")


@dataclass
class Bar:
    close: float
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tick:
    price: Decimal
    size: int


class Outer:
    @dataclass
    class Inner:
        n: int


class NoEquality:
    def __init__(self, n: Any) -> None:
        self.n = n


class Fill(Record):
    symbol: str
    price: Decimal
    size: float = 0.0
    parts: tuple[int, ...] = ()
    inner: Fill | None = None


class Loose(Record):
    anything: Any


class Limited(Record):
    n: int
    name: str = msgspec.field(default="x")


class OwnReduce(Record):
    """A record that takes itself apart in its own way."""

    n: int

    def __reduce__(self) -> tuple[Any, ...]:
        return make_own, (self.n,)


def make_own(n: int) -> OwnReduce:
    return OwnReduce(n=n)


class BadError(Exception):
    """Pickles, but does not load: its __init__ takes two arguments, its args hold one."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} {b}")


class LossyList(list):  # type: ignore[type-arg]
    def __reduce__(self) -> tuple[Any, ...]:
        return LossyList, ()


class Moody(int):
    """Loses its value sometimes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Moody, (0 if self == 13 else int(self),)


class WithLock:
    def __init__(self, n: int) -> None:
        self.n = n
        self.lock = threading.Lock()

    def __getstate__(self) -> int:
        return self.n

    def __setstate__(self, n: int) -> None:
        self.__init__(n)  # type: ignore[misc]


class Evil:
    """Unpickling it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo owned",)


class EvilRecord(Record):
    n: int

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getenv, ("HOME",)


class Singleton:
    """Pickles as the name of a module's global."""

    def __reduce__(self) -> str:
        return "THE_ONE"


THE_ONE = Singleton()


def module_function() -> None: ...
