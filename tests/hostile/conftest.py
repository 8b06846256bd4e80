"""Fixtures: a server to attack, a canary that must not sing, and less memory than a hostile length would like."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.siege import Siege
from tests.ports import two_free_ports
from tests.processes import PersistenceProcess

MEMORY = 2**27  # bytes of address space besides what this process has already


@pytest.fixture
def siege(data_dir: Path) -> Iterator[Siege]:
    """A server on ipc."""
    with PersistenceProcess(data_dir) as persistence:
        yield Siege(persistence)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "siege_of_each" in metafunc.fixturenames:
        kinds = ["ipc", "tcp"] if metafunc.config.getoption("--far") else ["tcp"]
        metafunc.parametrize("siege_of_each", kinds, indirect=True)


@pytest.fixture
def siege_of_each(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Siege]:
    """A server on either transport; on TCP without keys, where every user of the machine can reach it."""
    tcp = ["--endpoint", f"tcp://127.0.0.1:{two_free_ports()}"] if request.param == "tcp" else []
    with PersistenceProcess(data_dir, *tcp) as persistence:
        yield Siege(persistence)


@pytest.fixture
def canary(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A path that an evil pickle would make if anything in it were called."""
    path = data_dir.parent / f"{data_dir.name}-canary"
    monkeypatch.setenv("OUTLIVE_TEST_CANARY", str(path))
    yield path
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def less_memory() -> Iterator[None]:
    """Python's own unpickler believes a claimed length: here, and in child processes, it gets a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def little_memory() -> Iterator[None]:
    with less_memory():
        yield
