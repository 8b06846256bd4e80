"""Where a run was made: what its figures depend on, and nothing that names the machine."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.managers import supervisord_command, supervisord_version

PACKAGES = ["outlive", "pyzmq", "msgspec", "lmdb", "rocksdict", "diskcache", "sqlitedict", "circus"]
SECTOR = 512  # bytes, whatever the device says
IN_MEMORY = {"tmpfs", "ramfs"}


def facts(folder: str) -> dict[str, str]:
    """For the head of a table. `folder` is where everyone writes."""
    found = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "disk": file_system(folder),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "redis": _redis(),
        "supervisord": _supervisord(),
    }
    return found | {name: _version(name) for name in PACKAGES}


def file_system(folder: str) -> str:
    """The type of the file system that `folder` is on."""
    path = os.path.realpath(folder)
    mounts = [part for part in psutil.disk_partitions(all=True) if _is_within(path, part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"


def counts_bytes(folder: str) -> bool:
    """Whether the system counts what the device under `folder` was given to write."""
    return os.path.exists(_device(folder))


def bytes_written(folder: str) -> int:
    """By the device under `folder` since the system started, for everyone who uses it."""
    return int(Path(_device(folder)).read_text().split()[6]) * SECTOR


def _device(folder: str) -> str:
    number = os.stat(folder).st_dev
    return f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat"


def _is_within(path: str, mount: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _redis() -> str:
    if not shutil.which("redis-server"):
        return "not installed"
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout.split()
    return next((word[2:] for word in said if word.startswith("v=")), "unknown")


def _supervisord() -> str:
    command = supervisord_command()
    return supervisord_version(command) if command else "not installed"
