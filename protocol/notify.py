"""What a child tells the supervisor through the pipe named by OUTLIVE_NOTIFY_FD: one line a word.

    ready            recovered, bound, connected: from now on I do my work
    beat             I am not hung
    recovering 40    I am at it; per cent done
    warm             a spare: I have imported what I shall, and wait for the word (`supervisor.entry`)

Without the variable everything here does nothing, so that the same program runs by hand.
"""

from __future__ import annotations

import os

NOTIFY_VARIABLE = "OUTLIVE_NOTIFY_FD"
_DIGITS = 10  # no descriptor has so many


class Notifier:
    """The child's end. A write never blocks: a full or closed pipe loses the word, not the caller's time."""

    def __init__(self, environ: os._Environ[str] | dict[str, str] | None = None) -> None:
        text = (os.environ if environ is None else environ).get(NOTIFY_VARIABLE, "")
        self._fd: int | None = int(text) if text.isascii() and text.isdigit() and len(text) < _DIGITS else None
        if self._fd is not None:
            try:
                os.set_blocking(self._fd, False)
                os.set_inheritable(self._fd, False)  # a grandchild must not speak, or keep the pipe open, for us
            except (OSError, OverflowError):
                self._fd = None

    @property
    def listening(self) -> bool:
        """Whether a supervisor asked to be told."""
        return self._fd is not None

    def ready(self) -> None:
        self._say("ready")

    def beat(self) -> None:
        self._say("beat")

    def recovering(self, percent: int) -> None:
        self._say(f"recovering {percent}")

    def _say(self, word: str) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, f"{word}\n".encode())
        except BlockingIOError:
            pass
        except OSError:
            self._fd = None
