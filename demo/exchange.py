"""The paper exchange as a process: `python -m demo.exchange --dir DIR`.

It stands for the outside world, so nobody kills it, it knows nothing of Outlive, and it forgives nothing: an order
that arrives twice is executed twice. Its answer to a new order takes a moment, as over a network: a bot killed in that
moment leaves an order at the venue of which it never heard.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import deque
from pathlib import Path
from types import FrameType

import msgspec
import zmq

from demo.books import ExchangeBooks
from demo.messages import Failed, Submit, decode_request, encode
from demo.options import OptionParser
from demo.prices import load_days

SOCKET = "exchange"
IDLE_POLL_MS = 500


class Exchange:
    """Serves the books over a ROUTER socket until it is told to stop or its parent is gone."""

    def __init__(self, books: ExchangeBooks, address: str, latency: float) -> None:
        self._books = books
        self._latency = latency
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(address)
        self._late: deque[tuple[float, list[bytes]]] = deque()  # answers on their way: (due, frames)
        self._stopping = False

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._stopping = True

    def serve(self) -> None:
        parent = os.getppid()
        while not self._stopping and os.getppid() == parent:
            if self._socket.poll(self._wait_ms()):
                self._receive()
            while self._late and self._late[0][0] <= time.monotonic():
                self._socket.send_multipart(self._late.popleft()[1])
        self._socket.close()

    def _wait_ms(self) -> int:
        if not self._late:
            return IDLE_POLL_MS
        return max(0, 1 + int((self._late[0][0] - time.monotonic()) * 1000))

    def _receive(self) -> None:
        *envelope, data = self._socket.recv_multipart()
        request = None
        try:
            request = decode_request(data)
            reply = encode(self._books.answer(request))
        except (msgspec.MsgspecError, sqlite3.Error) as error:
            reply = encode(Failed(str(error)))
        frames = [*envelope, reply]
        if isinstance(request, Submit) and self._latency:
            self._late.append((time.monotonic() + self._latency, frames))
        else:
            self._socket.send_multipart(frames)


def main() -> None:
    parser = OptionParser(prog="python -m demo.exchange", description="A paper exchange on real prices.")
    parser.add_argument("--dir", type=Path, required=True, help="where the books are kept")
    parser.add_argument("--address", help="ipc:// address of the socket (default: in DIR)")
    parser.add_argument("--latency-ms", type=float, default=10.0, help="how long the answer to an order takes")
    options = parser.parse_args()
    options.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    books = ExchangeBooks(options.dir / "books.sqlite", load_days())
    address = options.address or f"ipc://{options.dir.resolve() / SOCKET}"
    exchange = Exchange(books, address, options.latency_ms / 1000)
    signal.signal(signal.SIGTERM, exchange.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the demo, which stops us in order
    exchange.serve()
    books.close()


if __name__ == "__main__":
    main()
