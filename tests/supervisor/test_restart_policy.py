"""Histories of one program, told to the policy through a clock that the test turns."""

from __future__ import annotations

from supervisor.config import RestartSettings
from supervisor.restart_policy import RestartPolicy, Verdict

SETTINGS = RestartSettings(
    backoff_first=1.0, backoff_max=8.0, stable_after=10.0, limit=8, window=100.0, fatal_retry=300.0
)


class Story:
    """A program that lives and dies when told; its jitter takes the upper end."""

    def __init__(self, settings: RestartSettings = SETTINGS, *, low: bool = False) -> None:
        self.now = 0.0
        self.policy = RestartPolicy(settings, lambda: self.now, lambda a, b: a if low else b)

    def dies_after(self, seconds: float) -> Verdict:
        """Started, lived so long, died; then the wait passes."""
        self.policy.started()
        self.now += seconds
        verdict = self.policy.died()
        self.now += verdict.delay
        return verdict


def test_the_first_restart_is_at_once() -> None:
    assert Story().dies_after(3600.0) == Verdict(0.0)


def test_quick_deaths_wait_twice_as_long_each_time_up_to_the_maximum() -> None:
    story = Story()
    assert [story.dies_after(0.1).delay for _ in range(7)] == [0.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_jitter_takes_off_up_to_half() -> None:
    story = Story(low=True)
    assert [story.dies_after(0.1).delay for _ in range(4)] == [0.0, 0.5, 1.0, 2.0]


def test_a_stable_life_forgives_what_was_before() -> None:
    story = Story()
    for _ in range(4):
        story.dies_after(0.1)
    assert story.dies_after(10.5) == Verdict(0.0)


def test_too_many_deaths_in_the_window_are_fatal() -> None:
    story = Story()
    verdicts = [story.dies_after(0.1) for _ in range(8)]
    assert [verdict.fatal for verdict in verdicts] == [False] * 7 + [True]
    assert verdicts[-1].delay == 300.0


def test_stable_lives_that_all_end_within_the_window_are_fatal_too() -> None:
    story = Story()
    assert [story.dies_after(11.0).fatal for _ in range(8)] == [False] * 7 + [True]


def test_deaths_that_left_the_window_do_not_count() -> None:
    story = Story()
    assert not any(story.dies_after(15.0).fatal for _ in range(50))


def test_fatal_stays_fatal_although_the_window_is_empty_again() -> None:
    story = Story()
    for _ in range(8):
        story.dies_after(0.1)
    assert [story.dies_after(0.1) for _ in range(3)] == [Verdict(300.0, fatal=True)] * 3


def test_a_stable_life_ends_fatal() -> None:
    story = Story()
    for _ in range(8):
        story.dies_after(0.1)
    assert story.dies_after(60.0) == Verdict(0.0)


def test_a_person_who_starts_it_ends_fatal() -> None:
    story = Story()
    for _ in range(8):
        story.dies_after(0.1)
    story.policy.forgive()
    assert story.dies_after(0.1) == Verdict(0.0)


def test_a_thousand_deaths_overflow_nothing() -> None:
    story = Story(RestartSettings(backoff_first=1.0, backoff_max=8.0, limit=10**6, stable_after=10.0, window=1e9))
    assert [story.dies_after(0.1).delay for _ in range(2000)][-1] == 8.0
