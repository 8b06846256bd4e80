"""The table of mutants keeps up with the code; `make prove` runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.__main__ import ROOT, _end_leftovers, broken
from tests.mutants.tables import ALL_MUTANTS, Mutant
from tests.waiting import LONG


@pytest.mark.parametrize("mutant", ALL_MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_still_finds_its_place_and_its_tests(mutant: Mutant) -> None:
    text = (ROOT / mutant.at).read_text()
    compile(broken(text, mutant), mutant.at, "exec")
    for test in mutant.tests:
        assert (ROOT / test.partition("::")[0]).exists(), test


def test_names_say_which_mutant_is_meant() -> None:
    names = [mutant.name for mutant in ALL_MUTANTS]
    assert len(set(names)) == len(names)


def test_what_a_mutant_leaves_running_is_ended_and_nothing_else(tmp_path: Path) -> None:
    ours, others = (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, env={**os.environ, "PYTHONPATH": path})
        for path in (str(tmp_path), str(tmp_path / "other"))
    )
    try:
        _end_leftovers(tmp_path)
        assert ours.wait(LONG) == -signal.SIGKILL
        assert others.poll() is None
    finally:
        for process in (ours, others):
            process.kill()
            process.communicate()
