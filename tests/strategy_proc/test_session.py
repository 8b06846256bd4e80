"""Sessions with a real persistence process, struck where it hurts: while they start, sync, ship and leave."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from unittest import mock

import pytest

from protocol.disk import Disk
from protocol.errors import FlushTimeout, OutboxFull, ReentrantChange, SessionClosed, SyncFailed
from protocol.limits import CONFIRM_WAIT
from protocol.messages import Confirmed
from protocol.segments import ACKED_AT, RECORDS_AT, SHIPPED_AT, SYNCED_AT
from strategy_proc import Session, connect, connecting
from strategy_proc.outbox import Outbox, OutboxLock
from strategy_proc.pump import Pump
from tests.processes import PersistenceProcess
from tests.strategy_proc.outboxes import FailingDisk, overwrite
from tests.waiting import wait_until


@pytest.fixture
def persistence(data_dir: Path) -> Iterator[PersistenceProcess]:
    with PersistenceProcess(data_dir) as process:
        yield process


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("owner", "name"), [(Outbox, "maintain"), (connecting, "_describe"), (connecting, "Session"), (Pump, "start")]
)
def test_a_connect_that_is_interrupted_gives_everything_back(
    persistence: PersistenceProcess, data_dir: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    connect("bot", data_dir=data_dir).close()

    def struck(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, struck)
        with pytest.raises(KeyboardInterrupt):
            connect("bot", data_dir=data_dir)
    assert descriptors() == before
    with connect("bot", data_dir=data_dir) as state:
        state.map("m")["a"] = 1
    assert descriptors() == before


def test_a_connect_without_room_on_the_disk_says_so_by_name(
    persistence: PersistenceProcess, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect("bot", data_dir=data_dir) as state:
        state.map("m")["a"] = 1
    disk = FailingDisk()
    disk.full = True
    with monkeypatch.context() as patch:
        patch.setattr(connecting, "Disk", lambda: disk)
        with pytest.raises(OutboxFull, match="make room"):
            connect("bot", data_dir=data_dir)
    with connect("bot", data_dir=data_dir) as state:
        assert state.map("m") == {"a": 1}


def test_a_connect_that_is_interrupted_behind_the_start_of_its_thread_ends_it(
    persistence: PersistenceProcess, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Pump.start

    def struck(pump: Pump) -> None:
        start(pump)
        raise KeyboardInterrupt

    threads = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(Pump, "start", struck)
        with pytest.raises(KeyboardInterrupt):
            connect("bot", data_dir=data_dir)
    assert threading.active_count() == threads
    connect("bot", data_dir=data_dir).close()


def test_the_pump_outlives_a_failure_of_its_own(
    persistence: PersistenceProcess, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = []

    def fails_once(outbox: Outbox, *args: int) -> object:
        if not failures:
            failures.append(1)
            raise OSError(errno.EMFILE, "Too many open files")
        return unshipped(outbox, *args)

    unshipped = Outbox.unshipped
    monkeypatch.setattr(Outbox, "unshipped", fails_once)
    with connect("bot", data_dir=data_dir) as state:
        state.map("m")["a"] = 1
        state.flush(20)
    assert failures
    with connect("bot", data_dir=data_dir) as state:
        assert state.map("m") == {"a": 1}


def test_what_arrived_after_all_is_not_shipped_again() -> None:
    """A message that seemed lost was only late: to ship again from before it might begin where nothing is any more."""
    pump = pump_that_asked(shipped=0, applied=0, durable=0)
    Pump._confirmed(pump, Confirmed(instance="i", applied=2, durable=2))
    pump._ship_again_from.assert_called_once_with(2)


def test_what_is_on_its_way_is_not_shipped_again_because_what_came_before_it_is_durable() -> None:
    """The answer to a wait that ended early says nothing about what was sent meanwhile."""
    pump = pump_that_asked(shipped=5, applied=3, durable=1)
    Pump._confirmed(pump, Confirmed(instance="i", applied=3, durable=3))
    pump._ship_again_from.assert_not_called()
    pump = pump_that_asked(shipped=5, applied=3, durable=3)
    Pump._confirmed(pump, Confirmed(instance="i", applied=3, durable=3))
    pump._ship_again_from.assert_called_once_with(3)


def test_a_bot_that_never_stops_putting_does_not_keep_its_pump_from_anything_else() -> None:
    """A round ships what was there when it began."""
    pump = pump_that_asked(shipped=0, applied=0, durable=0)
    pump._outbox.seq, pump._bytes_in_flight = 1, 0
    pump._session.namespace, pump._session.epoch = "bot", 1

    def unshipped(from_seq: int, max_bytes: int) -> tuple[int, int, list[bytes]]:
        pump._outbox.seq += 1
        return from_seq, pump._outbox.seq - 1, [b"records"]

    pump._outbox.unshipped = unshipped
    deltas = mock.Mock()
    assert Pump._ship(pump, deltas)
    deltas.send_delta.assert_called_once()


def test_a_close_is_waited_for_as_long_as_a_server_that_misses_a_change_holds_it() -> None:
    """Else its answer, "ship again", always comes too late. What has moved is counted from this question."""
    pump = pump_that_asked(shipped=5, applied=3, durable=1)
    pump._applied, pump._durable, pump._session.namespace, pump._session.epoch, pump._outbox.seq = 4, 4, "bot", 1, 5
    pump._leaving.is_set.return_value, pump._left.is_set.return_value = True, False
    before = time.monotonic()
    Pump._ask(pump, mock.Mock(waiting=False))
    assert pump._answer_due > before + CONFIRM_WAIT
    Pump._confirmed(pump, Confirmed(instance="i", applied=4, durable=4))
    pump._ship_again_from.assert_called_once_with(4)


def test_the_last_word_of_a_process_is_taken_although_its_end_is_heard_with_it() -> None:
    pump, client, deltas = pump_that_asked(shipped=5, applied=3, durable=3), mock.Mock(waiting=True), mock.Mock()
    pump._poller_for.return_value.poll.return_value = [(client.socket, 1), (deltas.events, 1)]
    client.receive.return_value = ("the last word", [])
    assert Pump._listen(pump, client, deltas, 0.0)
    pump._take.assert_called_once_with("the last word")
    client.abandon.assert_not_called()


def test_what_is_long_on_its_way_is_not_sent_again_at_every_question() -> None:
    """Over a slow link each copy would make all others later, and the socket would hold them all."""
    pump = pump_that_asked(shipped=5, applied=3, durable=3)
    pump._applied_when_resent, pump._resend_at, pump._resend_patience = 3, 0.0, 3600.0
    pump._is_time_to_resend = lambda reply: Pump._is_time_to_resend(pump, reply)
    for _ in range(3):
        pump._shipped = 5
        Pump._confirmed(pump, Confirmed(instance="i", applied=3, durable=3))
    pump._ship_again_from.assert_called_once_with(3)
    pump._shipped = pump._applied_when_asked = pump._durable_when_asked = 4
    pump._shipped = 5
    Pump._confirmed(pump, Confirmed(instance="i", applied=4, durable=4))  # something has moved
    assert pump._ship_again_from.call_count == 2


def test_a_pump_does_not_sleep_beyond_the_reply_that_it_awaits() -> None:
    pump = mock.Mock(_answer_due=time.monotonic(), _beats=mock.Mock(passed_on=0.0))
    assert not Pump._has_slept(pump)
    pump._sleep.acquire.assert_not_called()


def pump_that_asked(shipped: int, applied: int, durable: int) -> mock.Mock:
    return mock.Mock(
        _instance="i", _shipped=shipped, _applied=applied, _applied_when_asked=applied, _durable=durable,
        _durable_when_asked=durable, _in_flight=deque(), _identity=b"i" * 16, _outbox=mock.Mock(seq=99),
    )  # fmt: skip


class SlowDisk(Disk):
    """Runs something in the middle of a sync, where a signal handler may strike."""

    def sync_map(self, *args: object) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        super().sync_map(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["close", "flush", "sync"])
def test_a_signal_handler_in_the_middle_of_a_sync_is_refused_and_not_stuck(
    persistence: PersistenceProcess, data_dir: Path, what: str
) -> None:
    refused = []

    def handler(number: int, frame: FrameType | None) -> None:
        with pytest.raises(ReentrantChange) as caught:
            getattr(state, what)()
        refused.append(caught.value)
        state.map("m")["handler"] = 1

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with connect("bot", data_dir=data_dir) as state:
            state.map("m")["a"] = 1
            state._outbox._disk = SlowDisk()  # type: ignore[attr-defined]
            state.sync()
            state._outbox._disk = Disk()  # type: ignore[attr-defined]
        assert refused
        with connect("bot", data_dir=data_dir) as state:
            assert state.map("m") == {"a": 1, "handler": 1}
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_that_closes_while_the_session_closes_is_not_stuck(
    persistence: PersistenceProcess, data_dir: Path
) -> None:
    handled = []

    def handler(number: int, frame: FrameType | None) -> None:
        state.close()
        handled.append(number)
        raise SystemExit

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        state = connect("bot", data_dir=data_dir)
        persistence.stop()
        state.map("m")["a"] = 1
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(SystemExit):
            state.close(60)
        assert handled
        with pytest.raises(SessionClosed):
            state.map("m")["b"] = 2
        persistence.cont()
        with connect("bot", data_dir=data_dir) as state:
            assert state.map("m") == {"a": 1}
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_closing_with_the_persistence_process_dead_takes_no_longer_than_asked_and_loses_nothing(
    persistence: PersistenceProcess, data_dir: Path
) -> None:
    before = descriptors()
    state = connect("bot", data_dir=data_dir)
    state.map("m")["a"] = 1
    state.flush(20)
    persistence.kill()
    state.map("m")["b"] = 2
    with pytest.raises(FlushTimeout):
        state.close(0.1)
    state.close()
    persistence.start()
    with connect("bot", data_dir=data_dir) as state:
        assert state.recovered.from_outbox == 1
        assert state.map("m") == {"a": 1, "b": 2}
    wait_until(lambda: descriptors() <= before + 1, what="all descriptors closed")  # the process's new pipe


def test_threads_that_put_and_sync_while_another_closes_get_a_named_error(
    persistence: PersistenceProcess, data_dir: Path
) -> None:
    state = connect("bot", data_dir=data_dir)
    m = state.map("m")
    returned: dict[str, int] = {}
    unexpected: list[BaseException] = []

    def work(name: str) -> None:
        n = 0
        try:
            while True:
                n += 1
                m[name] = n
                returned[name] = n
                if n % 50 == 0:
                    _sync(state)
        except SessionClosed:
            pass
        except BaseException as error:
            unexpected.append(error)

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(returned.get(f"t{i}", 0) > 200 for i in range(4)))
    state.close(30)
    for thread in threads:
        thread.join()
    assert unexpected == []
    with connect("bot", data_dir=data_dir) as state:
        assert state.map("m") == returned


def _sync(state: Session) -> None:
    with contextlib.suppress(SyncFailed):  # closed behind the check, before the sync
        state.sync()


def test_a_dropped_map_stays_dropped_over_restarts_of_both_sides(
    persistence: PersistenceProcess, data_dir: Path
) -> None:
    with connect("bot", data_dir=data_dir) as state:
        state.map("kept")["a"] = 1
        state.map("gone")["a"] = 1
        state.map("again")["a"] = 1
        state.flush(20)
        persistence.kill()
        state.drop_map("gone")
        state.drop_map("again")
        state.map("again")["b"] = 2
        with pytest.raises(FlushTimeout):
            state.close(0.1)
    persistence.start()
    for _ in range(2):
        with connect("bot", data_dir=data_dir) as state:
            assert state.map_names() == ["again", "kept"]
            assert state.map("again") == {"b": 2}
        persistence.restart()


def test_a_child_forked_while_its_parent_connects_does_not_keep_the_namespace(
    persistence: PersistenceProcess, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, hold = os.pipe()
    told, tell = os.pipe()
    children = []

    def forks(outbox: Outbox, *args: object) -> None:
        child = os.fork()
        if child == 0:
            os.close(hold)
            os.write(tell, b"forked")
            os.read(end, 1)
            os._exit(0)
        children.append(child)
        os.read(told, 6)
        raise KeyboardInterrupt

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "begin", forks)
            patch.setattr(OutboxLock, "release", OutboxLock.drop_in_child)  # as for a killed parent: nobody unlocks
            with pytest.raises(KeyboardInterrupt):
                connect("bot", data_dir=data_dir)
        connect("bot", data_dir=data_dir).close()
    finally:
        for fd in (hold, end, told, tell):
            os.close(fd)
        for child in children:
            os.waitpid(child, 0)


def test_changes_behind_a_hole_that_the_store_already_has_are_not_called_lost(
    persistence: PersistenceProcess, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut kept later pages of the outbox and lost an earlier one; the journal had it all."""
    monkeypatch.setattr(Outbox, "_retire_acked", lambda outbox: None)
    with connect("bot", data_dir=data_dir) as state:
        for n in range(30):
            state.map("m")[n] = bytes([n]) * 100_000
        state.flush(20)
    segments = sorted((data_dir / "bot" / "outbox").glob("*.seg"))
    overwrite(segments[1], RECORDS_AT, bytes(8))
    for segment in segments:
        for mark in (ACKED_AT, SYNCED_AT, SHIPPED_AT):
            overwrite(segment, mark, bytes(16))
    monkeypatch.setattr(connecting, "boot_id", lambda: "the boot after a power cut")
    with connect("bot", data_dir=data_dir) as state:
        assert state.map("m") == {n: bytes([n]) * 100_000 for n in range(30)}
        assert not state.recovered.degraded
