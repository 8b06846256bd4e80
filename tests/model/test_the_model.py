"""Every interleaving within bounds keeps every promise; and with a rule taken out, the model says which one breaks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.lab.effort import Effort
from tests.model.configurations import FAR, NEAR, READINGS, Reading
from tests.model.explorer import Found, explore
from tests.model.model import Model
from tests.model.world import Setting

PROCESSES = 2
NEAR_STATES, FAR_STATES = 12_000, 500_000
"""A configuration with more states within its bounds is cut off, and says so."""


def test_every_interleaving_keeps_every_promise(lab: Effort) -> None:
    """P1 to P7 and liveness: all faults of a configuration at all moments, the shortest scenario first."""
    settings, states = lab.pick((NEAR, NEAR_STATES), (NEAR + FAR, FAR_STATES))
    jobs = [(setting, "", states) for setting in settings]
    for setting, found in zip(settings, _found(jobs, in_parallel=lab.far), strict=True):
        assert found.broken is None, f"{setting.name}: {found}"
        lab.count("model states", found.states)
        lab.count("model configurations exhausted" if found.is_exhausted else "model configurations cut off")
    assert lab.counted["model configurations exhausted"], "no configuration was visited to its end"


def test_each_reading_that_takes_a_rule_out_breaks_the_promise_that_the_rule_keeps(lab: Effort) -> None:
    """A model that finds nothing in a broken design proves nothing about the whole one."""
    readings = [one for one in READINGS if one.is_quick or lab.far]
    jobs = [(one.setting, one.names, 2**62) for one in readings]
    for reading, found in zip(readings, _found(jobs, in_parallel=lab.far), strict=True):
        assert found.broken is not None, f"{reading}: {found}"
        assert found.broken.promise.startswith(reading.breaks), f"{reading} breaks another promise: {found}"
        lab.count("broken readings found out")


def test_a_scenario_is_told_step_by_step() -> None:
    reading = next(one for one in READINGS if one.names == "resends-only-on-a-gap")
    found = _search((reading.setting, reading.names, 2**62))
    assert found.scenario[0] == "the server starts"
    assert any("breaks" in step or "SIGKILL" in step for step in found.scenario), found


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_a_reading_is_a_rule_that_the_model_knows(reading: Reading) -> None:
    for name in reading.names.split():
        assert name in _words_of_the_model(), f"{name} switches nothing"


def _words_of_the_model() -> str:
    return "".join(path.read_text() for path in Path(__file__).parent.glob("*_*.py") if path.stem != "configurations")


Job = tuple[Setting, str, int]


def _search(job: Job) -> Found:
    setting, names, states = job
    return explore(Model(setting, frozenset(names.split())).rules(), states=states)


def _found(jobs: Iterable[Job], in_parallel: bool) -> Iterator[Found]:
    """In two processes the caches of one search also go when it has ended."""
    if not in_parallel:
        yield from map(_search, jobs)
        return
    with get_context("fork").Pool(PROCESSES, maxtasksperchild=1) as pool:
        yield from pool.imap(_search, list(jobs), chunksize=1)
