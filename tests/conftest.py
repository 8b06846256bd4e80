"""Fixtures for all tests: short private directories, and a look for what a test left behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until

pytest_plugins = ["tests.lab.plugin"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # run in the background of a script: so would be what we start
    signal.signal(signal.SIGINT, signal.default_int_handler)

SETTLE = 5.0  # seconds that a thread or child, already told to end, gets to do so


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A private directory (0700) with a path short enough for sockets; removed afterwards."""
    path = tempfile.mkdtemp(prefix="ol-")
    os.chmod(path, 0o700)
    yield Path(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread or a child process."""
    threads = set(threading.enumerate())
    children = _children()
    yield
    wait_until(lambda: not _new_threads(threads), SETTLE, f"the end of {_new_threads(threads)}")
    wait_until(lambda: _children() <= children, SETTLE, "the end of all child processes")


def _new_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before]


def _children() -> set[int]:
    """Pids of our children. One system call where there are none, so that every test can afford it."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()
    return {child.pid for child in psutil.Process().children()}
