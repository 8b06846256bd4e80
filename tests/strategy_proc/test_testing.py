"""`strategy_proc.testing`: what a bot's own tests stand on behaves as the real thing."""

from __future__ import annotations

import pytest

from protocol.errors import Fenced, NamespaceInUse, SyncFailed
from strategy_proc import RecoveredStatus
from strategy_proc.testing import MemoryStore


def test_a_killed_session_is_crashed_and_takes_nothing_more(store: MemoryStore) -> None:
    state = store.connect("bot")
    state.map("m")["a"] = 1
    store.kill("bot")
    with pytest.raises(Fenced):
        state.map("other")
    with store.connect("bot") as state:
        assert state.recovered.status is RecoveredStatus.CRASHED
        assert state.map("m") == {"a": 1}
    with store.connect("bot") as state:
        assert state.recovered.status is RecoveredStatus.CLEAN


def test_leaving_the_block_of_a_killed_session_does_not_make_it_a_clean_end(store: MemoryStore) -> None:
    with store.connect("bot") as state:
        state.map("m")["a"] = 1
        store.kill("bot")
    assert store.connect("bot").recovered.status is RecoveredStatus.CRASHED


def test_a_killed_session_that_closes_late_does_not_end_its_successor(store: MemoryStore) -> None:
    zombie = store.connect("bot")
    store.kill("bot")
    with store.connect("bot") as state:
        zombie.close()
        state.map("m")["a"] = 1
        with pytest.raises(NamespaceInUse):
            store.connect("bot")
    assert store.contents("bot") == {"m": {"a": 1}}


def test_a_disk_that_fails_can_be_played(store: MemoryStore) -> None:
    with store.connect("bot") as state:
        state._outbox.fail_sync = OSError("broken")  # type: ignore[attr-defined]
        with pytest.raises(SyncFailed):
            state.sync()
