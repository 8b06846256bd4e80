"""Computers for the state machine: each has a disk in memory, a boot, and the locks that its processes hold.

A process sees the disk through a view of its own (`ProcessDisk`), so that it can die at any call while others go on.
What it stored through its mappings stays, as the kernel's pages do; nothing it does afterwards has any effect.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

from protocol.errors import NamespaceInUse
from tests.lab.memory_disk import MemoryDisk

DATA = "/state"


class Killed(BaseException):
    """What a process gets instead of the rest of its life. No handler of the product's may catch it."""


class Clock:
    """Time that passes only when it is told to; stands for the module `time` where the product waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def as_module(self) -> SimpleNamespace:
        return SimpleNamespace(monotonic=self, sleep=self.sleep, time_ns=lambda: int(self.now * 1e9))


class ProcessDisk(MemoryDisk):
    """One process's view of its host's disk."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.root)
        self.calls_left: int | None = None
        """After so many calls more the process is killed; None: it is not."""
        self.dead = False
        self.on_call = self._tick

    def _tick(self, name: str, path: str) -> None:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                self.die()
        if self.dead:
            raise Killed(f"at {name} of {path}")

    def die(self) -> None:
        if not self.dead:
            self.harvest()
            self._mappings = []
            self.dead = True


class Host:
    """One computer. `boot` names its present boot."""

    def __init__(self, name: str) -> None:
        self.name, self.boots = name, 1
        disk = MemoryDisk()
        disk.mkdir(DATA)
        disk.fsync_dir("/")
        self.root = disk.root
        self.locks: dict[str, HostLock] = {}
        self._views: list[ProcessDisk] = []

    @property
    def boot(self) -> str:
        return f"boot {self.boots} of {self.name}"

    def disk(self) -> ProcessDisk:
        self._views = [view for view in self._views if not view.dead]
        self._views.append(ProcessDisk(self))
        return self._views[-1]

    def cut_power(self, chance: random.Random) -> None:
        """Every process dies; of what was not synced, an arbitrary part is left."""
        for view in self._views:
            view.die()
        self.root = MemoryDisk(self.root).moment().after_power_cut(chance).root
        self.boots += 1
        self.locks.clear()


class HostLock:
    """As `strategy_proc.outbox_lock.OutboxLock`; the host is the kernel that knows who holds it."""

    def __init__(self, host: Host, folder: str) -> None:
        self._host, self._folder = host, folder

    def acquire(self) -> None:
        if self._folder in self._host.locks:
            raise NamespaceInUse(f"{self._folder} is locked")
        self._host.locks[self._folder] = self

    def release(self) -> None:
        if self._host.locks.get(self._folder) is self:
            del self._host.locks[self._folder]
