"""The server's memory, kept as tuples, and what the code does with it.

Each step makes the real `Store` with its `Namespace`s and `Requests` of the tuples, lets them act, and keeps what
became of them. So who may open, what is fenced, what is applied, folded, sealed and answered is the code's own rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec

from persistence_proc.catalog import Commit, Generation, MapEntry, MapKey, NamespaceEntry, Section
from persistence_proc.held_requests import Held
from persistence_proc.map_state import MapState
from persistence_proc.namespaces import Namespace
from persistence_proc.requests import Requests
from persistence_proc.security import Access
from persistence_proc.store import Store
from persistence_proc.writer import Batch, Idle, Written
from protocol.changes import Change
from protocol.folding import Fold
from protocol.frames import encode_record
from protocol.messages import Confirm, Confirmed, Open, Opened, Refused, decode_reply
from tests.model.changes import State, state_of
from tests.model.network_part import Asked, Sent
from tests.model.outbox_part import STORE

Entry = tuple[Any, ...]
"""A `NamespaceEntry` as a tuple of its fields."""


class MapMemory(NamedTuple):
    name: str
    items: tuple[tuple[bytes, bytes], ...]
    incarnation: int
    last_change: int
    current: Generation | None
    previous: Generation | None


class NamespaceMemory(NamedTuple):
    entry: Entry
    durable: int
    gap: bool = False
    maps: tuple[MapMemory, ...] = ()


class BatchMemory(NamedTuple):
    lsn: int
    sections: tuple[tuple[Entry, tuple[Change, ...]], ...]
    saves: tuple[tuple[MapKey, int, Generation], ...]
    marks: tuple[tuple[str, tuple[int, int]], ...]
    changed: tuple[MapKey, ...]
    needs: int


class StoreMemory(NamedTuple):
    last_lsn: int
    namespaces: tuple[NamespaceMemory, ...] = ()
    pending: tuple[Any, ...] = ()
    in_flight: BatchMemory | None = None
    saves: tuple[tuple[MapKey, int, Generation], ...] = ()
    epochs: tuple[tuple[str, int], ...] = ()

    def find(self, name: str) -> NamespaceMemory | None:
        return next((one for one in self.namespaces if one.entry[0] == name), None)


# Tuples -> the code's objects -> tuples


def freeze_entry(entry: NamespaceEntry) -> Entry:
    openers = tuple((who, tuple(newest)) for who, newest in entry.openers.items())
    return msgspec.structs.astuple(msgspec.structs.replace(entry, openers=openers, ts_last=0))


def thaw_entry(entry: Entry) -> NamespaceEntry:
    made = NamespaceEntry(*entry)
    made.openers = dict(made.openers)
    return made


def thaw_commit(sections: tuple[tuple[Entry, tuple[Change, ...]], ...]) -> Commit:
    return Commit([Section(thaw_entry(entry), list(changes)) for entry, changes in sections])


def state_in(memory: NamespaceMemory) -> State:
    return state_of({one.name: dict(one.items) for one in memory.maps})


class _AgainstDurable(MapState):
    """A reading: what is redundant is judged against what is durable."""

    durable: dict[bytes, bytes]

    def get(self, key: bytes) -> bytes | None:
        return self.durable.get(key)


def _thaw(memory: StoreMemory, durable: State | None = None) -> Store:
    store = Store(STORE, memory.last_lsn)
    for one in memory.namespaces:
        namespace = Namespace(thaw_entry(one.entry))
        namespace.durable, namespace.gap = one.durable, one.gap  # not heard: silence has passed
        for found in one.maps:
            entry = MapEntry(one.entry[0], *found[:1], *found[2:])
            if durable is None:
                state = MapState(entry, dict(found.items))
            else:
                state = _AgainstDurable(entry, dict(found.items))
                state.durable = dict(dict(durable).get(found.name, ()))
            namespace.maps[found.name] = state
        store.add(namespace)
    store._epochs, store._saves = dict(memory.epochs), list(memory.saves)
    for name, folds in memory.pending:
        made = store.pending.touch(name, 0.0)
        for map_name, entries, cleared, dropped in folds:
            fold = made[map_name] = Fold()
            fold.entries, fold.cleared, fold.dropped = dict(entries), cleared, dropped
    if memory.in_flight is not None:
        store.in_flight = _thaw_batch(memory.in_flight)
    return store


def _thaw_batch(one: BatchMemory) -> Batch:
    return Batch(
        one.lsn, thaw_commit(one.sections), list(one.saves), dict(one.marks), list(one.changed), [], one.needs, 0.0
    )


def _freeze(store: Store) -> StoreMemory:
    namespaces = tuple(
        NamespaceMemory(
            freeze_entry(one.entry()), one.durable, one.gap,
            tuple(
                MapMemory(name, tuple(m.as_dict().items()), m.incarnation, m.last_change, m.current, m.previous)
                for name, m in one.maps.items()
            ),
        )
        for one in store.namespaces.values()
    )  # fmt: skip
    pending = tuple(
        (name, tuple((m, tuple(f.entries.items()), f.cleared, f.dropped) for m, f in folds.items()))
        for name, folds in store.pending._folds.items()
    )
    batch = None if store.in_flight is None else _freeze_batch(store.in_flight)
    return StoreMemory(
        store.last_lsn, namespaces, pending, batch, tuple(store._saves), tuple(store._epochs.items())
    )  # fmt: skip


def _freeze_batch(batch: Batch) -> BatchMemory:
    sections = tuple((freeze_entry(one.entry), tuple(one.changes)) for one in batch.commit.sections)
    return BatchMemory(
        batch.lsn, sections, tuple(batch.saves), tuple(batch.marks.items()), tuple(batch.changed), batch.needs
    )


# Requests


class Answered(NamedTuple):
    memory: StoreMemory
    reply: Any


def _requests(store: Store, instance: int) -> Requests:
    return Requests(store, str(instance), Access(), lambda address, parts: None)


@cache
def read_open(memory: StoreMemory, request: Open, forgets_openers: bool) -> Answered:
    """The reply if it is refused; else it is held, and its predecessor fenced."""
    store = _thaw(memory)
    known = store.namespaces.get(request.namespace)
    if forgets_openers and known is not None:
        known.openers = {}
    reply = _requests(store, 0)._begin_open(b"", request, known, 0.0)
    return Answered(memory if reply else _freeze(store), reply)


@cache
def answer_open(memory: StoreMemory, instance: int, asked: Asked, at_once: bool) -> Opened | Refused | None:
    """The answer to an open that is held; None: not yet."""
    store = _thaw(memory)
    namespace = store.namespaces[asked.request.namespace]
    held = Held(b"", asked.request, namespace, asked.epoch, float("inf"))
    requests = _requests(store, instance)
    parts = requests._try(held, 0.0, False, [])
    if parts is None and at_once:
        parts = requests._opened(namespace)
    return None if parts is None else decode_reply(parts[0])  # type: ignore[return-value]


@cache
def confirm(memory: StoreMemory, instance: int, request: Confirm) -> Answered:
    """A confirm whose wait is over."""
    store = _thaw(memory)
    namespace = store.namespaces.get(request.namespace) or Namespace(NamespaceEntry(name=request.namespace))
    requests = _requests(store, instance)
    refusal = requests._begin_confirm(b"", request, namespace, 0.0)
    if refusal is not None:
        return Answered(memory, refusal)
    gaps: list[Namespace] = []
    parts = requests._try(Held(b"", request, namespace, namespace.epoch, 0.0), 0.0, False, gaps)
    assert parts is not None
    for one in gaps:
        one.gap = False
    reply = decode_reply(parts[0])
    assert isinstance(reply, Confirmed)
    return Answered(_freeze(store) if gaps else memory, reply)


# Changes, batches, files


@cache
def receive(memory: StoreMemory, sent: Sent, old_epochs: int, durable: State | None) -> StoreMemory | None:
    """None if it is refused: of another epoch (`old_epochs`, a reading: how many before the present one are taken)."""
    store = _thaw(memory, durable)
    namespace = store.namespaces.get(sent.delta.namespace)
    if namespace is None or not 0 <= namespace.epoch - sent.delta.epoch <= old_epochs:
        return None
    parts = [b"".join(encode_record(*record) for record in sent.records)]
    namespace.receive(sent.delta, parts, store.pending, 0.0, 0)
    return _freeze(store)


@cache
def apply_over_gap(memory: StoreMemory, sent: Sent) -> StoreMemory | None:
    """A reading: a delta whose predecessor is missing is applied all the same."""
    one = memory.find(sent.delta.namespace)
    if one is None or one.entry[1] != sent.delta.epoch:
        return None
    if sent.delta.base > one.entry[2]:
        entry = (*one.entry[:2], sent.delta.base, *one.entry[3:])
        at = memory.namespaces.index(one)
        changed = one._replace(entry=entry)
        memory = memory._replace(namespaces=(*memory.namespaces[:at], changed, *memory.namespaces[at + 1 :]))
    return receive(memory, sent, 0, None)


def _step(act: Callable[[Store], object], memory: StoreMemory) -> StoreMemory:
    store = _thaw(memory)
    act(store)
    return _freeze(store)


@cache
def seal(memory: StoreMemory) -> StoreMemory:
    return _step(lambda store: store.seal(), memory)


@cache
def acknowledge(memory: StoreMemory, lsn: int) -> StoreMemory:
    """The batch in flight is durable under `lsn`."""
    return _step(lambda store: store.written(Written(store.in_flight, lsn), 0.0), memory)  # type: ignore[arg-type]


@cache
def idle(memory: StoreMemory, last_lsn: int) -> StoreMemory:
    return _step(lambda store: store.idle(Idle(last_lsn, False, 0)), memory)


@cache
def saved(memory: StoreMemory, key: MapKey, generation: Generation) -> StoreMemory:
    return _step(lambda store: store.saved(key, store.map(key), generation), memory)  # type: ignore[arg-type]


@cache
def needs(memory: StoreMemory) -> int:
    return _thaw(memory).needs()


@cache
def needed_by(memory: StoreMemory, key: MapKey) -> int:
    """`MapState.needs`."""
    return _thaw(memory).map(key).needs()  # type: ignore[union-attr]


def is_dirty(memory: MapMemory) -> bool:
    return memory.current is None or memory.current.lsn < memory.last_change
