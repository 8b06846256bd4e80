"""Open files are for all: a program that was given the last of them would end the supervisor, and so every program.

libzmq aborts the process that has no descriptor left for it; a bot with a spare takes six, and a shell allows 1024.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource

_ENOUGH = 65536
"""As `LimitNOFILE` of our systemd unit; the programs have it too."""
_KEPT = 32
"""Not given to programs: a question to persistence, a hook and a look at the processes need less."""


def raise_limit() -> None:
    """As far as we may, and no further than is enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(_ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check_room(newest: int) -> None:
    """`newest`: a descriptor that was just opened, the lowest that was free. Raises `OSError` when few are left."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft != resource.RLIM_INFINITY and newest + _KEPT > soft:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
