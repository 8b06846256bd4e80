"""How a bot finds its persistence process again: over a connection that has died without a word (TCP gives it up a
quarter of an hour later), and in another place.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from strategy_proc import connect
from tests.ports import two_free_ports
from tests.processes import PersistenceProcess
from tests.silent_network import SilentNetwork
from tests.waiting import LONG, wait_until


def test_a_bot_finds_its_way_when_its_connections_fall_silent(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategy_proc.delta_socket.HEARTBEAT_MS", 100)
    address = f"tcp://127.0.0.1:{two_free_ports()}"
    with PersistenceProcess(data_dir / "state", "--endpoint", address), SilentNetwork(address) as network:
        with connect("bot", data_dir=data_dir / "local", endpoint=network.address) as state:
            for life in range(3):
                state.map("m")["life"] = life
                state.flush(LONG)
                network.fall_silent()


def test_a_bot_finds_a_process_that_comes_back_in_another_place(data_dir: Path) -> None:
    with PersistenceProcess(data_dir / "state"):
        state = connect("bot", data_dir=data_dir / "state")
    state.map("m")["while"] = "nobody is there"
    with PersistenceProcess(data_dir / "state", "--runtime-dir", str(data_dir / "elsewhere")):
        state.flush(LONG)
        state.close()


def test_nobody_at_the_old_address_keeps_a_bot_from_looking(data_dir: Path) -> None:
    """Somebody else has the port now, and hangs up."""
    address = f"tcp://127.0.0.1:{two_free_ports()}"
    with PersistenceProcess(data_dir / "state", "--endpoint", address):
        state = connect("bot", data_dir=data_dir / "state")
    state.map("m")["while"] = "somebody else is there"
    with hanging_up(address), PersistenceProcess(data_dir / "state"):
        state.flush(LONG)
        state.close()


@contextlib.contextmanager
def hanging_up(address: str) -> Iterator[None]:
    port, over = int(address.rpartition(":")[2]), threading.Event()

    def hang_up(listener: socket.socket) -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", port)) as one, socket.create_server(("127.0.0.1", port + 1)) as other:
        for listener in (one, other):
            listener.settimeout(0.05)
        threads = [threading.Thread(target=hang_up, args=(listener,)) for listener in (one, other)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()


def test_a_server_asks_after_connections_that_say_nothing(data_dir: Path) -> None:
    address = f"tcp://127.0.0.1:{two_free_ports()}"
    port = int(address.rpartition(":")[2])
    with PersistenceProcess(data_dir / "state", "--endpoint", address):
        with connect("bot", data_dir=data_dir / "local", endpoint=address):
            wait_until(lambda: keep_alives_of(port) == keep_alives_of(port + 1) == [True])


def keep_alives_of(port: int) -> list[bool]:
    """Of each connection that `port` has taken in, whether the kernel will ask after it, and awaits nothing else."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [row for row in rows if int(row[1].partition(":")[2], 16) == port and row[3] == _ESTABLISHED]
    return [row[5].startswith(_KEEP_ALIVE_TIMER) for row in ours]


_ESTABLISHED, _KEEP_ALIVE_TIMER = "01", "02:"
