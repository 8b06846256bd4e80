"""events.jsonl: everything that happens, one JSON object a line, for machines (docs/supervision.md lists the fields).

Names and meanings of fields stay; a reader must not mind new fields and new events.
"""

from __future__ import annotations

import datetime
import re
import signal

import msgspec

FILE_NAME = "events.jsonl"

_EVENTS = {
    "started": "start",
    "ended": "exit",
    "not started": "start-failed",
    "hung": "hang",
    "late": "start-timeout",
    "heavy": "memory-warning",
    "killed": "kill",
    "SIGTERM": "terminate",
    "SIGABRT": "abort",
    "waiting": "backoff",
    "stopped": "stop",
}
"""What the supervisor's lines say -> what machines read; a word that is not here is its own name."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the file."""

    v: int
    """Of these fields' meanings: 1."""
    number: int
    """Counts from 1 in each run of the supervisor."""
    ts: int
    """ns UTC."""
    time: str
    """The same for people: ISO 8601 with nanoseconds, UTC."""
    supervisor: int
    """Its pid: with `number` it tells the events of two runs apart."""
    event: str
    name: str
    """Of the program; "outlive" is the supervisor itself."""
    kind: str
    """strategy | service | persistence | supervisor"""
    pid: int | None = None
    code: int | None = None
    """Exit code, where it left by itself."""
    signal: str | None = None
    """Name of the signal that ended it."""
    reason: str = ""
    """Of a restart: why the life before has ended."""
    detail: str = ""


def event_name(what: str, starts: int) -> str:
    """`starts`: lives of the program so far."""
    if what == "started" and starts > 1:
        return "restart"
    return _EVENTS.get(what) or re.sub(r"[^a-z0-9]+", "-", what.lower()).strip("-")


def iso(ts: int) -> str:
    """ns UTC -> 2026-01-31T23:59:59.123456789Z."""
    seconds, rest = divmod(ts, 10**9)
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def code_and_signal(code: int | None) -> tuple[int | None, str | None]:
    """Of an exit code, negative for a signal: (7, None) or (None, "SIGKILL")."""
    if code is None or code >= 0:
        return code, None
    try:
        return None, signal.Signals(-code).name
    except ValueError:
        return None, f"signal {-code}"


def encode(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"
