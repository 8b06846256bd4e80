"""The table, walked in full: what must hold for every state and event."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from supervisor.lifecycle import ALIVE, TABLE, Action, Event, State, transition

PAIRS = list(product(State, Event))
DEATHS = {Event.FINISHED, Event.FAILED, Event.FAILED_TOO_OFTEN}
SIGNALS = {Action.TERM, Action.KILL, Action.ABORT}


def test_every_state_has_its_row() -> None:
    assert set(TABLE) == set(State)


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_there_is_one_process_at_a_time(state: State, event: Event) -> None:
    after, action = transition(state, event)
    has_process = state in ALIVE and event not in DEATHS
    if action is Action.SPAWN:
        assert not has_process
        assert after is State.STARTING
    elif after != state:
        assert (after in ALIVE) == has_process


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_signals_go_to_living_processes_only(state: State, event: Event) -> None:
    _, action = transition(state, event)
    if action in SIGNALS:
        assert state in ALIVE
        assert event not in DEATHS


@pytest.mark.parametrize("state", State)
def test_stop_always_leads_to_stopped(state: State) -> None:
    after, action = transition(state, Event.STOP)
    if state in ALIVE:
        assert after is State.STOPPING
        assert action is (Action.NOTHING if state is State.STOPPING else Action.TERM)
        assert transition(after, Event.FINISHED) == (State.STOPPED, Action.NOTHING)
    else:
        assert (after, action) == (State.STOPPED, Action.NOTHING)


@pytest.mark.parametrize("state", [State.STOPPING, State.RESTARTING, State.ABORTING])
def test_who_does_not_leave_in_time_is_killed(state: State) -> None:
    assert transition(state, Event.TIMEOUT) == (state, Action.KILL)


@pytest.mark.parametrize("state", [State.BACKOFF, State.FATAL])
def test_who_is_dead_unasked_is_tried_again(state: State) -> None:
    assert transition(state, Event.TIMEOUT) == (State.STARTING, Action.SPAWN)


@pytest.mark.parametrize("state", [State.STOPPED, State.DONE])
def test_who_left_for_good_stays_away_until_somebody_asks(state: State) -> None:
    unasked = set(Event) - {Event.START, Event.STOP, Event.RESTART}
    assert {transition(state, event) for event in unasked} == {(state, Action.NOTHING)}
    assert transition(state, Event.RESTART) == (State.STARTING, Action.SPAWN)


@pytest.mark.parametrize(("asked", "action"), [(Event.RESTART, Action.TERM), (Event.KILL, Action.KILL)])
@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING])
def test_a_death_that_was_asked_for_pays_no_backoff(state: State, asked: Event, action: Action) -> None:
    assert transition(state, asked) == (State.RESTARTING, action)
    assert transition(State.RESTARTING, Event.FINISHED) == (State.STARTING, Action.SPAWN)


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.ABORTING])
def test_only_dying_too_often_is_loud(state: State) -> None:
    assert transition(state, Event.FAILED) == (State.BACKOFF, Action.WAIT)
    assert transition(state, Event.FAILED_TOO_OFTEN) == (State.FATAL, Action.WAIT_LOUDLY)
    loud = {pair for pair in PAIRS if transition(*pair)[1] is Action.WAIT_LOUDLY}
    assert {event for _, event in loud} == {Event.FAILED_TOO_OFTEN}


def test_a_hung_program_gets_sigabrt_before_sigkill() -> None:
    assert transition(State.RUNNING, Event.HUNG) == (State.ABORTING, Action.ABORT)
    assert transition(State.ABORTING, Event.TIMEOUT) == (State.ABORTING, Action.KILL)


@pytest.mark.parametrize("state", State)
def test_only_who_starts_can_be_late_and_is_asked_politely_first(state: State) -> None:
    expected = (State.ABORTING, Action.TERM) if state is State.STARTING else (state, Action.NOTHING)
    assert transition(state, Event.LATE) == expected


def test_every_state_can_be_reached_and_left() -> None:
    reached, fresh = {State.STOPPED}, {State.STOPPED}
    while fresh:
        fresh = {transition(state, event)[0] for state in fresh for event in Event} - reached
        reached |= fresh
    assert reached == set(State)
    assert all(any(transition(state, event)[0] is not state for event in Event) for state in State)


def test_an_order_that_is_given_twice_is_the_same_as_once() -> None:
    for state, order in product(State, (Event.START, Event.STOP)):
        after, _ = transition(state, order)
        assert transition(after, order) == (after, Action.NOTHING)


def test_the_diagram_in_the_documents_is_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "supervision.md").read_text()
    drawn = {
        (before, event, after, action or "nothing")
        for before, after, labels in re.findall(r"^    (\w+) --> (\w+): (.+)$", text, re.MULTILINE)
        for event, _, action in (label.partition(" / ") for label in labels.split(", "))
    }
    table = {(str(a), str(e), str(b), str(action)) for a, row in TABLE.items() for e, (b, action) in row.items()}
    assert drawn == table
