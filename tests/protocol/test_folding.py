"""Folding is checked against the definition: apply the changes one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.changes import CLEAR, DELETE, DROP, INSERT, REPLACE, Change, apply_change
from protocol.folding import Fold, fold_changes

State = dict[bytes, bytes]
KEYS = [bytes([c]) for c in b"abcde"]
bases = st.lists(st.sampled_from(KEYS), unique=True).map(lambda keys: dict.fromkeys(keys, b"base"))


@st.composite
def histories(draw: st.DrawFn) -> tuple[State, list[Change]]:
    """A state and changes as a live map makes them: INSERT of an absent key, REPLACE and DELETE of a present one."""
    base = draw(bases)
    state = dict(base)
    changes: list[Change] = []
    for number in range(draw(st.integers(0, 14))):
        key, what = draw(st.sampled_from(KEYS)), draw(st.integers(0, 19))
        if what < 2:
            change = ((CLEAR, DROP)[what], "m", b"", b"")
        elif key not in state:
            change = (INSERT, "m", key, b"%d" % number)
        elif what < 10:
            change = (REPLACE, "m", key, b"%d" % number)
        elif what < 13:  # a resend, or a move to the end
            change = (INSERT, "m", key, b"%d" % number)
        else:
            change = (DELETE, "m", key, b"")
        changes.append(change)
        apply(state, [change])
    return base, changes


def apply(state: State, changes: list[Change]) -> State:
    for op, _, key, value in changes:
        apply_change(state, op, key, value)
    return state


def fold(changes: list[Change], base: State | None = None) -> list[Change]:
    """Folded with nothing unseen, or, with `base`, with what that state lacks unseen."""
    result = Fold()
    for op, _, key, value in changes:
        result.add(op, key, value, base is not None and op == INSERT and key not in base)
    return list(result.changes("m"))


def ordered(state: State) -> list[tuple[bytes, bytes]]:
    return list(state.items())


@given(histories())
def test_applying_a_fold_equals_applying_one_by_one_with_the_order(history: tuple[State, list[Change]]) -> None:
    base, changes = history
    expected = apply(dict(base), changes)
    assert ordered(apply(dict(base), fold(changes))) == ordered(expected)
    assert ordered(apply(dict(base), fold(changes, base))) == ordered(expected)


@given(histories(), st.integers(0, 14))
def test_a_fold_on_a_state_that_holds_a_first_part_gives_the_same(
    history: tuple[State, list[Change]], part: int
) -> None:
    base, changes = history
    state = apply(dict(base), changes[:part])
    assert ordered(apply(state, fold(changes))) == ordered(apply(dict(base), changes))


@given(histories())
def test_a_fold_applied_twice_gives_the_same(history: tuple[State, list[Change]]) -> None:
    base, changes = history
    folded = fold(changes)
    assert ordered(apply(apply(dict(base), folded), folded)) == ordered(apply(dict(base), changes))


@given(histories(), st.integers(0, 14))
def test_folds_of_two_parts_fold_like_the_whole(history: tuple[State, list[Change]], part: int) -> None:
    base, changes = history
    again = fold(fold(changes[:part]) + fold(changes[part:]))
    assert ordered(apply(dict(base), again)) == ordered(apply(dict(base), changes))


@given(histories())
def test_a_key_appears_at_most_once_in_a_fold(history: tuple[State, list[Change]]) -> None:
    keys = [key for _, _, key, _ in fold(history[1])]
    assert len(keys) == len(set(keys))


@given(histories())
def test_a_delete_vanishes_only_with_an_unseen_insert_or_behind_a_clear(history: tuple[State, list[Change]]) -> None:
    base, changes = history
    for folded, unseen in ((fold(changes), False), (fold(changes, base), True)):
        cleared = bool(folded) and folded[0][0] in (CLEAR, DROP)
        touched = {key for op, _, key, _ in changes if key}
        for key in touched - {key for _, _, key, _ in folded}:
            assert cleared or (unseen and key not in base)


def test_a_delete_of_a_seen_insert_stays() -> None:
    insert, delete = (INSERT, "m", b"a", b"1"), (DELETE, "m", b"a", b"")
    assert fold([insert, delete]) == [delete]
    assert fold([insert, delete], {}) == []


def test_an_unseen_insert_stays_unseen_through_updates_and_a_deleted_one_does_not_become_so() -> None:
    result = Fold()
    result.add(INSERT, b"a", b"1", True)
    result.add(REPLACE, b"a", b"2", False)
    result.add(INSERT, b"a", b"3", False)
    result.add(DELETE, b"a", b"", False)
    assert not result
    result.add(DELETE, b"b", b"", False)
    result.add(INSERT, b"b", b"1", True)  # absent now, but the state below may hold it
    result.add(DELETE, b"b", b"", False)
    assert list(result.changes("m")) == [(DELETE, "m", b"b", b"")]


def test_a_pile_of_changes_behind_a_clear_is_the_items_only() -> None:
    changes = [(INSERT, "m", b"a", b"1"), (CLEAR, "m", b"", b""), (INSERT, "m", b"b", b"2"), (INSERT, "m", b"c",
    b"3"),
               (DELETE, "m", b"b", b"")]  # fmt: skip
    assert fold(changes) == [(CLEAR, "m", b"", b""), (INSERT, "m", b"c", b"3")]


def test_a_drop_is_not_forgotten_behind_a_later_clear() -> None:
    folded = fold([(DROP, "m", b"", b""), (INSERT, "m", b"a", b"1"), (CLEAR, "m", b"", b"")])
    assert folded == [(DROP, "m", b"", b"")]


def test_maps_are_folded_apart() -> None:
    folds: dict[str, Fold] = {}
    fold_changes(folds, [(INSERT, "m", b"a", b"1"), (INSERT, "n", b"a", b"2"), (REPLACE, "m", b"a", b"3")], False)
    assert {name: list(f.changes(name)) for name, f in folds.items()} == {
        "m": [(INSERT, "m", b"a", b"3")],
        "n": [(INSERT, "n", b"a", b"2")],
    }
    assert [len(f) for f in folds.values()] == [1, 1]


def test_a_replace_behind_a_delete_puts_the_key_at_the_end() -> None:
    base = {b"a": b"1", b"b": b"2"}
    changes: list[Change] = [(DELETE, "m", b"a", b""), (REPLACE, "m", b"a", b"3")]
    assert ordered(apply(dict(base), fold(changes))) == [(b"b", b"2"), (b"a", b"3")]
