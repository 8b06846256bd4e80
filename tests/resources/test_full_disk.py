"""A full disk, seen from outside: bots go on, nothing is acknowledged that is not durable, saving resumes by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.errors import FlushTimeout, OutboxFull
from strategy_proc import Session, connect
from tests.lab.effort import Effort
from tests.processes import PersistenceProcess
from tests.resources.scarce import fill, flushed, no_file_grows, small_disk
from tests.waiting import wait_until

VALUE = b"x" * 10_000


def recovered(data_dir: Path) -> dict[str, object]:
    with connect("bot", data_dir=data_dir, timeout=20) as state:
        return state.map("m").snapshot()


def test_bots_trade_on_while_the_persistence_process_may_not_write(data_dir: Path, lab: Effort) -> None:
    rounds = lab.pick(2, 10)
    with PersistenceProcess(data_dir) as persistence, connect("bot", data_dir=data_dir) as state:
        positions = state.map("m")
        positions["before"] = 0
        state.flush(10)
        for number in range(rounds):
            with no_file_grows(persistence.pid):
                for key in range(200):
                    positions[f"k{key}"] = number
                with pytest.raises(FlushTimeout):
                    state.flush(0.3)
                assert persistence.alive
            wait_until(lambda: flushed(state), what="everything durable, now that there is room")
        expected = positions.snapshot()
        persistence.restart()
    with PersistenceProcess(data_dir):
        assert recovered(data_dir) == expected
    lab.count("full disks", rounds)


def test_a_full_disk_under_everything_names_itself_and_passes(lab: Effort) -> None:
    with small_disk(48) as folder:
        if folder is None:
            return  # nobody lets us mount one here; the test above has no need of it
        with PersistenceProcess(folder) as persistence, connect("bot", data_dir=folder) as state:
            positions = state.map("m")
            kept = fill_up(state, folder)
            assert positions.snapshot() == kept
            (folder / "ballast").unlink()
            wait_until(lambda: flushed(state), what="everything durable, now that there is room")
            positions["after"] = kept["after"] = 1
            persistence.kill()
            persistence.start()
            wait_until(lambda: flushed(state), what="everything durable after a restart")
        with PersistenceProcess(folder):
            assert recovered(folder) == kept
    lab.count("full disks")


def fill_up(state: Session, folder: Path) -> dict[str, object]:
    """Put on a full disk until a put is refused by name; what the map holds then."""
    positions, kept = state.map("m"), dict[str, object]()
    positions["first"] = kept["first"] = 0
    state.flush(10)
    fill(folder)
    with pytest.raises(OutboxFull, match="no room"):
        for n in range(10_000):
            positions[f"k{n}"] = VALUE
            kept[f"k{n}"] = VALUE
    assert len(kept) > 100, "the outbox had room for more"
    return kept


def test_a_bot_that_is_killed_on_a_full_disk_has_lost_nothing(lab: Effort) -> None:
    with small_disk(48) as folder:
        if folder is None:
            return
        with PersistenceProcess(folder) as persistence:
            with connect("bot", data_dir=folder) as state:
                kept = fill_up(state, folder)
                persistence.kill()
                (folder / "ballast").unlink()
                persistence.start()
            assert recovered(folder) == kept
    lab.count("full disks")
