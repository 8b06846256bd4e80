"""Runs of chaos: an `Episode` by its number and seed, a `Lane` of them one after the other."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.lives import Arsenal
from tests.chaos.supervised import SupervisedWorld
from tests.chaos.world import World

ROUNDS = 12  # in one directory
SUPERVISED_EVERY = 4  # of so many episodes one has a supervisor


class EpisodeFailed(AssertionError):
    """A promise is broken: in which round, and where everything is kept."""


def is_supervised(number: int) -> bool:
    return number % SUPERVISED_EVERY == SUPERVISED_EVERY - 1


def run_episode(
    seed: int, number: int, fired: Path, counted: Counter[str], rounds: int = ROUNDS, supervised: bool | None = None
) -> None:
    """One directory, from empty to its last round; removed if all went well. Raises `EpisodeFailed`."""
    chance = random.Random(f"{seed}/{number}")
    folder = Path(tempfile.mkdtemp(prefix="ol-chaos-"))
    arsenal = Arsenal(fired, folder.name, chance)
    kind = SupervisedWorld if (is_supervised(number) if supervised is None else supervised) else World
    done = 0
    try:
        with kind(folder, chance, arsenal, counted) as world:
            while done < rounds:
                world.round()
                done += 1
            world.bring_up()
    except Exception as error:
        what = f"seed {seed}, episode {number}, round {done}: {error!r}\nkept: {folder}\n"
        raise EpisodeFailed(f"{what}replay: python -m tests.chaos --seed {seed} --episode {number}") from error
    except BaseException:  # told to leave
        shutil.rmtree(folder)
        raise
    counted["rounds"] += rounds
    shutil.rmtree(folder)


def run_lane(seed: int, first: int, step: int, kills: int, missing_ok: float, fired: Path) -> Counter[str]:
    """Episodes `first`, `first + step`, ... until `kills`; then on until every point has fired, or `missing_ok` seconds
    more have gone.
    """
    counted: Counter[str] = Counter()
    number, deadline = first, None
    while True:
        run_episode(seed, number, fired, counted)
        number += step
        if counted["kills"] >= kills:
            deadline = deadline or time.monotonic() + missing_ok
            if not Arsenal(fired, "", random.Random()).missing() or time.monotonic() > deadline:
                return counted
