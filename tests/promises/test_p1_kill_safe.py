"""P1, P3, P4: what had returned survives SIGKILL of any processes, as a prefix, with no half transaction."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from strategy_proc import connect
from tests.processes import PersistenceProcess, WorkerProcess
from tests.promises.workload import Maps, half_steps_in, steps_in


def run_and_kill(
    persistence: PersistenceProcess, first: int, steps: int, instead: Callable[[WorkerProcess], None] | None = None
) -> int:
    """Let a worker make at least `steps` steps, kill it, and return the last one that it said had returned."""
    with WorkerProcess("", str(first), module="tests.promises.worker", env=persistence.env("bot")) as worker:
        assert worker.read_line() == "connected"
        said = first - 1
        while said < first - 1 + steps:
            said = int(worker.read_line())
        (instead or WorkerProcess.kill)(worker)
        return int([str(said), *worker.read_to_end()][-1])


def recovered(persistence: PersistenceProcess) -> Maps:
    with connect("bot", data_dir=persistence.data_dir, timeout=20) as state:
        return state.map("left").snapshot(), state.map("right").snapshot()


def check(maps: Maps, returned: int) -> int:
    """The number of the step to go on with."""
    found = steps_in(maps, returned)
    if found is None:
        assert half_steps_in(maps, returned), f"the state is not a prefix that holds all {returned} steps"
        maps[1].clear()
        return -1
    return found + 1


def kill_rounds(persistence: PersistenceProcess, before: Callable[[], None], after: Callable[[], None], kill=None) -> None:
    """Rounds of work and kill on the same state; a round's leftovers are the next round's beginning."""
    random.seed(7)
    first = 1
    for _ in range(4):
        before()
        said = run_and_kill(persistence, first, random.randrange(50, 600), kill)
        after()
        following = check(recovered(persistence), said)
        if following < 0:
            break
        first = following


def nothing() -> None:
    pass


def test_a_worker_killed_in_a_tight_loop_loses_nothing_that_had_returned(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:
        kill_rounds(persistence, nothing, nothing)


def test_nor_when_the_persistence_process_stands_still(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:

        def stop_then_kill(worker: WorkerProcess) -> None:
            persistence.stop()
            for _ in range(500):
                worker.read_line()
            worker.kill()

        kill_rounds(persistence, nothing, persistence.cont, stop_then_kill)


def test_nor_when_the_persistence_process_is_dead(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:

        def kill_server_first(worker: WorkerProcess) -> None:
            persistence.kill()
            for _ in range(500):
                worker.read_line()
            worker.kill()

        kill_rounds(persistence, nothing, persistence.start, kill_server_first)


@pytest.mark.parametrize("server_first", [True, False])
def test_nor_when_both_are_killed_in_the_same_instant(data_dir: Path, server_first: bool) -> None:
    with PersistenceProcess(data_dir) as persistence:

        def kill_both(worker: WorkerProcess) -> None:
            pair = [persistence.process, worker.process]
            for process in pair if server_first else reversed(pair):
                process.kill()
            worker.kill()

        kill_rounds(persistence, nothing, persistence.restart, kill_both)


def test_a_worker_that_lives_on_while_the_persistence_process_is_killed_again_and_again_loses_nothing(
    data_dir: Path,
) -> None:
    with PersistenceProcess(data_dir) as persistence:

        def kill_server_often(worker: WorkerProcess) -> None:
            for _ in range(4):
                persistence.restart()
                for _ in range(200):
                    worker.read_line()
            worker.kill()

        said = run_and_kill(persistence, 1, 100, kill_server_often)
        check(recovered(persistence), said)
