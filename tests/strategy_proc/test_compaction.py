"""Folding keeps the state after every change that may have been seen, and forgets what nobody has seen."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.changes import CLEAR, DELETE, DROP, INSERT, REPLACE, Change, apply_change, decode_changes, encode_changes
from protocol.frames import Record
from strategy_proc import outbox_chain
from strategy_proc.compaction import fold_records
from strategy_proc.outbox import Outbox
from tests.strategy_proc.outboxes import Lives, delete, insert, payload, put, replay, seqs, ship

Maps = dict[str, dict[bytes, bytes]]


@pytest.fixture
def lives(data_dir: Path) -> Iterator[Lives]:
    lives = Lives(data_dir)
    yield lives
    lives.close()


# The fold alone


steps = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "put", "put", "delete", "delete", "clear", "drop"]),
            st.sampled_from(["m", "n"]),
            st.sampled_from([b"a", b"b", b"c"]),
        ),
        min_size=1,
        max_size=3,
    ),
    min_size=1,
    max_size=25,
)


def record_history(history: list[list[tuple[str, str, bytes]]]) -> list[Record]:
    """What a session would record: INSERT for an absent key, REPLACE for a present one, DELETE of present ones."""
    maps: Maps = {}
    records = []
    for number, block in enumerate(history, 1):
        changes = [c for at, step in enumerate(block) if (c := _change(maps, step, b"%d.%d" % (number, at)))]
        records.append(Record(number, 1, 1, encode_changes(changes)))
    return records


def _change(maps: Maps, step: tuple[str, str, bytes], value: bytes) -> Change | None:
    what, name, key = step
    items = maps.setdefault(name, {})
    if what == "put":
        change = (REPLACE if key in items else INSERT, name, key, value)
    elif what == "delete":
        if key not in items:
            return None
        change = (DELETE, name, key, b"")
    else:
        change = (CLEAR if what == "clear" else DROP, name, b"", b"")
    apply_change(items, change[0], key, value)
    return change


def state_of(records: list[Record]) -> Maps:
    return {name: dict(items) for name, items in replay(records).items()}


@settings(max_examples=300, deadline=None)
@given(history=steps, data=st.data())
def test_a_fold_gives_the_same_maps_from_every_state_that_may_have_been_applied(
    history: list[list[tuple[str, str, bytes]]], data: st.DataObject
) -> None:
    records = _valid(record_history(history))
    count = len(records)
    acked = data.draw(st.integers(0, count))
    shipped = data.draw(st.integers(acked, count))
    folded = fold_records(records[acked:], shipped)
    assert sum(r.span for r in folded) == count - acked
    for applied in range(acked, shipped + 1):
        newer = [r for r in folded if r.seq > applied]
        assert replay(newer, state_of(records[:applied])) == replay(records)


@settings(max_examples=300, deadline=None)
@given(history=steps, data=st.data())
def test_a_fold_of_folds_gives_the_same_maps_too(
    history: list[list[tuple[str, str, bytes]]], data: st.DataObject
) -> None:
    records = _valid(record_history(history))
    count = len(records)
    shipped, at = 0, 0
    chain: list[Record] = []
    seen = {0}  # a server applies whole records, so it can only be where one that was shipped ends
    for _ in range(4):
        chain += records[at : (at := data.draw(st.integers(at, count)))]
        chain = fold_records(chain, shipped)
        reached = [r.seq for r in chain if r.seq > shipped]
        if reached and data.draw(st.sampled_from([False, True])):
            shipped = data.draw(st.sampled_from(reached))
            seen |= {seq for seq in reached if seq <= shipped}
    chain += records[at:]
    for applied in seen:
        assert replay([r for r in chain if r.seq > applied], state_of(records[:applied])) == replay(records)


def _valid(records: list[Record]) -> list[Record]:
    """Keys of the histories are plain letters; what is stored are encoded keys."""
    return [r._replace(payload=encode_changes([_keyed(c) for c in _decoded(r.payload)])) for r in records]


def _decoded(data: bytes) -> list[Change]:
    return msgspec.msgpack.decode(data, type=list[Change])


def _keyed(change: Change) -> Change:
    op, name, key, value = change
    return (op, name, insert(key.decode())[2] if op <= DELETE else b"", value)


def test_a_key_that_came_and_went_unseen_leaves_nothing() -> None:
    records = [Record(1, 1, 1, payload(insert("a"))), Record(2, 1, 1, payload(delete("a")))]
    (folded,) = fold_records(records, shipped=0)
    assert decode_changes(folded.payload) == []
    assert (folded.base, folded.seq) == (0, 2)


def test_the_delete_of_a_key_that_may_have_been_seen_stays() -> None:
    records = [Record(1, 1, 1, payload(insert("a"))), Record(2, 1, 1, payload(delete("a")))]
    assert [decode_changes(r.payload) for r in fold_records(records, shipped=1)] == [[insert("a")], [delete("a")]]
    (folded,) = fold_records(records, shipped=2)
    assert decode_changes(folded.payload) == [delete("a")]


def test_a_key_that_only_moved_unseen_is_still_deleted_by_a_later_fold() -> None:
    seen, *unseen = (
        Record(seq, 1, 1, payload(change))
        for seq, change in enumerate([insert("a"), delete("a"), insert("a"), delete("a")], 1)
    )
    moved = fold_records(unseen[:2], shipped=1)
    folded = fold_records(moved + unseen[2:], shipped=1)
    assert replay(folded, state_of([seen])) == {}
    assert replay(fold_records([seen, *folded], shipped=4)) == {}


# In the outbox


@contextlib.contextmanager
def compact_at(size: int) -> Iterator[None]:
    before, outbox_chain.COMPACT_AT = outbox_chain.COMPACT_AT, size
    try:
        yield
    finally:
        outbox_chain.COMPACT_AT = before


def fill(outbox: Outbox, size: int = 20_000) -> None:
    before = outbox.tail[0]
    while outbox.tail[0] is before:
        outbox.append(payload((INSERT if outbox.seq < 5 else REPLACE, "m", insert(outbox.seq % 5)[2], b"v" * size)))


def test_an_outage_costs_live_keys_and_not_its_length(lives: Lives) -> None:
    outbox = lives.start()
    with compact_at(2 * 2**20):
        for _ in range(20):
            fill(outbox)
            outbox.maintain()
    assert len(lives.segments()) <= 6
    contents = lives.read()
    assert contents.last == outbox.seq
    assert len(replay(contents.records)["m"]) == 5
    assert replay(ship(outbox, 0)) == replay(contents.records)
    second = lives.start()
    assert second.seq == outbox.seq
    assert replay(ship(second, 0)) == replay(contents.records)


def test_a_backlog_that_is_being_taken_is_folded_only_when_it_is_large(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ship a change costs less than to fold it."""
    monkeypatch.setattr(outbox_chain, "COMPACT_BUSY_AT", 6 * 2**20)
    outbox = lives.start()
    with compact_at(2 * 2**20):
        for _ in range(5):
            fill(outbox)
            outbox.maintain(progress=True)
        assert all(record.span == 1 for record in ship(outbox, 0))
        for _ in range(3):
            fill(outbox)
            outbox.maintain(progress=True)
    assert any(record.span > 1 for record in ship(outbox, 0))


def test_churn_of_unique_keys_stays_bounded_with_a_fixed_shipped_mark(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 3)
    outbox.mark_shipped(2)
    number, largest = 0, 0
    with compact_at(2 * 2**20):
        for _ in range(40):
            before = outbox.tail[0]
            while outbox.tail[0] is before:
                number += 1
                outbox.append(payload(insert(f"order-{number}", b"v" * 1000)))
                if number > 5:
                    outbox.append(payload(delete(f"order-{number - 5}")))
            outbox.maintain()
            largest = max(largest, len(lives.segments()))
    assert largest <= 6
    folds = [r for r in ship(outbox, 0) if r.span > 1]
    assert folds
    assert all(len(decode_changes(r.payload)) <= 3 + 5 for r in folds)


def test_a_position_inside_a_fold_ships_the_whole_of_it(lives: Lives) -> None:
    outbox = lives.start()
    with compact_at(2**20):
        for _ in range(4):
            fill(outbox)
            outbox.mark_shipped(outbox.seq)
            outbox.maintain()
    first = ship(outbox, 0)[0]
    assert first.span > 10
    assert ship(outbox, 7)[0] == first


def test_a_kill_between_the_fold_and_the_removal_of_what_it_replaces_is_harmless(lives: Lives, tmp_path: Path) -> None:
    outbox = lives.start()
    for _ in range(4):
        fill(outbox)
        outbox.maintain()
    before = lives.read().records
    shutil.copytree(lives.folder, tmp_path / "before")
    replaced = [Path(s.path) for s in outbox._sealed]
    with compact_at(2**20):
        outbox.maintain()
    assert len(outbox._sealed) == 1
    for path in replaced[:-1]:
        assert not path.exists()
        shutil.copy(tmp_path / "before" / path.name, path)
        assert replay(lives.read().records) == replay(before)
        assert lives.read().records[-1].seq == outbox.seq


def test_putting_syncing_shipping_and_folding_at_once_lose_nothing(lives: Lives) -> None:
    outbox = lives.start()
    state: Maps = {"m": {}}
    done = threading.Event()

    def append() -> None:
        for number in range(60_000):
            change = delete(number - 50) if number % 2 and number > 50 else insert(number, b"v" * 300)
            outbox.append(payload(change))
            apply_change(state["m"], change[0], change[2], change[3])
        done.set()

    def sync() -> None:
        while not done.is_set():
            outbox.sync()

    threads = [threading.Thread(target=append), threading.Thread(target=sync)]
    for thread in threads:
        thread.start()
    at = 0
    with compact_at(2**20):
        while not done.is_set():
            for record in ship(outbox, at, max_bytes=50_000):
                at = record.seq
                outbox.mark_shipped(at)
            outbox.maintain()
    for thread in threads:
        thread.join()
    outbox.sync()
    assert replay(lives.read().records) == {"m": list(state["m"].items())}
    assert replay(ship(outbox, 0)) == {"m": list(state["m"].items())}


def test_folding_goes_on_while_another_process_is_away_and_the_disk_is_full(lives: Lives) -> None:
    outbox = lives.start()
    for _ in range(3):
        fill(outbox)
        outbox.maintain()
    state = replay(lives.read().records)
    with compact_at(2**20):
        lives.disk.full = True
        outbox.maintain()
        lives.disk.full = False
        outbox.maintain()
    assert outbox.full_disk is None
    assert replay(lives.read().records) == state
    assert seqs(lives.read().records)[-1] == outbox.seq


def test_a_fold_whose_directory_sync_fails_leaves_no_segment_under_a_foreign_name(lives: Lives) -> None:
    """The file has its new content all the same; a reused mapping of the old one would be no file at all."""
    outbox = lives.start()
    for _ in range(2):  # two full ones, both kept for reuse later
        fill(outbox)
        outbox.maintain()
    with compact_at(2**20):
        lives.disk.dir_sync_fails = True
        outbox.maintain()
        lives.disk.dir_sync_fails = False
    state = replay(lives.read().records)
    outbox.maintain()
    assert replay(lives.read().records) == state
    for _ in range(12):  # acknowledged segments are reused, again and again
        acked = outbox.seq
        fill(outbox)
        outbox.mark_shipped(acked)
        outbox.mark_acked(acked)
        outbox.maintain()
        for segment in [*outbox._sealed, outbox.tail[0]]:
            assert os.stat(segment.path).st_ino == os.fstat(segment.fd).st_ino
    put(outbox, 3)
    assert seqs(lives.read().records)[-1] == outbox.seq


def test_what_no_server_would_take_in_one_record_is_not_folded(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_chain, "MAX_FOLD_BYTES", 1000)
    outbox = lives.start()
    for _ in range(4):
        fill(outbox)
        outbox.maintain()
    before = lives.read().records
    with compact_at(2**20):
        outbox.maintain()
    assert lives.read().records == before
