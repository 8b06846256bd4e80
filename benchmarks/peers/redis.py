"""Redis with an append-only file, in a server of our own on a unix socket.

Its protocol is spoken directly, as the usual client's bookkeeping costs more than the server's work: the fastest that
a Python program can be with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any, ClassVar

from benchmarks.peers.base import Peer, Promise
from benchmarks.values import Item, dump, load

PATIENCE = 30.0  # seconds until a started server must answer


class RedisServer:
    """`redis-server` from PATH, with its files in `folder`."""

    def __init__(self, folder: str, fsync: str) -> None:
        self.path = os.path.join(folder, "redis.sock")
        argv = ["redis-server", "--port", "0", "--unixsocket", self.path, "--dir", folder, "--save", ""]
        argv += ["--appendonly", "yes", "--appendfsync", fsync, "--daemonize", "no"]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        """Until it answers: it reads its file first."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                client = RedisClient(self.path)
                try:
                    client.call(b"PING")
                    return
                finally:
                    client.close()
            except (OSError, RuntimeError):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.01)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class RedisClient:
    """Commands out, replies in. A reply that is an error is raised."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._replies = self._socket.makefile("rb")

    def call(self, *parts: bytes) -> Any:
        """One command, and its reply."""
        self._socket.sendall(command(*parts))
        return self.reply()

    def pipeline(self, commands: Iterable[bytes]) -> list[Any]:
        """Encoded commands at once, and their replies."""
        commands = list(commands)
        self._socket.sendall(b"".join(commands))
        return [self.reply() for _ in commands]

    def reply(self) -> Any:
        line = self._replies.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._replies.read(size + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        raise RuntimeError(f"redis: {line!r}")

    def close(self) -> None:
        self._replies.close()
        self._socket.close()


def command(*parts: bytes) -> bytes:
    """A command as it goes over the wire."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class _Redis(Peer):
    is_shared = True  # each thread by its own connection
    _fsync: ClassVar[str]

    @classmethod
    def missing(cls) -> str:
        return "" if shutil.which("redis-server") else "not installed: redis-server"

    def __init__(self, folder: str) -> None:
        self.server = RedisServer(folder, self._fsync)
        self._client = RedisClient(self.server.path)
        self._twins: list[RedisClient] = []

    def put(self, key: str, value: Any) -> None:
        self._client.call(b"SET", key.encode(), dump(value))

    def put_many(self, items: Sequence[Item]) -> None:
        sets = [command(b"SET", key.encode(), dump(value)) for key, value in items]
        self._client.pipeline([command(b"MULTI"), *sets, command(b"EXEC")])

    def __getitem__(self, key: str) -> Any:
        data = self._client.call(b"GET", key.encode())
        if data is None:
            raise KeyError(key)
        return load(data)

    def load(self) -> dict[str, Any]:
        keys = self._client.call(b"KEYS", b"*")
        values = self._client.call(b"MGET", *keys) if keys else []
        return {key.decode(): load(data) for key, data in zip(keys, values, strict=True)}

    def twin(self) -> Peer:
        other = copy(self)
        other._client = RedisClient(self.server.path)
        self._twins.append(other._client)
        return other

    def pids(self) -> list[int]:
        return [self.server.process.pid]

    def close(self) -> None:
        for client in (self._client, *self._twins):
            client.close()
        self.server.stop()


class RedisEverysec(_Redis):
    name = "Redis AOF everysec"
    promise = Promise.KILL
    setting = "appendonly yes, appendfsync everysec; unix socket"
    _fsync = "everysec"


class RedisAlways(_Redis):
    name = "Redis AOF always"
    promise = Promise.POWER
    setting = "appendonly yes, appendfsync always; unix socket"
    _fsync = "always"
