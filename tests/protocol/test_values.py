from __future__ import annotations

import copyreg
import functools
import io
import math
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ChangeTooLarge, OutliveError, UntrustedType, ValueRefused, ValueUnreadable
from protocol.records import PendingOrder, Position, RiskLimits, RiskState, Side
from protocol.values import Trust, ValueCodec, restore_path
from tests.protocol import shapes

PLAIN_VALUES = [
    None, True, 0, -1, 2**70, 1.5, math.inf, "text", "\ud800", "", b"", b"\x93", bytearray(b"x"), 1j, range(3),
    slice(1, 2), [], [1, [2]], (), (1,), {}, {"a": {"b": [1]}}, {1, 2}, frozenset({"a"}), Decimal("1.10"),
    Decimal("-0"),
    datetime(2024, 1, 2, 3, 4, 5, 6), datetime(2024, 1, 2, tzinfo=UTC),
    datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    date(2024, 1, 2), time(1, 2, tzinfo=timezone(timedelta(hours=2))), timedelta(days=-1),
    ZoneInfo("America/New_York"),
    uuid.UUID(int=5), uuid.uuid5(uuid.NAMESPACE_DNS, "a"), Fraction(1, 3), Path("/tmp/x"), PurePath("a/b"),
    ip_address("10.0.0.1"), ip_address("::1"),
    OrderedDict(a=1), deque([1, 2], maxlen=3), Counter("aab"), defaultdict(list, {"a": [1]}),
]  # fmt: skip

TRUSTED_VALUES = [
    shapes.Colour.RED, shapes.Colour.GREEN, shapes.Flags.A, shapes.Flags.A | shapes.Flags.B, shapes.Word.YES,
    shapes.Point(1, 2), shapes.OldPoint(1, 2), shapes.Bar(1.0, ["x"]), shapes.Tick(Decimal("1.5"), 3),
    shapes.Outer.Inner(4), shapes.Fill(symbol="a", price=Decimal("1.0")),
    {"deep": [shapes.Bar(2.0), shapes.Colour.RED]},
    shapes.Fill(symbol="a", price=Decimal(1), inner=shapes.Fill(symbol="b", price=Decimal(2))), shapes.Bar,
]  # fmt: skip


@pytest.fixture
def plain() -> ValueCodec:
    return ValueCodec(Trust())


@pytest.fixture
def trusting() -> ValueCodec:
    return ValueCodec(Trust([shapes]))


def name_of(value: Any) -> str:
    return f"{type(value).__name__}-{ascii(value)[:20]}"


@pytest.mark.parametrize("value", PLAIN_VALUES, ids=name_of)
def test_plain_values_come_back_equal_and_of_the_same_type(plain: ValueCodec, value: Any) -> None:
    for _ in range(2):  # the first is read back, the second takes the short way
        back = plain.load(plain.dump(value))
        assert type(back) is type(value)
        assert back == value


@pytest.mark.parametrize("value", PLAIN_VALUES, ids=name_of)
def test_plain_pickle_reads_what_the_codec_writes(plain: ValueCodec, value: Any) -> None:
    assert pickle.loads(plain.dump(value)) == value


@pytest.mark.parametrize("value", TRUSTED_VALUES, ids=name_of)
def test_types_of_a_trusted_module_come_back_equal(trusting: ValueCodec, value: Any) -> None:
    for _ in range(2):
        data = trusting.dump(value)
        assert trusting.load(data) == value
        assert pickle.loads(data) == value


@pytest.mark.parametrize("value", TRUSTED_VALUES, ids=name_of)
def test_the_same_types_are_refused_in_both_directions_without_trust(plain: ValueCodec, value: Any) -> None:
    with pytest.raises(UntrustedType, match=r"tests\.protocol\.shapes"):
        plain.dump(value)
    with pytest.raises(UntrustedType):
        plain.load(ValueCodec(Trust([shapes])).dump(value))


def test_a_value_that_would_run_a_command_is_refused_in_both_directions(trusting: ValueCodec) -> None:
    for value in (shapes.Evil(), [shapes.Evil()], shapes.EvilRecord(n=1)):
        with pytest.raises(UntrustedType):
            trusting.dump(value)
    with pytest.raises(UntrustedType, match="system"):
        trusting.load(pickle.dumps(shapes.Evil()))


@pytest.mark.parametrize(
    "value",
    [os.system, os.path.join, subprocess.Popen, len, print, shapes.module_function, lambda: 1, [].append, "x".upper,
     functools.partial(int, "1"), type(None), type, Ellipsis, NotImplemented, ValueError("x"), object().__repr__],
    ids=name_of,
)  # fmt: skip
def test_functions_methods_and_strange_classes_are_refused(trusting: ValueCodec, value: Any) -> None:
    for wrapped in (value, [value], {"a": (value,)}):
        with pytest.raises(ValueRefused):
            trusting.dump(wrapped)


@pytest.mark.parametrize(
    "text",
    [
        b"cos\nsystem\n(S'echo owned'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cbuiltins\nexec\n.",
        b"csubprocess\nPopen\n.",
        b"\x80\x05\x8c\x15tests.protocol.shapes\x8c\tos.system\x93.",
        b"\x80\x05\x8c\x15tests.protocol.shapes\x8c\x02os\x93.",
        b"\x80\x05\x8c\x15tests.protocol.shapes\x8c\x0fmodule_function\x93.",
        b"\x80\x05\x8c\x10protocol.records\x8c\x0emsgspec.Struct\x93.",
        b"\x80\x05\x8c\x0fprotocol.values\x8c\x0apickle.loads\x93.",
        b"(ios\nsystem\n.",
        b"\x82\x01.",
        b"P1\n.",
    ],
)
def test_no_pickle_reaches_a_global_outside_the_rule(trusting: ValueCodec, text: bytes) -> None:
    with pytest.raises((UntrustedType, ValueUnreadable)):
        trusting.load(text)


def test_reading_imports_no_module_that_is_not_trusted(plain: ValueCodec) -> None:
    assert "this" not in sys.modules
    with pytest.raises(UntrustedType):
        plain.load(b"cthis\ns\n.")
    assert "this" not in sys.modules


def test_what_a_trusted_module_imported_is_not_trusted_with_it(trusting: ValueCodec) -> None:
    with pytest.raises(UntrustedType, match="namedtuple"):
        trusting.load(b"ctests.protocol.shapes\nnamedtuple\n.")


def test_a_global_singleton_that_pickles_by_name_is_refused(trusting: ValueCodec) -> None:
    with pytest.raises(ValueRefused):
        trusting.dump(shapes.THE_ONE)


def test_a_single_class_or_function_can_be_trusted() -> None:
    codec = ValueCodec(Trust([shapes.Bar, shapes.module_function]))
    assert codec.load(codec.dump(shapes.Bar(1.0))) == shapes.Bar(1.0)
    assert codec.load(codec.dump(shapes.module_function)) is shapes.module_function
    with pytest.raises(UntrustedType):
        codec.dump(shapes.Tick(Decimal(1), 1))


def test_trust_from_the_program_itself_is_refused_with_the_reason() -> None:
    local = type("Local", (), {"__module__": "__main__"})
    for item in (local, "__main__"):
        with pytest.raises(ValueRefused, match="after a restart"):
            Trust([item])
    with pytest.raises(ValueRefused, match="after a restart"):
        Trust().add_module_of(local)
    with pytest.raises(ValueRefused, match="trust="):
        Trust([42])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "declared", [shapes.Bar, list[shapes.Bar], dict[str, shapes.Bar | None], tuple[shapes.Bar, ...] | None], ids=str
)
def test_declaring_a_type_trusts_the_modules_of_its_classes(declared: object) -> None:
    trust = Trust()
    trust.add_module_of(declared)
    assert trust.allows(shapes.Tick)


@pytest.mark.parametrize("declared", [Any, dict, dict[str, Any], Literal["a"], int | None, None, "text"], ids=str)
def test_declaring_a_loose_type_trusts_nothing_more(declared: object) -> None:
    trust = Trust()
    trust.add_module_of(declared)
    assert not trust.allows(shapes.Bar)
    assert not trust.allows(io.StringIO)


def test_a_numpy_scalar_is_refused_with_a_hint(plain: ValueCodec) -> None:
    float64 = type("float64", (float,), {"__module__": "numpy"})
    with pytest.raises(UntrustedType, match=r"store float\(x\)"):
        plain.dump(float64(1.5))


def test_a_class_of_the_program_itself_is_refused_with_the_reason(plain: ValueCodec) -> None:
    local = type("Local", (), {"__module__": "__main__"})
    with pytest.raises(UntrustedType, match="after a restart"):
        plain.dump(local())


def test_an_exception_whose_load_would_fail_is_refused_when_written(trusting: ValueCodec) -> None:
    with pytest.raises(ValueRefused, match="not read back"):
        trusting.dump(shapes.BadError(1, 2))


def test_a_type_that_loses_its_content_is_refused_when_written(trusting: ValueCodec) -> None:
    for _ in range(2):
        with pytest.raises(ValueRefused, match="not be read back equal"):
            trusting.dump(shapes.LossyList([1]))


def test_an_untrusted_path_of_another_system_is_refused(plain: ValueCodec) -> None:
    with pytest.raises(ValueRefused):
        plain.dump(PureWindowsPath("c:/x"))


def test_a_zone_without_a_name_is_refused(plain: ValueCodec) -> None:
    with open("/usr/share/zoneinfo/UTC", "rb") if os.path.exists("/usr/share/zoneinfo/UTC") else io.BytesIO() as file:
        data = file.read()
    if not data:
        pytest.skip("no zone files here")
    with pytest.raises(ValueRefused, match="no key"):
        plain.dump(ZoneInfo.from_file(io.BytesIO(data)))


def test_a_list_that_contains_itself_comes_back(plain: ValueCodec) -> None:
    value: list[Any] = [Decimal(1)]
    value.append(value)
    back = plain.load(plain.dump(value))
    assert back[0] == 1
    assert back[1] is back


def test_values_without_equality_are_compared_by_their_parts(trusting: ValueCodec) -> None:
    back = trusting.load(trusting.dump([shapes.NoEquality({"n": [shapes.NoEquality("n")]})]))
    assert back[0].n["n"][0].n == "n"


def test_nan_counts_as_read_back(trusting: ValueCodec) -> None:
    assert math.isnan(trusting.load(trusting.dump([Decimal(1), math.nan]))[1])
    assert trusting.load(trusting.dump(Decimal("NaN"))).is_nan()
    bar = trusting.load(trusting.dump(shapes.Bar(math.nan)))
    assert math.isnan(bar.close)


def test_an_unpicklable_value_is_one_named_error_and_the_codec_goes_on(trusting: ValueCodec) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (threading.Lock(), (i for i in ()), deep, {"a": sys}):
        with pytest.raises(ValueRefused):
            trusting.dump(value)
        assert trusting.load(trusting.dump({"a": 1})) == {"a": 1}


def test_a_refused_value_leaves_nothing_in_the_next_one(trusting: ValueCodec) -> None:
    text = "shared text"
    with pytest.raises(UntrustedType):
        trusting.dump([text, b"x" * 100_000, shapes.Evil()])
    assert pickle.loads(trusting.dump([text, text])) == [text, text]


def test_a_value_over_the_limit_is_refused(plain: ValueCodec) -> None:
    with pytest.raises(ChangeTooLarge):
        plain.dump(bytes(65 * 2**20))


def test_a_large_value_of_many_chunks_comes_back(plain: ValueCodec) -> None:
    value = {"a": b"x" * 300_000, "b": ["y" * 100_000] * 3, "c": bytearray(200_000)}
    assert plain.load(plain.dump(value)) == value


def test_a_value_whose_pickling_pickles_again_comes_back(trusting: ValueCodec) -> None:
    class Nested(dict):  # type: ignore[type-arg]
        def __reduce__(self) -> tuple[Any, ...]:
            return dict, (list(trusting.load(trusting.dump([("a", Decimal(1))]))),)

    with pytest.raises(ValueRefused):  # it comes back as a plain dict
        trusting.dump(Nested(a=1))
    assert trusting.load(trusting.dump({"x": Decimal(2)})) == {"x": Decimal(2)}


def test_threads_share_a_codec(trusting: ValueCodec) -> None:
    values = [{"n": n, "d": [Decimal(n)] * 2, "p": shapes.Fill(symbol=str(n), price=Decimal(n))} for n in range(300)]
    wrong: list[Any] = []

    def work() -> None:
        wrong.extend(v for v in values if trusting.load(trusting.dump(v)) != v)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_many_values_are_loaded_each_with_a_memo_of_its_own(trusting: ValueCodec) -> None:
    a, b = "first text", "second text"
    values = [{"k": a, "l": a}, {"k": b, "l": b, "m": [b]}, shapes.Fill(symbol=a, price=Decimal(1)), a,
              *(shapes.Fill(symbol=b * n, price=Decimal(n)) for n in range(60)),
              [b, b], shapes.Limited(n=1)]  # fmt: skip
    fresh = ValueCodec(Trust([shapes]))
    assert fresh.load_many([trusting.dump(value) for value in values]) == values


def test_loading_many_raises_the_errors_of_loading_one(trusting: ValueCodec) -> None:
    good = trusting.dump(shapes.Limited(n=1))
    with pytest.raises(UntrustedType):
        trusting.load_many([good, pickle.dumps(shapes.Evil())])
    with pytest.raises(ValueUnreadable):
        trusting.load_many([good, good[:-1]])
    with pytest.raises(ValueUnreadable):
        trusting.load_many([good, good.replace(b"\xa1n\x01", b"\xa1n\xa1")])


@given(st.binary(max_size=200))
def test_random_bytes_raise_named_errors_only(data: bytes) -> None:
    try:
        ValueCodec(Trust()).load(data)
    except OutliveError:
        pass


@given(st.data())
def test_mutated_pickles_raise_named_errors_only(data: st.DataObject) -> None:
    codec = ValueCodec(Trust([shapes]))
    whole = bytearray(codec.dump([TRUSTED_VALUES, {"a": Decimal(1)}]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        codec.load(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except OutliveError:
        pass


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(json_like, max_size=5))
def test_any_plain_data_comes_back_equal(values: list[Any]) -> None:
    codec = ValueCodec(Trust())
    dumped = [codec.dump(value) for value in values]
    assert [codec.load(data) for data in dumped] == values
    assert codec.load_many(dumped) == values
    assert [pickle.loads(data) for data in dumped] == values


# Records


RECORDS = [
    Position(symbol="BTC/USDT", side=Side.LONG, quantity=Decimal("1.5"), entry_price=Decimal("61000.25")),
    RiskState(scope="account", limits=RiskLimits(max_daily_loss=Decimal(100))),
    shapes.Fill(symbol="x" * 500, price=Decimal("NaN"), size=math.nan, parts=(1, 2)),
    shapes.OwnReduce(n=3),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_the_short_way_of_a_record_is_a_pickle_like_any_other(record: Any) -> None:
    codec = ValueCodec(Trust([shapes, shapes.make_own]))
    first, second = codec.dump(record), codec.dump(record)
    for data in (first, second):
        for back in (codec.load(data), pickle.loads(data), codec.load_many([data, data])[1]):
            assert type(back) is type(record)
            assert repr(back) == repr(record)


def test_a_record_with_a_field_of_a_wrong_type_is_refused_also_after_good_ones(trusting: ValueCodec) -> None:
    trusting.dump(shapes.Fill(symbol="a", price=Decimal(1)))
    for wrong in (None, "1.5", 0.1, 1.5, [1]):
        with pytest.raises(ValueRefused, match="Fill"):
            trusting.dump(shapes.Fill(symbol="a", price=wrong))  # type: ignore[arg-type]
        with pytest.raises(ValueRefused, match="Fill"):
            trusting.dump({"nested": shapes.Fill(symbol="a", price=wrong)})  # type: ignore[arg-type]
    with pytest.raises(ValueRefused, match="parts"):
        trusting.dump(shapes.Fill(symbol="a", price=Decimal(1), parts=[1]))  # type: ignore[arg-type]
    inner = shapes.Fill(symbol="b", price=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueRefused, match="price"):
        trusting.dump(shapes.Fill(symbol="a", price=Decimal(1), inner=inner))


def test_an_int_for_a_float_or_decimal_and_a_word_for_an_enum_are_fine(trusting: ValueCodec) -> None:
    fill = shapes.Fill(symbol="a", price=5, size=100)  # type: ignore[arg-type]
    assert trusting.load(trusting.dump(fill)) == fill
    position = Position(symbol="a", side="LONG", quantity=Decimal(1),
    entry_price=Decimal(1))  # type: ignore[arg-type]
    assert trusting.load(trusting.dump(position)).side is Side.LONG


@pytest.mark.parametrize("value", [Decimal(1), datetime(2024, 1, 1), object(), {1, 2}, (1, 2), 2**70], ids=name_of)
def test_a_record_whose_loose_field_would_change_is_refused(trusting: ValueCodec, value: Any) -> None:
    with pytest.raises(ValueRefused, match="Loose"):
        trusting.dump(shapes.Loose(anything=value))


def test_a_stored_record_is_not_larger_than_its_pickle() -> None:
    order = PendingOrder(client_order_id="a", symbol="b", side="BUY", type="LIMIT",
    quantity=Decimal(1))  # type: ignore[arg-type]
    codec = ValueCodec(Trust())
    codec.dump(order)
    assert len(codec.dump(order)) < len(pickle.dumps(order)) + 16


def test_verify_reads_back_every_value(trusting: ValueCodec) -> None:
    checking = ValueCodec(Trust([shapes]), verify=True)
    for codec in (trusting, checking):
        codec.dump(shapes.Moody(1))
    trusting.dump(shapes.Moody(13))  # only the first of a type is read back
    with pytest.raises(ValueRefused, match="not be read back equal"):
        checking.dump(shapes.Moody(13))


def test_a_class_may_leave_a_lock_out_of_its_state(trusting: ValueCodec) -> None:
    assert trusting.load(trusting.dump(shapes.WithLock(3))).n == 3


def test_paths_are_restored_by_text() -> None:
    assert restore_path("/a", True) == Path("/a")
    assert type(restore_path("/a", False)) is type(PurePath("/a"))


class Registered:
    """Named by one of copyreg's short codes, if it has one."""


def test_plain_values_with_the_opcode_of_a_name_in_them_are_plain() -> None:
    codec = ValueCodec(Trust())
    for value in ({"a": "\u0393"}, {"b": 0x93}, {"c": bytes([0x94, 0x93])}, {"d": bytes(5_000) + b"\x93"}, {"e": 1.5}):
        for _ in range(3):
            assert codec.load(codec.dump(value)) == value


@pytest.mark.parametrize("value", [{"a": Path.cwd}, [Registered()], {"a": (Registered,)}, {1: {2: [Registered]}}])
def test_what_hides_in_plain_values_is_refused_also_behind_many_plain_ones(value: object) -> None:
    codec = ValueCodec(Trust())
    for _ in range(300):
        codec.dump({"a": 1, "b": [1.5, "text", None]})
        with pytest.raises((UntrustedType, ValueRefused)):
            codec.dump(value)


def test_copyregs_short_codes_name_nothing_unseen() -> None:
    codec = ValueCodec(Trust())
    codec.dump({"a": 1})
    copyreg.add_extension(Registered.__module__, "Registered", 0x7FFFFF01)
    try:
        with pytest.raises(UntrustedType):
            codec.dump({"a": Registered})
    finally:
        copyreg.remove_extension(Registered.__module__, "Registered", 0x7FFFFF01)


@given(st.lists(st.sampled_from(["plain", "ghj", [1.5], {"a": "a"}, Side.LONG, Decimal(1), PendingOrder]), max_size=9))
def test_many_values_are_loaded_as_each_alone(values: list[Any]) -> None:
    codec = ValueCodec(Trust(["protocol.records"]))
    pickles = [codec.dump(value) for value in values * 100]
    assert codec.load_many(pickles) == [codec.load(data) for data in pickles]


def test_a_value_without_its_end_is_unreadable_among_others_too() -> None:
    codec = ValueCodec(Trust())
    good = codec.dump(1)
    with pytest.raises(ValueUnreadable):
        codec.load_many([good, b"\x80\x05K\x02N", good])


def test_bytes_behind_the_end_of_a_value_are_nobody_elses_value() -> None:
    codec = ValueCodec(Trust())
    pickles = [codec.dump(n) for n in range(5)]
    pickles[1] += codec.dump("smuggled")
    assert codec.load_many(pickles) == [0, 1, 2, 3, 4]
    as_many_as_there_are_values = codec.dump([7] * 5)
    pickles[0] = as_many_as_there_are_values + codec.dump("smuggled")
    assert codec.load_many(pickles) == [[7] * 5, 1, 2, 3, 4]
