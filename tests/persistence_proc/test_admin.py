from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from persistence_proc.tools import admin
from persistence_proc.tools.outbox_admin import claim_outbox
from persistence_proc.tools.place import Place, find_place
from protocol.disk import Disk, lock_holders
from protocol.errors import OutliveError
from tests.persistence_proc.commands import bot, put, run, run_once
from tests.processes import PersistenceProcess, RealProcess
from tests.waiting import wait_until


def entries(data_dir: Path, namespace: str = "bot", map_name: str = "misc") -> set[str]:
    done = run("inspect", data_dir, namespace, map_name, "--json")
    return {str(row["key"]) for row in json.loads(done.stdout)} if done.returncode == 0 else set()


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    return text


def wipe_all_but_the_outbox(data_dir: Path) -> None:
    shutil.move(data_dir / "bot" / "outbox", data_dir.parent / f"{data_dir.name}-outbox")
    for path in data_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (data_dir / "bot").mkdir(mode=0o700)
    shutil.move(data_dir.parent / f"{data_dir.name}-outbox", data_dir / "bot" / "outbox")


def test_accept_sets_aside_an_outbox_that_is_newer_than_the_server(data_dir: Path) -> None:
    run_once(data_dir)
    wipe_all_but_the_outbox(data_dir)
    with PersistenceProcess(data_dir) as persistence:
        with bot(persistence) as worker:
            assert worker.wait() != 0
            assert "outlive accept bot" in worker.errors()
        done = run("admin", data_dir, "accept", "bot")
        assert done.returncode == 0, done.stderr
        assert "set aside" in done.stdout
        (kept,) = (data_dir / "quarantine").iterdir()
        assert kept.name.startswith("bot-outbox-")
        assert (kept / "IDENTITY").exists()
        assert [path.name for path in (data_dir / "bot" / "outbox").iterdir()] == ["LOCK"]
        with bot(persistence) as worker:
            assert worker.read_line() == "stored"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def leave_two_changes_in_the_outbox(persistence: PersistenceProcess) -> None:
    """Which the persistence process has not seen; nothing runs afterwards."""
    with bot(persistence) as worker:
        assert worker.read_line() == "stored"
        persistence.kill()
        put(worker, "late")
        put(worker, "later")
        worker.kill()


def refused_accept(data_dir: Path) -> str:
    """Its one line; nothing of the outbox may have been touched."""
    before = files_of(data_dir / "bot" / "outbox")
    done = run("admin", data_dir, "accept", "bot")
    assert (done.returncode, done.stdout) == (1, "")
    assert files_of(data_dir / "bot" / "outbox") == before
    assert not (data_dir / "quarantine").exists()
    return one_line(done.stderr)


@pytest.mark.parametrize("served", [True, False])
def test_accept_of_an_outbox_that_fits_changes_nothing_and_its_changes_come_back(data_dir: Path, served: bool) -> None:
    with PersistenceProcess(data_dir) as persistence:
        leave_two_changes_in_the_outbox(persistence)
        if served:
            persistence.start()
        said = refused_accept(data_dir)
        assert "nothing to settle" in said
        assert "its 2 unacknowledged changes will be taken at the next connect" in said
        if not served:
            persistence.start()
        with bot(persistence) as worker:
            assert worker.read_line() == "stored"
            assert {"late", "later"} <= entries(data_dir)


def come_and_go(persistence: PersistenceProcess) -> None:
    with bot(persistence) as worker:
        assert worker.read_line() == "stored"
        put(worker, "late")
        worker.end_input()
        assert worker.wait() == 0


def test_accept_does_not_hold_against_an_outbox_what_its_bot_did_before_it_could_be_claimed(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PersistenceProcess(data_dir) as persistence:
        come_and_go(persistence)

        def claim_late(disk: Disk, folder: str, namespace: str) -> int | None:
            come_and_go(persistence)
            return claim_outbox(disk, folder, namespace)

        monkeypatch.setattr(admin, "claim_outbox", claim_late)
        with pytest.raises(OutliveError, match="nothing to settle: the outbox of 'bot' fits"):
            admin.admin.main(["accept", "bot", "--data-dir", str(data_dir)], standalone_mode=False)
        assert (data_dir / "bot" / "outbox" / "IDENTITY").exists()
        assert not (data_dir / "quarantine").exists()


def test_accept_of_a_live_bot_that_fits_leaves_it_alone(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence, bot(persistence) as worker:
        assert worker.read_line() == "stored"
        done = run("admin", data_dir, "accept", "bot")
        assert (done.returncode, done.stdout) == (1, "")
        assert "nothing to settle: the live session" in one_line(done.stderr)


def test_accept_says_how_many_unacknowledged_changes_it_sets_aside_and_a_second_one_finds_nothing(
    data_dir: Path,
) -> None:
    with PersistenceProcess(data_dir) as persistence:
        leave_two_changes_in_the_outbox(persistence)
    wipe_all_but_the_outbox(data_dir)
    done = run("admin", data_dir, "accept", "bot")
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.splitlines()
    assert before.startswith("setting aside changes ")
    assert "(2 of them never acknowledged)" in before
    assert "saw change" in before or "belongs to store" in before
    assert after.startswith("set aside, kept in ")
    again = run("admin", data_dir, "accept", "bot")
    assert again.returncode == 1
    assert "nothing to settle" in one_line(again.stderr)


def test_accept_of_an_outbox_that_can_not_be_read_sets_it_aside(data_dir: Path) -> None:
    run_once(data_dir)
    (data_dir / "bot" / "outbox" / "IDENTITY").write_bytes(b"junk")
    done = run("admin", data_dir, "accept", "bot")
    assert done.returncode == 0, done.stderr
    assert "IDENTITY" in done.stdout.splitlines()[0]


@pytest.mark.parametrize("loss", ["damaged", "gone"])
def test_accept_beside_a_journal_that_can_not_be_read_decides_nothing(data_dir: Path, loss: str) -> None:
    with PersistenceProcess(data_dir) as persistence:
        leave_two_changes_in_the_outbox(persistence)
    for segment in (data_dir / "journal").iterdir():
        segment.unlink() if loss == "gone" else segment.write_bytes(b"junk" * 1000)
    assert "can't be seen" in refused_accept(data_dir)


def test_accept_takes_the_whole_state_of_a_live_bot_that_is_newer_than_the_server(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence, bot(persistence) as worker:
        assert worker.read_line() == "stored"
        put(worker, "kept")
        persistence.kill()
        wipe_all_but_the_outbox(data_dir)
        persistence.start()
        assert entries(data_dir) <= {"kept"}
        done = run("admin", data_dir, "accept", "bot")
        assert done.returncode == 0, done.stderr
        assert "live bot" in one_line(done.stdout)
        wait_until(lambda: {"kept", "fill", "5"} <= entries(data_dir))
        worker.end_input()
        assert worker.wait() == 0


def test_accept_of_a_live_bot_without_a_server_is_one_line(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence, bot(persistence) as worker:
        assert worker.read_line() == "stored"
        persistence.kill()
        done = run("admin", data_dir, "accept", "bot")
        assert done.returncode == 1
        assert "start it first" in one_line(done.stderr)


def lose_a_map(data_dir: Path) -> None:
    """Both generations of an idle map, after the journal no longer holds what they held."""
    run_once(data_dir)
    for _ in range(4):  # each start begins a segment, and saves what pins an older one
        with PersistenceProcess(data_dir) as persistence:
            wait_until(lambda: (data_dir / "bot" / "misc.prev.pkl").exists())
            persistence.terminate()
    segments = sorted((data_dir / "journal").glob("*.log"))
    for segment in segments[:-1]:
        segment.unlink()
    for name in ("misc.pkl", "misc.prev.pkl"):
        (data_dir / "bot" / name).unlink()


def test_accept_goes_on_without_a_map_that_is_lost(data_dir: Path) -> None:
    lose_a_map(data_dir)
    with PersistenceProcess(data_dir) as persistence:
        with bot(persistence) as worker:
            assert worker.wait() != 0
            assert "outlive accept bot" in worker.errors()
        done = run("admin", data_dir, "accept", "bot")
        assert done.returncode == 1
        assert "stop the persistence process" in one_line(done.stderr)
        assert persistence.terminate() == 0
        outbox = files_of(data_dir / "bot" / "outbox")
        done = run("admin", data_dir, "accept", "bot")
        assert done.returncode == 0, done.stderr
        assert "map bot/misc is given up" in done.stdout
        assert files_of(data_dir / "bot" / "outbox") == outbox, "it fits: what it holds goes on top of what is left"
        persistence.start()
        with bot(persistence) as worker:
            assert worker.read_line() == "stored"
            worker.end_input()
            assert worker.wait() == 0
    assert entries(data_dir, "bot", "positions") == {"BTC/USDT"}


@pytest.mark.parametrize("served", [True, False])
def test_forget_deletes_maps_and_outbox_for_good(data_dir: Path, served: bool) -> None:
    run_once(data_dir)
    with PersistenceProcess(data_dir) as persistence:
        if not served:
            persistence.terminate()
        done = run("admin", data_dir, "forget", "bot", "--yes")
        assert done.returncode == 0, done.stderr
        assert "is forgotten" in one_line(done.stdout)
        assert list((data_dir / "bot").glob("*.pkl")) == []
        assert [path.name for path in (data_dir / "bot" / "outbox").iterdir()] == ["LOCK"]
        persistence.restart()
        assert run("inspect", data_dir, "bot").stdout == ""
        with bot(persistence) as worker:
            assert worker.read_line() == "stored"
            assert "NEW: no maps" in worker.errors()


def test_forget_asks_first_and_no_changes_nothing(data_dir: Path) -> None:
    run_once(data_dir)
    done = run("admin", data_dir, "forget", "bot", input="n\n")
    assert done.returncode == 1
    assert "nothing was changed" in done.stderr
    assert "5" in entries(data_dir)
    assert run("admin", data_dir, "forget", "bot", input="y\n").returncode == 0
    assert entries(data_dir) == set()


def test_forget_of_a_live_bot_is_refused(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence, bot(persistence) as worker:
        assert worker.read_line() == "stored"
        done = run("admin", data_dir, "forget", "bot", "--yes")
        assert done.returncode == 1
        assert f"pid {worker.pid}" in one_line(done.stderr)
        put(worker, "still alive")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("forget", "nobody", "--yes"), 1, "no namespace 'nobody'"),
        (("accept", "../bot"), 1, "is no namespace"),
        (("accept", "nobody"), 1, "nothing to settle"),
        (("accept",), 2, "NAMESPACE"),
        (("remember", "bot"), 2, "remember"),
    ],
)
def test_wrong_use_is_one_line(data_dir: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run("admin", data_dir, *arguments)
    assert done.returncode == code
    assert message in one_line(done.stderr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_forget_that_is_killed_leaves_nothing_that_holds_the_store(data_dir: Path, number: int) -> None:
    run_once(data_dir)
    temporary = data_dir / "temporary"
    temporary.mkdir()
    argv = [sys.executable, "-m", "persistence_proc.tools.admin", "forget", "bot", "--yes", "--data-dir", str(data_dir)]
    lock = str(data_dir / "LOCK")
    try:
        with RealProcess(argv, {"TMPDIR": str(temporary)}) as tool:
            wait_until(lambda: lock_holders(lock) or not tool.alive)
            tool.signal(number)
            tool.wait()
            wait_until(lambda: not lock_holders(lock), 5.0, "the store is free")
    finally:
        for pid in lock_holders(lock):
            os.kill(pid, signal.SIGKILL)
    assert list(temporary.iterdir()) == []


def test_forget_without_a_server_tells_no_bot_of_an_address_of_its_own(data_dir: Path) -> None:
    run_once(data_dir)
    endpoint = (data_dir / "ENDPOINT").read_bytes()
    assert run("admin", data_dir, "forget", "bot", "--yes").returncode == 0
    assert (data_dir / "ENDPOINT").read_bytes() == endpoint


def test_a_store_that_can_not_be_served_is_named(data_dir: Path) -> None:
    run_once(data_dir)
    for segment in (data_dir / "journal").iterdir():
        segment.write_bytes(b"junk" * 1000)
    done = run("admin", data_dir, "forget", "bot", "--yes")
    assert done.returncode == 1
    assert ".log: " in one_line(done.stderr)
    assert (data_dir / "bot" / "outbox" / "IDENTITY").exists()


def as_configured(folder: Path, text: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """A tool with `--config`, from another directory, in an environment that names another place."""
    (folder / "outlive.toml").write_text(text)
    config = os.path.relpath(folder / "outlive.toml", "/")
    done = subprocess.run(
        [sys.executable, "-P", "-m", f"persistence_proc.tools.{argv[0]}", *argv[1:], "--config", config],
        cwd="/", env={**os.environ, "OUTLIVE_DATA_DIR": "elsewhere"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("table", ["", "[persistence]\ndata_dir = 'state'\nlog_level = 'info'\n"])
def test_a_configuration_says_where_the_state_is_relative_to_itself(data_dir: Path, table: str) -> None:
    state = data_dir / "state"
    state.mkdir(0o700)
    run_once(state)
    text = f"{table}[strategies.bot]\ncommand = ['true']\n"
    assert as_configured(data_dir, text, "inspect", "bot").stdout.startswith("map")
    assert "nothing to settle" in as_configured(data_dir, text, "admin", "accept", "bot").stderr
    assert "is forgotten" in as_configured(data_dir, text, "admin", "forget", "bot", "--yes").stdout
    assert entries(state) == set()


@pytest.mark.parametrize("text", ["no table", "[persistence]\ndata_dir = 5"])
@pytest.mark.parametrize("argv", [("inspect",), ("admin", "accept", "bot")])
def test_a_configuration_that_says_nothing_is_named_in_one_line(
    data_dir: Path, text: str, argv: tuple[str, ...]
) -> None:
    done = as_configured(data_dir, text, *argv)
    assert done.returncode != 0
    assert "outlive.toml: " in one_line(done.stderr)


@pytest.mark.parametrize("argv", [("inspect", "bot"), ("admin", "accept", "bot"), ("admin", "forget", "bot", "--yes")])
def test_two_places_are_refused_and_nothing_is_done_in_either(data_dir: Path, argv: tuple[str, ...]) -> None:
    configured, given = data_dir / "configured", data_dir / "given"
    for state in (configured, given):
        state.mkdir(0o700)
        run_once(state)
    config = data_dir / "outlive.toml"
    config.write_text("[persistence]\ndata_dir = 'configured'\n")
    tool, *rest = argv
    done = run(tool, given, *rest, "--config", str(config))
    assert (done.returncode, done.stdout) == (2, "")
    assert "either --config or --data-dir, not both" in one_line(done.stderr)
    assert "5" in entries(configured)
    assert "5" in entries(given)


def place_of(*options: str) -> Place:
    """Where `outlive accept bot` with these options looks."""
    with admin.accept.make_context("accept", ["bot", *options]) as context:
        given = context.params
        return find_place(given["data_dir"], given["config_path"], given["curve_dir"])


def test_the_keys_of_a_configuration_are_ours_unless_others_are_given_by_hand(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = data_dir / "outlive.toml"
    config.write_text("[persistence]\ncurve_dir = 'keys'\n")
    state, keys = str(data_dir / "state"), str(data_dir / "keys")
    monkeypatch.setenv("OUTLIVE_CURVE_DIR", "keys of the environment")
    assert place_of("--config", str(config)) == (state, keys)
    assert place_of("--config", str(config), "--curve-dir", "others") == (state, "others")
    config.write_text("")
    assert place_of("--config", str(config)) == (state, "keys of the environment")
