"""The worker that is killed and started again in the scenario `restart`, the same under every manager.

It imports no more than a strategy would, connects as one does, puts once, and says when that put was accepted.
"""

from __future__ import annotations

import os
import socket
import time

from strategy_proc import Session, connect

NOTES_VARIABLE, RECORDS_VARIABLE = "BENCH_NOTES", "BENCH_RECORDS"
"""The socket where it says so; how many records it has to get back."""
LOOK = 1.0  # seconds between two looks whether its manager lives


def main() -> None:
    parent = os.getppid()
    with connect() as state:
        kept = state.map("kept")
        kept["life"] = os.getpid()
        accepted = time.monotonic_ns()  # the same clock in all processes
        if len(kept) <= int(os.environ[RECORDS_VARIABLE]):
            _fill(state)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes:
            notes.sendto(f"{os.getpid()} {accepted}".encode(), os.environ[NOTES_VARIABLE])
        while os.getppid() == parent:  # others leave their workers behind when they are killed
            time.sleep(LOOK)
        os._exit(0)


def _fill(state: Session) -> None:
    """In its first life, which is not timed."""
    from benchmarks.ours import PATIENCE
    from benchmarks.values import records

    kept = state.map("kept")
    for key, value in records("dict", int(os.environ[RECORDS_VARIABLE])).items():
        kept[key] = value
    state.flush(PATIENCE)


if __name__ == "__main__":
    main()
