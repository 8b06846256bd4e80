"""The keys by which a client is known to a server on TCP, and by which it knows the server.

    CURVE_DIR/client.key_secret      ours, as `zmq.auth.create_certificates` makes it
    CURVE_DIR/server.key             the server's public half
"""

from __future__ import annotations

import os

import zmq
import zmq.auth

from protocol.errors import ConfigError, NotAllowed

REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH
"""What a socket's monitor tells when the server does not take our key. The socket never connects again by itself."""

CLIENT_FILE, SERVER_FILE = "client.key_secret", "server.key"
_KEY_CHARACTERS = 40


class CurveKeys:
    """The keys in a folder. Raises `ConfigError` when there are none that can be used."""

    def __init__(self, folder: str) -> None:
        self.public, self.secret = load_key_pair(os.path.join(folder, CLIENT_FILE))
        self.server, _ = load_key(os.path.join(folder, SERVER_FILE))

    def use(self, socket: zmq.Socket[bytes]) -> None:
        """Set the keys on a socket before it connects."""
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret
        socket.curve_serverkey = self.server


def refused(address: str) -> NotAllowed:
    """The error for `REFUSED`."""
    return NotAllowed(
        f"the persistence process at {address} refuses our CURVE key: its clients.toml, as it was when the process "
        "started, does not list it"
    )


def load_key(path: str) -> tuple[bytes, bytes | None]:
    """(public, secret if there is one) of a key file, both good enough for ZeroMQ. Raises `ConfigError`."""
    try:
        os.stat(path)  # a missing one is told as such: to ZeroMQ's reader it is an invalid one
        public, secret = zmq.auth.load_certificate(path)
        for key in (public, public if secret is None else secret):
            if len(key) != _KEY_CHARACTERS:
                raise ValueError(f"a key of {len(key)} characters, not {_KEY_CHARACTERS}")
            zmq.curve_public(key)  # decodes it as a socket would, which pyzmq's own Z85 does not
    except (OSError, ValueError, LookupError, zmq.ZMQError) as error:
        raise ConfigError(f"no usable CURVE keys in {path}: {error}") from None
    return public, secret


def load_key_pair(path: str) -> tuple[bytes, bytes]:
    """(public, secret) of a key file that must have both. Raises `ConfigError`."""
    public, secret = load_key(path)
    if secret is None:
        raise ConfigError(f"no usable CURVE keys in {path}: it holds no secret key")
    return public, secret
