"""What the pump makes of each thing a persistence process may say: nothing that it ships is ever given up."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.disk import Disk, boot_id
from protocol.errors import Fenced, FlushTimeout, ForeignStore, StateWentBack
from protocol.messages import Confirmed, Refused, RefusedCode
from protocol.notify import NOTIFY_VARIABLE
from protocol.outbox_files import read_outbox
from strategy_proc import Session
from tests.processes import LineReader
from tests.strategy_proc.scripted_server import ScriptedServer
from tests.waiting import wait_until


@pytest.fixture
def server(data_dir: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(data_dir) as one:
        yield one


def put_three(state: Session, server: ScriptedServer) -> None:
    """Three changes, all of which have reached the server's socket."""
    positions = state.map("m")
    for n in range(3):
        positions[n] = n
    while server.next_delta().upto < 3:
        pass


def leave(state: Session) -> None:
    """The server says nothing more."""
    with contextlib.suppress(FlushTimeout):
        state.close(timeout=0)


def confirmed(applied: int, instance: str = "first", durable: int = 0, gap: bool = False) -> Confirmed:
    return Confirmed(instance=instance, applied=applied, durable=durable, gap=gap)


@pytest.mark.parametrize(
    "reply",
    [confirmed(1, instance="second"), confirmed(1, gap=True), confirmed(0)],
    ids=["the process was restarted", "a message before it was lost", "the last message was lost"],
)
def test_what_the_server_lacks_is_shipped_again_at_its_first_word(server: ScriptedServer, reply: Confirmed) -> None:
    state = server.open()
    server.next_confirm()
    put_three(state, server)
    server.answer(reply)
    again = server.next_delta()  # no further question is answered before it
    assert (again.base, again.upto) == (reply.applied, 3)
    leave(state)


def test_what_was_applied_is_not_shipped_again(server: ScriptedServer) -> None:
    state = server.open()
    server.next_confirm()
    put_three(state, server)
    server.answer(confirmed(3))
    state.map("m")["more"] = 1
    assert server.next_delta().base == 3
    leave(state)


def test_a_pump_that_sleeps_is_woken_by_the_next_change_and_by_close(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strategy_proc.pump.ASLEEP", 3600.0)
    state = server.open()
    server.next_confirm()
    put_three(state, server)
    server.answer(confirmed(3, durable=3))
    outbox = state._outbox
    for change in (3, 4):
        wait_until(lambda: outbox.doorbell is not None, what="the pump sleeps")  # type: ignore[attr-defined]
        state.map("m")["more"] = change
        assert server.next_delta().base == change
        server.next_confirm()
        server.answer(confirmed(change + 1, durable=change + 1))
    wait_until(lambda: outbox.doorbell is not None, what="the pump sleeps")  # type: ignore[attr-defined]
    leave(state)


def test_what_reaches_a_socket_is_marked_as_shipped_in_the_outbox(server: ScriptedServer, data_dir: Path) -> None:
    state = server.open()
    put_three(state, server)
    contents = read_outbox(Disk(), str(data_dir / "bot" / "outbox"), "bot", boot_id())
    assert contents.shipped == 3
    leave(state)


def test_nothing_counts_as_acknowledged_before_it_is_durable(server: ScriptedServer) -> None:
    state = server.open()
    server.next_confirm()
    put_three(state, server)
    server.answer(confirmed(3, durable=2))
    wait_until(lambda: state._durable == 2)
    with pytest.raises(FlushTimeout, match="1 changes are not confirmed"):
        state.flush(0.05)
    leave(state)


def test_more_than_was_ever_recorded_acknowledges_nothing(server: ScriptedServer) -> None:
    """Then somebody else writes here, and what he has made durable is not ours."""
    state = server.open()
    server.next_confirm()
    put_three(state, server)
    server.answer(confirmed(4, durable=4))
    wait_until(lambda: state._problem is not None)
    with pytest.raises(StateWentBack, match="somebody else"):
        state.flush(0)
    assert state._outbox.acked == 0
    with contextlib.suppress(StateWentBack):
        state.close(timeout=0)


def test_a_fenced_session_raises_at_its_next_change(server: ScriptedServer) -> None:
    state = server.open()
    server.next_confirm()
    server.answer(Refused(code=RefusedCode.FENCED, message="a newer session owns it", number=2))
    wait_until(lambda: not state._pump._thread.is_alive())
    with pytest.raises(Fenced):
        state.map("m")["k"] = 1
    leave(state)


@pytest.fixture
def acknowledged(server: ScriptedServer) -> ScriptedServer:
    """A server that has acknowledged two of a bot's three changes; the bot is gone."""
    state = server.open()
    server.next_confirm()
    put_three(state, server)
    server.answer(confirmed(3, durable=2))
    wait_until(lambda: state._durable == 2)
    leave(state)
    return server


def test_a_server_that_lacks_what_was_acknowledged_is_not_believed(acknowledged: ScriptedServer) -> None:
    with pytest.raises(StateWentBack, match="up to change 1"):
        acknowledged.open(epoch=2, applied=1)


def test_nor_is_one_of_another_store(acknowledged: ScriptedServer) -> None:
    with pytest.raises(ForeignStore):
        acknowledged.open(epoch=2, applied=2, store_id=b"T" * 16)


def test_what_it_had_acknowledged_only_in_part_comes_back_from_the_outbox(acknowledged: ScriptedServer) -> None:
    state = acknowledged.open(epoch=2, applied=2)
    assert state.map("m") == {2: 2}
    assert state.recovered.from_outbox == 1
    delta = acknowledged.next_delta()
    while delta.epoch < 2:  # of the life before, on its way
        delta = acknowledged.next_delta()
    assert (delta.base, delta.upto) == (2, 3)
    leave(state)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[LineReader]:
    """What a session says to its supervisor."""
    ours, theirs = os.pipe()
    monkeypatch.setenv(NOTIFY_VARIABLE, str(theirs))
    reader = LineReader(ours)
    yield reader
    os.close(theirs)
    reader.close()


def test_a_beat_is_passed_on_only_while_the_maps_can_be_changed(
    server: ScriptedServer, notes: LineReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strategy_proc.pump.ASLEEP_BEATING", 0.01)
    state = server.open()
    assert notes.read_line() == "ready"
    state.beat()
    assert notes.read_line() == "beat"
    with in_a_stuck_transaction(state):
        state.beat()
        looks = iter(range(8))
        while next(looks, None) is not None:  # eight times the pump has looked after the beat
            before = state._pump._kept_house  # type: ignore[union-attr]
            wait_until(lambda before=before: state._pump._kept_house != before)  # type: ignore[misc, union-attr]
        with pytest.raises(TimeoutError):
            notes.read_line(deadline=0)
    assert notes.read_line() == "beat"
    leave(state)


def test_a_quiet_bots_first_beat_does_not_wait_until_its_pump_looks(
    server: ScriptedServer, notes: LineReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strategy_proc.pump.ASLEEP", 3600.0)
    monkeypatch.setattr("strategy_proc.pump.ASLEEP_BEATING", 0.01)
    state = server.open()
    assert notes.read_line() == "ready"
    wait_until(lambda: state._outbox.doorbell is not None, what="the pump sleeps")  # type: ignore[attr-defined]
    for _ in range(2):
        state.beat()
        assert notes.read_line() == "beat"
    leave(state)


def test_a_bot_that_puts_without_end_beats_although_its_lock_is_rarely_free(
    server: ScriptedServer, notes: LineReader
) -> None:
    state = server.open()
    numbers = state.map("m")
    assert notes.read_line() == "ready"
    for _ in range(3):
        with state._recorder.lock:  # the pump finds it taken whenever it looks
            numbers["n"] = numbers.get("n", 0) + 1
            state.beat()
            assert notes.read_line() == "beat"
    leave(state)


@contextlib.contextmanager
def in_a_stuck_transaction(state: Session) -> Iterator[None]:
    """Another thread is in a transaction, which ends with the block."""
    inside, go_on = threading.Event(), threading.Event()

    def stuck() -> None:
        with state.transaction():
            inside.set()
            go_on.wait()

    thread = threading.Thread(target=stuck)
    thread.start()
    inside.wait()
    try:
        yield
    finally:
        go_on.set()
        thread.join()
