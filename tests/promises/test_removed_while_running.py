"""Files that somebody deletes while they are in use: nothing counts as durable in a file that has no name any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.errors import SyncFailed
from strategy_proc import connect
from tests.processes import PersistenceProcess


def test_a_journal_that_is_deleted_is_begun_anew_before_anything_more_is_acknowledged(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence, connect("bot", data_dir=data_dir) as state:
        numbers = state.map("numbers")
        numbers[0] = 0
        state.flush()
        for segment in (data_dir / "journal").iterdir():
            segment.unlink()
        numbers[1] = 1
        state.flush()
        persistence.restart()
        numbers[2] = 2
        state.flush()
        assert "a sync of the journal failed" in persistence.errors()
    with PersistenceProcess(data_dir), connect("bot", data_dir=data_dir) as state:
        assert state.map("numbers") == {0: 0, 1: 1, 2: 2}


def test_an_outbox_that_is_deleted_is_told_once_and_written_anew(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence, connect("bot", data_dir=data_dir) as state:
        numbers = state.map("numbers")
        persistence.kill()
        numbers[0] = 0
        for segment in (data_dir / "bot" / "outbox").glob("*.seg"):
            segment.unlink()
        with pytest.raises(SyncFailed, match="removed while it was in use"):
            state.sync()
        state.sync()
        assert list((data_dir / "bot" / "outbox").glob("*.seg"))
        persistence.start()
