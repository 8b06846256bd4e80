"""The outbox on the real disk: `connect` refused at its N-th call, and writes that take a byte at a time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol import disk as disk_module
from protocol.errors import OutliveError
from strategy_proc import connect, connecting
from tests.crash.outbox_world import small_segments
from tests.faults.disk_faults import BROKEN, FULL, Faults, HookedDisk
from tests.lab.effort import Effort
from tests.processes import PersistenceProcess
from tests.strategy_proc.outboxes import Lives, put, seqs

__all__ = ["small_segments"]


@pytest.mark.parametrize("fault", [BROKEN, FULL], ids=str)
def test_a_connect_that_the_disk_refuses_has_a_name_and_the_next_one_has_everything(
    lab: Effort, data_dir: Path, monkeypatch: pytest.MonkeyPatch, fault: object
) -> None:
    with PersistenceProcess(data_dir):
        for at in itertools.count(0, lab.pick(4, 1)):
            faults = Faults(fault.lasting(None), ("main", at))  # type: ignore[attr-defined]
            if not refused(faults, data_dir, monkeypatch):
                break
            lab.count("faults")
            with connect("bot", data_dir=data_dir) as state:
                puts = state.map("m")
                assert list(puts.values()) == list(range(len(puts))), "something of a former life is lost"
                puts[at] = len(puts)
    assert at > 8


def refused(faults: Faults, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the disk has refused something to a `connect`, which may have ended it, by a name of ours only."""
    disk, before = HookedDisk(), len(os.listdir("/proc/self/fd"))
    disk.on_call = faults
    said = "connect again"
    with monkeypatch.context() as patch:
        patch.setattr(connecting, "Disk", lambda: disk)
        try:
            connect("bot", data_dir=data_dir).close()
        except OutliveError as error:
            said = str(error)
    assert "connect again" in said, "a refusal that does not say what to do"
    assert len(os.listdir("/proc/self/fd")) == before, "a descriptor is left open"
    return bool(faults.struck)


@pytest.mark.usefixtures("small_segments")
def test_writes_that_take_one_byte_at_a_time_write_everything(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As EINTR, a pipe-like file system or a quota may make of them: `write` tells how far it got."""

    def one_byte(real: Callable[..., int]) -> Callable[..., int]:
        return lambda fd, data, *at: real(fd, data[:1], *at)

    monkeypatch.setattr(disk_module.os, "write", one_byte(os.write))
    monkeypatch.setattr(disk_module.os, "pwrite", one_byte(os.pwrite))
    lives = Lives(data_dir)
    outbox = lives.start()
    put(outbox, 5, size=700)
    outbox.sync()
    outbox.maintain()
    lives.start(applied=2)
    assert seqs(lives.read().records) == [3, 4, 5]
    lives.close()
