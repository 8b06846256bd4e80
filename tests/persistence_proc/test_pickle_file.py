"""Map files: plain pickles to everybody else, checked byte for byte by us."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from persistence_proc.paths import current_path, previous_path
from persistence_proc.pickle_file import (
    SLICE,
    SYNC_EVERY,
    TRAILER_BYTES,
    LoadedMap,
    SavedFile,
    Trailer,
    load_map,
    save_map,
)
from protocol.disk import Disk
from protocol.errors import Damaged
from protocol.keys import decode_key, encode_key
from protocol.records import Position, Side

STORE = b"s" * 16
KEYS = ["", "BTC/USDT", "ü" * 200, 0, 255, 256, -1, 2**31, -(2**70), 10**700, b"", b"x" * 300,
        (), ("a",), ("a", 1), ("a", 1, b"c"), ("a", ("b", ()), 2, 3, -4)]  # fmt: skip


def dumped(data: dict[object, object]) -> dict[bytes, bytes]:
    return {encode_key(key): pickle.dumps(value, 5) for key, value in data.items()}


def save(folder: Path, items: dict[bytes, bytes], lsn: int = 7, name: str = "m") -> SavedFile:
    trailer = Trailer(STORE, "bot", name, 3, lsn)
    return save_map(Disk(), str(folder), name, items.items(), len(items), trailer, before_rename=lambda: None)


def load(folder: Path, name: str = "m") -> LoadedMap:
    return load_map(Disk(), current_path(str(folder), name))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000])
def test_a_value_of_any_size_comes_back_byte_for_byte(tmp_path: Path, size: int) -> None:
    items = {encode_key("k"): bytes(size)}
    saved = save(tmp_path, items)
    loaded = load(tmp_path)
    assert loaded == LoadedMap(Trailer(STORE, "bot", "m", 3, 7), items, saved.crc)
    assert os.path.getsize(current_path(str(tmp_path), "m")) == saved.size


def test_every_kind_of_key_comes_back_in_order(tmp_path: Path) -> None:
    data: dict[object, object] = {key: index for index, key in enumerate(KEYS)}
    save(tmp_path, dumped(data))
    assert [decode_key(key) for key in load(tmp_path).items] == KEYS
    with open(current_path(str(tmp_path), "m"), "rb") as file:
        assert list(pickle.load(file).items()) == list(data.items())


@pytest.mark.parametrize("count", [0, 1, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE])
def test_slices_join_without_a_seam(tmp_path: Path, count: int) -> None:
    items = dumped({f"key{n}": n for n in range(count)})
    save(tmp_path, items)
    assert list(load(tmp_path).items.items()) == list(items.items())


def test_pickle_load_in_a_plain_python_reads_the_file(tmp_path: Path) -> None:
    position = Position(symbol="BTC/USDT", side=Side.LONG, quantity=Decimal("0.5"), entry_price=Decimal(60000))
    save(tmp_path, dumped({"BTC/USDT": position, "note": {"a": [1, 2]}}))
    program = (
        "import pickle, sys\n"
        "data = pickle.load(open(sys.argv[1], 'rb'))\n"
        "assert type(data) is dict and list(data) == ['BTC/USDT', 'note']\n"
        "print(data['BTC/USDT'].quantity, data['note'])\n"
        "assert not any(m.startswith(('persistence_proc', 'strategy_proc')) for m in sys.modules)\n"
    )
    path = current_path(str(tmp_path), "m")
    out = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert out.stdout == "0.5 {'a': [1, 2]}\n"


def test_loading_runs_no_code_from_the_file(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> object:
            return os._exit, (9,)

    items = {encode_key("k"): pickle.dumps(Bomb())}
    save(tmp_path, items)
    assert load(tmp_path).items == items
    Path(current_path(str(tmp_path), "m")).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(Damaged):
        load(tmp_path)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, dumped({"a": 1, ("b", 2): "x" * 300}))
    path = Path(current_path(str(tmp_path), "m"))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        with pytest.raises(Damaged, match=r"m\.pkl"):
            load(tmp_path)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, dumped({"a": 1}))
    path = Path(current_path(str(tmp_path), "m"))
    whole = path.read_bytes()
    assert len(whole) > TRAILER_BYTES
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            load(tmp_path)


def test_a_plain_pickle_of_somebody_else_is_no_map_file(tmp_path: Path) -> None:
    Path(current_path(str(tmp_path), "m")).write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(Damaged, match="not a map file"):
        load(tmp_path)


def test_the_generation_before_is_kept(tmp_path: Path) -> None:
    for lsn in (1, 2, 3):
        save(tmp_path, dumped({"lsn": lsn}), lsn)
    previous = load_map(Disk(), previous_path(str(tmp_path), "m"))
    assert (load(tmp_path).trailer.lsn, previous.trailer.lsn) == (3, 2)
    assert sorted(os.listdir(tmp_path)) == ["m.pkl", "m.prev.pkl"]


def test_a_freshly_kept_generation_that_is_still_the_same_file_does_no_harm(tmp_path: Path) -> None:
    save(tmp_path, dumped({"lsn": 1}), 1)
    os.link(current_path(str(tmp_path), "m"), previous_path(str(tmp_path), "m"))
    save(tmp_path, dumped({"lsn": 2}), 2)
    assert load_map(Disk(), previous_path(str(tmp_path), "m")).trailer.lsn == 1
    assert sorted(os.listdir(tmp_path)) == ["m.pkl", "m.prev.pkl"]


class CountingDisk(Disk):
    """Knows how many written bytes were left to a sync at most."""

    def __init__(self) -> None:
        self.unsynced = self.most = 0

    def write(self, fd: int, data: bytes | memoryview) -> None:
        self.unsynced += len(data)
        self.most = max(self.most, self.unsynced)
        super().write(fd, data)

    def fdatasync(self, fd: int) -> None:
        self.unsynced = 0
        super().fdatasync(fd)


def test_a_large_file_leaves_little_to_any_sync(tmp_path: Path) -> None:
    disk, items = CountingDisk(), {encode_key(n): bytes(1_000) for n in range(5 * SLICE)}
    trailer = Trailer(STORE, "bot", "m", 3, 7)
    save_map(disk, str(tmp_path), "m", items.items(), len(items), trailer, before_rename=lambda: None)
    assert disk.most < SYNC_EVERY + 2 * SLICE * 1_000
    assert load(tmp_path).items == items


class Stopped(BaseException):
    pass


class StoppingDisk(Disk):
    """Stops, as a killed process does, before the n-th call that changes names."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def _count(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise Stopped

    def replace(self, source: str, target: str) -> None:
        self._count()
        super().replace(source, target)

    def link_or_copy(self, source: str, target: str) -> None:
        self._count()
        super().link_or_copy(source, target)

    def unlink(self, path: str) -> None:
        self._count()
        super().unlink(path)


@pytest.mark.parametrize("calls", range(6))
def test_there_is_a_whole_current_file_at_every_moment(tmp_path: Path, calls: int) -> None:
    for lsn in (1, 2):
        save(tmp_path, dumped({"lsn": lsn}), lsn)
    try:
        trailer = Trailer(STORE, "bot", "m", 3, 3)
        items = dumped({"lsn": 3})
        save_map(StoppingDisk(calls), str(tmp_path), "m", items.items(), 1, trailer, before_rename=lambda: None)
    except Stopped:
        pass
    assert load(tmp_path).trailer.lsn in (2, 3)
    assert load_map(Disk(), previous_path(str(tmp_path), "m")).trailer.lsn in (1, 2)


def test_nothing_is_renamed_before_the_journal_is_durable(tmp_path: Path) -> None:
    save(tmp_path, dumped({"lsn": 1}), 1)
    seen: list[int] = []

    def durable() -> None:
        seen.append(load(tmp_path).trailer.lsn)
        raise OSError("the journal failed")

    with pytest.raises(OSError, match="the journal failed"):
        save_map(
            Disk(), str(tmp_path), "m", dumped({"lsn": 2}).items(), 1, Trailer(STORE, "bot", "m", 3, 2),
            before_rename=durable,
        )  # fmt: skip
    assert seen == [1]
    assert os.listdir(tmp_path) == ["m.pkl"]
    assert load(tmp_path).trailer.lsn == 1


def test_a_map_that_changes_while_it_is_saved_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="changed while it was saved"):
        save_map(
            Disk(), str(tmp_path), "m", [(b"K\1", b"v")], 2, Trailer(STORE, "bot", "m", 3, 2),
            before_rename=lambda: None,
        )  # fmt: skip
    assert os.listdir(tmp_path) == []
