"""Lives of a program, told step by step: no sleep, no process. `Story` checks the invariants at each step."""

from __future__ import annotations

import signal
from itertools import product

import pytest

from supervisor.lifecycle import Event, State
from tests.supervisor.fakes import Story


def test_started_ready_died_died_died_gave_up_slow_retry_recovered() -> None:
    story = Story()
    story.starts_and_is_ready()
    story.passes(60.0)
    story.dies(-signal.SIGKILL)
    assert story.state == "starting"  # at once
    story.dies(1)
    assert story.state == "backoff"
    story.passes(0.9)
    assert story.state == "backoff"
    story.passes(0.1)
    assert story.state == "starting"
    story.dies(1)
    assert story.state == "fatal"
    story.passes(299.0)
    assert story.state == "fatal"
    story.passes(1.0)
    story.says("ready")
    story.passes(20.0)
    assert story.state == "running"
    story.dies(1)
    assert story.state == "starting"  # forgiven: at once again
    assert story.unit.starts == 5


def test_each_restart_says_why() -> None:
    story = Story(watchdog=5.0)
    story.starts_and_is_ready()
    story.passes(3.0)
    story.dies(-signal.SIGSEGV)
    assert story.told[-1] == "started: again after: SIGSEGV after 3.0 s"
    story.says("ready")
    story.passes(12.0)
    story.dies(-signal.SIGABRT)
    assert story.told[-1] == "started: again after: hung (no beat for 12.0 s), SIGABRT after 12.0 s"
    assert story.unit.last_reason == "hung (no beat for 12.0 s), SIGABRT after 12.0 s"


def test_a_program_without_a_beat_is_aborted_then_killed() -> None:
    story = Story(watchdog=5.0)
    story.starts_and_is_ready()
    story.passes(4.0)
    story.says("beat")
    story.passes(4.9)
    assert story.state == "running"
    assert story.unit.next_deadline() == pytest.approx(9.0)
    story.passes(0.2)
    assert (story.state, story.child.signals) == ("aborting", [signal.SIGABRT])
    story.passes(3.0)
    assert story.child.signals == [signal.SIGABRT, signal.SIGKILL]


def test_a_program_that_is_never_ready_is_stopped_politely_then_firmly() -> None:
    story = Story(start_timeout=30.0, stop_timeout=5.0)
    story.happens(Event.START)
    story.passes(29.0)
    assert story.state == "starting"
    story.passes(1.0)
    assert (story.state, story.child.signals) == ("aborting", [signal.SIGTERM, signal.SIGCONT])
    story.passes(5.0)
    assert story.child.signals[-1] == signal.SIGKILL
    story.dies(-signal.SIGKILL)
    assert "late (not ready, and not a word for 30.0 s)" in story.told[-1]
    assert story.state == "starting"


def test_a_recovery_that_says_how_far_it_is_is_not_late() -> None:
    story = Story(start_timeout=30.0)
    story.happens(Event.START)
    for percent in range(10):
        story.passes(29.0)
        story.says(f"recovering {percent}")
    assert story.state == "starting"
    assert story.unit.recovering == 9


def test_a_late_program_that_leaves_politely_with_0_is_started_again_all_the_same() -> None:
    story = Story(start_timeout=1.0, restart="on-failure")
    story.happens(Event.START)
    story.passes(1.0)
    story.dies(0)
    assert story.state == "starting"


def test_memory_is_warned_of_once_until_there_is_air_again() -> None:
    story = Story(memory_limit=1000)
    story.starts_and_is_ready()
    for resident in (700, 810, 990, 850, 790, 900, 950):
        story.weighs(resident)
    assert [line.partition(" ")[0] for line in story.told if line.startswith("heavy")] == ["heavy:"] * 2
    assert story.state == "running"


def test_a_program_over_its_memory_limit_is_stopped_politely_then_firmly() -> None:
    story = Story(memory_limit=1000, stop_timeout=5.0)
    story.starts_and_is_ready()
    story.weighs(1001)
    assert (story.state, story.child.signals) == ("aborting", [signal.SIGTERM, signal.SIGCONT])
    story.weighs(2000)
    story.passes(5.0)
    assert story.child.signals[-1] == signal.SIGKILL
    story.dies(-signal.SIGKILL)
    assert "overweight (1001 bytes resident, the limit is 1000), SIGKILL" in story.told[-1]


def test_no_process_to_be_had_is_a_death_like_another() -> None:
    story = Story()
    story.no_more_processes = True
    story.happens(Event.START)
    story.passes(0.0)
    assert story.state == "backoff"
    assert "not started: Resource temporarily unavailable" in story.told
    story.no_more_processes = False
    story.passes(1.0)
    story.says("ready")
    assert story.state == "running"


def test_to_wait_until_another_has_left_is_no_death_and_ends_with_the_other() -> None:
    story, other = Story(), Story(name="before")
    story.in_the_way = other.unit
    for _ in range(20):
        story.happens(Event.START)
        story.passes(1000.0)
    assert (story.state, story.children, story.unit.starts) == ("backoff", [], 0)
    assert story.unit.status().retry_in is None
    story.in_the_way = None
    story.passes(0.0)
    assert (story.state, story.unit.starts) == ("starting", 1)
    assert story.told == ["waiting: until before has left, which has its place"] * 20 + ["started"]


def test_what_waits_until_another_has_left_can_be_stopped_and_stays_so() -> None:
    story = Story()
    story.in_the_way = Story(name="before").unit
    story.happens(Event.START)
    story.happens(Event.STOP)
    story.in_the_way = None
    story.passes(1000.0)
    assert (story.state, story.children) == ("stopped", [])


# The spare


def with_a_spare() -> Story:
    story = Story(spare=True, cwd="/bots")
    story.starts_and_is_ready()
    story.warms_a_spare()
    return story


def test_a_spare_becomes_the_program_and_another_is_made_when_that_has_settled() -> None:
    story = with_a_spare()
    spare = story.spare
    story.dies(-signal.SIGKILL)
    assert story.child is spare
    assert spare.told == [b"go /bots\0"]
    assert (story.state, story.spare) == ("starting", None)
    story.passes(60.0)
    assert story.spare is None, "it would take the processor from the program that starts"
    story.says("ready")
    story.passes(0.9)
    assert story.spare is None
    story.passes(0.2)
    assert story.spare is not None


def test_a_spare_that_is_not_ready_makes_way_for_the_ordinary_start() -> None:
    story = Story(spare=True)
    story.starts_and_is_ready()
    story.passes(2.0)
    half_made = story.spare
    assert half_made is not None
    story.dies(-signal.SIGKILL)
    assert story.child is not half_made
    assert half_made.signals == [signal.SIGKILL]
    story.dies(-signal.SIGKILL, half_made)
    assert not any("spare failed" in line for line in story.told)


def test_the_watchdog_and_the_uptime_of_a_spare_begin_with_the_word() -> None:
    story = Story(spare=True, watchdog=5.0)
    story.starts_and_is_ready()
    story.warms_a_spare()
    for _ in range(100):
        story.says("beat")
        story.passes(4.0)
    story.dies(-signal.SIGKILL)
    story.says("ready")
    assert story.unit.status().uptime == 0.0
    story.passes(4.9)
    assert story.state == "running"


def test_a_spare_that_dies_is_said_once_and_tried_again_slowly() -> None:
    story = Story(spare=True)
    story.starts_and_is_ready()
    started = []
    for _ in range(100_000):
        story.passes(1.0)
        if story.spare is not None:
            started.append(story.now)
            story.dies(70, story.spare)
    assert sum("spare failed" in line for line in story.told) == 1
    assert story.unit.starts == 1
    assert len(started) < 40
    assert started[1] - started[0] < 5.0 < started[3] - started[2]


def test_a_spare_that_dies_after_the_word_could_not_be_said_is_no_death_of_the_program() -> None:
    story = with_a_spare()
    dead = story.spare
    assert dead is not None
    dead.code = -signal.SIGKILL  # nobody has noticed yet
    story.children.remove(dead)
    story.dies(-signal.SIGKILL)
    assert story.child is not dead
    story.unit.ended(dead)  # type: ignore[arg-type]
    assert story.state == "starting"
    assert story.unit.starts == 2


def test_a_spare_that_would_print_into_a_log_that_was_moved_is_not_taken() -> None:
    story = with_a_spare()
    spare = story.spare
    assert spare is not None
    story.log.opened += 1
    story.dies(-9)
    assert story.child is not spare
    assert (spare.told, spare.signals) == ([], [signal.SIGKILL])


def test_a_spare_that_never_gets_ready_is_killed() -> None:
    story = Story(spare=True)
    story.starts_and_is_ready()
    story.passes(2.0)
    spare = story.spare
    assert spare is not None
    story.passes(120.0)
    assert spare.signals == [signal.SIGKILL]
    story.dies(-signal.SIGKILL, spare)
    assert any("spare failed" in line for line in story.told)


def test_what_a_person_starts_again_begins_with_a_fresh_interpreter() -> None:
    story = with_a_spare()
    old = story.spare
    assert old is not None
    story.happens(Event.RESTART)
    assert old.signals == [signal.SIGKILL]
    story.dies(0)
    assert story.child is not old
    story.dies(-signal.SIGKILL, old)


def test_a_program_that_is_to_stop_keeps_no_spare() -> None:
    story = with_a_spare()
    spare = story.spare
    story.happens(Event.STOP)
    story.passes(0.0)
    assert spare is not None
    assert spare.signals == [signal.SIGKILL]
    story.dies(0)
    assert story.unit.has_process  # it waits until the spare is reaped, too
    story.dies(-signal.SIGKILL, spare)
    assert not story.unit.has_process


def test_a_spare_says_nothing_in_the_name_of_the_program() -> None:
    story = with_a_spare()
    story.happens(Event.KILL)
    story.dies(-signal.SIGKILL)
    story.says("ready")
    spare = story.warms_a_spare()
    story.dies(-signal.SIGKILL)
    assert story.child is spare
    other = Story(spare=True, watchdog=5.0)
    other.starts_and_is_ready()
    talker = other.warms_a_spare()
    other.passes(2.0)
    other.says("beat", "ready", "recovering 3", child=talker)
    assert other.unit.recovering is None
    other.passes(2.0)
    assert other.state == "aborting"


# Every combination

RUNS: list[tuple[str, object]] = [("happens", Event.START), ("says", "ready")]
ROADS: dict[State, list[tuple[str, object]]] = {
    State.STOPPED: [],
    State.STARTING: [("happens", Event.START)],
    State.RUNNING: RUNS,
    State.RESTARTING: [*RUNS, ("happens", Event.RESTART)],
    State.ABORTING: [*RUNS, ("happens", Event.HUNG)],
    State.STOPPING: [*RUNS, ("happens", Event.STOP)],
    State.BACKOFF: [*RUNS, ("dies", 1), ("dies", 1)],
    State.FATAL: [*RUNS, ("dies", 1), ("dies", 1), ("passes", 1.0), ("dies", 1)],
    State.DONE: [*RUNS, ("dies", 0)],
}
ASKED = [event for event in Event if event not in (Event.FINISHED, Event.FAILED, Event.FAILED_TOO_OFTEN)]
WAITS = {State.RESTARTING, State.ABORTING, State.STOPPING, State.BACKOFF, State.FATAL}


@pytest.mark.parametrize(("state", "event"), list(product(State, ASKED)))
def test_whatever_happens_in_whatever_state_nobody_waits_for_ever(state: State, event: Event) -> None:
    story = Story(restart="on-failure")
    story.goes(ROADS[state])
    assert story.unit.state is state
    before = list(story.children)
    story.happens(event)
    if story.unit.state in WAITS and not (story.unit.child and signal.SIGKILL in story.child.signals):
        assert story.unit.deadline is not None
    story.passes(1000.0)
    if story.unit.state in WAITS:
        assert signal.SIGKILL in story.child.signals
    assert len(story.children) <= len(before) + 1


@pytest.mark.parametrize(("first", "second"), list(product(ASKED, ASKED)))
def test_two_orders_after_each_other_leave_one_process_or_none(first: Event, second: Event) -> None:
    for road in ROADS.values():
        story = Story(restart="on-failure", spare=True)
        story.goes(road)
        story.happens(first)
        story.happens(second)
        story.passes(1000.0)
        if story.unit.alive:
            story.dies(-signal.SIGKILL)
            story.passes(1000.0)
        assert story.state in ("stopped", "starting", "done", "running")
