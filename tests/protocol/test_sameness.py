from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from protocol.sameness import same
from tests.naming import shown
from tests.protocol import shapes


class ArrayLike:
    """Has an == that returns no bool, as numpy's arrays have."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def __eq__(self, other: object) -> Any:
        return NoBool()

    __hash__ = None  # type: ignore[assignment]


class NoBool:
    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


def loop(first: int) -> list[Any]:
    value: list[Any] = [first]
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 1), ([], []), ([math.nan], [float("nan")]), ({"a": [math.nan]}, {"a": [float("nan")]}),
        (shapes.NoEquality(1), shapes.NoEquality(1)), (shapes.Bar(math.nan), shapes.Bar(float("nan"))),
        (Decimal("NaN"), Decimal("NaN")), (loop(1), loop(1)), (ArrayLike(1, 2), ArrayLike(1, 2)),
        ([shapes.NoEquality([])], [shapes.NoEquality([])]), ({math.nan}, {float("nan")}),
    ],
    ids=shown,
)  # fmt: skip
def test_the_same(a: Any, b: Any) -> None:
    assert same(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 1.0), (1, 2), (True, 1), ([], ()), ([1], []), ([], [1]), (shapes.NoEquality(1), shapes.NoEquality(2)),
        (shapes.Bar(1.0), shapes.Bar(2.0)), (loop(1), loop(2)), (ArrayLike(1), ArrayLike(2)), (math.nan, 1.0),
        (shapes.LossyList([1]), shapes.LossyList()), (shapes.Moody(1), shapes.Moody(2)), ({"a": 1}, {"b": 1}),
        (shapes.Fill(symbol="a", price=Decimal(1)), shapes.Fill(symbol="b", price=Decimal(1))), (object, int),
    ],
    ids=shown,
)  # fmt: skip
def test_not_the_same(a: Any, b: Any) -> None:
    assert not same(a, b)
