"""How a save shares the process with the commits of the journal."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from persistence_proc import checkpointer
from persistence_proc.checkpointer import Checkpointer, Saved, SaveJob
from persistence_proc.mailbox import Mailbox
from persistence_proc.map_state import MapState
from persistence_proc.paths import Paths
from protocol.disk import Disk
from protocol.keys import encode_key
from tests.waiting import wait_until


class Clock:
    """Time passes in `sleep`, and where somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


class SlowDisk(Disk):
    """A write takes 10 ms of the clock's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def write(self, fd: int, data: bytes | memoryview) -> None:
        self._clock.now += 0.01
        super().write(fd, data)


def test_a_failed_save_keeps_nothing_of_its_map(data_dir: Path) -> None:
    """Its frames would hold the map and a piece of the file until the collector looks, which is seldom."""
    mailbox = Mailbox[object]()
    saver = Checkpointer(Disk(), Paths(str(data_dir / "nowhere" / "at all")), bytes(16), mailbox)
    saver.start()
    saver.save(SaveJob(("bot", "a"), MapState(), {}, 0, 7))
    (saved,) = wait_until(mailbox.take)
    saver.stop()
    mailbox.close()
    assert isinstance(saved, Saved)
    assert isinstance(saved.error, OSError)
    assert saved.error.__traceback__ is None


@pytest.mark.parametrize("rests", [True, False], ids=["usually", "at the end"])
def test_a_save_leaves_as_much_time_to_others_as_it_takes_but_not_at_the_end(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, rests: bool
) -> None:
    clock, mailbox = Clock(), Mailbox[object]()
    monkeypatch.setattr(checkpointer, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=clock.sleep))
    saver = Checkpointer(SlowDisk(clock), Paths(str(data_dir)), bytes(16), mailbox)
    saver.rests = rests
    saver.durable(7)
    saver.start()
    saver.save(SaveJob(("bot", "a"), MapState(), {encode_key(n): b"N." for n in range(2_500)}, 0, 7))
    (saved,) = wait_until(mailbox.take)
    saver.stop()
    mailbox.close()
    assert isinstance(saved, Saved)
    assert saved.error is None
    assert clock.sleeps == pytest.approx([0.01] * 5 if rests else [])  # head, three times a thousand items, trailer
    assert saved.seconds == pytest.approx(0.06), "rests are no work"
