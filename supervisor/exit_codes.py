"""How processes end, in words and as shells say it."""

from __future__ import annotations

import signal

OUT_OF_PROCESSES = 71
"""Reported as exit code when no process could be made (EX_OSERR)."""


def exit_text(code: int) -> str:
    """7 -> "exit code 7"; -9 -> "SIGKILL"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def shell_code(code: int) -> int:
    """The exit code by which a shell tells of a signal: -9 -> 137."""
    return code if code >= 0 else 128 - code
