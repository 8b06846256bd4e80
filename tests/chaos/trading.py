"""The demo's oracle under its own chaos: no duplicate order, and the trades of the run that nobody disturbed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.lives import ROOT
from tests.chaos.oracle import Lost

SECONDS = 40.0  # of replay; one strike every 1.5 s
_KILLED = re.compile(r"kills survived\D+(\d+) processes in (\d+) strikes")


@contextmanager
def demo_run(seed: int, folder: Path, seconds: float = SECONDS) -> Iterator[subprocess.Popen[str]]:
    """The demo beside whatever runs in the block; told to leave if the block fails."""
    command = [sys.executable, "-m", "demo", "--seconds", str(seconds), "--seed", str(seed), "--dir", str(folder)]
    demo = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield demo
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait()
        if demo.stdout is not None:
            demo.stdout.close()


def kills_survived(demo: subprocess.Popen[str], seed: int) -> int:
    """Wait for its verdict; how many processes were killed. Raises `Lost`."""
    output, _ = demo.communicate()
    found = _KILLED.search(output)
    if demo.returncode != 0 or found is None:
        raise Lost(f"the demo's verdict does not hold:\n{output}\nreplay: python -m demo --seed {seed} --keep")
    return int(found[1])
