"""The laboratory's options, its fixture `lab`, and the replay command below each of its failures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.lab.effort import DEFAULT_SEED, Effort

FAR_TIMEOUT = 1500  # seconds for one test of `make prove`

settings.register_profile("near", deadline=None, derandomize=True)
settings.register_profile("far", deadline=None, max_examples=2000)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("laboratory")
    group.addoption("--far", action="store_true", help="run laboratory tests to their long bounds")
    group.addoption("--seed", type=int, default=DEFAULT_SEED, help="the seed of everything random in the laboratory")
    group.addoption("--tally", type=Path, help="append what was counted to this file, one JSON object a test")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("far" if config.getoption("--far") else "near")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items if config.getoption("--far") else ():
        item.add_marker(pytest.mark.timeout(FAR_TIMEOUT))


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Effort]:
    """How far to go and from which seed; the test's tally goes to the report."""
    option = request.config.getoption
    part = request.node.path.parent.name
    effort = Effort(option("--far"), option("--seed"), part, request.node.name)
    yield effort
    if (tally := option("--tally")) is not None and effort.counted:
        line = json.dumps({"part": part, "test": request.node.nodeid, "seed": effort.seed, "n": effort.counted})
        with open(tally, "a") as file:
            file.write(line + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    if report.failed and "lab" in getattr(item, "fixturenames", ()):
        report.sections.append(("replay", replay_command(item)))
    return report


def replay_command(item: pytest.Item) -> str:
    option = item.config.getoption
    words = [".venv/bin/python -m pytest", "--far" if option("--far") else "", f"--seed {option('--seed')}"]
    if option("--hypothesis-seed", None) is not None:
        words.append(f"--hypothesis-seed {option('--hypothesis-seed')}")
    return " ".join([*filter(None, words), f"'{os.fspath(item.nodeid)}'"])
