from __future__ import annotations

import copy
import json
import pickle
import threading
from decimal import Decimal
from enum import StrEnum

import pytest

from protocol.errors import KeyRefused, SessionClosed, UntrustedType, ValueRefused, ValueUnreadable
from protocol.records import Position, Side
from strategy_proc import Session
from strategy_proc.testing import MemoryStore
from tests.strategy_proc.records import Level, Mood, Note, Rewritten


def reopened(store: MemoryStore, name: str = "m", kind: object = None) -> dict:
    """What a restarted bot finds after a kill."""
    store.kill("bot")
    with store.connect("bot") as again:
        return again.map(name, kind).snapshot()


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize("key", ["k", "ü" * 40, "\ud800", 0, -1, 2**80, b"b", (), ("a", 1, (b"c", "a"))])
def test_a_key_of_the_allowed_types_comes_back(store: MemoryStore, state: Session, key: object) -> None:
    state.map("m")[key] = 1
    assert reopened(store) == {key: 1}


@pytest.mark.parametrize("key", [True, 1.0, None, Colour.RED, Decimal(1), frozenset(), ("a", True), ("a", 1.0)])
def test_a_key_of_another_type_is_refused_and_nothing_changes(state: Session, key: object) -> None:
    m = state.map("m")
    m[1] = m["red"] = "kept"
    with pytest.raises(KeyRefused):
        m[key] = 2
    with pytest.raises(TypeError):
        m.update({"new": 1, key: 2})
    assert m == {1: "kept", "red": "kept"}


@pytest.mark.parametrize(
    "value", [lambda: 1, threading.Lock(), print, Session, [Session], Level(price=1.0), Mood.GOOD, Note("x")]
)
def test_a_value_that_is_not_trusted_is_refused_when_it_is_written(state: Session, value: object) -> None:
    m = state.map("m")
    with pytest.raises(ValueRefused):
        m["k"] = value
    assert m == {}
    assert state.unsaved() == {}


def test_a_declared_type_makes_its_module_trusted_in_both_directions(store: MemoryStore, state: Session) -> None:
    state.map("m", Level)["k"] = {"level": Level(price=1.5), "note": Note("x"), "mood": Mood.GOOD}
    assert reopened(store, kind=Level)["k"] == {"level": Level(price=1.5), "note": Note("x"), "mood": Mood.GOOD}


def test_a_type_of_the_program_itself_is_refused_by_name(state: Session) -> None:
    strange = type("Strange", (), {"__module__": "__main__"})
    with pytest.raises(ValueRefused, match=r"__main__\.Strange.*module of its own"):
        state.map("m", strange)


def test_a_stored_value_of_an_untrusted_type_is_named_and_stays(store: MemoryStore, state: Session) -> None:
    state.map("m", Level)["k"] = Level(price=1.5)
    state.map("other")["x"] = 1
    store.kill("bot")
    with store.connect("bot") as again:
        with pytest.raises((UntrustedType, ValueUnreadable), match=r"map 'm', key 'k'.*Level"):
            again.map("m")
        assert again.map("other") == {"x": 1}
        assert again.map("m", Level) == {"k": Level(price=1.5)}


def test_a_value_that_would_come_back_different_is_refused(state: Session) -> None:
    with pytest.raises(ValueRefused, match="not be read back equal"):
        state.map("m", Rewritten)["k"] = Rewritten(1)


def test_every_mutating_method_is_recorded(store: MemoryStore, state: Session) -> None:
    m = state.map("m")
    m.update({"a": 1}, b=2)
    m |= {"c": 3}
    m.setdefault("d", 4)
    m.setdefault("a", 99)
    assert m.pop("b") == 2
    assert m.pop("nothing", "default") == "default"
    assert m.popitem() == ("d", 4)
    del m["c"]
    m["e"] = 5
    assert reopened(store) == {"a": 1, "e": 5}


def test_clear_is_recorded(store: MemoryStore, state: Session) -> None:
    m = state.map("m")
    m["a"] = 1
    m.clear()
    m["b"] = 2
    assert reopened(store) == {"b": 2}


def test_the_order_of_the_dict_is_kept(store: MemoryStore, state: Session) -> None:
    m = state.map("m")
    m.update(a=1, b=2, c=3)
    del m["a"]
    m["a"] = 4
    m["b"] = 5
    assert list(m.items()) == [("b", 5), ("c", 3), ("a", 4)]
    assert list(reopened(store).items()) == [("b", 5), ("c", 3), ("a", 4)]


def test_modify_replaces_fields_of_a_record(store: MemoryStore, state: Session) -> None:
    m = state.map("m", Position)
    m["BTC"] = Position(symbol="BTC", side=Side.LONG, quantity=Decimal(1), entry_price=Decimal(100))
    assert m.modify("BTC", stop_loss_price=Decimal(90)).stop_loss_price == 90
    with pytest.raises(AttributeError, match="stop_los_price"):
        m.modify("BTC", stop_los_price=Decimal(80))
    with pytest.raises(KeyError):
        m.modify("ETH", quantity=Decimal(1))
    assert reopened(store, kind=Position)["BTC"].stop_loss_price == Decimal(90)


def test_edit_stores_a_mutable_value_when_the_block_ends(store: MemoryStore, state: Session) -> None:
    m = state.map("m")
    m["notes"] = ["a"]
    with m.edit("notes") as notes:
        notes.append("b")
    assert reopened(store) == {"notes": ["a", "b"]}


def test_edit_changes_nothing_when_the_block_raises(state: Session) -> None:
    m = state.map("m")
    m["notes"] = ["a"]
    with pytest.raises(RuntimeError), m.edit("notes") as notes:
        notes.append("b")
        raise RuntimeError
    assert m["notes"] == ["a"]
    assert state.unsaved() == {}


def test_unsaved_finds_values_changed_in_place_and_writes_behind_the_map(state: Session) -> None:
    m = state.map("m")
    m["list"], m["same"] = [1], {"x": "y" * 2, "z": "yy"}
    assert state.unsaved() == {}
    m["list"].append(2)
    dict.__setitem__(m, "behind", 1)
    assert state.unsaved() == {"m": ["list", "behind"]}


def test_copies_and_pickles_are_plain_dicts(state: Session) -> None:
    m = state.map("m")
    m["a"] = [1]
    for twin in (m.copy(), copy.copy(m), copy.deepcopy(m), pickle.loads(pickle.dumps(m)), m | {}, {**m}, m.snapshot()):
        assert type(twin) is dict
        assert twin == {"a": [1]}
    assert json.dumps(m) == '{"a": [1]}'
    with pytest.raises(TypeError):
        type(m).fromkeys("ab")
    with pytest.raises(TypeError):
        m.__init__(z=1)
    with pytest.raises(TypeError):
        type(m)()


def test_a_dropped_map_is_gone_and_its_name_can_be_used_again(store: MemoryStore, state: Session) -> None:
    m = state.map("m")
    m["old"] = 1
    state.drop_map("m")
    assert m == {}
    m["new"] = 2
    assert reopened(store) == {"new": 2}


def test_after_close_nothing_can_be_changed_but_everything_read(store: MemoryStore) -> None:
    state = store.connect("bot")
    m = state.map("m")
    m["a"] = 1
    state.close()
    state.close()
    for change in (lambda: m.update(b=1), lambda: m.pop("a"), m.clear, lambda: state.map("n"), state.sync, state.flush):
        with pytest.raises(SessionClosed):
            change()
    assert m == {"a": 1}
