"""Who may talk to this process.

Directories: ours, and closed to others (`protocol.disk.check_private`). TCP: on loopback only, or with CURVE. Then a
ZAP authenticator lets in the client keys that `clients.toml` lists, and every message, on both sockets, is checked
against the namespaces that its key may write:

    CURVE_DIR/server.key_secret      made at the first start; its public half is server.key, for the clients
    CURVE_DIR/clients.toml           [[client]]
                                     key = "40 characters: the public key of a client, as in its .key file"
                                     namespaces = ["momentum"]         # or ["*"]
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import Any

import msgspec
import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from protocol.curve import load_key_pair
from protocol.disk import Disk, check_private, lock_holders
from protocol.endpoints import Endpoint
from protocol.errors import ConfigError, StoreInUse

SERVER_KEY, CLIENTS_FILE = "server", "clients.toml"
EVERY_NAMESPACE = "*"
_ZAP_DOMAIN = "outlive"
_KEY_CHARACTERS = 40
PROBE_SECONDS = 0.2  # a tool that only asks whether a lock is held has it for microseconds: that is no owner


class Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One client key, and the namespaces that it may open and change."""

    key: str
    namespaces: list[str]


class ClientList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of `clients.toml`."""

    client: list[Client]


class Access:
    """What a user may do. Without CURVE whoever reaches the sockets is us (0700), so everything is allowed."""

    def __init__(self, clients: dict[str, frozenset[str]] | None = None) -> None:
        self._clients = clients

    @property
    def checks_users(self) -> bool:
        """Whether messages carry a user id that has to be looked at."""
        return self._clients is not None

    def knows(self, user: str) -> bool:
        return self._clients is None or user in self._clients

    def allows(self, user: str, namespace: str) -> bool:
        """Whether `user` (a public key, Z85) may read and write `namespace`."""
        if self._clients is None:
            return True
        allowed = self._clients.get(user, frozenset())
        return namespace in allowed or EVERY_NAMESPACE in allowed


def check_endpoint(endpoint: Endpoint, curve_dir: str | None) -> None:
    """Raises `ConfigError` for an address that strangers could reach."""
    if not endpoint.is_loopback and curve_dir is None:
        raise ConfigError(
            f"endpoint {endpoint.address}: other machines could connect; use a loopback address, or --curve-dir "
            "with the keys of those who may (docs/wire-protocol.md)"
        )


def load_access(curve_dir: str | None) -> Access:
    """Read the list of clients. Raises `ConfigError`, `InsecureDirectory`."""
    if curve_dir is None:
        return Access()
    path = os.path.join(curve_dir, CLIENTS_FILE)
    try:
        check_private(curve_dir)
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename}: not there; it lists the client keys (docs/wire-protocol.md)") from None
    try:
        listed = msgspec.toml.decode(data, type=ClientList)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: no text, a number without end
        raise ConfigError(f"{path}: {error}") from None
    return Access(_namespaces_of_keys(path, listed))


def _namespaces_of_keys(path: str, listed: ClientList) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for client in listed.client:
        if len(client.key) != _KEY_CHARACTERS:
            raise ConfigError(f"{path}: key {client.key!r} has {len(client.key)} characters, not {_KEY_CHARACTERS}")
        if client.key in found:  # whichever counted, somebody would believe the other
            raise ConfigError(f"{path}: key {client.key!r} is listed twice")
        found[client.key] = frozenset(client.namespaces)
    return found


def start_authenticator(context: zmq.Context[Any], access: Access) -> ThreadAuthenticator | None:
    """The thread that answers ZeroMQ's question whether a key may connect; None without CURVE."""
    if not access.checks_users:
        return None
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback(_ZAP_DOMAIN, _Listed(access))
    return authenticator


class _Listed:
    """ZAP's credentials provider."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def callback(self, domain: str, key: bytes) -> bool:
        return self._access.knows(key.decode("ascii", "replace"))


def secure_socket(socket: zmq.Socket[Any], curve_dir: str | None) -> None:
    """Make a socket, before it is bound, a CURVE server; its key pair is made if there is none."""
    socket.zap_domain = _ZAP_DOMAIN.encode()  # without it bytes of an old protocol can reach an assertion of libzmq
    if curve_dir is None:
        return
    secret_file = os.path.join(curve_dir, f"{SERVER_KEY}.key_secret")
    if not os.path.exists(secret_file):
        zmq.auth.create_certificates(curve_dir, SERVER_KEY)
        os.chmod(secret_file, 0o600)
    socket.curve_publickey, socket.curve_secretkey = load_key_pair(secret_file)
    socket.curve_server = True
    socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # else everybody is let in while the authenticator is not there


def make_private_directory(disk: Disk, path: str) -> None:
    """Have a directory of ours that nobody else can enter. Raises `InsecureDirectory`, OSError."""
    _make_directory(disk, path)
    check_private(path)


def _make_directory(disk: Disk, path: str) -> None:
    """With its parents, each durable: what is acknowledged below must not vanish with a directory above."""
    if disk.exists(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    _make_directory(disk, parent)
    disk.mkdir(path)
    disk.fsync_dir(parent)


def take_lock(disk: Disk, path: str, what: str) -> int:
    """Lock `path` for the life of this process; returns the descriptor. Raises `StoreInUse`.

    Taken before any socket is bound: binding an ipc address takes it away from whoever has it, silently.
    """
    fd = disk.open(path, os.O_RDWR | os.O_CREAT)
    until = time.monotonic() + PROBE_SECONDS
    while not _locked(fd):
        if time.monotonic() > until:
            disk.close(fd)
            holders = ", ".join(map(str, lock_holders(path))) or "unknown"
            raise StoreInUse(f"{what} is in use by another persistence process (pid {holders})")
        time.sleep(PROBE_SECONDS / 20)
    return fd


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
