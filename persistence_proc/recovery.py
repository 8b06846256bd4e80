"""Bring back what was acknowledged, or say by name what can't be. What to do when is in `recovery_table`.

* Nothing is derived from what was read before that is durable: a file must never hold more than the journal, and the
  new catalog must not count on a file that a power cut could take back.
* Nothing of a former life is appended to. What was replayed goes to new files, then a new segment begins.
* Killed anywhere and run again, the result is the same: files are labelled with the LSN that they hold, and the new
  segment, which sums it all up, comes last.
* What can't be read is moved to the quarantine only once something stands in its place; else it stays where it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from persistence_proc.catalog import Catalog, Commit, Generation, MapEntry, MapKey, NamespaceEntry
from persistence_proc.journal import Journal, JournalContents, read_journal
from persistence_proc.paths import STORE_ID_BYTES, TEMPORARY_SUFFIX, Paths, decode_store, encode_store
from persistence_proc.pickle_file import Trailer, load_map, save_map
from persistence_proc.quarantine import Quarantine
from persistence_proc.recovery_table import Action, Case, FileState, JournalState, Life, decide
from persistence_proc.survey import FoundMap, Knowledge, map_files, read_knowledge, survey
from protocol.changes import DROP, apply_change
from protocol.disk import Disk
from protocol.errors import Damaged, ForeignStore, StateWentBack

_RESTORE = "Restore the data directory from one backup as a whole; docs/recovery.md says more."
_REPLAY_STEP = 256  # frames between two words about progress


class RecoveredMap(msgspec.Struct):
    """One map as it was when the last commit became durable."""

    entry: MapEntry
    items: dict[bytes, bytes]
    previous_used: bool = False
    """The current file could not be used: an older generation, or the journal alone, stood in."""
    needs_save: bool = False
    """It has only one whole generation on disk."""


class Recovered(msgspec.Struct):
    """Everything that the server begins with."""

    store_id: bytes
    next_lsn: int
    namespaces: dict[str, NamespaceEntry]
    """Of all namespaces, also refused ones."""
    maps: dict[MapKey, RecoveredMap]
    refused: dict[str, str]
    """Namespace -> why it can't be served."""
    refused_maps: dict[MapKey, MapEntry]
    """The maps of refused namespaces: they belong into every catalog, so that the refusal outlives a restart."""
    dropped: list[tuple[str, str, int]]
    journal: Journal
    notes: list[str]
    """For the log: what was found that should not be, and what was done about it."""


class Seen(NamedTuple):
    """A data directory that was only looked at. `maps` lacks what recovery would refuse."""

    known: Knowledge
    found: list[FoundMap]
    maps: dict[MapKey, RecoveredMap]
    problem: str
    """What is wrong with STORE; empty if nothing is."""


def recover(
    disk: Disk,
    data_dir: str,
    progress: Callable[[int], None] = lambda percent: None,
    accepted: frozenset[str] = frozenset(),
) -> Recovered:
    """Recover a data directory that this process has locked, or make a new one. `progress` is told per cent.

    A person has `accepted` that namespaces go on without the maps for which they would be refused.
    Raises `StateRefused` (mostly `Damaged`) when nothing can be served, OSError when the disk fails.
    """
    paths = Paths(data_dir)
    disk.mkdir(data_dir)
    contents = read_journal(disk, paths.journal)
    if contents is None:
        return _new_store(disk, paths)
    return _Recovery(disk, paths, contents, progress).run(accepted)


def look(disk: Disk, data_dir: str) -> Seen | None:
    """What `recover` would find and load, for whoever only wants to see it: nothing is written. None without journal.

    Raises `StateRefused` when the journal can't be read, or is that of another store.
    """
    paths = Paths(data_dir)
    contents = read_journal(disk, paths.journal)
    if contents is None:
        return None
    return _Recovery(disk, paths, contents, lambda percent: None).look()


def _new_store(disk: Disk, paths: Paths) -> Recovered:
    """A store that is not there yet. Its STORE comes last: with it, a missing journal is a loss."""
    state = JournalState.LOST if disk.exists(paths.store) else JournalState.NONE
    files = [paths.current(*key) for key in map_files(disk, paths)]
    case = Case(state, Life.UNKNOWN, FileState.DAMAGED if files else FileState.MISSING, FileState.MISSING)
    if decide(case) is Action.REFUSE_START:
        what = "map files, but no journal that knows them" if files else "no journal segment, though STORE is there"
        raise Damaged(files[0] if files else paths.journal, 0, f"{what}:", _RESTORE)
    store_id = os.urandom(STORE_ID_BYTES)
    disk.fsync_dir(os.path.dirname(os.path.abspath(paths.data_dir)))
    journal = Journal.start(disk, paths.journal, store_id, Catalog(store_id, [], [], []), 1)
    disk.replace_file(paths.store, encode_store(store_id))
    return Recovered(store_id, 2, {}, {}, {}, {}, [], journal, [f"a new store in {paths.data_dir}"])


class _Recovery:
    """One recovery of a store that has a journal."""

    def __init__(self, disk: Disk, paths: Paths, contents: JournalContents, progress: Callable[[int], None]) -> None:
        self.disk, self.paths, self.contents, self.progress = disk, paths, contents, progress
        self.notes: list[str] = []
        self.quarantine = Quarantine(disk, paths, self.notes)
        self.known: Knowledge = read_knowledge(contents)

    def run(self, accepted: frozenset[str]) -> Recovered:
        """All steps, in the order that makes each safe to repeat."""
        store_missing = self._check_store()
        self._sync_journal()
        found = survey(self.disk, self.paths, self.known)
        self._refuse_start(found)
        self._sync_files(found)
        refused = self._refusals([one for one in found if one.key[0] not in accepted])
        maps = self._load(found)
        self._replay(maps)
        self._clear_temporaries()
        self.quarantine.keep_journal_damage(self.contents)
        for one in found:
            self.quarantine.keep_unused(one)
            if one.action is Action.REFUSE_NAMESPACE and one.key[0] in accepted:
                self._give_up(one)
        self._save(maps)
        if store_missing:
            self.disk.replace_file(self.paths.store, encode_store(self.known.store_id))
        journal = self._begin_segment()
        self.progress(100)
        books = self.known.books
        return Recovered(
            self.known.store_id, journal.last_lsn + 1, books.namespaces,
            {key: one for key, one in maps.items() if key[0] not in refused}, refused,
            {key: entry for key, entry in books.maps.items() if key[0] in refused},
            list(books.dropped), journal, self.notes,
        )  # fmt: skip

    # Looking

    def look(self) -> Seen:
        """Everything up to the first step that writes."""
        problem = ""
        try:
            self._check_store()
        except Damaged as damage:
            problem = str(damage)
        found = survey(self.disk, self.paths, self.known)
        maps = self._load(found)
        self._replay(maps)
        return Seen(self.known, found, maps, problem)

    def _check_store(self) -> bool:
        """Whether STORE is missing: the first start was killed before it, or a person deleted it."""
        path = self.paths.store
        if not self.disk.exists(path):
            self.notes.append(f"{path} was missing; the journal knows the store's id")
            return True
        if decode_store(path, self.disk.read_file(path)) != self.known.store_id:
            raise ForeignStore(f"{self.paths.journal} is the journal of another store than {path} says. {_RESTORE}")
        return False

    def _sync_journal(self) -> None:
        """A frame that a killed process wrote and never synced counts from here on, so it has to last.

        It stands in the newest segment, whose sync may have failed: then the kernel takes the frame for written, and
        another sync of that file does nothing. So the segment is written anew.
        """
        *older, newest = (span.path for span in self.contents.spans)
        for path in older:
            self.disk.sync_file(path)
        self.disk.replace_file(newest, self.disk.read_file(newest)[: self.contents.newest_bytes])

    def _sync_files(self, found: list[FoundMap]) -> None:
        """Likewise: a killed save may not have synced its name, nor a person the file that was put back."""
        folders = set()
        for file in (file for one in found for file in (one.current, one.previous)):
            if file.state is FileState.GOOD:
                self.disk.sync_file(file.path)
                folders.add(os.path.dirname(file.path))
        for folder in sorted(folders):
            self.disk.fsync_dir(folder)

    def _refuse_start(self, found: list[FoundMap]) -> None:
        for one in found:
            if one.action is not Action.REFUSE_START:
                continue
            if self.contents.damage is not None and FileState.AHEAD not in one.case:
                raise self.contents.damage
            raise StateWentBack(f"{one.problems}: a newer part of the journal is missing. {_RESTORE}")

    def _refusals(self, found: list[FoundMap]) -> dict[str, str]:
        refused: dict[str, str] = {}
        for one in found:
            if one.action is Action.REFUSE_NAMESPACE:
                reason = _refusal(one, self.known)
                namespace = one.key[0]
                refused[namespace] = f"{refused[namespace]} {reason}" if namespace in refused else reason
                self.notes.append(f"namespace {namespace} is refused: {reason}")
        return refused

    # Loading

    def _load(self, found: list[FoundMap]) -> dict[MapKey, RecoveredMap]:
        maps: dict[MapKey, RecoveredMap] = {}
        for index, one in enumerate(found):
            self.progress(50 * index // len(found))
            recovered = self._load_one(one)
            if recovered is not None:
                maps[one.key] = recovered
        return maps

    def _load_one(self, one: FoundMap) -> RecoveredMap | None:
        entry, action = one.entry, one.action
        if entry is None or action not in (Action.LOAD_CURRENT, Action.LOAD_PREVIOUS, Action.REBUILD):
            return None
        lost = entry.current is not None or FileState.DAMAGED in one.case
        degraded = action is Action.LOAD_PREVIOUS or (action is Action.REBUILD and lost)
        entry.current = one.current.generation if one.current.state is FileState.GOOD else None
        entry.previous = one.previous.generation if one.previous.state is FileState.GOOD else None
        base = {Action.LOAD_CURRENT: one.current, Action.LOAD_PREVIOUS: one.previous}.get(action)
        items = load_map(self.disk, base.path).items if base else {}
        if degraded:
            source = base.path if base else "the journal alone"
            self.notes.append(f"map {'/'.join(one.key)} comes from {source}, degraded: {one.problems or one.case}")
        return RecoveredMap(entry, items, previous_used=degraded)

    def _replay(self, maps: dict[MapKey, RecoveredMap]) -> None:
        """Apply to each map what is newer than its file. Its incarnation's first frame may clear the one before."""
        bases = {key: max(_held(one.entry), one.entry.incarnation - 1) for key, one in maps.items()}
        behind = [bases[key] for key, one in maps.items() if one.entry.last_change > bases[key]]
        start, end = min(behind, default=self.known.last_lsn), self.known.last_lsn
        for lsn, frame in self.contents.frames(above=start):
            if lsn % _REPLAY_STEP == 0:
                self.progress(50 + 40 * (lsn - start) // (end - start))
            if isinstance(frame, Commit):
                _apply(maps, bases, lsn, frame)

    # Writing

    def _clear_temporaries(self) -> None:
        """Unfinished files of a killed save: they never had a name."""
        for namespace in self.paths.namespaces(self.disk):
            folder = self.paths.namespace(namespace)
            for name in self.disk.listdir(folder):
                if name.endswith(TEMPORARY_SUFFIX):
                    self.disk.unlink(os.path.join(folder, name))

    def _give_up(self, one: FoundMap) -> None:
        """Drop a map that is lost; what there is of its files is kept."""
        self.quarantine.keep_all(one)
        self.known.books.note(self.known.last_lsn + 1, *one.key, DROP)
        self.notes.append(f"map {'/'.join(one.key)} is given up: {one.problems}")

    def _save(self, maps: dict[MapKey, RecoveredMap]) -> None:
        """Write every map that is newer than its file."""
        for index, (key, one) in enumerate(maps.items()):
            self.progress(90 + 9 * index // len(maps))
            saved = one.entry.current
            if saved is None or saved.lsn < one.entry.last_change:
                self._save_one(key, one)
            one.needs_save = one.entry.previous is None

    def _save_one(self, key: MapKey, one: RecoveredMap) -> None:
        entry, lsn = one.entry, self.known.last_lsn
        folder = self.paths.namespace(key[0])
        self.disk.mkdir(folder)
        self.disk.fsync_dir(self.paths.data_dir)
        trailer = Trailer(self.known.store_id, *key, entry.incarnation, lsn)
        saved = save_map(
            self.disk, folder, key[1], one.items.items(), len(one.items), trailer, before_rename=lambda: None
        )
        entry.previous = entry.current or entry.previous
        entry.current = Generation(lsn, saved.crc)

    def _begin_segment(self) -> Journal:
        store_id, lsn = self.known.store_id, self.known.last_lsn + 1
        return Journal.start(self.disk, self.paths.journal, store_id, self.known.books.catalog(store_id), lsn)


def _held(entry: MapEntry) -> int:
    """The LSN of the generation that was loaded; 0 if none was."""
    generation = entry.current or entry.previous
    return generation.lsn if generation else 0


def _apply(maps: dict[MapKey, RecoveredMap], bases: dict[MapKey, int], lsn: int, commit: Commit) -> None:
    for section in commit.sections:
        namespace = section.entry.name
        for op, name, key, value in section.changes:
            one = maps.get((namespace, name))
            if one is not None and lsn > bases[namespace, name]:
                apply_change(one.items, op, key, value)


def _refusal(one: FoundMap, known: Knowledge) -> str:
    """Which map, why, which LSNs are lost, and what to do."""
    entry = one.entry
    assert entry is not None  # the table refuses a namespace only for a map that the journal knows
    held = [f.generation.lsn for f in (one.current, one.previous) if f.generation and f.state is FileState.BEHIND]
    newest = max(held, default=entry.incarnation - 1)
    lost = f"LSN {newest + 1} to {min(known.first_lsn - 1, entry.last_change)}"
    problems = one.problems or f"{one.current.path} is missing"
    return (
        f"map {one.key[1]}: {problems}. Its changes of {lost} are nowhere else. Stop, put the file back from a backup "
        f"and start; or 'outlive accept {one.key[0]}' goes on without it, its files kept in the quarantine."
    )
