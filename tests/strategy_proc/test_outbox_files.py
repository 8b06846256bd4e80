"""What reading the folder of an outbox makes of kills, power cuts and damage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest

from protocol.errors import Damaged, ForeignStore
from protocol.frames import encode_record
from protocol.outbox_files import IDENTITY_FILE, decode_identity, read_outbox
from protocol.segments import RECORDS_AT, SEGMENT_BYTES, SHIPPED_AT
from strategy_proc import outbox_chain
from tests.strategy_proc.outboxes import (
    BOOT,
    NAMESPACE,
    OTHER_BOOT,
    Lives,
    insert,
    overwrite,
    payload,
    places,
    put,
    seqs,
)


@pytest.fixture
def lives(data_dir: Path) -> Iterator[Lives]:
    lives = Lives(data_dir)
    yield lives
    lives.close()


def test_an_identity_alone_says_whose_outbox_it_is(lives: Lives) -> None:
    lives.start().close()
    for path in lives.segments():
        path.unlink()
    with pytest.raises(ForeignStore, match="of namespace 'bot', not 'other'"):
        read_outbox(lives.disk, lives.folder, "other", BOOT)


def test_no_folder_is_an_empty_outbox(lives: Lives) -> None:
    contents = lives.read()
    assert (contents.identity, contents.records, contents.last) == (None, [], 0)


def test_a_record_torn_at_any_byte_is_ignored(lives: Lives) -> None:
    put(lives.start(), 3)
    path = lives.segments()[0]
    start, end = places(path)[-2:]
    record = path.read_bytes()[start:end]
    for cut in range(len(record.rstrip(b"\0"))):
        overwrite(path, start, record[:cut].ljust(len(record), b"\0"))
        assert seqs(lives.read().records) == [1, 2]
    overwrite(path, start, record)
    assert seqs(lives.read().records) == [1, 2, 3]


def test_a_flipped_byte_in_the_middle_is_damage(lives: Lives) -> None:
    put(lives.start(), 3)
    path = lives.segments()[0]
    at = places(path)[1]
    data = path.read_bytes()
    for offset in range(at, at + 24):
        overwrite(path, offset, bytes([data[offset] ^ 0x40]))
        with pytest.raises(Damaged, match=r"00000001\.seg"):
            lives.read()
        overwrite(path, offset, data[offset : offset + 1])


def test_damage_below_what_is_acknowledged_costs_nothing(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 3)
    outbox.mark_acked(3)
    path = lives.segments()[0]
    overwrite(path, places(path)[1] + 30, b"\xff")
    assert (lives.read().records, lives.read().last) == ([], 3)


def test_a_damaged_head_is_damage(lives: Lives) -> None:
    lives.start()
    overwrite(lives.segments()[0], 70, b"\xff")
    with pytest.raises(Damaged):
        lives.read()


def test_a_segment_that_somebody_cut_is_damage(lives: Lives) -> None:
    put(lives.start(), 3)
    path = lives.segments()[1]
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(Damaged):
        lives.read()


def test_a_damaged_identity_is_damage(lives: Lives) -> None:
    lives.start()
    overwrite(Path(lives.folder) / IDENTITY_FILE, 6, b"\xff")
    with pytest.raises(Damaged):
        lives.read()


@pytest.mark.parametrize("body", [b"\x83\xa9namespace\xa1\xff", b"\x81\xa1x" + b"\x91" * 100_000])
def test_an_identity_that_nobody_of_ours_wrote_is_damage_even_with_a_good_checksum(body: bytes) -> None:
    with pytest.raises(Damaged, match="no identity"):
        decode_identity("IDENTITY", crc32(body).to_bytes(4, "little") + body)


def test_the_outbox_of_another_namespace_is_foreign(lives: Lives) -> None:
    put(lives.start())
    with pytest.raises(ForeignStore):
        read_outbox(lives.disk, lives.folder, "other", BOOT)


def test_unsynced_records_behind_a_hole_are_lost_in_a_power_cut_and_no_damage(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 2)
    outbox.sync()
    put(outbox, 3)
    path = lives.segments()[0]
    third = places(path)[2]
    overwrite(path, third, bytes(100))
    assert seqs(lives.read(OTHER_BOOT).records) == [1, 2]
    with pytest.raises(Damaged):
        lives.read(BOOT)


def test_a_hole_below_what_was_synced_is_damage_after_any_boot(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 4)
    outbox.sync()
    path = lives.segments()[0]
    for victim in (0, 2, 3):
        data = path.read_bytes()
        overwrite(path, places(path)[victim], bytes(100))
        with pytest.raises(Damaged):
            lives.read(OTHER_BOOT)
        path.write_bytes(data)


def test_the_lost_future_of_a_former_life_never_comes_back(lives: Lives) -> None:
    put(lives.start(), 5)
    first = lives.segments()[0]
    overwrite(first, places(first)[2], bytes(8))  # a power cut lost the page of 3, and kept 4 and 5
    kept = Path(lives.folder) / "kept"
    shutil.copy(first, kept)
    second = lives.start(boot=OTHER_BOOT)
    assert second.seq == 2
    put(second, 1)
    assert seqs(lives.read(OTHER_BOOT).records) == [1, 2, 3]
    shutil.copy(kept, first)  # and a later one brings the old name back
    assert seqs(lives.read(OTHER_BOOT).records) == [1, 2, 3]
    assert {r.epoch for r in lives.read(OTHER_BOOT).records} == {2}
    assert lives.start(boot=OTHER_BOOT).seq == 3


def test_stale_records_of_a_reused_segment_are_neither_data_nor_damage(lives: Lives) -> None:
    outbox = lives.start()
    for _ in range(6):
        before = outbox.tail[0]
        while outbox.tail[0] is before:
            put(outbox, size=2000)
        outbox.mark_acked(outbox.seq)
        outbox.maintain()
        assert lives.read().records == []
        put(outbox, 2, size=2000)
        assert seqs(lives.read().records) == [outbox.seq - 1, outbox.seq]
        assert seqs(lives.read(OTHER_BOOT).records) == [outbox.seq - 1, outbox.seq]
    assert any(s.head.floor for s in lives.read().segments)


def test_a_missing_segment_is_damage(lives: Lives) -> None:
    outbox = lives.start()
    for _ in range(2):
        before = outbox.tail[0]
        while outbox.tail[0] is before:
            put(outbox, size=50_000)
        outbox.maintain()
    lives.segments()[1].unlink()
    with pytest.raises(Damaged, match="missing"):
        lives.read()


def test_a_segment_that_a_power_cut_emptied_sets_the_later_ones_aside(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 2)
    while len(outbox._sealed) < 1:
        put(outbox, size=50_000)
    path = lives.segments()[0]
    overwrite(path, places(path)[2], bytes(path.stat().st_size - places(path)[2]))
    contents = lives.read(OTHER_BOOT)
    assert seqs(contents.records) == [1, 2]
    assert seqs(contents.set_aside) == [outbox.seq]


def test_a_power_cut_that_empties_the_first_segment_of_a_new_namespace_sets_the_rest_aside(lives: Lives) -> None:
    """Nothing was ever acknowledged: a chain that begins at change 2 is as unusable as one that lacks its middle."""
    outbox = lives.start()
    while len(outbox._sealed) < 1:
        put(outbox, size=50_000)
    path = lives.segments()[0]
    overwrite(path, places(path)[0], bytes(path.stat().st_size - places(path)[0]))
    contents = lives.read(OTHER_BOOT)
    assert contents.records == []
    assert seqs(contents.set_aside) == [outbox.seq]
    with pytest.raises(Damaged, match="missing"):
        lives.read()


def test_a_segment_whose_unsynced_start_a_power_cut_tore_costs_nothing_that_was_synced_before_it(lives: Lives) -> None:
    outbox = lives.start()
    while outbox.tail[1] + 60_000 < SEGMENT_BYTES:
        put(outbox, size=50_000)
    outbox.sync()
    synced = outbox.seq
    put(outbox, 2, size=70_000)
    path = lives.segments()[1]
    overwrite(path, places(path)[0], bytes(8))
    assert seqs(lives.read(OTHER_BOOT).records) == list(range(1, synced + 1))


def test_a_folded_segment_that_a_power_cut_brings_back_torn_is_no_damage(
    lives: Lives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its removal was not durable, what stood in it was never synced: but the fold was, and holds all of it."""
    monkeypatch.setattr(outbox_chain, "COMPACT_AT", 0)
    outbox = lives.start()
    put(outbox, 3)
    outbox.sync()
    while len(outbox._sealed) < 2:
        put(outbox, size=50_000)
    first = lives.segments()[0]
    torn = places(first)[4]
    shutil.copy(first, tmp_path / first.name)
    outbox.maintain()
    put(outbox)
    outbox.sync()
    assert not first.exists()
    shutil.copy(tmp_path / first.name, first)
    overwrite(first, torn, bytes(8))
    assert lives.read(OTHER_BOOT).records[-1].seq == outbox.seq


def test_folded_segments_that_a_power_cut_brings_back_without_the_first_hide_nothing(
    lives: Lives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_chain, "COMPACT_AT", 0)
    outbox = lives.start()
    while len(outbox._sealed) < 3:
        put(outbox, size=50_000)
    second = lives.segments()[1]
    shutil.copy(second, tmp_path / second.name)
    outbox.maintain()
    put(outbox)
    outbox.sync()
    shutil.copy(tmp_path / second.name, second)
    records = lives.read(OTHER_BOOT).records
    assert (records[0].base, records[-1].seq) == (0, outbox.seq)


def test_after_a_power_cut_everything_counts_as_shipped(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 5)
    outbox.mark_shipped(2)
    assert lives.read().shipped == 2
    assert lives.read(OTHER_BOOT).shipped == 5


def test_a_torn_mark_of_what_was_shipped_counts_as_everything(lives: Lives) -> None:
    outbox = lives.start()
    put(outbox, 5)
    outbox.mark_shipped(2)
    overwrite(lives.segments()[0], SHIPPED_AT, b"\x03")
    assert lives.read().shipped == 5


def test_unfinished_files_of_a_killed_life_are_removed(lives: Lives) -> None:
    put(lives.start(), 2)
    stray = Path(lives.folder) / "7.tmp"
    stray.write_bytes(b"half")
    assert lives.start().seq == 2
    assert not stray.exists()


def test_a_record_of_another_epoch_ends_the_chain(lives: Lives) -> None:
    put(lives.start(), 2)
    path = lives.segments()[0]
    overwrite(path, places(path)[2], encode_record(3, 9, 1, payload(insert("x"))))
    assert seqs(lives.read().records) == [1, 2]
    assert places(path)[0] == RECORDS_AT
    assert lives.read().segments[0].head.namespace == NAMESPACE


def test_a_segment_of_another_outbox_is_foreign_and_never_in_the_chain(lives: Lives, data_dir: Path) -> None:
    put(lives.start(), 3)
    (data_dir / "elsewhere").mkdir()
    other = Lives(data_dir / "elsewhere")
    put(other.start(), 5)
    other.close()
    shutil.copy(other.segments()[0], Path(lives.folder) / "00000009.seg")
    with pytest.raises(ForeignStore, match=r"00000009\.seg is a segment of another outbox"):
        lives.read()


def test_a_deleted_identity_is_known_from_the_segments(lives: Lives) -> None:
    put(lives.start(), 3)
    known = lives.read().identity
    (Path(lives.folder) / IDENTITY_FILE).unlink()
    assert lives.read().identity == known
    assert lives.start().identity.life == 2


def test_a_copied_segment_under_a_name_of_its_own_does_no_harm(lives: Lives) -> None:
    put(lives.start(), 3)
    shutil.copy(lives.segments()[0], Path(lives.folder) / "00000001 (copy).seg")
    assert lives.start().seq == 3


def test_changes_missing_between_two_segments_are_looked_for_at_the_end_of_the_first(lives: Lives) -> None:
    put(lives.start(), 12, size=100_000)
    first, second = lives.segments()[:2]
    last = places(first)[-2]
    overwrite(first, last + 30, b"\xff")
    with pytest.raises(Damaged, match=f"{first.name}: .* between here and .*{second.name}.* at byte {last}"):
        lives.read()
