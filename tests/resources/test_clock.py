"""The wall clock jumps back and forth by years: nothing but what people look at depends on it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.lab.effort import Effort
from tests.processes import PersistenceProcess
from tests.promises.test_p1_kill_safe import Worker, check, recovered

JUMPS = """
import random, time
_chance, _time = random.Random(1), time.time
def _jumping():
    return max(0.0, _time() + _chance.uniform(-2e9, 2e9))
time.time = _jumping
time.time_ns = lambda: int(_jumping() * 1e9)
"""


def test_a_jumping_clock_changes_nothing(data_dir: Path, lab: Effort) -> None:
    site = data_dir / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(JUMPS)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    chance, first = lab.chance(), 1
    with PersistenceProcess(data_dir / "state", PYTHONPATH=path) as persistence:
        for _ in range(lab.pick(2, 10)):
            with Worker(persistence, first) as worker:
                assert worker.read_line() == "connected"
                worker.make_steps(chance.randrange(50, 500))
                persistence.restart()
                worker.make_steps(100)
                said = worker.killed()
            persistence.restart()
            first = check(recovered(persistence), said)
            lab.count("kills under a jumping clock", 3)
