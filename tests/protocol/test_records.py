from __future__ import annotations

import copy
import pickle
from decimal import Decimal

import msgspec
import pytest

from protocol import records
from protocol.records import (
    OrderSide,
    OrderStatus,
    OrderType,
    PendingOrder,
    Position,
    Record,
    RiskLimits,
    RiskLock,
    RiskState,
    Side,
    SymbolControl,
    TradingState,
    TrailingStop,
    encode_record,
    restore_record,
)


class OldOrder(Record):
    id: str
    price: Decimal


class NewOrder(Record, kw_only=True):
    id: str
    note: str = "none"
    price: Decimal
    tags: tuple[str, ...] = ()


FILLED = [
    Position(
        symbol="BTC/USDT", side=Side.SHORT, quantity=Decimal("0.5"), entry_price=Decimal("61000.10"),
        trailing_stop=TrailingStop(offset=Decimal(5), watermark=Decimal(7), active=True), trade_ids=("t1", "t2"),
    ),
    PendingOrder(
        client_order_id="c1", symbol="BTC/USDT", side=OrderSide.BUY, type=OrderType.STOP_LIMIT, quantity=Decimal(1),
        price=Decimal("1.10"), status=OrderStatus.UNKNOWN, signal_key="s", ts_created=2**62,
    ),
    SymbolControl(symbol="A", risk_locks=(RiskLock(reason="loss", locked_by="risk"),), disable_reasons=("x",)),
    RiskState(scope="all", trading_state=TradingState.HALTED, limits=RiskLimits(max_drawdown=Decimal("0.2"))),
]  # fmt: skip


@pytest.mark.parametrize("record", FILLED, ids=lambda r: type(r).__name__)
def test_shipped_records_come_back_equal_from_a_plain_pickle(record: Record) -> None:
    assert pickle.loads(pickle.dumps(record)) == record
    assert copy.deepcopy(record) == record
    assert hash(pickle.loads(pickle.dumps(record))) == hash(record)


@pytest.mark.parametrize("record", FILLED, ids=lambda r: type(r).__name__)
def test_records_are_frozen(record: Record) -> None:
    with pytest.raises(AttributeError):
        record.ts_last = 1  # type: ignore[attr-defined]


def test_shipped_records_are_built_by_keyword() -> None:
    with pytest.raises(TypeError):
        RiskLock("loss", "risk")  # type: ignore[misc]


def test_decimals_keep_their_digits() -> None:
    back = restore_record(OldOrder, encode_record(OldOrder(id="a", price=Decimal("1.1000"))))
    assert str(back.price) == "1.1000"  # type: ignore[attr-defined]


def test_old_data_loads_after_a_field_with_a_default_was_added() -> None:
    old = encode_record(OldOrder(id="a", price=Decimal(3)))
    assert restore_record(NewOrder, old) == NewOrder(id="a", price=Decimal(3), note="none", tags=())


def test_new_data_loads_where_the_field_is_not_known() -> None:
    new = encode_record(NewOrder(id="a", price=Decimal(3), note="x"))
    assert restore_record(OldOrder, new) == OldOrder(id="a", price=Decimal(3))


def test_data_that_misses_a_field_without_default_names_it() -> None:
    with pytest.raises(msgspec.ValidationError, match="price"):
        restore_record(OldOrder, msgspec.msgpack.encode({"id": "a"}))


def test_only_records_are_restored() -> None:
    for kind in (dict, object, list, "Position", msgspec.Struct):
        with pytest.raises(TypeError, match="not a Record"):
            restore_record(kind, b"\x80")  # type: ignore[arg-type]


def test_replace_gives_a_copy_and_names_an_unknown_field() -> None:
    position = FILLED[0]
    changed = position.replace(quantity=Decimal(2))
    assert changed.quantity == 2  # type: ignore[attr-defined]
    assert position.quantity == Decimal("0.5")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="quantitty"):
        position.replace(quantitty=Decimal(2))


def test_settled_orders_are_those_to_which_nothing_can_happen() -> None:
    settled = {status for status in OrderStatus if status.is_settled}
    assert settled == {OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.REJECTED}


def test_every_shipped_record_keeps_old_data_readable_with_its_required_fields_only() -> None:
    kinds = [k for k in vars(records).values() if isinstance(k, type) and issubclass(k, Record) and k is not Record]
    assert len(kinds) == 7
    for kind in kinds:
        fields = msgspec.structs.fields(kind)
        assert all(f.default is not msgspec.NODEFAULT for f in fields if f.name.startswith("ts_"))
