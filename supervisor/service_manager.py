"""Tell systemd how we are: datagrams to the socket that NOTIFY_SOCKET names (sd_notify(3)).

* Nothing here waits, and nothing fails: a socket that is gone or full loses the message, never the supervisor's time.
* WATCHDOG=1 is sent by the loop itself, at half the time that systemd gives: a loop that hangs is silent.
* READY=1 when everything that holds the start up is ready. While persistence recovers, and while everything stops,
  EXTEND_TIMEOUT_USEC asks for more time, again and again: a long recovery is no failure, a hung one says nothing.

Without the variable all of it does nothing. Programs don't inherit it (`programs`).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence

_EXTENSION = 30.0
"""Seconds that are asked for at a time."""
_EXTEND_EVERY = 5.0
_LONGEST_STATUS = 200


class ServiceManager:
    """Our end. Times in monotonic seconds."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._beat_every = _beat_every(environ) if self._address else None
        self._next_beat = self._next_extension = 0.0
        self._ready = self._stopping = False
        self._status = ""

    @property
    def listening(self) -> bool:
        """Whether anybody wants to know."""
        return self._address is not None

    @property
    def deadline(self) -> float | None:
        """When `turn` is to be called at the latest."""
        return self._next_beat if self._beat_every is not None else None

    def turn(self, now: float, state: str, patient: bool, status: str) -> None:
        """`state`: starting | up | stopping. `patient`: what takes long is getting on."""
        lines = []
        if state == "up" and not self._ready:
            self._ready = True
            lines.append("READY=1")
        if state == "stopping" and not self._stopping:
            self._stopping, self._next_extension = True, now
            lines.append("STOPPING=1")
        if patient and now >= self._next_extension:
            self._next_extension = now + _EXTEND_EVERY
            lines.append(f"EXTEND_TIMEOUT_USEC={int(_EXTENSION * 1e6)}")
        if self._beat_every is not None and now >= self._next_beat:
            self._next_beat = now + self._beat_every
            lines.append("WATCHDOG=1")
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={' '.join(status.split())[:_LONGEST_STATUS]}")
        if lines:
            self._send(lines)

    def reloading(self) -> None:
        """READY=1 follows with the next turn."""
        self._ready = False
        self._send(["RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"])

    def _send(self, lines: list[str]) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except (OSError, ValueError):
            pass


def summary(programs: Sequence[tuple[str, str]]) -> str:
    """(name, state) of all -> "5 of 6 up; momentum backoff", for STATUS."""
    others = [f"{name} {state}" for name, state in programs if state != "running"]
    return "; ".join([f"{len(programs) - len(others)} of {len(programs)} up", *others])


def _address(name: str) -> str | None:
    """ "/run/x" or, abstract, "@x"; others (vsock) are not for us."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _beat_every(environ: Mapping[str, str]) -> float | None:
    """Half of WATCHDOG_USEC, if it is meant for this process."""
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (microseconds.isascii() and microseconds.isdigit()) or pid not in ("", str(os.getpid())):
        return None
    return int(microseconds[:18]) / 2e6 or None
