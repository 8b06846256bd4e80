"""End what a program has started in its session: a helper that survived its bot would be half a bot.

* Called while the leader of the session is not reaped: until then its number can't become another's.
* Each process is held by a pidfd and looked at once more before it is killed, so a reused pid is never hit.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import psutil

_ROUNDS = 20
"""Looks at the processes: one that is killed may have started another since the last."""


def kill_session(leader: int) -> None:
    """SIGKILL to all of it but the leader: its group at once, then those in groups of their own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for _ in range(_ROUNDS):
        if not [pid for pid in members(leader) if _kill(pid, leader)]:
            return


def members(leader: int) -> Iterator[int]:
    """Pids of the session, without the leader and the dead that nobody has reaped."""
    for pid in psutil.pids():
        if pid != leader and _session_of(pid) == leader and not _is_dead(pid):
            yield pid


def _kill(pid: int, leader: int) -> bool:
    """Whether it was there to be killed."""
    try:
        pidfd = os.pidfd_open(pid)
    except (AttributeError, OSError):  # gone, or a kernel without: then by the pid that was just looked at
        pidfd = -1
    try:
        if _session_of(pid) != leader:
            return False
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _is_dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True
