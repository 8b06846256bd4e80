"""A persistence process whose every word is the test's: it takes requests and deltas, and answers when told to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from protocol.endpoints import parse_endpoint
from protocol.messages import Confirm, Delta, Open, Opened, Reply, Request, decode_delta, decode_request, encode
from strategy_proc import Session, connect
from tests.waiting import LONG

STORE_ID = b"S" * 16


class ScriptedServer:
    """Bound to sockets in `data_dir`; `open` is `connect` from the server's side."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._endpoint = parse_endpoint(f"ipc://{data_dir}")
        self._context: zmq.Context[Any] = zmq.Context()
        self._requests, self._deltas = self._context.socket(zmq.ROUTER), self._context.socket(zmq.PULL)
        self._requests.bind(self._endpoint.requests)
        self._deltas.bind(self._endpoint.deltas)
        self._waiting: list[bytes] = []

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(linger=0)

    def open(self, **fields: Any) -> Session:
        """Let a bot connect, and answer its open with these fields. Raises what `connect` raises."""
        known: dict[str, Any] = {
            "store_id": STORE_ID, "instance": "first", "epoch": 1, "since": 1, "applied": 0, "new": True,
            "closed": False, "ts_last": 0, "maps": [],
        }  # fmt: skip
        with ThreadPoolExecutor(1) as pool:
            connecting = pool.submit(connect, "bot", data_dir=self._data_dir, endpoint=self._endpoint.address)
            while not isinstance(self._take_request(), Open):
                pass  # of the session before
            self.answer(Opened(**{**known, **fields}))
            return connecting.result(LONG)

    def next_confirm(self) -> Confirm:
        """The bot's next question, which then waits for `answer`."""
        request = self._take_request()
        assert isinstance(request, Confirm), request
        return request

    def _take_request(self) -> Request:
        assert self._requests.poll(LONG * 1000), "no request came"
        *self._waiting, head = self._requests.recv_multipart()
        return decode_request(head)

    def answer(self, reply: Reply) -> None:
        """Answer the newest request."""
        self._requests.send_multipart([*self._waiting, encode(reply)])

    def next_delta(self) -> Delta:
        """The bot's next changes."""
        assert self._deltas.poll(LONG * 1000), "no delta came"
        return decode_delta(self._deltas.recv_multipart()[0])
