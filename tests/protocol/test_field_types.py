"""What the types of a record's fields vouch for is what reading it back would show."""

from __future__ import annotations

from decimal import Decimal
from enum import IntEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ValueRefused
from protocol.field_types import field_types
from protocol.records import Position, Record, Side, TrailingStop, encode_record, restore_record
from protocol.sameness import same
from tests.protocol.shapes import Fill, Flags, Loose, Word


class Level(IntEnum):
    LOW = 1


class Many(Record):
    text: str | None = None
    number: int | float = 0
    price: Decimal = Decimal(0)
    raw: bytes = b""
    word: Word = Word.YES
    level: Level = Level.LOW
    on: bool = False
    names: tuple[str, ...] = ()
    fills: tuple[Fill, ...] = ()
    inner: Fill | None = None
    many: Many | None = None


class Tight(Record):
    size: Annotated[int, msgspec.Meta(ge=0)] = 0


class Choice(Record):
    side: Literal["a", "b"] = "a"


class Flagged(Record):
    flags: Flags = Flags.A


class Frugal(Record, omit_defaults=True):
    x: float = 0.0


class Hooked(Record):
    x: int = 0

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x")


POSITION = Position(
    symbol="BTC/USDT", side=Side.LONG, quantity=Decimal("0.1"), entry_price=Decimal("61000.5"),
    opening_order_ids=("a", "b"), trailing_stop=TrailingStop(offset=Decimal(1)),
)  # fmt: skip

atoms = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(), st.binary(),
    st.decimals(), st.sampled_from([Word.YES, Level.LOW, Flags.A | Flags.B, "yes", 1]),
)  # fmt: skip
fills = st.builds(Fill, symbol=atoms, price=atoms, size=atoms, parts=st.lists(atoms, max_size=2).map(tuple))
anything = st.one_of(atoms, fills, st.lists(st.one_of(atoms, fills), max_size=2).map(tuple))


@given(st.dictionaries(st.sampled_from(Many.__struct_fields__), anything))
def test_what_is_vouched_for_comes_back_as_it_was(fields: dict[str, Any]) -> None:
    record = Many(**fields)
    if not field_types(Many).vouch(record):
        return
    try:
        data = encode_record(record)
    except ValueRefused:  # msgpack itself has no form of it: an integer of 70 bits, half a surrogate pair
        return
    assert same(restore_record(Many, data), record)


NESTED = Fill(symbol="a", price=Decimal(1), inner=Fill(symbol="b", price=Decimal(2)))


@pytest.mark.parametrize("record", [POSITION, NESTED], ids=["position", "nested"])
def test_the_usual_records_are_vouched_for(record: Record) -> None:
    assert field_types(type(record)).vouch(record)


@pytest.mark.parametrize(
    "record",
    [
        POSITION.replace(quantity="0.1"), POSITION.replace(trade_ids=("a", 1)), POSITION.replace(ts_last=True),
        POSITION.replace(trailing_stop=TrailingStop(offset=1.5)), POSITION.replace(side="LONG"),
        Fill(symbol="a", price=Decimal(1), inner=Fill(symbol="b", price=2)), Fill(symbol="a", price=Decimal(1), size=2),
        Tight(size=1), Choice(), Flagged(), Frugal(), Hooked(), Loose(anything=1),
    ],
    ids=repr,
)  # fmt: skip
def test_where_a_declaration_means_more_than_a_type_nothing_is_vouched_for(record: Record) -> None:
    assert not field_types(type(record)).vouch(record)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (POSITION, POSITION.replace(quantity="0.1")),
        (Tight(), Tight(size=-1)),
        (Choice(), Choice(side="c")),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_a_value_that_would_not_come_back_is_refused_behind_one_that_does(good: Record, bad: Record) -> None:
    encode_record(good)
    with pytest.raises(ValueRefused):
        encode_record(bad)
