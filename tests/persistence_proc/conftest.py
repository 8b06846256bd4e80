"""Fixtures: a real persistence process, and a raw session with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.persistence_proc.raw_session import RawSession
from tests.processes import PersistenceProcess


@pytest.fixture
def persistence(data_dir: Path) -> Iterator[PersistenceProcess]:
    with PersistenceProcess(data_dir) as process:
        yield process


@pytest.fixture
def session(persistence: PersistenceProcess) -> Iterator[RawSession]:
    with RawSession(persistence.data_dir) as one:
        yield one
