"""Tell somebody: a command or a webhook for each event that was asked for, beside the loop and never in its way.

* A thread runs them one at a time, each in a process that is killed when its time is over. What it leaves in its
  session ends with it.
* Bounded in number: what happens again to the same program within `interval` is counted into one, and at most
  `_MOST` different ones wait. A hook that fails is one line in the log; it is not tried again, and stops nobody.
* They end with the supervisor: a hook still at work a moment after its end is killed.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from queue import SimpleQueue

import msgspec

from supervisor.child import has_ended, open_pidfd
from supervisor.events import Event
from supervisor.hook_settings import HookSettings
from supervisor.programs import OUR_PYTHON
from supervisor.sessions import kill_session

_MOST = 100
_PATIENCE = 2.0
"""Seconds at the end for what waits: the reason of the end may be what it is about."""
_LAST_LINE_BYTES = 4096
_READ_BYTES = 1 << 16
_LOOK = 0.05
"""Seconds between looks where the kernel gives no pidfd."""
_LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")


class Hooks:
    """Owns its thread, which begins with the first event that is asked for."""

    def __init__(self, settings: HookSettings, environ: Mapping[str, str]) -> None:
        self._settings, self._environ = settings, dict(environ)
        self._problems: SimpleQueue[str] = SimpleQueue()
        self._waiting: OrderedDict[tuple[str, str], tuple[Event, int]] = OrderedDict()
        self._last: dict[tuple[str, str], float] = {}
        self._left_out = 0
        self._closing_until: float | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def change(self, settings: HookSettings) -> None:
        """From the next event on."""
        with self._changed:
            self._settings = settings

    def offer(self, event: Event) -> None:
        """Never waits."""
        settings = self._settings
        if event.event not in settings.on or not (settings.command or settings.webhook):
            return
        key = event.event, event.name
        with self._changed:
            if key not in self._waiting and len(self._waiting) >= _MOST:
                self._left_out += 1
                return
            count = self._waiting.pop(key, (event, 0))[1]
            self._waiting[key] = event, count + 1
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="hooks", daemon=True)
            self._thread.start()

    def problems(self) -> Iterator[str]:
        """A line for each hook that has failed since the last call."""
        while not self._problems.empty():
            yield self._problems.get()

    def close(self) -> None:
        """Let what waits have its turn for a moment; then no more."""
        with self._changed:
            self._closing_until = time.monotonic() + _PATIENCE
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(2 * _PATIENCE)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            event, count, left_out = job
            body = msgspec.to_builtins(event) | {"count": count} | ({"left_out": left_out} if left_out else {})
            for what, argv in self._commands(self._settings):
                problem = self._run(argv, body)
                if problem:
                    self._problems.put(f"hook for {event.event} of {event.name}: {what}: {problem}")

    def _next(self) -> tuple[Event, int, int] | None:
        """The next whose interval is over; None when there will be none."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._closing_until is not None and (not self._waiting or now >= self._closing_until):
                    return None
                due = {key: self._due(key) for key in self._waiting}
                ready = next((key for key, at in due.items() if at <= now or self._closing_until is not None), None)
                if ready is not None:
                    event, count = self._waiting.pop(ready)
                    self._last[ready] = now
                    left_out, self._left_out = self._left_out, 0
                    return event, count, left_out
                self._changed.wait(min(due.values()) - now if due else None)

    def _due(self, key: tuple[str, str]) -> float:
        return self._last[key] + self._settings.interval if key in self._last else 0.0

    def _commands(self, settings: HookSettings) -> Iterator[tuple[str, list[str]]]:
        if settings.command:
            yield "the command", settings.command
        if settings.webhook:
            yield "the webhook", [*OUR_PYTHON, "supervisor.webhook", settings.webhook, str(settings.timeout)]

    def _run(self, argv: list[str], body: dict[str, object]) -> str:
        """What went wrong, in a few words; "" if nothing did."""
        env = self._environ | {f"OUTLIVE_EVENT_{field.upper()}": _text(value) for field, value in body.items()}
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), "--", *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=env,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return str(error)
        _say(process, msgspec.json.encode(body))
        in_time, errors = _wait(process, self._time_left())
        errors += _end(process)
        if not in_time:
            return f"killed after {self._settings.timeout:g} s"
        if process.returncode == 0:
            return ""
        lines = errors[-_LAST_LINE_BYTES:].decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"exit code {process.returncode}{f': {last}' if last else ''}"

    def _time_left(self) -> float:
        if self._closing_until is None:
            return self._settings.timeout
        return max(0.1, min(self._settings.timeout, self._closing_until - time.monotonic()))


def _say(process: subprocess.Popen[bytes], body: bytes) -> None:
    """Into a pipe that nobody has read yet: an event is smaller than it."""
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    with contextlib.suppress(OSError):  # it did not want to know
        os.write(process.stdin.fileno(), body)
    process.stdin.close()


def _wait(process: subprocess.Popen[bytes], seconds: float) -> tuple[bool, bytes]:
    """(whether it has ended within so many seconds, the end of what it complained of). What it has started may have
    its stderr for ever, and print without end: neither is waited for, or kept. It is not reaped here."""
    assert process.stderr is not None
    until, said = time.monotonic() + seconds, b""
    with contextlib.ExitStack() as undo:
        selector = undo.enter_context(selectors.DefaultSelector())
        selector.register(process.stderr, selectors.EVENT_READ)
        if (pidfd := open_pidfd(process.pid)) is not None:
            undo.callback(os.close, pidfd)
            selector.register(pidfd, selectors.EVENT_READ)
        while not has_ended(process.pid):
            left = until - time.monotonic()
            if left <= 0:
                return False, said
            for key, _ in selector.select(left if pidfd is not None else min(left, _LOOK)):
                if key.fileobj is process.stderr:
                    data = os.read(process.stderr.fileno(), _READ_BYTES)
                    said = (said + data)[-_LAST_LINE_BYTES:]
                    if not data:
                        selector.unregister(process.stderr)
    return True, said


def _end(process: subprocess.Popen[bytes]) -> bytes:
    """It and what it has started in its session; what was left to be read."""
    assert process.stderr is not None
    if not has_ended(process.pid):
        process.kill()
    kill_session(process.pid)
    process.wait()
    os.set_blocking(process.stderr.fileno(), False)
    with process.stderr, contextlib.suppress(OSError):
        return os.read(process.stderr.fileno(), _READ_BYTES)
    return b""


def _text(value: object) -> str:
    return "" if value is None else str(value).replace("\0", "")
