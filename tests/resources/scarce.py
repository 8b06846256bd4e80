"""Real shortages for real processes, and their ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from protocol.errors import FlushTimeout
from strategy_proc import Session

_MS_NOSUID_NODEV = 2 | 4
_DETACH = 2

WITHOUT_OVERRIDE = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: root obeys modes after the exec
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""A Python program: the rest of its command line as a Python command that modes of files apply to, also for root."""


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[Path | None]:
    """A private directory on a file system of that size; None where we may not mount one."""
    folder = tempfile.mkdtemp(prefix="ol-")
    os.chmod(folder, 0o700)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={megabytes}m,mode=0700".encode()
    mounted = (
        sys.platform == "linux"
        and libc.mount(b"tmpfs", folder.encode(), b"tmpfs", ctypes.c_ulong(_MS_NOSUID_NODEV), options) == 0
    )
    try:
        yield Path(folder) if mounted else None
    finally:
        if mounted:
            libc.umount2(folder.encode(), _DETACH)
        os.rmdir(folder)


def fill(folder: Path) -> Path:
    """Use up every byte that is free; returns the file to delete to have it back."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return ballast


def flushed(state: Session) -> bool:
    """Whether everything is durable within a second."""
    try:
        state.flush(1.0)
    except FlushTimeout:
        return False
    return True


@contextlib.contextmanager
def no_file_grows(pid: int) -> Iterator[None]:
    """While in the block, the process can't write to a file beyond its first byte."""
    process = psutil.Process(pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        _give_back(process, psutil.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def no_more_descriptors(pid: int) -> Iterator[None]:
    """While in the block, the process can't open anything: its limit is the lowest number that is free."""
    process = psutil.Process(pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    used = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
    process.rlimit(psutil.RLIMIT_NOFILE, (min(set(range(len(used) + 1)) - used), before[1]))
    try:
        yield
    finally:
        _give_back(process, psutil.RLIMIT_NOFILE, before)


def _give_back(process: psutil.Process, resource: int, limits: tuple[int, int]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # the shortage may have ended it
        process.rlimit(resource, limits)


class Usage:
    """What a process holds: memory (MiB), descriptors, threads."""

    def __init__(self, pid: int) -> None:
        process = psutil.Process(pid)
        self.memory = process.memory_info().rss / 2**20
        self.descriptors = process.num_fds()
        self.threads = process.num_threads()

    def __repr__(self) -> str:
        return f"{self.memory:.0f} MiB, {self.descriptors} descriptors, {self.threads} threads"
