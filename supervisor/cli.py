"""The entry point `outlive`: so small that Ctrl-C is heard before the rest is imported (`supervisor.commands`).

Everything imported here is in the interpreter already; `signal` would import the enums that it wraps its names in.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_INTERRUPTED = 128 + signal.SIGINT


def main() -> NoReturn:
    """Do what the command line asks for. Ctrl-C ends it with exit code 130, and never with a traceback."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # in the background it may be ignored
    try:
        if is_heard:
            signal.signal(signal.SIGINT, _leave)  # an exception in the middle of an import may be printed and forgotten
        from supervisor.commands import main as work

        if is_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        work()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _leave(*_: object) -> NoReturn:
    """Nothing was begun yet that would have to be ended."""
    os._exit(_INTERRUPTED)
