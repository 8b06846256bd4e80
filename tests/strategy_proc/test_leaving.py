"""A session is closed where something of it is held: by a signal handler inside a block, beside another thread's."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.errors import FlushTimeout, SessionClosed, SessionOver, TransactionInProgress
from protocol.messages import Confirmed, Refused, RefusedCode, Reply
from strategy_proc import Session
from strategy_proc.testing import MemoryStore
from tests.strategy_proc.scripted_server import ScriptedServer

FENCED = Refused(code=RefusedCode.FENCED, message="a newer session owns it", number=2)
ACCEPTED = Confirmed(instance="first", applied=0, durable=0, snapshot_wanted=True)


@pytest.fixture
def server(data_dir: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(data_dir) as one:
        yield one


def told(state: Session, method: str) -> threading.Event:
    """Is set when the pump begins to tell the session something by `method`."""
    begun, tell = threading.Event(), getattr(state, method)

    def telling(*args: object) -> object:
        begun.set()
        return tell(*args)

    setattr(state, method, telling)
    return begun


def close_as_a_signal_handler(state: Session) -> None:
    with contextlib.suppress(TransactionInProgress):
        state.close(timeout=0)


@pytest.mark.parametrize("word", [FENCED, ACCEPTED])
def test_a_session_is_closed_inside_a_block_while_its_pump_is_told_something(
    server: ScriptedServer, word: Reply
) -> None:
    state = server.open()
    server.next_confirm()
    took = told(state._pump, "_take")  # type: ignore[arg-type]
    m = state.map("m")
    with pytest.raises(SessionOver), state.transaction():
        m["a"] = 1
        server.answer(word)
        assert took.wait(30)
        close_as_a_signal_handler(state)
    assert m == {}


def test_a_session_is_closed_inside_a_flush_while_its_pump_tells_what_is_durable(server: ScriptedServer) -> None:
    state = server.open()
    server.next_confirm()
    telling = told(state, "_note_durable")
    with state._progress:  # as flush does, between two waits
        server.answer(Confirmed(instance="first", applied=0, durable=0))
        assert telling.wait(30)
        close_as_a_signal_handler(state)
    assert not state._pump._thread.is_alive()  # type: ignore[union-attr]


def test_a_state_that_is_accepted_inside_a_block_is_sent_behind_it(server: ScriptedServer) -> None:
    state = server.open()
    server.next_confirm()
    m = state.map("m")
    took = told(state._pump, "_take")  # type: ignore[arg-type]
    with state.transaction():
        server.answer(ACCEPTED)
        assert took.wait(30)
        m["a"] = 1
        server.next_confirm()  # it did not wait for the block
    server.answer(ACCEPTED)
    delta = server.next_delta()
    while delta.upto < 2:  # the block's own
        delta = server.next_delta()
    assert delta.base == 0
    with contextlib.suppress(Exception):
        state.close(timeout=0)


@contextlib.contextmanager
def another_threads_block(state: Session) -> Iterator[list[BaseException]]:
    """Open until the `with` ends; then the list has what became of it."""
    inside, go_on = threading.Event(), threading.Event()
    ends: list[BaseException] = []

    def work() -> None:
        try:
            with state.transaction():
                state._maps["m"]["block"] = 1
                inside.set()
                go_on.wait()
        except SessionOver as error:
            ends.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    try:
        yield ends
    finally:
        go_on.set()
        thread.join()


@pytest.mark.parametrize("how", ["flush", "close"])
def test_flush_and_close_wait_for_another_threads_block_as_long_as_they_are_told(
    server: ScriptedServer, how: str
) -> None:
    state = server.open()
    m = state.map("m")
    with another_threads_block(state) as ends, pytest.raises(FlushTimeout, match="transaction of another thread"):
        getattr(state, how)(timeout=0.01)
    if how == "close":
        assert [type(end) for end in ends] == [SessionClosed]
        assert m == {}
    else:
        assert m == {"block": 1}
        with pytest.raises(FlushTimeout, match="not confirmed"):
            state.close(timeout=0)


def test_a_flush_without_end_is_one(store: MemoryStore, state: Session) -> None:
    state.map("m")["a"] = 1
    state.flush(float("inf"))
