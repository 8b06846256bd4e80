"""`outlive logs`: the newest lines of a log, and what comes, over rotations and restarts; nothing needs to run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from protocol.errors import ConfigError
from supervisor.config import PERSISTENCE, SUPERVISOR, Config
from supervisor.events import FILE_NAME

EVENTS = FILE_NAME.partition(".")[0]
"""The name by which the file of events is asked for."""
_LOOK_EVERY = 0.1
"""Seconds between looks at a log that is followed: for a person's eye."""
_READ_BYTES = 1 << 16
_PRINT_BYTES = 1024
"""By so many bytes before the place where we are it is found again in a file that was cut or moved."""


def log_file(config: Config, name: str) -> str:
    """The log of that name. Raises `ConfigError`, with the names there are."""
    known = known_names(config)
    if name not in known:
        raise ConfigError(f"there is no log {name!r}; there are {', '.join(known)}")
    return os.path.join(config.log_dir, FILE_NAME if name == EVENTS else f"{name}.log")


def known_names(config: Config) -> list[str]:
    """What is configured, and what was once and has left its log; and the supervisor's own two."""
    try:
        left = sorted(name.removesuffix(".log") for name in os.listdir(config.log_dir) if name.endswith(".log"))
    except OSError:
        left = []
    return list(dict.fromkeys([SUPERVISOR, EVENTS, PERSISTENCE, *config.services, *config.strategies, *left]))


class LogReader:
    """Bytes of a log in the order in which they were written."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._position = 0
        self._print = b""

    def last_lines(self, count: int) -> bytes:
        """The newest `count` lines, from rotated files too; reading goes on behind them."""
        data = _read(self.path)
        self._position, self._print = len(data), data[-_PRINT_BYTES:]
        number = 1
        while data.count(b"\n") <= count and (older := _read(f"{self.path}.{number}")):
            data = older + data
            number += 1
        lines = data.split(b"\n")
        whole = lines[:-1] if not lines[-1] else lines
        return b"\n".join(whole[-count:] if count else []) + (b"\n" if count and not lines[-1] and whole else b"")

    def news(self) -> bytes:
        """What has come since; b"" if nothing."""
        start = self._position - len(self._print)
        try:
            with open(self.path, "rb") as file:
                data = os.pread(file.fileno(), len(self._print) + _READ_BYTES, start)
        except OSError:
            return b""
        if not data.startswith(self._print):
            return self._find_again()
        return self._advance(data[len(self._print) :])

    def follow(self) -> Iterator[bytes]:
        """For ever."""
        while True:
            while data := self.news():
                yield data
            time.sleep(_LOOK_EVERY)

    def _advance(self, data: bytes) -> bytes:
        self._position += len(data)
        self._print = (self._print + data)[-_PRINT_BYTES:]
        return data

    def _find_again(self) -> bytes:
        """The file was cut or moved: what stood before our place is in it further ahead, or in NAME.log.1."""
        before = _inode(f"{self.path}.1")
        older, newer = _read(f"{self.path}.1"), _read(self.path)
        if before != _inode(f"{self.path}.1"):
            return b""  # it is happening now: the next look
        both = older + newer
        at = both.rfind(self._print)
        rest = both[at + len(self._print) :] if at >= 0 else newer
        self._position, self._print = len(newer), both[-_PRINT_BYTES:] if len(newer) >= _PRINT_BYTES else newer
        return rest


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
