"""Find what an earlier supervisor left behind: processes that carry our mark in their environment.

Direct children die with their supervisor (`launcher`); this finds their helpers, and everything on systems without a
parent-death signal. Called while the run directory is locked, and the mark is that directory's alone: no living
supervisor owns what is found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import psutil

from supervisor.programs import MARK_VARIABLE

_PATIENCE = 10.0
"""Seconds from SIGTERM to SIGKILL: an orphaned persistence process may be writing everything."""


def sweep(mark: str) -> list[tuple[int, str]]:
    """End them: (pid, name) of each. psutil compares the creation time too, so a reused pid is never hit."""
    orphans = list(marked(mark))
    found = [(process.pid, _name(process)) for process in orphans]
    for process in orphans:
        _try(process.terminate)
    _, left = psutil.wait_procs(orphans, timeout=_PATIENCE)
    for process in left:
        _try(process.kill)
    psutil.wait_procs(left, timeout=_PATIENCE)
    return found


def marked(mark: str) -> Iterator[psutil.Process]:
    """Processes with this mark, without us and those we descend from."""
    ours = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            if process.pid not in ours and process.environ().get(MARK_VARIABLE) == mark:
                yield process
        except (psutil.Error, OSError):
            continue  # gone, or somebody else's: then it is not ours


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return "?"


def _try(method: Callable[[], object]) -> None:
    try:
        method()
    except psutil.Error:
        pass
