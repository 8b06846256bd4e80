"""P6: what people do to files is noticed and named; no bot starts on wrong or empty state."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import (
    Damaged,
    FlushTimeout,
    ForeignStore,
    InsecureDirectory,
    NamespaceDamaged,
    OutliveError,
    PersistenceUnavailable,
    StateWentBack,
)
from strategy_proc import connect
from tests.processes import PersistenceProcess
from tests.waiting import wait_until


def folder(parent: Path, name: str) -> str:
    made = parent / name
    made.mkdir(mode=0o700, exist_ok=True)
    return str(made)


def fill(host: str, endpoint: str, first: int, last: int) -> None:
    with connect("bot", data_dir=host, endpoint=endpoint, timeout=20) as state:
        m = state.map("m")
        for n in range(first, last):
            m[n] = n
        state.flush()


def endpoint_of(persistence: PersistenceProcess) -> str:
    return f"ipc://{persistence.data_dir}/sockets"


def test_a_wiped_data_directory_under_a_newer_outbox_is_refused(data_dir: Path) -> None:
    store, host = folder(data_dir, "store"), folder(data_dir, "host")
    with PersistenceProcess(store) as persistence:
        fill(host, endpoint_of(persistence), 0, 50)
        persistence.terminate()
        shutil.rmtree(store)
        folder(data_dir, "store")
        persistence.start()
        with pytest.raises((ForeignStore, StateWentBack), match="accept bot"):
            connect("bot", data_dir=host, endpoint=endpoint_of(persistence), timeout=5)


def test_an_older_backup_of_the_data_directory_is_refused_with_both_numbers(data_dir: Path) -> None:
    store, host = folder(data_dir, "store"), folder(data_dir, "host")
    with PersistenceProcess(store) as persistence:
        fill(host, endpoint_of(persistence), 0, 10)
        persistence.terminate()
        shutil.copytree(store, data_dir / "backup", ignore=shutil.ignore_patterns("sockets"))
        persistence.start()
        fill(host, endpoint_of(persistence), 10, 30)
        persistence.terminate()
        shutil.rmtree(store)
        shutil.copytree(data_dir / "backup", store)
        persistence.start()
        with pytest.raises(StateWentBack, match=r"10\b.*30\b|30\b.*10\b"):
            connect("bot", data_dir=host, endpoint=endpoint_of(persistence), timeout=5)


@pytest.mark.parametrize("what", ["an older backup", "wiped"])
def test_a_live_bot_whose_store_went_back_is_told_and_accept_sends_its_whole_state(data_dir: Path, what: str) -> None:
    store, host = folder(data_dir, "store"), folder(data_dir, "host")
    with PersistenceProcess(store) as persistence:
        with connect("bot", data_dir=host, endpoint=endpoint_of(persistence)) as state:
            m = state.map("m")
            m.update({n: n for n in range(10)})
            state.flush()
            persistence.terminate()
            shutil.copytree(store, data_dir / "backup", ignore=shutil.ignore_patterns("sockets"))
            persistence.start()
            for n in range(10, 30):
                m[n] = n
            state.map("later")["x"] = 1
            state.flush(20)
            persistence.terminate()
            shutil.rmtree(store)
            if what == "wiped":
                folder(data_dir, "store")
            else:
                shutil.copytree(data_dir / "backup", store)
            persistence.start()

            def told() -> bool:
                m["more"] = 1
                try:
                    state.flush(1)
                except (StateWentBack, ForeignStore):
                    return True
                except FlushTimeout:
                    return False
                return False

            wait_until(told, what="flush names the problem")
            argv = [sys.executable, "-m", "persistence_proc.tools.admin", "accept", "bot", "--data-dir", store]
            argv += ["--outbox-dir", f"{host}/bot/outbox"]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)

            def flushed() -> bool:
                try:
                    state.flush(1)
                except OutliveError:
                    return False
                return True

            wait_until(flushed, what="the whole state is durable again")
            expected = m.snapshot()
        persistence.restart()
        with connect("bot", data_dir=host, endpoint=endpoint_of(persistence)) as state:
            assert list(state.map("m").items()) == list(expected.items())
            assert state.map("later") == {"x": 1}


def test_an_outbox_of_another_store_is_refused(data_dir: Path) -> None:
    first, second, host = folder(data_dir, "first"), folder(data_dir, "second"), folder(data_dir, "host")
    with PersistenceProcess(first) as persistence:
        fill(host, endpoint_of(persistence), 0, 5)
    with PersistenceProcess(second) as persistence:
        with pytest.raises(ForeignStore, match="accept bot"):
            connect("bot", data_dir=host, endpoint=endpoint_of(persistence), timeout=5)
        argv = [sys.executable, "-m", "persistence_proc.tools.admin", "accept", "bot", "--data-dir", second]
        argv += ["--outbox-dir", f"{host}/bot/outbox"]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        with connect("bot", data_dir=host, endpoint=endpoint_of(persistence)) as state:
            assert state.map("m") == {}


def test_both_generations_of_an_idle_map_deleted_is_refused_and_the_others_are_served(data_dir: Path) -> None:
    store = folder(data_dir, "store")
    with PersistenceProcess(store) as persistence:
        for name in ("idle", "other"):
            with connect(name, data_dir=store) as state:
                state.map("m")["k"] = name
        for _ in range(3):  # each start and stop writes generations and lets the journal before them go
            persistence.terminate()
            persistence.start()
            with connect("other", data_dir=store) as state:
                state.map("m").update({n: os.urandom(2**16) for n in range(200)})
        persistence.terminate()
        first_segment = min(os.listdir(f"{store}/journal"))
        assert first_segment > f"{2:020d}", "the journal was never trimmed: nothing is tested here"
        for file in Path(store, "idle").glob("*.pkl"):
            file.unlink()
        persistence.start()
        with pytest.raises(NamespaceDamaged, match="idle"):
            connect("idle", data_dir=store, timeout=5)
        with connect("other", data_dir=store) as state:
            assert len(state.map("m")) == 201


def test_a_renamed_namespace_folder_is_noticed(data_dir: Path) -> None:
    store = folder(data_dir, "store")
    with PersistenceProcess(store) as persistence:
        with connect("bot", data_dir=store) as state:
            state.map("m")["k"] = 1
        persistence.terminate()
        os.rename(f"{store}/bot", f"{store}/renamed")
        persistence.start()
        with pytest.raises((ForeignStore, StateWentBack)):
            connect("renamed", data_dir=store, timeout=5)


def test_a_damaged_outbox_is_named_and_nothing_is_overwritten(data_dir: Path) -> None:
    store = folder(data_dir, "store")
    with PersistenceProcess(store) as persistence:
        state = connect("bot", data_dir=store)
        persistence.kill()
        m = state.map("m")
        for n in range(10):
            m[n] = "x" * 100
        state.sync()
        with pytest.raises(FlushTimeout):
            state.close(timeout=0.1)
        segment = max(Path(store, "bot", "outbox").glob("*.seg"), key=lambda p: bytes(p.read_bytes()).count(b"xxxx"))
        damaged = bytearray(segment.read_bytes())
        damaged[damaged.index(b"x" * 100) + 50] ^= 1
        segment.write_bytes(damaged)
        persistence.start()
        with pytest.raises(Damaged, match=r"\.seg.*at byte"):
            connect("bot", data_dir=store, timeout=5)
        assert segment.read_bytes() == damaged


def test_a_data_directory_open_to_others_is_refused(data_dir: Path) -> None:
    os.chmod(data_dir, 0o755)
    with pytest.raises(InsecureDirectory, match="0755"):
        connect("bot", data_dir=data_dir, timeout=0.1)


def test_a_silent_process_is_unavailable_whatever_the_folder_is_called(data_dir: Path) -> None:
    store = folder(data_dir, "alive")
    with PersistenceProcess(store) as persistence:
        persistence.stop()
        with pytest.raises(PersistenceUnavailable, match="does not answer"):
            connect("bot", data_dir=store, timeout=0.2)
        persistence.cont()


def test_the_persistence_process_away_at_start_is_named_and_no_bot_starts_empty(data_dir: Path) -> None:
    with pytest.raises(PersistenceUnavailable, match="python -m persistence_proc"):
        connect("bot", data_dir=data_dir, timeout=0.1)
    with PersistenceProcess(data_dir):
        connect("bot", data_dir=data_dir).close()
    with pytest.raises(PersistenceUnavailable):
        connect("bot", data_dir=data_dir, timeout=0.3)
