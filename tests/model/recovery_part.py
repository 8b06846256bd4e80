"""Recovery in the model: what the journal and the files of a disk come to, by the code's own books and table.

`read_knowledge` sums up the journal, `_last_that_counts` joins its segments, `decide` says what becomes of each map.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

from persistence_proc.catalog import Catalog, Commit, Generation, MapEntry, MapKey
from persistence_proc.journal import _last_that_counts
from persistence_proc.journal_format import Scan
from persistence_proc.recovery import _held
from persistence_proc.recovery_table import Action, Case, FileState, Life, decide
from persistence_proc.survey import Knowledge, read_knowledge
from protocol.changes import apply_change
from protocol.errors import Damaged
from tests.model.changes import State, state_of
from tests.model.disk_part import CatalogMemory, MapFile, Named, Segment, StateDisk, freeze_books
from tests.model.explorer import Broken
from tests.model.server_part import MapMemory, NamespaceMemory, StoreMemory, thaw_commit


class Recovered(NamedTuple):
    """What recovery found and will serve, once the maps in `to_save` have their new files."""

    last_lsn: int
    catalog: CatalogMemory
    maps: tuple[tuple[MapKey, tuple[tuple[bytes, bytes], ...]], ...]
    to_save: tuple[MapKey, ...]
    used: tuple[Action, ...] = ()

    def state(self, namespace: str) -> State:
        return state_of({key[1]: dict(items) for key, items in self.maps if key[0] == namespace})

    def applied(self, namespace: str) -> int:
        return next((entry[2] for entry in self.catalog.namespaces if entry[0] == namespace), 0)

    def entry(self, key: MapKey) -> MapEntry:
        return next(MapEntry(*one) for one in self.catalog.maps if one[:2] == key)

    def with_file(self, key: MapKey, generation: Generation) -> Recovered:
        """A map has its new file, as `_save_one` notes it."""
        entry = self.entry(key)
        previous = entry.current or entry.previous
        changed = (*key, entry.incarnation, entry.last_change, generation, previous)
        maps = tuple(changed if one[:2] == key else one for one in self.catalog.maps)
        catalog = self.catalog._replace(maps=maps)
        return self._replace(catalog=catalog, to_save=tuple(k for k in self.to_save if k != key))

    def store(self) -> StoreMemory:
        """What the server begins with, the new segment's catalog at `last_lsn` + 1."""
        namespaces = tuple(
            NamespaceMemory(entry, entry[2], False, tuple(self._maps_of(entry[0]))) for entry in self.catalog.namespaces
        )
        epochs = tuple((entry[0], entry[1]) for entry in self.catalog.namespaces)
        return StoreMemory(self.last_lsn + 1, namespaces, epochs=epochs)

    def _maps_of(self, namespace: str) -> Iterator[MapMemory]:
        for key, items in self.maps:
            if key[0] == namespace:
                one = self.entry(key)
                yield MapMemory(key[1], items, one.incarnation, one.last_change, one.current, one.previous)


@cache
def recover(disk: StateDisk, is_damaged: bool) -> Recovered:
    """What the disk comes to. A refusal when nobody has damaged anything (`is_damaged`) breaks P6."""
    known, frames = _knowledge(disk.segments)
    books = known.books
    maps: dict[MapKey, dict[bytes, bytes]] = {}
    bases: dict[MapKey, int] = {}
    used = []
    for key, entry in books.maps.items():
        action = _choose(disk, known, key, entry, is_damaged)
        used.append(action)
        files = {kind: disk.find(key, kind) for kind in ("current", "previous")}
        states = {kind: _examine(known, entry, file, getattr(entry, kind)) for kind, file in files.items()}
        for kind, file in files.items():
            setattr(entry, kind, file.generation if file and states[kind] is FileState.GOOD else None)
        base = {Action.LOAD_CURRENT: files["current"], Action.LOAD_PREVIOUS: files["previous"]}.get(action)
        maps[key] = dict(base.items) if base else {}
        bases[key] = max(_held(entry), entry.incarnation - 1)
    for named in disk.files:
        if named.key not in maps:
            _check_stray(known, named, is_damaged)
    for lsn, commit in frames:
        for section in commit.sections:
            for op, name, key_bytes, value in section.changes:
                key = section.entry.name, name
                if key in maps and lsn > bases[key]:
                    apply_change(maps[key], op, key_bytes, value)
    to_save = tuple(key for key, one in books.maps.items() if one.current is None or one.current.lsn < one.last_change)
    items = tuple((key, tuple(found.items())) for key, found in maps.items())
    return Recovered(known.last_lsn, freeze_books(books), items, to_save, tuple(used))


def _choose(disk: StateDisk, known: Knowledge, key: MapKey, entry: MapEntry, is_damaged: bool) -> Action:
    states = [_examine(known, entry, disk.find(key, kind), getattr(entry, kind)) for kind in ("current", "previous")]
    action = decide(Case(known.state, known.life(entry), states[0], states[1]))
    if action in (Action.REFUSE_START, Action.REFUSE_NAMESPACE):
        what = "one file is damaged" if is_damaged else "nothing is damaged"
        raise Broken("P6", f"{what}, and recovery would {action.value}: map {'/'.join(key)} is {states}")
    if not is_damaged and action is Action.LOAD_PREVIOUS:
        raise Broken("P6", f"nothing is damaged, and recovery calls map {'/'.join(key)} degraded: {states}")
    return action


def _check_stray(known: Knowledge, named: Named, is_damaged: bool) -> None:
    """A file of a map that the journal does not know: whole, it can only be of a frame that is gone."""
    state = FileState.AHEAD if named.file.lsn > known.last_lsn else FileState.FOREIGN
    if not is_damaged and decide(Case(known.state, Life.UNKNOWN, state, state)) is not Action.NOTHING:
        raise Broken("P6", f"nothing is damaged, and the journal does not know map {'/'.join(named.key)}: {state}")


def _examine(known: Knowledge, entry: MapEntry, file: MapFile | None, recorded: Generation | None) -> FileState:
    """`survey._examine`, of a file that is here a tuple."""
    if file is None:
        return FileState.MISSING
    if file.is_damaged:
        return FileState.DAMAGED
    if file.lsn > known.last_lsn:
        return FileState.AHEAD
    generation = file.generation
    is_older = recorded and (
        generation.lsn < recorded.lsn or (generation.lsn == recorded.lsn and generation != recorded)
    )
    if file.incarnation != entry.incarnation or is_older:
        return FileState.FOREIGN
    return FileState.GOOD if known.reaches(entry, file.lsn) else FileState.BEHIND


def _knowledge(segments: tuple[Segment, ...]) -> tuple[Knowledge, list[tuple[int, Commit]]]:
    """What `read_journal` and `read_knowledge` make of the newest unbroken run of segments."""
    spans: list[tuple[Segment, int]] = []
    damage: Damaged | None = None
    for segment in reversed(segments):
        scan = Scan(segment.first, segment.last, 0, 0, None)
        try:
            last = _last_that_counts(str(segment.first), scan, spans[0][0].first if spans else None)
        except Damaged as found:
            damage = found
            break
        spans.insert(0, (segment, last))
    commits: list[tuple[int, Commit]] = []
    every: list[tuple[int, Commit | Catalog]] = []
    for segment, last in spans:
        every.append((segment.first, segment.catalog.thaw()))
        commits += [(f.lsn, thaw_commit(f.sections)) for f in segment.frames if f.lsn <= last]
        every += [(f.lsn, thaw_commit(f.sections)) for f in segment.frames if f.lsn <= last]
    contents = SimpleNamespace(
        frames=lambda: iter(every), spans=[], torn=None, damage=damage,
        first_lsn=spans[0][0].first, last_lsn=spans[-1][1],
    )  # fmt: skip
    return read_knowledge(contents), commits  # type: ignore[arg-type]


def first_disk() -> StateDisk:
    """A new store: one segment with an empty catalog."""
    return StateDisk((Segment(1, CatalogMemory()),))
