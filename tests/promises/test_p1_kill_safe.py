"""P1, P3, P4: what had returned survives SIGKILL of any processes, as a prefix, with no half transaction."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from strategy_proc import connect
from tests.processes import PersistenceProcess, WorkerProcess
from tests.promises.workload import Maps, steps_in


class Worker(WorkerProcess):
    """Makes steps from `first` on; `said` is the last one that it said had returned."""

    def __init__(self, persistence: PersistenceProcess, first: int) -> None:
        super().__init__("", str(first), module="tests.promises.worker", env=persistence.env("bot"))
        self.said = first - 1

    def make_steps(self, count: int) -> None:
        for _ in range(count):
            self.said = int(self.read_line())

    def killed(self) -> int:
        """The last step that had returned before the kill."""
        self.kill()
        self.said = int([str(self.said), *self.read_to_end()][-1])
        return self.said


def run_and_kill(
    persistence: PersistenceProcess, first: int, steps: int, before_kill: Callable[[Worker], None] | None = None
) -> int:
    """Let a worker make at least `steps` steps, kill it, and return the last one that had returned."""
    with Worker(persistence, first) as worker:
        assert worker.read_line() == "connected"
        worker.make_steps(steps)
        if before_kill is not None:
            before_kill(worker)
        return worker.killed()


def recovered(persistence: PersistenceProcess) -> Maps:
    with connect("bot", data_dir=persistence.data_dir, timeout=20) as state:
        return state.map("left").snapshot(), state.map("right").snapshot()


def check(maps: Maps, returned: int) -> int:
    """The number of the step to go on with."""
    found = steps_in(maps, returned)
    assert found is not None, f"the state is not a prefix that holds all {returned} steps"
    return found + 1


def kill_rounds(
    persistence: PersistenceProcess, before_kill: Callable[[Worker], None] | None, after: Callable[[], None]
) -> None:
    """Rounds of work and kill on the same state; a round's leftovers are the next round's beginning."""
    random.seed(7)
    first = 1
    for _ in range(4):
        said = run_and_kill(persistence, first, random.randrange(50, 600), before_kill)
        after()
        first = check(recovered(persistence), said)


def test_a_worker_killed_in_a_tight_loop_loses_nothing_that_had_returned(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:
        kill_rounds(persistence, None, lambda: None)


def test_nor_when_the_persistence_process_stands_still(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:

        def stop_server(worker: Worker) -> None:
            persistence.stop()
            worker.make_steps(500)

        kill_rounds(persistence, stop_server, persistence.cont)


def test_nor_when_the_persistence_process_is_dead(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:

        def kill_server(worker: Worker) -> None:
            persistence.kill()
            worker.make_steps(500)

        kill_rounds(persistence, kill_server, persistence.start)


@pytest.mark.parametrize("server_first", [True, False])
def test_nor_when_both_are_killed_in_the_same_instant(data_dir: Path, server_first: bool) -> None:
    with PersistenceProcess(data_dir) as persistence:

        def kill_both(worker: Worker) -> None:
            pair = [persistence.process, worker.process]
            for process in pair if server_first else reversed(pair):
                process.kill()

        kill_rounds(persistence, kill_both, persistence.restart)


def test_a_worker_loses_nothing_while_the_persistence_process_is_killed_again_and_again(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:

        def kill_server_often(worker: Worker) -> None:
            for _ in range(4):
                persistence.restart()
                worker.make_steps(200)

        said = run_and_kill(persistence, 1, 100, kill_server_often)
        check(recovered(persistence), said)
