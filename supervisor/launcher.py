"""Start a program so that it can't outlive its supervisor:  python -m supervisor.launcher PARENT_PID -- argv ...

The kernel is asked to send SIGKILL when the parent's thread ends (that setting survives an exec), then the parent is
looked at once more (it may have died before), then the program takes this process over: same pid, clean signals.
This runs before every start of every program, so it imports as little as it can: `signal` and `typing` alone would take
longer than all the rest.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # what `signal` wraps in enums
import ctypes
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_NOT_STARTED = 127
"""What a shell says when a command can't be executed."""


def main(arguments: list[str]) -> NoReturn:
    if len(arguments) < 3 or not arguments[0].isdigit() or arguments[1] != "--":
        sys.exit("usage: python -m supervisor.launcher PARENT_PID -- command [argument ...]")
    parent, argv = int(arguments[0]), arguments[2:]
    die_with(parent)
    clean_signals()
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"outlive: {argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
    os._exit(_NOT_STARTED)


def die_with(parent: int) -> None:
    """Be killed when process `parent` ends. Exits if it already has."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            print("outlive: no parent-death signal: an orphan is found at the next start only", file=sys.stderr)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)
    if os.getsid(0) != os.getpid():
        os.setsid()


def clean_signals() -> None:
    """Default dispositions and an empty mask: what is ignored or blocked here would stay so in the program."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                pass  # reserved by the C library
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


if __name__ == "__main__":
    main(sys.argv[1:])
