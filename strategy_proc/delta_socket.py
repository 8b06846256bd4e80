"""The PUSH socket of a session, with what ZeroMQ tells of its connection."""

from __future__ import annotations

from collections.abc import Sequence

import zmq
from zmq.utils.monitor import recv_monitor_message

from protocol.curve import REFUSED, CurveKeys
from protocol.endpoints import Endpoint, connect_socket
from protocol.requests import RECONNECT_MS

HEARTBEAT_MS = 2000
"""Between two of ZMTP's PINGs on TCP, of which three may go unanswered. Nobody answers on this socket otherwise, and
TCP takes a quarter of an hour to give up a peer that has vanished without a word. Requests have time-outs of their own.
"""
_POLLOUT = int(zmq.POLLOUT)  # an enum's own operators are slow
LOST = zmq.EVENT_DISCONNECTED
"""The process at the other end is gone. ZeroMQ looks for the next one by itself."""


class DeltaSocket:
    """Owned by the pump. Queues nothing for a server that is not there: the outbox is the queue."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint, keys: CurveKeys | None) -> None:
        self._push = context.socket(zmq.PUSH)
        try:
            self._connect(endpoint, keys)
        except BaseException:
            self._push.close()  # else the context would wait for it
            raise

    def _connect(self, endpoint: Endpoint, keys: CurveKeys | None) -> None:
        self._push.linger = 0
        self._push.immediate = True
        self._push.reconnect_ivl, self._push.reconnect_ivl_max = RECONNECT_MS, 10 * RECONNECT_MS
        if endpoint.directory is None:
            self._push.heartbeat_ivl, self._push.heartbeat_timeout = HEARTBEAT_MS, 3 * HEARTBEAT_MS
            self._push.heartbeat_ttl = 5 * HEARTBEAT_MS  # the server lets go then
        if keys is not None:
            keys.use(self._push)
        self.events = self._push.get_monitor_socket(LOST | REFUSED)
        """For a poller."""
        connect_socket(self._push, endpoint.deltas)

    def takes(self) -> bool:
        """Whether `send_delta` would hand a delta over."""
        return bool(int(self._push.get(zmq.EVENTS)) & _POLLOUT)

    def send_delta(self, parts: Sequence[bytes]) -> bool:
        """Whether the socket has it now. Never blocks."""
        try:
            self._push.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def next_event(self) -> int:
        """`LOST` or `REFUSED`, when `events` is readable."""
        return int(recv_monitor_message(self.events)["event"])

    def close(self) -> None:
        self._push.disable_monitor()
        self.events.close()
        self._push.close()
