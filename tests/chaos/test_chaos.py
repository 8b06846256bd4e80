"""All promises under chaos, briefly: what `python -m tests.chaos` does with a thousand kills."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.episodes import run_episode
from tests.lab.effort import Effort


@pytest.mark.parametrize("supervised", [False, True], ids=["bots and persistence", "a supervisor and its children"])
def test_nothing_is_lost_whoever_is_killed_whenever(lab: Effort, tmp_path: Path, supervised: bool) -> None:
    counted: Counter[str] = Counter()
    rounds = lab.pick(2 if supervised else 3, 40)
    run_episode(lab.seed, 0, tmp_path, counted, rounds, supervised)
    assert counted["kills"] > 0
    for what, number in counted.items():
        lab.count(what, number)


def test_after_three_hundred_kills_the_right_processes_run_and_the_state_is_whole(lab: Effort, tmp_path: Path) -> None:
    counted: Counter[str] = Counter()
    for number in range(1, 100):
        run_episode(lab.seed, number, tmp_path, counted, rounds=lab.pick(3, 20), supervised=True)
        if counted["kills"] >= lab.pick(12, 300) and counted["kills of supervisors"]:
            break
    assert counted["kills of supervisors"] > 0
    assert counted["spares seen"] > 0
    for what, number in counted.items():
        lab.count(what, number)
