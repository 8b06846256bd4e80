"""Recovery: the table walked case by case, accidents with real files, and a kill at every step."""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from persistence_proc import journal as journal_module
from persistence_proc.journal import Books, Commit, Generation, Journal, NamespaceEntry, Section
from persistence_proc.journal_format import segment_name
from persistence_proc.paths import Paths
from persistence_proc.pickle_file import Trailer, save_map
from persistence_proc.recovery import Recovered, recover
from persistence_proc.recovery_table import TABLE, Action, Case, FileState, JournalState, Life, decide
from protocol.changes import DELETE, DROP, INSERT, REPLACE, Change, apply_change
from protocol.disk import Disk
from protocol.errors import Damaged, ForeignStore, StateRefused, StateWentBack
from protocol.keys import encode_key
from tests.lab.memory_disk import MemoryDisk, Moment

MapKey = tuple[str, str]


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 8192)


# The table


ALL_CASES = [Case(*c) for c in itertools.product(JournalState, Life, FileState, FileState)]
LOADING = {Action.LOAD_CURRENT, Action.LOAD_PREVIOUS, Action.REBUILD}


def test_every_case_has_an_action_and_every_row_a_case() -> None:
    deciding = [next(row for row in TABLE if row.fits(case)) for case in ALL_CASES]
    assert set(deciding) == set(TABLE)


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda c: "-".join(part.name for part in c))
def test_the_table_keeps_its_promises(case: Case) -> None:
    action = decide(case)
    files = {case.current, case.previous}
    readable = case.journal in (JournalState.CLEAN, JournalState.TORN, JournalState.HOLED)
    if action in LOADING:
        assert readable, "nothing is loaded without a journal that vouches for it"
        assert case.life is not Life.UNKNOWN
    if action is Action.LOAD_CURRENT:
        assert case.current is FileState.GOOD
    if action is Action.LOAD_PREVIOUS:
        assert case.previous is FileState.GOOD
        assert case.current is not FileState.GOOD
    if action is Action.REBUILD:
        assert case.life is Life.WHOLE
        assert FileState.GOOD not in files
    if action is Action.NOTHING:
        assert files == {FileState.MISSING}, "a file is never passed over in silence"
    if case.life is Life.PART and FileState.GOOD not in files:
        assert action in (Action.REFUSE_NAMESPACE, Action.REFUSE_START), "never empty, never a mix"
        assert action is Action.REFUSE_START or readable
    if FileState.AHEAD in files or case.journal in (JournalState.LOST, JournalState.BROKEN):
        assert action is Action.REFUSE_START
    elif readable and case.life is not Life.UNKNOWN and FileState.GOOD in files:
        assert action in LOADING


# A store that is written the way the server writes it


def put(name: str, key: str, value: object, op: int = INSERT) -> Change:
    return op, name, encode_key(key), pickle.dumps(value) if op != DELETE else b""


class Store:
    """A data directory, and the state that must come back from it."""

    def __init__(self, folder: Path) -> None:
        self.dir = str(folder / "state")
        self.paths = Paths(self.dir)
        self.disk = Disk()
        self.journal: Journal
        self.books: Books
        self.items: dict[MapKey, dict[bytes, bytes]]
        self.store_id = b""
        self.begin()

    def begin(self) -> Recovered:
        recovered = recover(self.disk, self.dir)
        self.journal, self.store_id, self.books = recovered.journal, recovered.store_id, Books()
        self.books.namespaces = recovered.namespaces
        self.books.maps = {key: one.entry for key, one in recovered.maps.items()} | recovered.refused_maps
        self.books.dropped.extend(recovered.dropped)
        self.items = {key: dict(one.items) for key, one in recovered.maps.items()}
        return recovered

    def commit(self, *changes: Change, namespace: str = "bot") -> int:
        lsn = self.journal.last_lsn + 1
        old = self.books.namespaces.get(namespace) or NamespaceEntry(namespace)
        entry = NamespaceEntry(namespace, epoch=1, applied=old.applied + 1)
        frame = Commit([Section(entry, list(changes))])
        self.journal.append(lsn, frame)
        self.journal.sync()
        self.books.apply(lsn, frame)
        for op, name, key, value in changes:
            apply_change(self.items.setdefault((namespace, name), {}), op, key, value)
            if op == DROP:
                del self.items[namespace, name]
        return lsn

    def save(self, name: str, namespace: str = "bot") -> None:
        entry, items = self.books.maps[namespace, name], self.items[namespace, name]
        self.disk.mkdir(self.paths.namespace(namespace))
        lsn = self.journal.last_lsn
        trailer = Trailer(self.store_id, namespace, name, entry.incarnation, lsn)
        folder = self.paths.namespace(namespace)
        saved = save_map(self.disk, folder, name, items.items(), len(items), trailer, before_rename=lambda: None)
        entry.previous, entry.current = entry.current, Generation(lsn, saved.crc)

    def rotate(self) -> None:
        self.journal.rotate(self.journal.last_lsn + 1, self.books.catalog(self.store_id))

    def trim(self) -> None:
        self.rotate()
        self.journal.delete_before(self.journal.last_lsn)

    def file(self, name: str, namespace: str = "bot") -> Path:
        return Path(self.paths.current(namespace, name))

    def previous(self, name: str, namespace: str = "bot") -> Path:
        return Path(self.paths.previous(namespace, name))

    def segment(self, first: int) -> Path:
        return Path(self.paths.journal, segment_name(first))

    def segment_lsns(self) -> list[int]:
        return [first for first, _ in self.journal.segments]

    def quarantined(self) -> list[str]:
        folder = Path(self.paths.quarantine)
        return sorted(p.name for p in folder.iterdir()) if folder.exists() else []

    def recovered_items(self) -> dict[MapKey, list[tuple[bytes, bytes]]]:
        return {key: list(one.items.items()) for key, one in recover(self.disk, self.dir).maps.items()}

    def expected_items(self) -> dict[MapKey, list[tuple[bytes, bytes]]]:
        return {key: list(items.items()) for key, items in self.items.items()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def lived_in(store: Store) -> Store:
    """Two maps of one namespace and one of another; files of two generations; frames that are in no file yet."""
    store.commit(put("positions", "BTC", 1), put("orders", "o1", 1))
    store.commit(put("notes", "n", 1), namespace="other")
    store.save("positions")
    store.commit(put("positions", "ETH", 2), put("orders", "o2", 2))
    store.save("positions")
    store.save("orders")
    store.rotate()
    store.commit(put("positions", "BTC", 3, REPLACE), put("orders", "o1", None, DELETE))
    store.commit(put("positions", "BTC", 4), put("orders", "o3", 3))
    return store


def flip(path: Path, at: int = 20) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def idle_and_trimmed(store: Store) -> None:
    """Map `idle` has both generations on disk, and the journal has forgotten its changes."""
    store.commit(put("idle", "k", 1), put("busy", "k", 1))
    for name in ("idle", "busy", "idle", "busy"):
        store.save(name)
    store.trim()
    store.commit(put("busy", "k", 2, REPLACE))


# Nothing wrong


def test_a_new_directory_becomes_an_empty_store(tmp_path: Path) -> None:
    recovered = recover(Disk(), str(tmp_path / "state"))
    assert (recovered.maps, recovered.refused, recovered.next_lsn) == ({}, {}, 2)
    assert recover(Disk(), str(tmp_path / "state")).store_id == recovered.store_id


def test_everything_committed_comes_back_in_order(lived_in: Store) -> None:
    recovered = recover(lived_in.disk, lived_in.dir)
    items = {key: list(one.items.items()) for key, one in recovered.maps.items()}
    assert items == lived_in.expected_items()
    assert {name: entry.applied for name, entry in recovered.namespaces.items()} == {"bot": 4, "other": 1}
    assert not any(one.previous_used for one in recovered.maps.values())
    assert (recovered.refused, lived_in.quarantined()) == ({}, [])


def test_what_was_replayed_is_in_new_files_when_recovery_ends(lived_in: Store) -> None:
    recovered = recover(lived_in.disk, lived_in.dir)
    data = pickle.loads(lived_in.file("positions").read_bytes())
    assert data == {"ETH": 2, "BTC": 4}
    assert list(data) == ["ETH", "BTC"]
    assert recovered.maps["bot", "positions"].entry.current == Generation(
        recovered.next_lsn - 2, int.from_bytes(lived_in.file("positions").read_bytes()[-4:], "little")
    )


def test_recovery_run_twice_equals_recovery_run_once(lived_in: Store) -> None:
    once = lived_in.recovered_items()
    assert lived_in.recovered_items() == once == lived_in.expected_items()


def test_progress_ends_at_a_hundred_and_never_goes_back(lived_in: Store) -> None:
    said: list[int] = []
    recover(lived_in.disk, lived_in.dir, said.append)
    assert said == sorted(said)
    assert said[-1] == 100


def test_a_dropped_map_stays_dropped_and_its_file_is_set_aside(lived_in: Store) -> None:
    lived_in.commit((DROP, "positions", b"", b""))
    assert lived_in.recovered_items() == lived_in.expected_items()
    assert lived_in.quarantined() == ["bot-positions.pkl.1", "bot-positions.prev.pkl.1"]


def test_a_map_dropped_and_made_anew_has_nothing_of_the_former(lived_in: Store) -> None:
    lived_in.commit((DROP, "positions", b"", b""), put("positions", "SOL", 9))
    lived_in.commit(put("positions", "ADA", 9))
    recovered = recover(lived_in.disk, lived_in.dir)
    assert list(recovered.maps["bot", "positions"].items) == [encode_key("SOL"), encode_key("ADA")]
    assert not recovered.maps["bot", "positions"].previous_used
    assert pickle.loads(lived_in.file("positions").read_bytes()) == {"SOL": 9, "ADA": 9}


# Damaged, missing and foreign map files


@pytest.mark.parametrize("harm", [flip, Path.unlink], ids=["damaged", "missing"])
def test_the_generation_before_stands_in_and_is_reported(lived_in: Store, harm: Callable[[Path], None]) -> None:
    harm(lived_in.file("positions"))
    recovered = recover(lived_in.disk, lived_in.dir)
    one = recovered.maps["bot", "positions"]
    assert list(one.items.items()) == lived_in.expected_items()["bot", "positions"]
    assert one.previous_used
    assert any("degraded" in note for note in recovered.notes)
    assert lived_in.quarantined() == (["bot-positions.pkl.1"] if harm is flip else [])


def test_a_damaged_previous_generation_is_set_aside_and_made_anew(lived_in: Store) -> None:
    flip(lived_in.previous("positions"))
    one = recover(lived_in.disk, lived_in.dir).maps["bot", "positions"]
    assert list(one.items.items()) == lived_in.expected_items()["bot", "positions"]
    assert not one.previous_used
    assert lived_in.quarantined() == ["bot-positions.prev.pkl.1"]


def test_a_map_whose_whole_life_is_in_the_journal_survives_the_loss_of_both_files(lived_in: Store) -> None:
    flip(lived_in.file("positions"))
    lived_in.previous("positions").unlink()
    one = recover(lived_in.disk, lived_in.dir).maps["bot", "positions"]
    assert list(one.items.items()) == lived_in.expected_items()["bot", "positions"]
    assert one.previous_used


def test_both_generations_of_an_idle_map_deleted_after_trim_are_refused(store: Store) -> None:
    idle_and_trimmed(store)
    store.commit(put("notes", "n", 1), namespace="other")
    store.file("idle").unlink()
    store.previous("idle").unlink()
    for _ in range(2):  # the refusal outlives a restart, and a trimmed journal
        recovered = store.begin()
        assert list(recovered.refused) == ["bot"]
        assert "idle.pkl is missing" in recovered.refused["bot"]
        assert "outlive accept bot" in recovered.refused["bot"]
        assert list(recovered.maps) == [("other", "notes")]
        assert recovered.namespaces["bot"].applied == 2
        store.trim()


def test_a_refused_namespace_is_served_again_when_its_file_is_put_back(store: Store, tmp_path: Path) -> None:
    idle_and_trimmed(store)
    expected = store.expected_items()
    backup = shutil.copy(store.file("idle"), tmp_path / "backup")
    for path in (store.file("idle"), store.previous("idle")):
        flip(path)
    assert list(store.begin().refused) == ["bot"]
    assert (store.file("idle").exists(), store.quarantined()) == (True, [])
    store.trim()
    shutil.copy(backup, store.file("idle"))
    assert store.recovered_items() == expected


def test_an_old_file_copied_into_place_is_not_taken_for_the_current_one(store: Store, tmp_path: Path) -> None:
    store.commit(put("m", "k", 1))
    store.save("m")
    old = shutil.copy(store.file("m"), tmp_path / "old")
    for value in (2, 3):
        store.commit(put("m", "k", value, REPLACE))
        store.save("m")
    store.rotate()
    store.commit(put("m", "x", 1))
    shutil.copy(old, store.file("m"))
    recovered = recover(store.disk, store.dir)
    assert list(recovered.maps["bot", "m"].items.items()) == store.expected_items()["bot", "m"]
    assert recovered.maps["bot", "m"].previous_used
    assert store.quarantined() == ["bot-m.pkl.1"]


def test_an_old_file_in_both_places_is_refused_once_the_journal_is_trimmed(store: Store, tmp_path: Path) -> None:
    store.commit(put("idle", "k", 0), put("busy", "k", 0))
    store.save("idle")
    old = shutil.copy(store.file("idle"), tmp_path / "old")
    idle_and_trimmed(store)
    for path in (store.file("idle"), store.previous("idle")):
        shutil.copy(old, path)
    recovered = recover(store.disk, store.dir)
    assert "not what was saved there" in recovered.refused["bot"]


def test_a_file_of_another_map_is_foreign(lived_in: Store) -> None:
    shutil.copy(lived_in.file("orders"), lived_in.file("positions"))
    recovered = recover(lived_in.disk, lived_in.dir)
    assert list(recovered.maps["bot", "positions"].items.items()) == lived_in.expected_items()["bot", "positions"]
    assert any("is a file of bot/orders" in note for note in recovered.notes)


def test_a_file_of_another_store_is_foreign(lived_in: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    other = Store(tmp_path / "elsewhere")
    other.commit(put("positions", "BTC", 99))
    other.save("positions")
    shutil.copy(other.file("positions"), lived_in.file("positions"))
    shutil.copy(other.file("positions"), lived_in.file("unheard_of"))
    assert lived_in.recovered_items() == lived_in.expected_items()
    assert lived_in.quarantined() == ["bot-positions.pkl.1", "bot-unheard_of.pkl.1"]


def test_a_renamed_namespace_is_neither_empty_nor_taken_over(store: Store) -> None:
    idle_and_trimmed(store)
    Path(store.paths.namespace("bot")).rename(store.paths.namespace("renamed"))
    recovered = recover(store.disk, store.dir)
    assert list(recovered.refused) == ["bot"]
    assert recovered.maps == {}
    assert "renamed-idle.pkl.1" in store.quarantined()


# A damaged journal


def tail_of(store: Store) -> tuple[Path, int]:
    contents = journal_module.read_journal(store.disk, store.paths.journal)
    assert contents is not None
    path = Path(contents.spans[-1].path)
    return path, len(path.read_bytes().rstrip(b"\0"))


def test_a_torn_tail_is_quarantined_and_the_rest_is_served(lived_in: Store) -> None:
    before = lived_in.expected_items()
    lived_in.commit(put("positions", "X", bytes(100)))
    path, end = tail_of(lived_in)
    data = path.read_bytes()
    path.write_bytes(data[: end - 40] + bytes(len(data) - end + 40))
    recovered = recover(lived_in.disk, lived_in.dir)
    assert {key: list(one.items.items()) for key, one in recovered.maps.items()} == before
    (torn,) = lived_in.quarantined()
    assert torn.startswith(path.name)
    assert torn.endswith(".torn")
    assert path.read_bytes().ljust(end, b"\0")[: end - 40] == data[: end - 40]
    assert lived_in.recovered_items() == before
    assert lived_in.quarantined() == [torn]


def test_damage_before_the_tail_refuses_to_start_and_touches_nothing(lived_in: Store) -> None:
    path, end = tail_of(lived_in)
    flip(path, path.read_bytes().rindex(b"commit", 0, end - 150))
    before = snapshot(lived_in)
    with pytest.raises(Damaged, match="docs/recovery") as caught:
        recover(lived_in.disk, lived_in.dir)
    assert caught.value.path == str(path)
    assert snapshot(lived_in) == before


def test_a_damaged_older_segment_refuses_to_start_if_a_map_needs_it(lived_in: Store) -> None:
    flip(lived_in.segment(1), 40)
    with pytest.raises(Damaged, match="first frame"):
        recover(lived_in.disk, lived_in.dir)


def test_a_damaged_older_segment_that_nothing_needs_is_set_aside(lived_in: Store) -> None:
    lived_in.save("notes", "other")
    lived_in.rotate()
    flip(lived_in.segment(1), 40)
    assert lived_in.recovered_items() == lived_in.expected_items()
    assert lived_in.quarantined() == [f"journal-{segment_name(1)}.1"]


def test_a_missing_segment_that_is_needed_refuses_to_start(lived_in: Store) -> None:
    second = lived_in.journal.segments[-1][0]
    lived_in.rotate()
    lived_in.segment(second).unlink()
    with pytest.raises(Damaged, match="missing"):
        recover(lived_in.disk, lived_in.dir)


def test_a_missing_newest_segment_is_noticed_by_the_files_beyond_it(lived_in: Store) -> None:
    lived_in.save("positions")
    lived_in.journal.close()
    Path(lived_in.journal.segments[-1][1]).unlink()
    with pytest.raises(StateWentBack, match="beyond the journal's end"):
        recover(lived_in.disk, lived_in.dir)


def test_a_store_without_a_segment_refuses_to_start(lived_in: Store) -> None:
    shutil.rmtree(lived_in.paths.journal)
    with pytest.raises(StateRefused, match=r"map files, but no journal"):
        recover(lived_in.disk, lived_in.dir)
    shutil.rmtree(lived_in.paths.namespace("bot"))
    with pytest.raises(StateRefused, match="no journal segment, though STORE is there"):
        recover(lived_in.disk, lived_in.dir)


def test_map_files_without_store_and_journal_refuse_to_start(lived_in: Store) -> None:
    shutil.rmtree(lived_in.paths.journal)
    Path(lived_in.paths.store).unlink()
    with pytest.raises(StateRefused, match="no journal that knows them"):
        recover(lived_in.disk, lived_in.dir)


def test_a_missing_store_file_is_written_again_from_the_journal(lived_in: Store) -> None:
    before = Path(lived_in.paths.store).read_bytes()
    Path(lived_in.paths.store).unlink()
    assert lived_in.recovered_items() == lived_in.expected_items()
    assert Path(lived_in.paths.store).read_bytes() == before


def test_a_damaged_store_file_is_named(lived_in: Store) -> None:
    flip(Path(lived_in.paths.store))
    with pytest.raises(Damaged, match="STORE: the store's id fails its check"):
        recover(lived_in.disk, lived_in.dir)


def test_one_segment_of_another_store_is_named(lived_in: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    other = Store(tmp_path / "elsewhere")
    while other.journal.last_lsn < lived_in.segment_lsns()[-1] - 1:
        other.commit(put("m", "k", 1))
    other.rotate()
    newest = lived_in.segment(lived_in.segment_lsns()[-1])
    shutil.copy(other.segment(other.segment_lsns()[-1]), newest)
    with pytest.raises(ForeignStore, match=f"{newest} is a segment of another store than .*docs/recovery.md"):
        recover(lived_in.disk, lived_in.dir)


def test_the_journal_of_another_store_is_foreign(lived_in: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    other = Store(tmp_path / "elsewhere")
    shutil.copy(other.paths.store, lived_in.paths.store)
    with pytest.raises(ForeignStore, match="another store"):
        recover(lived_in.disk, lived_in.dir)


# Killed at every step


class Killed(BaseException):
    pass


class DyingDisk(Disk):
    """The process is killed instead of its n-th call that changes something."""

    def __init__(self, calls: int) -> None:
        self.calls = calls


def _dying(name: str) -> Callable[..., object]:
    original = getattr(Disk, name)

    def call(self: DyingDisk, *args: object) -> object:
        self.calls -= 1
        if self.calls < 0:
            raise Killed
        return original(self, *args)

    return call


for _name in ("pwrite", "write", "replace", "link_or_copy", "unlink", "mkdir", "fsync", "fsync_dir"):
    setattr(DyingDisk, _name, _dying(_name))


def lives(store: Store) -> Iterator[int]:
    """Run recovery on `store` again and again, killed one step later each time, until it gets through."""
    for calls in itertools.count():
        try:
            recover(DyingDisk(calls), store.dir)
        except Killed:
            yield calls
        else:
            return


def snapshot(store: Store) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in Path(store.dir).rglob("*") if p.is_file()}


class RecordingDisk(Disk):
    """Remembers what was synced, and what of it before the first write outside the journal."""

    def __init__(self, journal: str) -> None:
        self.journal = journal
        self.synced: list[str] = []
        self.synced_before_first_write: list[str] | None = None

    def sync_file(self, path: str) -> None:
        self.synced.append(path)
        super().sync_file(path)

    def fsync_dir(self, path: str) -> None:
        self.synced.append(path)
        super().fsync_dir(path)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if flags & os.O_CREAT and not path.startswith(self.journal) and self.synced_before_first_write is None:
            self.synced_before_first_write = list(self.synced)
        return super().open(path, flags, mode)


def test_the_journal_is_synced_before_anything_derived_from_it_is_written(lived_in: Store) -> None:
    flip(lived_in.file("positions"))
    *older, newest = (path for _, path in lived_in.journal.segments)
    inode = os.stat(newest).st_ino
    disk = RecordingDisk(lived_in.paths.journal)
    recover(disk, lived_in.dir)
    first = [*older, lived_in.paths.journal]
    assert disk.synced_before_first_write[: len(first)] == first
    assert os.stat(newest).st_ino != inode, "the newest segment, whose sync may have failed, was not written anew"


def test_the_files_that_the_new_catalog_counts_on_are_synced_with_their_directory(lived_in: Store) -> None:
    """A save that was killed before its directory's sync left a name that a power cut takes back."""
    disk = RecordingDisk(lived_in.paths.journal)
    recover(disk, lived_in.dir)
    file = lived_in.file("positions")
    assert {str(file), str(file.parent)} <= set(disk.synced_before_first_write)


def test_a_frame_whose_sync_failed_counts_only_when_it_was_written_anew() -> None:
    """Read back after the kill, lost in the power cut: a map file would hold more than the journal."""
    disk = MemoryDisk()
    journal = recover(disk, "/state").journal
    disk.on_call = _failing_fdatasync
    entry = NamespaceEntry("bot", epoch=1, applied=1)
    journal.append(2, Commit([Section(entry, [put("a", "X", b"v")])]))
    with pytest.raises(OSError, match="Input/output"):
        journal.sync()
    after = disk.moment().after_kill()
    moments: list[Moment] = []
    after.on_call = lambda name, path: moments.append(after.moment())
    recover(after, "/state")
    moments.append(after.moment())
    for left in (left for moment in moments for left in moment.after_power_cuts(10, random.Random(1))):
        recovered = recover(left, "/state")  # never "beyond the journal's end"
    assert recovered.namespaces["bot"].applied == 1


def _failing_fdatasync(name: str, path: str) -> None:
    if name == "fdatasync":
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_recovery_killed_at_any_step_and_run_again_gives_the_same(lived_in: Store, tmp_path: Path) -> None:
    flip(lived_in.file("positions"))
    path, end = tail_of(lived_in)
    data = path.read_bytes()
    path.write_bytes(data[:end] + b"torn" * 8 + data[end + 32 :])
    start = str(tmp_path / "start")
    shutil.copytree(lived_in.dir, start)
    steps = 0
    for steps in lives(lived_in):
        again = tmp_path / f"again{steps}"
        shutil.copytree(lived_in.dir, again)
        maps = recover(Disk(), str(again)).maps
        assert {key: list(one.items.items()) for key, one in maps.items()} == lived_in.expected_items()
        shutil.rmtree(lived_in.dir)
        shutil.copytree(start, lived_in.dir)
    assert steps > 20


def test_killed_lives_of_recovery_do_not_add_up_to_anything_else(lived_in: Store) -> None:
    flip(lived_in.file("positions"))
    for _ in lives(lived_in):
        pass
    assert lived_in.recovered_items() == lived_in.expected_items()


def test_a_first_start_killed_at_any_step_is_no_lost_store(tmp_path: Path) -> None:
    for calls in itertools.count():
        data_dir = str(tmp_path / str(calls))
        try:
            recover(DyingDisk(calls), data_dir)
        except Killed:
            assert recover(Disk(), data_dir).maps == {}
        else:
            assert calls > 5
            return
