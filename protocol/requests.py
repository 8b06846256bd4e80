"""One request, one reply, by the lazy pirate pattern (ZeroMQ guide, chapter 4): a time-out closes the socket.

A REQ socket that lost its reply can never be used again, so it is thrown away; every request is idempotent.
"""

from __future__ import annotations

import zmq

from protocol.curve import REFUSED, CurveKeys, refused
from protocol.endpoints import Endpoint, connect_socket
from protocol.messages import Reply, Request, decode_reply, encode

RECONNECT_MS = 20  # a persistence process is restarted at once; it should not be waited for


class RequestClient:
    """A REQ socket that is made anew when a reply was missed. Owned by one thread at a time."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint, keys: CurveKeys | None) -> None:
        self._context, self._endpoint, self._keys = context, endpoint, keys
        self._socket: zmq.Socket[bytes] | None = None
        self._refusals: zmq.Socket[bytes] | None = None
        self.waiting = False
        """A request was sent and its reply has not come."""

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """For a poller; changes after `abandon`."""
        if self._socket is None:
            self._socket = self._context.socket(zmq.REQ)
            self._socket.linger = 0
            self._socket.reconnect_ivl, self._socket.reconnect_ivl_max = RECONNECT_MS, 10 * RECONNECT_MS
            if self._keys is not None:
                self._keys.use(self._socket)
                self._refusals = self._socket.get_monitor_socket(REFUSED)
            connect_socket(self._socket, self._endpoint.requests)
        return self._socket

    def send(self, request: Request) -> None:
        """Never blocks: a connection that was refused takes nothing, and the reply is then missed as any other."""
        self.waiting = True
        try:
            self.socket.send(encode(request), zmq.NOBLOCK)
        except zmq.Again:
            pass

    def has_reply(self) -> bool:
        """Whether `receive` would not have to wait."""
        return bool(self.socket.poll(0))

    def receive(self) -> tuple[Reply, list[bytes]]:
        """The reply that has come, and the parts behind it. Raises `MalformedMessage`."""
        head, *parts = self.socket.recv_multipart()
        self.waiting = False
        return decode_reply(head), parts

    def ask(self, request: Request, timeout: float) -> tuple[Reply, list[bytes]] | None:
        """Send, wait up to `timeout` seconds, receive; None when nothing came.

        Raises `NotAllowed` when the server does not take our key, `MalformedMessage`.
        """
        self.send(request)
        poller = zmq.Poller()
        for one in (self.socket, self._refusals):
            if one is not None:
                poller.register(one, zmq.POLLIN)
        events = dict(poller.poll(max(0, round(timeout * 1000))))
        if self.socket in events:
            return self.receive()
        self.abandon()
        if events:
            raise refused(self._endpoint.address)
        return None

    def abandon(self) -> None:
        """Give up the reply that is awaited."""
        if self._refusals is not None and self._socket is not None:
            self._socket.disable_monitor()  # before its descriptor, after which it is called, can be another's
            self._refusals.close()
        if self._socket is not None:
            self._socket.close()
        self._socket, self._refusals, self.waiting = None, None, False
