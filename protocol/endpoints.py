"""Where the sockets of a persistence process are.

One address names both: for ipc it is a directory that holds two sockets, for tcp a port, with the next one beside it.

    ipc:///var/lib/bot/state/sockets   ->  .../requests (ROUTER), .../deltas (PULL)
    tcp://127.0.0.1:5757               ->  :5757 (ROUTER), :5758 (PULL)

The file ENDPOINT in a data directory names the address of the process that serves it.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any, NamedTuple

import msgspec
import zmq

from protocol.errors import ConfigError, MalformedMessage, SocketPathTooLong
from protocol.limits import MAX_SOCKET_PATH_BYTES

ENDPOINT_FILE = "ENDPOINT"


class Endpoint(NamedTuple):
    """The address, and the two socket addresses that follow from it."""

    address: str
    requests: str
    deltas: str

    @property
    def directory(self) -> str | None:
        """The folder of the sockets, for ipc."""
        return self.address.removeprefix("ipc://") if self.address.startswith("ipc://") else None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.directory is not None:
            return True
        host = self.address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def parse_endpoint(address: str) -> Endpoint:
    """Raises `ConfigError` for an address of another form, `SocketPathTooLong` for an ipc path over 107 bytes."""
    scheme, _, rest = address.partition("://")
    if scheme == "ipc" and rest.startswith("/") and _is_path(rest):
        endpoint = Endpoint(address, f"ipc://{rest}/requests", f"ipc://{rest}/deltas")
        length = len(os.fsencode(f"{rest}/requests"))
        if length > MAX_SOCKET_PATH_BYTES:
            raise SocketPathTooLong(
                f"{rest}/requests has {length} bytes, a socket path may have {MAX_SOCKET_PATH_BYTES}: "
                "set a shorter runtime_dir (--runtime-dir) or data directory"
            )
        return endpoint
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65535:
        return Endpoint(address, f"tcp://{host}:{port}", f"tcp://{host}:{int(port) + 1}")
    raise ConfigError(f"{address!r} is no endpoint: ipc:///absolute/directory or tcp://HOST:PORT")


def _is_path(text: str) -> bool:
    """Whether the system can be given this text as a path."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def connect_socket(socket: zmq.Socket[Any], address: str) -> None:
    """Connect to one of an endpoint's two addresses. Raises `ConfigError` for a host that ZeroMQ takes for none."""
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        raise ConfigError(f"{address!r} can't be connected to: {error.strerror}") from None


class EndpointFile(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of the file ENDPOINT (JSON): who serves this data directory, and where."""

    address: str
    pid: int
    instance: str


def read_endpoint_file(data_dir: str) -> EndpointFile | None:
    """Who serves `data_dir`, or None if nobody has yet. Raises `MalformedMessage`."""
    path = os.path.join(data_dir, ENDPOINT_FILE)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    try:
        found = msgspec.json.decode(data, type=EndpointFile)
        parse_endpoint(found.address)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ConfigError) as error:
        why = f"{path}: {error}; restart the persistence process, which writes it anew"
        raise MalformedMessage(why, data) from None
    return found
