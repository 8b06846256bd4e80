"""What breaks the model, played against the real code: each reading has a test that its rule is kept.

`played.PLAYED` names it, here or where the scenario was played before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any
from unittest import mock

import pytest

from persistence_proc.pickle_file import Trailer, load_map, save_map
from protocol.disk import Disk
from protocol.frames import Record
from protocol.messages import Confirmed
from protocol.outbox_files import OutboxContents, read_outbox
from strategy_proc import outbox as outbox_module
from strategy_proc import outbox_segment
from strategy_proc.outbox import Outbox
from strategy_proc.pump import Pump
from tests.lab.effort import Effort
from tests.lab.memory_disk import MemoryDisk
from tests.model.bot_part import PumpMemory, confirmed
from tests.model.configurations import READINGS
from tests.model.played import PLAYED
from tests.persistence_proc.raw_session import open_request
from tests.persistence_proc.service_harness import Harness
from tests.strategy_proc.outboxes import BOOT, NAMESPACE, OTHER_BOOT, STORE, insert, payload
from tests.waiting import wait_until

SEGMENT_BYTES = 512 + 2 * 56  # room for two records of `one_change`
CUTS = 400


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_each_reading_that_breaks_is_played_against_the_code(reading: object) -> None:
    path, name = PLAYED[str(reading)].split("::")
    assert re.search(rf"^def {name}\(", Path(path).read_text(), re.MULTILINE), f"{path} has no {name}"


# The outbox, on a disk in memory


class Lives:
    """The lives of one outbox on a disk in memory."""

    def __init__(self, disk: MemoryDisk, boot: str = BOOT, epoch: int = 0) -> None:
        self.disk, self.boot, self.epoch = disk, boot, epoch
        self.folder = f"/{NAMESPACE}/outbox"

    def start(self, applied: int = 0) -> Outbox:
        outbox = Outbox.load(self.disk, self.folder, NAMESPACE, self.boot)
        self.epoch += 1
        outbox.begin(STORE, self.epoch, applied, [r for r in outbox.contents.records if r.seq > applied])
        return outbox

    def after_power_cuts(self, lab: Effort) -> Iterator[OutboxContents]:
        """What the code reads after every cut that may be."""
        for left in self.disk.moment().after_power_cuts(CUTS, lab.chance("cut")):
            lab.count("crash states")
            yield read_outbox(left, self.folder, NAMESPACE, OTHER_BOOT)


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> Lives:
    for module in (outbox_module, outbox_segment):
        monkeypatch.setattr(module, "SEGMENT_BYTES", SEGMENT_BYTES)
    return Lives(MemoryDisk())


def one_change(outbox: Outbox) -> int:
    return outbox.append(payload(insert("k", b"%d" % (outbox.seq + 1), "a")))


def last_seq(records: list[Record]) -> int:
    return records[-1].seq if records else 0


def test_segments_go_only_when_it_stands_on_disk_that_they_may(lives: Lives, lab: Effort) -> None:
    """P2: a power cut keeps that they are gone, and takes back the mark that says why."""
    outbox = lives.start()
    for _ in range(10):
        one_change(outbox)
        outbox.maintain()
    outbox.sync()
    outbox.mark_acked(6)
    outbox.maintain()
    assert len([name for name in lives.disk.listdir(lives.folder) if name.endswith(".seg")]) < 6, "none is gone"
    for found in lives.after_power_cuts(lab):
        assert last_seq(found.records) == 10
        assert found.records[0].base <= 6
        assert not found.set_aside


def test_a_change_behind_a_server_that_is_ahead_of_the_outbox_comes_back(lives: Lives, lab: Effort) -> None:
    """P1: the cut kept change 1 here, and the server has 1 and 2. Change 3 must not stand behind 1."""
    outbox = lives.start()
    one_change(outbox)
    outbox.sync()
    one_change(outbox)
    cuts = lives.disk.moment().after_power_cuts(CUTS, lab.chance("cut"))
    kept = next(disk for disk in cuts if last_seq(read_outbox(disk, lives.folder, NAMESPACE, OTHER_BOOT).records) == 1)
    left = Lives(kept, OTHER_BOOT, epoch=1)
    assert one_change(left.start(applied=2)) == 3
    found = read_outbox(left.disk.moment().after_kill(), left.folder, NAMESPACE, OTHER_BOOT)
    assert [record.seq for record in found.records] == [3], "a change that had returned is lost"


def test_a_sync_in_the_first_life_survives_every_power_cut(lives: Lives, lab: Effort) -> None:
    """P2: folder, first segment and record are durable when the first `sync` has returned."""
    outbox = lives.start()
    one_change(outbox)
    outbox.sync()
    for found in lives.after_power_cuts(lab):
        assert last_seq(found.records) == 1, "a synced change is lost"


def test_a_sync_in_a_spare_survives_every_power_cut(lives: Lives, lab: Effort) -> None:
    """P2: the spare had its name for good before the caller switched to it."""
    outbox = lives.start()
    for _ in range(3):
        one_change(outbox)
    outbox.sync()
    for found in lives.after_power_cuts(lab):
        assert [record.seq for record in found.records] == [1, 2, 3], "a synced change is lost"


def test_what_is_only_applied_stays_in_the_outbox(lives: Lives) -> None:
    """P1: a server that has applied and not synced may be killed; then only the outbox has it."""
    outbox = lives.start()
    for _ in range(6):
        one_change(outbox)
    outbox.mark_shipped(6)
    told = confirmed(PumpMemory("i", 6, 0, 0, 0, 0), Confirmed(instance="i", applied=6, durable=0), True)
    outbox.mark_acked(told.durable)
    for _ in range(3):
        outbox.maintain()
    found = read_outbox(lives.disk.moment().after_kill(), lives.folder, NAMESPACE, BOOT)
    assert [record.seq for record in found.records] == [1, 2, 3, 4, 5, 6], "a change that nobody else has is lost"


def folding(lives: Lives) -> Outbox:
    """An outbox whose next look at its segments folds them: five synced changes, three sealed segments."""
    outbox = lives.start()
    for _ in range(5):
        one_change(outbox)
        outbox.maintain()
    outbox.sync()
    return outbox


def test_a_power_cut_at_any_call_of_a_fold_loses_nothing_synced(lives: Lives, lab: Effort) -> None:
    """P2: the fold is synced before it takes the place of others, and has its name before they go."""
    outbox = folding(lives)
    calls = []

    def look(name: str, path: str) -> None:
        calls.append(name)
        assert all(last_seq(found.records) == 5 for found in lives.after_power_cuts(lab)), f"lost before {name}"

    with mock.patch("strategy_proc.outbox_chain.COMPACT_AT", 0):
        lives.disk.on_call = look
        outbox.maintain()
        lives.disk.on_call = lambda name, path: None
    assert "replace" in calls
    assert "unlink" in calls, "nothing was folded"
    assert all(last_seq(found.records) == 5 for found in lives.after_power_cuts(lab))


def test_no_sync_gets_in_while_a_fold_replaces_files(lives: Lives) -> None:
    """P2: a sync between the fold's rename and its directory's sync would promise what a cut takes back."""
    outbox = folding(lives)
    is_free = []

    def look(name: str, path: str) -> None:
        if name in ("replace", "fsync_dir"):
            is_free.append(not outbox._files_lock.locked())

    with mock.patch("strategy_proc.outbox_chain.COMPACT_AT", 0):
        lives.disk.on_call = look
        outbox.maintain()
    assert is_free
    assert not any(is_free)


def test_what_a_socket_gets_is_marked_before(lives: Lives) -> None:
    """Acknowledged: a fold takes the delete of a key away only if nobody can have seen its insert."""
    outbox = lives.start()
    one_change(outbox)
    marks: list[int] = []

    def send(parts: list[bytes]) -> None:
        found = read_outbox(lives.disk.moment().after_kill(), lives.folder, NAMESPACE, BOOT)
        marks.append(found.shipped)

    pump = mock.Mock(_outbox=outbox, _shipped=0, _bytes_in_flight=0, _identity=outbox.identity.identity)
    pump._session.namespace, pump._session.epoch = NAMESPACE, 1
    Pump._ship(pump, mock.Mock(send_delta=send))
    assert marks == [1]


def test_a_lost_last_message_is_shipped_again() -> None:
    """Liveness: no gap shows it, and the instance is the same; only that nothing has moved since the last question."""
    nothing_moved = Confirmed(instance="i", applied=0, durable=0)
    assert confirmed(PumpMemory("i", 1, 0, 0, 0, 0), nothing_moved, True).shipped == 0


# The server, with its threads


class GatedDisk(Disk):
    """Holds the journal's syncs until told."""

    def __init__(self) -> None:
        self.open_gate, self.at_gate = Event(), Event()
        self.open_gate.set()

    def fdatasync(self, fd: int) -> None:
        self.at_gate.set()
        assert self.open_gate.wait(30)
        super().fdatasync(fd)


@pytest.fixture
def gated(data_dir: Path) -> Iterator[tuple[Harness, GatedDisk]]:
    disk = GatedDisk()
    harness = Harness(data_dir, disk)
    yield harness, disk
    disk.open_gate.set()
    harness.close()


def shut(disk: GatedDisk) -> None:
    disk.open_gate.clear()
    disk.at_gate.clear()


def test_nothing_is_durable_while_the_sync_has_not_returned(gated: tuple[Harness, GatedDisk]) -> None:
    """Acknowledged means synced."""
    harness, disk = gated
    harness.open()
    wait_until(lambda: harness.turn() or harness.service.store.in_flight is None)
    shut(disk)
    harness.put(1)
    assert disk.at_gate.wait(30)
    harness.turn()
    namespace = harness.service.store.namespaces["bot"]
    assert (namespace.applied, namespace.durable) == (1, 0)
    disk.open_gate.set()
    assert harness.confirm(1.0).durable == 1


def test_an_open_waits_for_the_sync_of_its_epoch(gated: tuple[Harness, GatedDisk]) -> None:
    """P6: a bot that was let in before its epoch was durable would be called newer than the store."""
    harness, disk = gated
    shut(disk)
    harness.service.requests.handle(b"me", "", open_request(), 0.0)
    harness.turn()
    assert disk.at_gate.wait(30)
    harness.turn()
    assert not harness.replies
    disk.open_gate.set()
    wait_until(lambda: harness.turn() or harness.replies)


def test_a_map_with_something_pending_is_not_saved(gated: tuple[Harness, GatedDisk]) -> None:
    """P3: its memory holds more than the batch that the file would be labelled with."""
    harness, disk = gated
    harness.open()
    harness.put(1)
    harness.wait_saved()
    shut(disk)
    harness.put(2)
    assert disk.at_gate.wait(30)
    harness.put(3)
    service = harness.service
    assert service.store.pending
    service.checkpoints.step(1e9, hurry=True)
    assert service.checkpoints._saving is None
    disk.open_gate.set()
    harness.wait_saved()


def test_a_save_that_has_returned_survives_every_power_cut(lab: Effort) -> None:
    """P6: the journal behind a saved map may be deleted, so both its bytes and its name have to last."""
    disk = MemoryDisk()
    for lsn in (2, 3):
        items: list[Any] = [(b"\x8c\x01k", b"%d" % lsn)]
        trailer = Trailer(STORE, "bot", "m", 2, lsn)
        save_map(disk, "/", "m", items, 1, trailer, before_rename=lambda: None)
        for left in disk.moment().after_power_cuts(CUTS, lab.chance(lsn)):
            lab.count("crash states")
            assert load_map(left, "/m.pkl").trailer.lsn == lsn, "a file that the catalog counts on is lost"
