"""Ask the persistence process that serves a data directory; where none does, be one for the question."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from persistence_proc.paths import Paths
from persistence_proc.tools.own_server import OwnServer
from protocol.curve import CurveKeys
from protocol.disk import Disk, check_private
from protocol.endpoints import parse_endpoint, read_endpoint_file
from protocol.errors import PersistenceUnavailable
from protocol.messages import Refused, RefusedCode, Reply, Request
from protocol.requests import RequestClient

PATIENCE = 60.0  # seconds for an answer: the server may still be recovering, or saving
RETRY = 0.2


class Connection:
    """Requests to one server. Each is idempotent, so an answer that does not come is asked for again."""

    def __init__(self, address: str, keys: CurveKeys | None = None) -> None:
        self._address, self._keys = address, keys

    def ask(self, request: Request, patience: float = PATIENCE) -> Reply:
        """Raises `PersistenceUnavailable` when nothing was answered within `patience` seconds, `NotAllowed`."""
        deadline = time.monotonic() + patience
        with zmq.Context() as context:
            client = RequestClient(context, parse_endpoint(self._address), self._keys)
            try:
                while time.monotonic() < deadline:
                    answer = client.ask(request, min(5.0, patience))
                    if answer is not None and not _is_recovering(answer[0]):
                        return answer[0]
                    time.sleep(RETRY)
            finally:
                client.abandon()
        hint = "; if it wants keys: --curve-dir" if self._wants_keys else ""
        raise PersistenceUnavailable(f"the persistence process at {self._address} does not answer{hint}")

    @property
    def _wants_keys(self) -> bool:
        return self._keys is None and self._address.startswith("tcp://")


def _is_recovering(reply: Reply) -> bool:
    return isinstance(reply, Refused) and reply.code is RefusedCode.RECOVERING


def is_served(disk: Disk, paths: Paths) -> bool:
    """Whether a process holds the lock of the data directory."""
    if not disk.exists(paths.lock):
        return False
    fd = disk.open(paths.lock, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        disk.close(fd)
    return False


def running_server(disk: Disk, paths: Paths, curve_dir: str | None) -> Connection:
    """Raises `PersistenceUnavailable` if none serves the data directory, `ConfigError` for keys that can't be used,
    `InsecureDirectory` where somebody else could answer.
    """
    found = read_endpoint_file(paths.data_dir)
    if found is None or not is_served(disk, paths):
        raise PersistenceUnavailable(f"no persistence process serves {paths.data_dir}: start it first")
    sockets = parse_endpoint(found.address).directory
    if sockets is not None:
        if not os.path.exists(sockets):
            raise PersistenceUnavailable(f"nobody serves {paths.data_dir} in {sockets}, which is not there")
        check_private(sockets)
    return Connection(found.address, CurveKeys(curve_dir) if curve_dir is not None else None)


@contextmanager
def serving(disk: Disk, paths: Paths, curve_dir: str | None) -> Iterator[Connection | OwnServer]:
    """To the server that runs, or to one of our own while the block runs; then everything is saved."""
    if is_served(disk, paths):
        yield running_server(disk, paths, curve_dir)
        return
    server = OwnServer(disk, paths)
    try:
        yield server
        server.save()
    finally:
        server.close()
