from __future__ import annotations

from collections.abc import Iterator

import pytest

from strategy_proc import Session
from strategy_proc.testing import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def state(store: MemoryStore) -> Iterator[Session]:
    with store.connect("bot") as session:
        yield session
