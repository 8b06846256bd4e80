"""The worker of the kill tests: `python -m tests.promises.worker FIRST_STEP`; says each step that has returned."""

from __future__ import annotations

import os
import sys

from strategy_proc import connect
from tests.promises.workload import step


def main() -> None:
    with connect(timeout=20) as state:
        maps = (state.map("left"), state.map("right"))
        os.write(1, b"connected\n")
        n = int(sys.argv[1])
        while True:
            step(n, maps, state.transaction)
            os.write(1, b"%d\n" % n)
            n += 1


if __name__ == "__main__":
    main()
