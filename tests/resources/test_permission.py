"""A directory that may not be written: one line that names it, and nothing is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from strategy_proc import connect
from tests.lab.effort import Effort
from tests.processes import PersistenceProcess
from tests.resources.scarce import WITHOUT_OVERRIDE
from tests.waiting import wait_until


@contextmanager
def read_only(*folders: Path) -> Iterator[None]:
    for folder in folders:
        os.chmod(folder, 0o500)
    try:
        yield
    finally:
        for folder in folders:
            os.chmod(folder, 0o700)


class Obeying(PersistenceProcess):
    """A persistence process that modes of files apply to, also when root started it."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.argv = [sys.executable, "-c", WITHOUT_OVERRIDE, *self.argv[1:]]


@pytest.fixture
def stored(data_dir: Path) -> Path:
    """A data directory that holds one map."""
    with PersistenceProcess(data_dir) as persistence:
        with connect("bot", data_dir=data_dir) as state:
            state.map("m")["k"] = "v"
        persistence.terminate()
    return data_dir


@pytest.mark.parametrize("what", ["", "journal"])
def test_a_read_only_directory_is_one_line_and_no_loss(stored: Path, what: str, lab: Effort) -> None:
    with read_only(stored / what), ExitStack() as ending:
        refused = Obeying(stored)
        ending.push(refused)
        refused.start(wait_ready=False)
        assert refused.wait() in (1, 2)
        assert "Traceback" not in refused.errors()
        assert str(stored / what) in refused.errors()
    with PersistenceProcess(stored), connect("bot", data_dir=stored) as state:
        assert state.map("m") == {"k": "v"}
    lab.count("read-only directories")


def test_a_map_that_may_not_be_saved_is_served_and_saved_when_it_may(stored: Path, lab: Effort) -> None:
    with Obeying(stored) as persistence:
        with connect("bot", data_dir=stored) as state:
            with read_only(stored / "bot"):
                state.map("m")["k"] = "new"
                state.flush(10)
                wait_until(lambda: "could not be saved" in persistence.errors())
            saved = stored / "bot" / "m.pkl"
            wait_until(lambda: b"new" in saved.read_bytes(), what="the map's file")
    lab.count("read-only directories")
