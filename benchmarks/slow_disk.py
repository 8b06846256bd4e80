"""`python -m benchmarks.slow_disk`: the persistence process, on a disk whose every sync takes a millisecond longer."""

from __future__ import annotations

import time

from benchmarks.peers.floor import SLOW_SYNC
from persistence_proc import __main__ as program
from persistence_proc import server
from protocol.disk import Disk


class SlowDisk(Disk):
    """The machine's disk, and a millisecond."""

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        time.sleep(SLOW_SYNC)

    def fdatasync(self, fd: int) -> None:
        super().fdatasync(fd)
        time.sleep(SLOW_SYNC)


if __name__ == "__main__":
    server.Disk = SlowDisk  # type: ignore[attr-defined]
    program.main()
