"""The keys by which a client is known to a server on TCP, and by which it knows the server.

    CURVE_DIR/client.key_secret      ours, as `zmq.auth.create_certificates` makes it
    CURVE_DIR/server.key             the server's public half
"""

from __future__ import annotations

import os

import zmq
import zmq.auth

from protocol.errors import ConfigError

CLIENT_FILE, SERVER_FILE = "client.key_secret", "server.key"


class CurveKeys:
    """The keys in a folder. Raises `ConfigError` when there are none that can be used."""

    def __init__(self, folder: str) -> None:
        try:
            self.public, self.secret = zmq.auth.load_certificate(os.path.join(folder, CLIENT_FILE))
            self.server, _ = zmq.auth.load_certificate(os.path.join(folder, SERVER_FILE))
        except (OSError, ValueError) as error:
            raise ConfigError(f"no usable CURVE keys in {folder}: {error}") from None
        if self.secret is None:
            raise ConfigError(f"no usable CURVE keys in {folder}: {CLIENT_FILE} holds no secret key")

    def use(self, socket: zmq.Socket[bytes]) -> None:
        """Set the keys on a socket before it connects."""
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret or b""
        socket.curve_serverkey = self.server
