"""Changes as data: one is done to a session and to its model, plain dicts, and both must answer the same.

perform(session, change)    -> what it returned, or the class of what it raised
perform(model, change)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from hypothesis import strategies as st

from protocol.errors import ChangeTooLarge, TransactionInProgress, ValueRefused
from tests.strategy_proc.records import Level

MAPS = ("a", "b", "c")
KEYS = ("k0", "k1", "k2", 3, 4, b"k5", ("k", 6))
Items = dict[Any, Any]
State = dict[str, Items]


class Change(NamedTuple):
    kind: str
    map: str = MAPS[0]
    key: Any = None
    value: Any = None


class Block(NamedTuple):
    """A transaction. `ends`: "well", or by an exception."""

    changes: list[Change]
    ends: str
    durable: bool


class Aborted(Exception):
    """Ends a block."""


class PlainMap(dict[Any, Any]):
    """A dict with the two methods of `PersistentMap` that a dict lacks."""

    def modify(self, key: Any, **changes: Any) -> Any:
        old = self[key]
        if not isinstance(old, Level):
            raise ValueRefused
        self[key] = old.replace(**changes)
        return self[key]

    @contextmanager
    def edit(self, key: Any) -> Iterator[Any]:
        value = copy.deepcopy(self[key])
        yield value
        self[key] = value


class PlainSession:
    """The model of a session."""

    def __init__(self, state: State) -> None:
        self.maps = {name: PlainMap(items) for name, items in state.items()}
        self._in_block = False

    def map(self, name: str) -> PlainMap:
        return self.maps.setdefault(name, PlainMap())

    def drop_map(self, name: str) -> None:
        self.map(name).clear()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        if self._in_block:
            raise TransactionInProgress
        before = {name: PlainMap(items) for name, items in self.maps.items()}
        self._in_block = True
        try:
            yield
        except BaseException:
            self.maps = before
            raise
        finally:
            self._in_block = False

    def state(self) -> State:
        return {name: dict(items) for name, items in self.maps.items() if items}


class OpenSession:
    """A session whose maps are all open: inside a block none can be opened."""

    def __init__(self, session: Any) -> None:
        self._maps = {name: session.map(name) for name in MAPS}
        self.map = self._maps.__getitem__
        self.transaction, self.drop_map = session.transaction, session.drop_map

    def state(self) -> State:
        return {name: dict(items) for name, items in self._maps.items()}


def perform(session: Any, change: Change | Block) -> Any:
    """What the change returned, or the class of what it raised."""
    try:
        return _block(session, change) if isinstance(change, Block) else _change(session, change)
    except (KeyError, ValueRefused, ChangeTooLarge, TransactionInProgress, Aborted) as error:
        return type(error)


def _block(session: Any, block: Block) -> Any:
    answers = []
    with session.transaction(durable=block.durable):
        for change in block.changes:
            answers.append(perform(session, change))
        if block.ends == "an error":
            raise Aborted
        if block.ends == "a key error":
            session.map(MAPS[0])["no such key"]
        if block.ends == "a block inside":
            with session.transaction():
                raise AssertionError("a transaction inside a transaction")
    return answers


def _change(session: Any, change: Change) -> Any:
    kind, name, key, value = change
    target = session.map(name) if kind != "drop" else None
    match kind:
        case "put":
            target[key] = value
        case "delete":
            del target[key]
        case "pop":
            return target.pop(key)
        case "pop or":
            return target.pop(key, "nothing")
        case "popitem":
            return target.popitem()
        case "clear":
            target.clear()
        case "update":
            target.update(value)
        case "|=":
            target |= value
        case "setdefault":
            return target.setdefault(key, value)
        case "modify":
            return target.modify(key, size=float(len(target)))
        case "edit":
            with target.edit(key) as edited:
                if isinstance(edited, list):
                    edited.append(len(edited))
        case "move":
            target[key] = target.pop(key)
        case "drop":
            session.drop_map(name)
        case _:
            raise AssertionError(kind)
    return None


def ordered(state: State) -> dict[str, list[tuple[Any, Any]]]:
    """For comparing: order counts inside a map, maps without items do not."""
    return {name: list(items.items()) for name, items in state.items() if items}


# Strategies

names = st.sampled_from(MAPS)
keys = st.sampled_from(KEYS)
values = st.one_of(
    st.integers(0, 9), st.sampled_from([60, 250, 700]).map(lambda size: "x" * size), st.lists(st.integers(0, 3)),
    st.integers(0, 3).map(lambda price: Level(price=float(price))), st.none(),
)  # fmt: skip
items = st.dictionaries(keys, values, max_size=4)
_KINDS = ["put"] * 8 + ["delete", "pop", "pop or", "popitem", "setdefault", "modify", "edit"] * 2


@st.composite
def _made(draw: Any, kinds: list[str]) -> Change:
    kind = draw(st.sampled_from(kinds))
    if kind in ("update", "|="):
        return Change(kind, draw(names), None, draw(items))
    if kind in ("put", "setdefault"):
        return Change(kind, draw(names), draw(keys), draw(values))
    return Change(kind, draw(names), None if kind in ("popitem", "clear", "drop") else draw(keys))


inside = _made([*_KINDS, "clear", "update", "|=", "move", "move"])
single = _made([*_KINDS, "clear", "update", "update", "|=", "drop"])
blocks = st.builds(
    Block, st.lists(inside, max_size=5),
    st.sampled_from(["well", "well", "well", "an error", "a key error", "a block inside"]), st.booleans(),
)  # fmt: skip
changes = st.lists(st.one_of(single, single, blocks), min_size=1, max_size=5)
