"""Find a supervisor by its configuration file. Where `persistence.data_dir` was changed in the file under a running
supervisor, it serves the old place, and nobody would look for it there: the same bots would be started a second time.

A supervisor has LOCK of its run directory open, and CONFIG beside it names the file that it runs. So the open files of
the processes that we may look at lead to it; where there is no /proc nobody is found.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from supervisor.config import RUN_DIR_NAME
from supervisor.control import RunDir

_LOCK = os.path.join(os.sep, RUN_DIR_NAME, "LOCK")


def running(config_path: str) -> RunDir | None:
    """Where the supervisor of this configuration file is, whatever the file says now; None if none is seen."""
    wanted = os.path.realpath(config_path)
    for run_dir in map(RunDir, _run_dirs()):
        recorded = run_dir.config_path
        if recorded and os.path.realpath(recorded) == wanted and not run_dir.is_free():
            return run_dir
    return None


def _run_dirs() -> Iterator[str]:
    """The directories whose LOCK somebody has open."""
    for descriptor in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            path = os.readlink(descriptor)
        except OSError:
            continue  # closed since, or somebody else's
        if path.endswith(_LOCK):
            yield os.path.dirname(path)
