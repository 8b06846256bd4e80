"""The oracle notices what it is there for: a lost step, a half transaction, a state that went back."""

from __future__ import annotations

import pytest

from tests.chaos.oracle import Lost, Model, Truth, digest


def model(k: int) -> Model:
    made = Model(1)
    made.go_to(k)
    return made


def truth(said: int, flushed: int = 0) -> Truth:
    made = Truth("bot", 1)
    made.said, made.flushed = said, flushed
    return made


def test_the_last_step_that_was_said_or_one_more_is_right() -> None:
    assert truth(100).recovered(digest(model(100).maps)) == 101
    assert truth(100).recovered(digest(model(101).maps)) == 102


@pytest.mark.parametrize("k", [0, 99, 102])
def test_any_other_number_of_steps_is_named(k: int) -> None:
    with pytest.raises(Lost, match=f"100 steps had returned .* after step {k}$"):
        truth(100).recovered(digest(model(k).maps))


def test_half_a_transaction_and_another_order_are_no_state_at_all() -> None:
    half = model(95)
    half.maps[1].popitem()
    moved = model(95)
    first = next(iter(moved.maps[0]))
    moved.maps[0][first] = moved.maps[0].pop(first)
    for other in (half, moved):
        with pytest.raises(Lost, match="after no step at all"):
            truth(95).recovered(digest(other.maps))


def test_the_journal_alone_holds_what_was_flushed_and_perhaps_more() -> None:
    for k in (50, 77, 101):
        truth(100, flushed=50).in_the_journal(model(k).maps)
    for k in (49, 102):
        with pytest.raises(Lost):
            truth(100, flushed=50).in_the_journal(model(k).maps)


def test_a_file_is_a_prefix_and_never_goes_back() -> None:
    one = truth(100)
    one.in_the_file(0, model(60).maps[0])
    one.in_the_file(0, model(80).maps[0])
    with pytest.raises(Lost):
        one.in_the_file(0, model(60).maps[0])
    with pytest.raises(Lost):
        truth(100).in_the_file(0, model(102).maps[0])
