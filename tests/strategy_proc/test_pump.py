"""What the pump makes of each thing a persistence process may say: nothing that it ships is ever given up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.disk import Disk, boot_id
from protocol.errors import Fenced, FlushTimeout, ForeignStore, StateWentBack
from protocol.messages import Confirmed, Refused, RefusedCode
from protocol.outbox_files import read_outbox
from strategy_proc import Session
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
