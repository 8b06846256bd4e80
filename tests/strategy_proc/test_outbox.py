"""The outbox from the side of its three parties: the caller, the pump, `sync`."""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from protocol.disk import Disk
from protocol.errors import NamespaceInUse, OutboxFull, SessionClosed, SyncFailed
from protocol.segments import SEGMENT_BYTES
from strategy_proc import outbox_chain
from strategy_proc.outbox import Outbox, OutboxLock
from strategy_proc.outbox_segment import OpenSegment
from tests.strategy_proc.outboxes import BOOT, NAMESPACE, STORE, Lives, insert, payload, put, replay, seqs, ship

TraceFunction = Callable[[FrameType, str, Any], Any]


@pytest.fixture
def lives(data_dir: Path) -> Iterator[Lives]:
    lives = Lives(data_dir)
    yield lives
    lives.close()


def fill(outbox: Outbox) -> None:
    """Append until the active segment has no room for another such record."""
    segment = outbox.tail[0]
    while outbox.tail[0] is segment:
        put(outbox, size=50_000)


# The caller's side


def test_what_was_appended_is_there_after_a_kill(lives: Lives) -> None:
    put(lives.start(), 10)
    assert seqs(lives.read().records) == list(range(1, 11))


def test_what_is_appended_behind_a_sync_is_there_after_a_kill_and_is_synced_by_the_next(lives: Lives) -> None:
    outbox = lives.start()
    for count in (1, 30, 1, 1, 400):  # within a page, over its end, and over many
        put(outbox, count)
        outbox.sync()
    put(outbox, 2)
    assert seqs(lives.read().records) == list(range(1, 436))
    assert outbox.synced == 433


def test_behind_a_sync_a_change_meets_no_page_that_must_be_made_writable(lives: Lives) -> None:
    outbox, stored = lives.start(), []
    put(outbox)
    outbox.sync()
    end = outbox.tail[1]
    lives.disk.store = lambda fd, mapping, data, at: stored.append(at)  # type: ignore[method-assign]
    put(outbox)
    assert stored == [end]


def test_a_store_that_the_file_refuses_goes_through_the_mapping(lives: Lives) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.EFBIG, "File too large")

    outbox = lives.start()
    lives.disk.store = refuses  # type: ignore[method-assign]
    for _ in range(3):
        put(outbox)
        outbox.sync()
    assert seqs(lives.read().records) == [1, 2, 3]


def test_ctrl_c_behind_a_store_leaves_no_record(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox)
    outbox.sync()
    store = lives.disk.store

    def struck(fd: int, mapping: mmap.mmap, data: bytes, at: int) -> None:
        store(fd, mapping, data, at)
        raise KeyboardInterrupt

    lives.disk.store = struck  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        put(outbox)
    assert seqs(lives.read().records) == [1]
    lives.disk.store = store  # type: ignore[method-assign]
    put(outbox)
    assert seqs(lives.read().records) == [1, 2]


def test_the_next_life_goes_on_behind_the_last_leftover(lives: Lives) -> None:
    put(lives.start(), 5)
    assert put(lives.start(applied=2), 2) == [6, 7]
    assert seqs(lives.read().records) == [3, 4, 5, 6, 7]
    assert {r.epoch for r in lives.read().records} == {2}


def test_a_life_without_leftovers_begins_at_applied(lives: Lives) -> None:
    put(lives.start(), 2)
    assert put(lives.start(applied=7), 1) == [8]
    assert seqs(lives.read().records) == [8]
    assert lives.read().acked == 7


def test_each_life_counts_and_keeps_the_identity(lives: Lives) -> None:
    first, second = lives.start().identity, lives.start().identity
    assert (first.life, second.life) == (1, 2)
    assert first.identity == second.identity
    assert lives.read().identity == second


def test_a_life_number_that_the_server_has_seen_is_skipped(lives: Lives) -> None:
    outbox = lives.start()
    outbox.skip_life(41)
    assert outbox.identity.life == 42
    assert lives.start().identity.life == 43


def test_the_caller_switches_to_the_spare_without_the_pump(lives: Lives) -> None:
    outbox = lives.start()
    fill(outbox)
    assert len(lives.read().records) == outbox.seq


def test_a_burst_that_outruns_the_pump_makes_its_own_segments(lives: Lives) -> None:
    outbox = lives.start()
    for _ in range(4):
        fill(outbox)
    outbox.maintain()
    fill(outbox)
    assert len(lives.read().records) == outbox.seq == len(ship(outbox, 0))


def test_on_a_full_disk_a_put_is_refused_and_nothing_changes(lives: Lives) -> None:
    outbox = lives.start()
    lives.disk.full = True
    fill(outbox)
    with pytest.raises(OutboxFull):
        fill(outbox)
    before = outbox.seq
    with pytest.raises(OutboxFull):
        put(outbox, size=50_000)
    assert outbox.seq == before == lives.read().last


class Struck(BaseException):
    """What Ctrl-C raises, wherever the program happens to be."""


def strike(at: int, call: Callable[[], object]) -> bool:
    """Call, and raise before the `at`-th byte code instruction inside the outbox. False if there are not so many."""
    left = at

    def trace(frame: FrameType, event: str, _: object) -> TraceFunction | None:
        nonlocal left
        if "strategy_proc/outbox" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                raise Struck
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks once, in settrace, whether any frame wants them
    sys.settrace(trace)
    try:
        call()
    except Struck:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("at_the_end_of_a_segment", [False, True])
def test_ctrl_c_anywhere_in_an_append_breaks_no_chain(lives: Lives, at_the_end_of_a_segment: bool) -> None:
    outbox = lives.start()
    put(outbox)
    at = 0
    while True:
        if at_the_end_of_a_segment:
            room = outbox.tail[0].capacity - outbox.tail[1]
            put(outbox, size=max(room - 200, 1))
        if not strike(at, lambda: put(outbox, size=200)):
            break
        recorded = outbox.seq
        assert lives.read().last in (recorded, recorded + 1)  # a change whose call has raised may be there or not
        put(outbox, size=10)
        outbox.mark_acked(recorded - 1)
        outbox.maintain()
        assert seqs(lives.read().records) == [recorded, recorded + 1]
        at += 1
    assert at > 30


def test_a_full_disk_is_reported_and_putting_goes_on_when_there_is_room_again(lives: Lives) -> None:
    outbox = lives.start()
    fill(outbox)
    lives.disk.full = True
    outbox.maintain()
    assert outbox.full_disk is not None
    with pytest.raises(OutboxFull, match="No space left"):
        fill(outbox)
    lives.disk.full = False
    outbox.maintain()
    assert outbox.full_disk is None
    fill(outbox)
    assert lives.read().last == outbox.seq == len(lives.read().records)


def test_a_large_record_gets_a_segment_of_its_size(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 3)
    for _ in range(2):
        outbox.append(payload(insert("large", b"x" * 3 * SEGMENT_BYTES)))
    put(outbox, 3)
    assert seqs(lives.read().records) == list(range(1, 9)) == seqs(ship(outbox, 0))


@pytest.mark.parametrize("filled_before", range(4))
def test_on_a_full_disk_what_is_acknowledged_makes_room_for_what_comes(lives: Lives, filled_before: int) -> None:
    """Whatever the outbox had made for itself when the disk filled up: two segments are enough to go on for ever."""
    outbox = lives.start()
    for _ in range(filled_before):
        fill_and_acknowledge(outbox)
    lives.disk.full = True
    for _ in range(10):
        fill_and_acknowledge(outbox)
    assert lives.read().last == outbox.seq


def test_acknowledged_segments_that_somebody_has_deleted_are_let_go(lives: Lives) -> None:
    outbox = lives.start()
    for _ in range(3):
        fill_and_acknowledge(outbox)
        for path in lives.segments():
            path.unlink()
    for _ in range(5):
        fill_and_acknowledge(outbox)
    assert len(outbox._sealed) <= 1
    assert outbox.full_disk is None


def test_a_change_that_makes_its_segment_while_its_session_leaves_takes_no_number_of_the_next(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox)
    lives.disk.before_creating = lambda: (outbox.close(), put(lives.start(outbox.seq)))
    with pytest.raises(SessionClosed):
        outbox.append(payload(insert("large", b"x" * 3 * SEGMENT_BYTES)))
    assert seqs(lives.read().records) == [2]


def fill_and_acknowledge(outbox: Outbox) -> None:
    """Put until another segment is begun, while the server keeps up and the pump keeps house."""
    segment = outbox.tail[0]
    while outbox.tail[0] is segment:
        put(outbox, size=50_000)
    outbox.mark_acked(outbox.seq)
    for _ in range(2):
        outbox.maintain()


def test_a_large_record_on_a_full_disk_is_refused(lives: Lives) -> None:
    outbox = lives.start()
    lives.disk.full = True
    with pytest.raises(OutboxFull):
        outbox.append(payload(insert("large", b"x" * 3 * SEGMENT_BYTES)))
    assert put(outbox) == [1]
    assert len(lives.read().records) == 1


def test_large_records_of_one_thread_and_a_pump_keep_their_order(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_chain, "COMPACT_AT", 2**40)
    outbox = lives.start()
    stop = threading.Event()

    def pump() -> None:
        while not stop.is_set():
            outbox.maintain()

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        for _ in range(30):
            outbox.append(payload(insert("large", b"x" * (SEGMENT_BYTES + 1))))
            put(outbox, size=SEGMENT_BYTES * 2 // 3)
    finally:
        stop.set()
        thread.join()
    assert seqs(lives.read().records) == list(range(1, 61))


# The pump's side


def test_runs_are_whole_records_behind_what_was_asked(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 10)
    assert seqs(ship(outbox, 0)) == list(range(1, 11))
    assert seqs(ship(outbox, 4)) == list(range(5, 11))
    assert ship(outbox, 10) == []
    assert seqs(ship(outbox, 2, max_bytes=1)) == [3]
    assert seqs(ship(outbox, 3, max_bytes=400)) == [4, 5]
    assert seqs(ship(outbox, 5)) == [6, 7, 8, 9, 10]


def test_a_run_may_span_segments(lives: Lives) -> None:
    outbox = lives.start()
    for _ in range(3):
        fill(outbox)
        outbox.maintain()
    at, got = 0, list[int]()
    while records := ship(outbox, at, max_bytes=300_000):
        got += seqs(records)
        at = got[-1]
    assert got == list(range(1, outbox.seq + 1)) == seqs(ship(outbox, 0))


def test_what_was_shipped_is_not_searched_for_where_to_go_on(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when its segment was sealed meanwhile: a search visits all of its records, with the interpreter's lock."""
    outbox = lives.start()
    put(outbox, 2)
    assert seqs(ship(outbox, 0)) == [1, 2]
    monkeypatch.setattr(OpenSegment, "walk", lambda *args: pytest.fail("searched"))
    put(outbox)
    assert seqs(ship(outbox, 2)) == [3]
    fill(outbox)
    assert seqs(ship(outbox, 3)) == list(range(4, outbox.seq + 1))


def test_a_segment_that_was_used_again_is_not_gone_on_with_where_it_ended_before(lives: Lives) -> None:
    """All of it was shipped and acknowledged, then nobody took anything until the file came into use again."""
    outbox = lives.start()
    path = outbox.tail[0].path
    put(outbox, 2, size=500_000)
    assert seqs(ship(outbox, 0)) == [1, 2]
    outbox.mark_acked(2)
    files = {os.stat(path).st_ino}
    put(outbox, size=500_000)
    while os.stat(outbox.tail[0].path).st_ino not in files:
        outbox.maintain()
        put(outbox, size=500_000)
    assert seqs(ship(outbox, 2)) == list(range(3, outbox.seq + 1))


def test_leftovers_are_shipped_in_the_new_epoch(lives: Lives) -> None:
    put(lives.start(), 5)
    outbox = lives.start(applied=2)
    assert [(r.seq, r.epoch) for r in ship(outbox, 2)] == [(3, 2), (4, 2), (5, 2)]


def test_a_gap_that_nobody_can_fill_is_told(lives: Lives) -> None:
    outbox = lives.start(applied=5)
    put(outbox)
    with pytest.raises(LookupError):
        outbox.unshipped(3, 1000)


def test_reading_while_another_thread_appends_never_sees_half_a_record(lives: Lives) -> None:
    outbox = lives.start()

    def append() -> None:
        put(outbox, 20_000)

    thread = threading.Thread(target=append)
    thread.start()
    at = 0
    while at < 20_000:
        records = ship(outbox, at)
        assert seqs(records) == list(range(at + 1, at + 1 + len(records)))
        at += len(records)
        outbox.mark_shipped(at)
        outbox.mark_acked(at)
        outbox.maintain()
    thread.join()


def test_marks_are_read_by_the_next_life_and_never_go_back(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 9)
    outbox.mark_shipped(7)
    outbox.mark_acked(5)
    outbox.mark_shipped(6)
    outbox.mark_acked(4)
    contents = lives.read()
    assert (contents.acked, contents.shipped, contents.last) == (5, 7, 9)
    assert seqs(contents.records) == [6, 7, 8, 9]


def test_steady_traffic_reuses_a_few_files(lives: Lives) -> None:
    outbox = lives.start()
    for _ in range(20):
        fill(outbox)
        put(outbox, 3)
        outbox.mark_shipped(outbox.seq)
        outbox.mark_acked(outbox.seq - 2)
        outbox.maintain()
        assert lives.read().last == outbox.seq
        assert seqs(lives.read().records) == [outbox.seq - 1, outbox.seq]
    assert len(os.listdir(lives.folder)) <= 8
    assert sum(path.stat().st_size for path in Path(lives.folder).iterdir()) <= 6 * SEGMENT_BYTES


def test_a_backlog_is_removed_once_it_is_acknowledged(lives: Lives) -> None:
    outbox = lives.start()
    for _ in range(7):
        fill(outbox)
        outbox.maintain()
    outbox.mark_acked(outbox.seq - 1)
    outbox.maintain()
    outbox.maintain()
    assert len(lives.segments()) <= 3
    assert seqs(lives.read().records) == [outbox.seq]


def test_an_accepted_state_replaces_everything(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 9)
    outbox.mark_shipped(9)
    outbox.mark_acked(9)
    outbox.replace_all(4, [payload(insert("a")), payload(insert("b"))])
    assert [(r.base, r.seq) for r in ship(outbox, 4)] == [(4, outbox.seq)]
    put(outbox, 2)
    assert len(ship(outbox, 4)) == 3
    records = lives.read().records
    assert [r.seq for r in records] == [outbox.seq - 2, outbox.seq - 1, outbox.seq]
    assert [key for key, _ in replay(records)["m"]][:2] == [insert("a")[2], insert("b")[2]]
    fill(outbox)


# Syncing


def test_sync_marks_what_is_on_the_medium(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 3)
    outbox.sync()
    put(outbox, 2)
    assert outbox.synced == 3
    assert lives.read().segments[0].synced == 3


def test_sync_without_anything_new_asks_no_disk(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox)
    outbox.sync()
    before = lives.disk.map_syncs
    outbox.sync()
    assert lives.disk.map_syncs == before


def test_sync_covers_every_segment_that_has_something_new(lives: Lives) -> None:
    outbox = lives.start()
    fill(outbox)
    before = lives.disk.map_syncs
    outbox.sync()
    assert lives.disk.map_syncs == before + 2


def test_a_failed_sync_is_told_and_the_next_one_works_on_new_files(lives: Lives) -> None:
    outbox = lives.start()
    fill(outbox)
    outbox.maintain()
    outbox.mark_shipped(3)
    outbox.mark_acked(2)
    poisoned = lives.segments()[0].stat().st_ino
    lives.disk.sync_fails = True
    with pytest.raises(SyncFailed):
        outbox.sync()
    put(outbox, 2)
    lives.disk.sync_fails = False
    outbox.sync()
    put(outbox, 2)
    outbox.sync()
    assert outbox.synced == outbox.seq
    contents = lives.read()
    assert seqs(contents.records) == list(range(3, outbox.seq + 1)) == seqs(ship(outbox, 2))
    assert contents.shipped == 3
    assert lives.segments()[0].stat().st_ino != poisoned
    outbox.maintain()


def test_the_segment_in_use_is_left_when_its_sync_has_failed(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 3)
    lives.disk.sync_fails = True
    with pytest.raises(SyncFailed):
        outbox.sync()
    lives.disk.sync_fails = False
    poisoned = outbox.tail[0]
    outbox.sync()
    assert outbox.tail[0] is not poisoned
    put(outbox, 2)
    assert seqs(ship(outbox, 1)) == [2, 3, 4, 5]
    assert seqs(lives.read().records) == [1, 2, 3, 4, 5]


def test_what_stands_in_for_a_failed_sync_has_its_name_for_good_when_the_next_sync_returns(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = lives.start()
    put(outbox, 3)
    lives.disk.sync_fails = True
    with pytest.raises(SyncFailed):
        outbox.sync()
    lives.disk.sync_fails = False
    outbox.maintain()
    calls = []
    for name in ("replace", "fsync_dir"):
        real = getattr(lives.disk, name)
        monkeypatch.setattr(lives.disk, name, lambda *args, name=name, real=real: (calls.append(name), real(*args)))
    outbox.sync()
    assert calls[-2:] == ["replace", "fsync_dir"], "a power cut would bring back the file whose sync had failed"


def test_a_put_that_can_neither_make_a_segment_nor_remove_it_is_refused_by_name(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = lives.start()

    def fails(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for name in ("replace", "unlink"):
        monkeypatch.setattr(lives.disk, name, fails)
    with pytest.raises(OutboxFull):
        outbox.append(payload(insert("large", bytes(2**21))))
    assert outbox.seq == 0
    monkeypatch.undo()
    assert put(outbox) == [1]


def test_a_sync_that_goes_on_failing_goes_on_raising(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 3)
    lives.disk.sync_fails = True
    for _ in range(3):
        with pytest.raises(SyncFailed):
            outbox.sync()
        put(outbox)
    lives.disk.sync_fails = False
    outbox.sync()
    assert outbox.synced == 6
    assert seqs(lives.read().records) == list(range(1, 7))


# One owner


def test_the_second_owner_is_refused_and_told_who_the_first_is(lives: Lives) -> None:
    lock = OutboxLock(lives.disk, lives.folder, NAMESPACE)
    Path(lives.folder).parent.mkdir()
    lock.acquire()
    outbox = lives.start()
    for _ in range(12):
        fill(outbox)
        outbox.maintain()
    with pytest.raises(NamespaceInUse, match=f"pid {os.getpid()}"):
        OutboxLock(lives.disk, lives.folder, NAMESPACE).acquire()
    lock.release()
    lock.release()
    second = OutboxLock(lives.disk, lives.folder, NAMESPACE)
    second.acquire()
    second.release()
    assert second.fd == -1


def test_a_forked_child_does_not_keep_the_lock(lives: Lives) -> None:
    lock = OutboxLock(Disk(), lives.folder, NAMESPACE)
    lock.acquire()
    outbox = lives.start()
    put(outbox, 3)
    told, tell = os.pipe()
    end, hold = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(hold)
            outbox.drop_in_child()
            os.write(tell, b"dropped")
            os.read(end, 1)
        finally:
            os._exit(0)
    assert os.read(told, 7) == b"dropped"
    with pytest.raises(NamespaceInUse):  # the child has not unlocked its parent
        OutboxLock(Disk(), lives.folder, NAMESPACE).acquire()
    lock.drop_in_child()  # as the kernel does for a killed parent: no unlock, the descriptor is gone
    second = OutboxLock(Disk(), lives.folder, NAMESPACE)
    second.acquire()
    second.release()
    for fd in (hold, end, told, tell):
        os.close(fd)
    os.waitpid(child, 0)
    assert put(outbox) == [4]


def test_a_start_that_fails_half_way_closes_what_it_opened(lives: Lives) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    outbox = Outbox.load(lives.disk, lives.folder, NAMESPACE, BOOT)
    lives.disk.dir_sync_fails = True
    with pytest.raises(OSError, match="Input/output"):
        outbox.begin(STORE, 1, 0, [])
    outbox.close()
    lives.disk.dir_sync_fails = False
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert put(lives.start()) == [1]


def test_a_sync_that_comes_after_close_says_so_and_touches_no_descriptor(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox)
    outbox.close()
    syncs = lives.disk.map_syncs
    with pytest.raises(SyncFailed, match="closed"):
        outbox.sync()
    assert lives.disk.map_syncs == syncs
