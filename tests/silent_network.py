"""A network between a bot and its persistence process that can fall silent: nothing arrives, and nobody hangs up.

As when a host loses its power, or a firewall forgets a connection. New connections go through.
"""

from __future__ import annotations

import selectors
import socket
import threading
from types import TracebackType

from tests.ports import two_free_ports


class SilentNetwork:
    """Forwards two ports in a row, `address`, to those of the endpoint `tcp://127.0.0.1:PORT`."""

    def __init__(self, target: str) -> None:
        self._target, ours = int(target.rpartition(":")[2]), two_free_ports()
        self.address = f"tcp://127.0.0.1:{ours}"
        self._selector = selectors.DefaultSelector()
        self._falls_silent, self._ends = threading.Event(), threading.Event()
        self._sockets: list[socket.socket] = []
        for offset in (0, 1):
            listener = socket.create_server(("127.0.0.1", ours + offset))
            self._sockets.append(listener)
            self._selector.register(listener, selectors.EVENT_READ, self._target + offset)
        self._thread = threading.Thread(target=self._forward, daemon=True)

    def fall_silent(self) -> None:
        """For every connection that is there now."""
        self._falls_silent.set()

    def _forward(self) -> None:
        while not self._ends.is_set():
            events = self._selector.select(0.01)
            if self._falls_silent.is_set():
                self._falls_silent.clear()
                self._forget_everybody()
                continue
            for key, _ in events:
                if isinstance(key.data, int):
                    self._accept(key.fileobj, key.data)  # type: ignore[arg-type]
                else:
                    self._pass_on(key.fileobj, key.data)  # type: ignore[arg-type]

    def _forget_everybody(self) -> None:
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, socket.socket):
                self._selector.unregister(key.fileobj)

    def _accept(self, listener: socket.socket, port: int) -> None:
        one, _ = listener.accept()
        other = socket.create_connection(("127.0.0.1", port))
        self._sockets += [one, other]
        self._selector.register(one, selectors.EVENT_READ, other)
        self._selector.register(other, selectors.EVENT_READ, one)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            data = source.recv(2**16)
            target.sendall(data)
        except OSError:
            data = b""
        if not data:
            for one in (source, target):
                if one.fileno() >= 0 and one in self._selector.get_map():
                    self._selector.unregister(one)
                one.close()

    def __enter__(self) -> SilentNetwork:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join()
        self._selector.close()
        for one in self._sockets:
            one.close()
