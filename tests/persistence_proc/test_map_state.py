"""Layers of a map: whatever is frozen, merged or changed in between, its items are those of a plain dict."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from persistence_proc.catalog import Generation, MapEntry
from persistence_proc.map_state import NOTHING_NEEDED, MapState, entry_needs
from protocol.changes import CLEAR, DELETE, INSERT, REPLACE, apply_change
from protocol.folding import Fold

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
CHANGES = st.tuples(st.sampled_from([INSERT, REPLACE, DELETE, CLEAR]), KEYS, st.binary(min_size=1, max_size=2))
STEPS = st.lists(st.one_of(CHANGES, st.sampled_from(["freeze", "thaw", "merge"])), max_size=60)


def apply(state: MapState, op: int, key: bytes, value: bytes, pending: Fold) -> None:
    """As `Namespace.apply` does."""
    if op == CLEAR:
        state.clear(CLEAR)
        pending.add(CLEAR, b"", b"", False)
        return
    effect, new = state.apply(op, key, value)
    if effect:
        pending.add(effect, key, value, new and effect == INSERT)


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_items_equal_a_plain_dict_through_all_layers_and_so_does_the_fold(steps: list[object]) -> None:
    state, plain, pending = MapState(), {}, Fold()
    frozen: tuple[dict[bytes, bytes], dict[bytes, bytes]] | None = None
    for step in steps:
        if isinstance(step, tuple):
            apply(state, *step, pending)
            apply_change(plain, *step)
        elif step == "freeze" and not state.is_frozen:
            frozen = (state.freeze(), dict(plain))
        elif step == "thaw" and frozen is not None:
            assert list(frozen[0].items()) == list(frozen[1].items()), "the frozen items were changed"
            state.thaw()
            frozen = None
        elif step == "merge" and frozen is None:
            state.merge(2)
        assert len(state) == len(plain)
        assert all(state.get(key) == plain.get(key) for key in (b"a", b"b", b"c", b"d", b"e"))
    assert list(state.as_dict().items()) == list(plain.items())
    replayed: dict[bytes, bytes] = {}
    for op, _, key, value in pending.changes("m"):
        apply_change(replayed, op, key, value)
    assert list(replayed.items()) == list(plain.items()), "the journal would say something else"


def test_a_save_of_a_big_map_copies_nothing() -> None:
    items = {b"%d" % n: b"v" for n in range(1000)}
    state = MapState(None, items)
    assert state.freeze() is items
    state.apply(REPLACE, b"5", b"new")
    assert items[b"5"] == b"v"
    assert state.get(b"5") == b"new"


def test_a_redundant_write_is_judged_against_memory() -> None:
    state = MapState()
    assert state.apply(INSERT, b"k", b"1") == (INSERT, True)
    assert state.apply(REPLACE, b"k", b"1") == (0, False)
    assert state.apply(DELETE, b"k", b"") == (DELETE, False)
    assert state.apply(DELETE, b"k", b"") == (0, False)
    assert state.apply(REPLACE, b"k", b"1") == (INSERT, True)


def generations(current: int | None, previous: int | None) -> MapEntry:
    made = [None if lsn is None else Generation(lsn, 0) for lsn in (current, previous)]
    return MapEntry("ns", "m", incarnation=10, last_change=50, current=made[0], previous=made[1])


def test_an_idle_map_with_two_fresh_generations_holds_no_segment() -> None:
    assert entry_needs(generations(60, 50)) == NOTHING_NEEDED


def test_an_old_previous_generation_holds_the_frames_behind_it() -> None:
    assert entry_needs(generations(60, 49)) == 50


def test_a_map_with_one_generation_holds_everything_since_it_was_created() -> None:
    assert entry_needs(generations(60, None)) == 10
