"""An error at each call that the persistence process makes: it goes on, or ends and says so, and told nobody a lie."""

from __future__ import annotations

import random

import pytest

from persistence_proc.recovery import recover
from tests.faults.disk_faults import (
    BROKEN,
    FAILED_SYNC,
    FAULTS,
    FORBIDDEN,
    FULL,
    FULL_SHORT,
    NO_DESCRIPTORS,
    READ_ONLY,
    Call,
    Fault,
    Faults,
)
from tests.faults.store_world import (
    ENDED,
    FOLDER,
    NOT_STARTED,
    WENT_ON,
    Past,
    World,
    an_earlier_life,
    check,
    check_ends,
    make_everything_happen_often,
)
from tests.lab.effort import Effort

NEAR = {
    BROKEN: (1, 1), FAILED_SYNC: (2, 1), FULL_SHORT: (None, 1), FULL: (None, 4),
    READ_ONLY: (1, 6), FORBIDDEN: (1, 6), NO_DESCRIPTORS: (1, 6),
}  # fmt: skip
"""How often each strikes, and at which of the calls: every one, every fourth ...; at reads always."""
CHANGES = 7
SHORT = 1  # seed of the short life, which comes by every kind of call


@pytest.fixture(autouse=True)
def _everything_happens_often(monkeypatch: pytest.MonkeyPatch) -> None:
    make_everything_happen_often(monkeypatch)


@pytest.fixture
def past() -> Past:
    return an_earlier_life(random.Random(SHORT), 6)


def calls_of(past: Past, seed: int, changes: int) -> list[Call]:
    """The calls of an undisturbed run; at its end everything is there."""
    world = World(past, Faults(), random.Random(seed))
    assert world.live(changes) == WENT_ON
    last = [len(bot.states) - 1 for bot in world.bots]
    assert world.acknowledged() == last
    check(world.disk.moment().after_kill(), world.bots, last)
    return world.faults.calls


def live_with(lab: Effort, past: Past, seed: int, changes: int, fault: Fault, call: Call, cuts: int) -> None:
    """A run with this fault from this call on, and everything that is promised of it."""
    world = World(past, Faults(fault, (call.thread, call.number)), random.Random(seed))
    try:
        outcome = world.live(changes)
        assert not world.problems
        assert not world.disk.synced_again, "a file whose sync had failed was synced again"
        assert outcome != ENDED or may_end(world, fault), f"the process ended for {fault}"
        lab.count("recoveries", check_ends(world, lab.chance(fault, call), cuts))
    except AssertionError as error:
        error.add_note(f"seed {seed}: {fault}, at {call}; struck {world.faults.struck[:5]}")
        raise
    lab.count("faults", bool(world.faults.struck))
    lab.count("processes ended by a fault", outcome in (ENDED, NOT_STARTED))


def may_end(world: World, fault: Fault) -> bool:
    """A full disk is waited for; one error is left behind with its file, unless it is in doubt which file counts."""
    in_doubt = any(call.name == "fsync_dir" and call.thread == "writer" for call in world.faults.struck)
    return in_doubt or (len(world.faults.struck) > 1 and fault.name not in (FULL.name, FULL_SHORT.name))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_an_error_at_each_call_loses_nothing_acknowledged_and_is_survived_or_named(
    lab: Effort, past: Past, fault: Fault
) -> None:
    near_times, near_step = NEAR[fault]
    for seed in lab.pick((SHORT,), (SHORT, lab.seed)):
        fitting = [call for call in calls_of(past, seed, CHANGES) if call.name in fault.kinds]
        for times in lab.pick((near_times,), (1, 2, None)):
            for call in some(fitting, lab.pick(near_step, 1)):
                live_with(lab, past, seed, CHANGES, fault.lasting(times), call, cuts=lab.pick(1, 3))


def some(calls: list[Call], step: int) -> list[Call]:
    return [call for index, call in enumerate(calls) if index % step == 0 or call.name == "read_file"]


def test_errors_in_longer_lives_lose_nothing_acknowledged(lab: Effort) -> None:
    chance = lab.chance("lives")
    for _ in range(lab.pick(3, 300)):
        seed, changes = chance.randrange(2**32), chance.randrange(20, 60)
        past = an_earlier_life(random.Random(seed), chance.randrange(1, 20))
        calls = calls_of(past, seed, changes)
        for _ in range(3):
            fault = chance.choice(FAULTS).lasting(chance.choice((1, 2, 5, None)))
            live_with(lab, past, seed, changes, fault, chance.choice(calls), cuts=2)


def test_the_workload_comes_by_every_kind_of_call(past: Past) -> None:
    """Or the tests above would say nothing of it."""
    calls = calls_of(past, SHORT, CHANGES)
    seen = {(call.thread, call.name, call.path.rpartition(".")[2]) for call in calls}
    assert seen >= {
        ("writer", "pwrite", "tmp"), ("writer", "fdatasync", "tmp"), ("writer", "replace", "tmp"),
        ("checkpointer", "zero_fill", "tmp"), ("checkpointer", "unlink", "log"), ("checkpointer", "unlink", "pkl"),
        ("checkpointer", "link_or_copy", "pkl"), ("checkpointer", "write", "tmp"), ("checkpointer", "fsync", "tmp"),
        ("main", "read_file", "log"), ("main", "read_file", "pkl"), ("main", "fsync", "log"),
        ("main", "write", "tmp"), ("main", "replace", "tmp"),
    }  # fmt: skip


def test_a_write_cut_short_is_taken_back_before_it_is_tried_again(lab: Effort, past: Past) -> None:
    for call in calls_of(past, SHORT, CHANGES):
        if (call.thread, call.name) == ("writer", "pwrite"):
            world = World(past, Faults(FULL_SHORT.lasting(3), (call.thread, call.number)), random.Random(SHORT))
            assert world.live(CHANGES) == WENT_ON
            for moment, _ in world.moments:
                recovered = recover(moment.after_kill(), FOLDER)
                assert not any("torn" in note for note in recovered.notes), recovered.notes
                lab.count("writes cut short")
