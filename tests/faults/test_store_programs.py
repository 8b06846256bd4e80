"""An error at each call that a program makes: the server, and the tools for people. One line says what, and the exit
code; what was there can be had afterwards."""

from __future__ import annotations

import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, NoReturn

import pytest

from persistence_proc import __main__ as program
from persistence_proc import server
from persistence_proc.recovery import recover
from persistence_proc.server import Server
from persistence_proc.settings import Settings
from persistence_proc.tools import admin, inspect
from persistence_proc.tools.command import run
from protocol.disk import Disk
from protocol.messages import Done
from protocol.notify import Notifier
from tests.faults.disk_faults import (
    BROKEN,
    CHANGES,
    FAULTS,
    FULL,
    FULL_SHORT,
    READ_ONLY,
    Call,
    Fault,
    Faults,
    HookedDisk,
)
from tests.faults.store_world import FOLDER, Past, World, an_earlier_life, check, make_everything_happen_often, spill
from tests.lab.effort import Effort
from tests.lab.memory_disk import MemoryDisk

SHORT = 1


class Ended(NamedTuple):
    code: int
    said: str
    shown: str
    faults: Faults


@pytest.fixture(autouse=True)
def _everything_happens_often(monkeypatch: pytest.MonkeyPatch) -> None:
    make_everything_happen_often(monkeypatch)


@pytest.fixture
def past() -> Past:
    return an_earlier_life(random.Random(SHORT), 10)


class Programs:
    """Runs programs in this process on a disk that fails; each time on the data directory as it was at first."""

    def __init__(self, data_dir: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.place, self._capsys, self._patch = data_dir / "state", capsys, patch
        self._first = data_dir / "first"

    def keep(self, fill: Callable[[Path], None]) -> None:
        """The data directory that each run begins with."""
        self._first.mkdir(0o700)
        fill(self._first)

    def run(self, main: Callable[[], NoReturn], argv: list[str], faults: Faults) -> Ended:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self._first, self.place)
        return self.again(main, argv, faults)

    def again(self, main: Callable[[], NoReturn], argv: list[str], faults: Faults) -> Ended:
        disk = HookedDisk()
        disk.on_call = faults
        for module in (server, admin, inspect):
            self._patch.setattr(module, "Disk", lambda: disk)
        self._patch.setattr(sys, "argv", ["outlive", *argv, "--data-dir", str(self.place)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown, said = self._capsys.readouterr()
        code = int(ended.value.code or 0)
        assert "Traceback" not in said
        return Ended(code, said, shown, faults)


@pytest.fixture
def programs(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(data_dir, capsys, monkeypatch)


def each_call(
    lab: Effort, programs: Programs, main: Callable[[], NoReturn], argv: list[str], faults: tuple[Fault, ...], step: int
) -> Iterator[Ended]:
    """A run with each of these faults at each `step`-th call that they fit, once and for ever."""
    calls = programs.run(main, argv, Faults()).faults.calls
    for fault in faults:
        fitting: list[Call] = [call for call in calls if call.name in fault.kinds]
        for call in fitting[::step]:
            for times in lab.pick((1,), (1, None)):
                ended = programs.run(main, argv, Faults(fault.lasting(times), (call.thread, call.number)))
                lab.count("faults", bool(ended.faults.struck))
                yield ended


def check_told(ended: Ended, name: str) -> None:
    """A failure is one line, which names the file or directory; success is success."""
    if ended.code:
        assert ended.said.startswith(f"{name}: "), ended
        assert ended.said.count("\n") == 1, ended
        assert any(call.path in ended.said or FOLDER in ended.said for call in ended.faults.struck), ended


# The server


class StopWhenReady(Notifier):
    """Stops its server as soon as it serves."""

    server: Server

    def ready(self) -> None:
        self.server._on_signal(signal.SIGTERM, None)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], NoReturn]]:
    """`python -m persistence_proc`, which leaves when it is ready."""

    def made(settings: Settings) -> Server:
        one = StopWhenReady({})
        one.server = Server(settings, notifier=one)
        running.append(one.server)
        return one.server

    def main() -> NoReturn:
        try:
            program.main()
        finally:
            for thread in threading.enumerate():
                if thread.name == "recovery":  # it may still be waking the loop that has ended
                    thread.join()
            running.pop()._mailbox.close()

    running: list[Server] = []
    monkeypatch.setattr(program, "Server", made)
    monkeypatch.setattr(program, "_raise_file_limit", lambda: None)
    monkeypatch.setattr(server, "STOP_SECONDS", 0.2)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    interval = sys.getswitchinterval()
    yield main
    sys.setswitchinterval(interval)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_server_that_can_not_go_on_says_why_in_one_line_and_loses_nothing(
    lab: Effort, past: Past, programs: Programs, serve: Callable[[], NoReturn]
) -> None:
    world = World(past, Faults(), random.Random(SHORT))
    programs.keep(lambda place: spill(past.moment.after_kill(), FOLDER, str(place)))
    for ended in each_call(lab, programs, serve, [], lab.pick((BROKEN,), FAULTS), lab.pick(5, 1)):
        check_server_told(ended)
        check(Disk(), world.bots, past.acknowledged, degraded=True, folder=str(programs.place))
        lab.count("servers ended by a fault", ended.code != 0)


def check_server_told(ended: Ended) -> None:
    if ended.code == 0:
        return
    lines = ended.said.splitlines()
    if lines:
        assert len(lines) == 1, ended
        assert lines[0].startswith("persistence: "), ended
        assert any(call.path in lines[0] for call in ended.faults.struck), ended


# The tools


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def show() -> NoReturn:
    run(inspect.main, "outlive")


def administer() -> NoReturn:
    run(admin.admin, "outlive")


def test_what_can_not_be_read_is_named_and_the_rest_is_shown(lab: Effort, past: Past, programs: Programs) -> None:
    programs.keep(lambda place: spill(past.moment.after_kill(), FOLDER, str(place)))
    whole = programs.run(show, [], Faults())
    for path in sorted({call.path for call in whole.faults.calls}):
        for times in (1, None):
            ended = programs.run(show, [], Faults(BROKEN.lasting(times), ("main", 0), below=path))
            lab.count("faults")
            assert contents(programs.place) == contents(programs._first)
            assert not CHANGES & {call.name for call in ended.faults.calls}
            assert ended.code == 0, ended
            assert len(ended.shown.splitlines()) == 3, ended  # a head, and two namespaces
            assert path in ended.said or (times == 1 and ended.shown == whole.shown), ended


def test_accepting_a_loss_loses_nothing_more_whatever_fails(lab: Effort, past: Past, programs: Programs) -> None:
    world = World(past, Faults(), random.Random(SHORT))
    assert world.live(30) == "went on"
    lost = lose_a_map(world)
    programs.keep(lambda place: (spill(lost, FOLDER, str(place)), fill_outbox(place)))
    outbox = contents(programs._first / "bot" / "outbox")
    argv = ["accept", "bot"]
    assert programs.run(administer, argv, Faults()).code == 0
    wanted = state_of(programs)
    for ended in each_call(lab, programs, administer, argv, lab.pick((BROKEN,), FAULTS), lab.pick(3, 1)):
        check_told(ended, "outlive")
        assert contents(programs.place / "bot" / "outbox") == outbox, f"an error was taken for a decision: {ended}"
        if ended.code:
            assert programs.again(administer, argv, Faults()).code == 0
        assert state_of(programs) == wanted, ended


def lose_a_map(world: World) -> MemoryDisk:
    """The disk without the files of a map of "bot" whose beginning the journal has forgotten."""
    for name in world.bots[0].states[-1]:
        disk = world.disk.moment().after_kill()
        for suffix in (".pkl", ".prev.pkl"):
            if disk.exists(path := f"{FOLDER}/bot/{name}{suffix}"):
                disk.unlink(path)
        left = disk.moment()
        if recover(disk, FOLDER).refused:
            return left.after_kill()
    raise AssertionError("each map's whole life is in the journal")


def state_of(programs: Programs) -> dict[tuple[str, str], dict[bytes, bytes]]:
    recovered = recover(Disk(), str(programs.place))
    recovered.journal.close()
    assert not recovered.refused
    return {key: one.items for key, one in recovered.maps.items()}


def fill_outbox(place: Path) -> None:
    folder = place / "bot" / "outbox"
    folder.mkdir(0o700, parents=True, exist_ok=True)
    for name in ("LOCK", "IDENTITY", "00000001.seg", "00000002.seg"):
        (folder / name).write_bytes(name.encode() * (name != "LOCK"))


def test_an_outbox_that_is_set_aside_is_somewhere_whatever_fails(lab: Effort, programs: Programs) -> None:
    programs.keep(fill_outbox)
    kept = sorted(data for data in contents(programs._first).values() if data)
    for ended in each_call(lab, programs, administer, ["accept", "bot"], (BROKEN, FULL, READ_ONLY), 1):
        check_told(ended, "outlive")
        assert sorted(data for data in contents(programs.place).values() if data) == kept
        again = programs.again(administer, ["accept", "bot"], Faults())
        assert again.code == 0 or "nothing to settle" in again.said, again
        assert not [name for name in contents(programs.place / "bot" / "outbox") if name != "LOCK"]
        assert sorted(data for data in contents(programs.place).values() if data) == kept


def test_forgetting_an_outbox_can_be_repeated_whatever_fails(
    lab: Effort, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def serving(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(ask=lambda request: Done())

    monkeypatch.setattr(admin, "serving", serving)
    programs.keep(fill_outbox)
    argv = ["forget", "bot", "--yes"]
    for ended in each_call(lab, programs, administer, argv, (BROKEN, READ_ONLY, FULL_SHORT), 1):
        check_told(ended, "outlive")
        left = [name for name in contents(programs.place / "bot" / "outbox") if name != "LOCK"]
        assert not left or "IDENTITY" in left, "segments without an identity would be nobody's"
        assert programs.again(administer, argv, Faults()).code == 0
        assert list(contents(programs.place)) == ["bot/outbox/LOCK"]
