"""What recovery finds: each map's files and what the journal knows of it, as cases for `recovery_table`. Reads only."""

from __future__ import annotations

import errno
from typing import NamedTuple

from persistence_proc.catalog import Books, Catalog, Generation, MapEntry, MapKey
from persistence_proc.journal import JournalContents
from persistence_proc.journal_format import REMEDY
from persistence_proc.paths import Paths, map_name_of
from persistence_proc.pickle_file import check_map
from persistence_proc.recovery_table import Action, Case, FileState, JournalState, Life, decide
from protocol.disk import Disk
from protocol.errors import Damaged, ForeignStore
from protocol.names import is_map_name


class FoundFile(NamedTuple):
    """One generation on disk."""

    path: str
    state: FileState
    generation: Generation | None
    """Of a file that passes its check."""
    problem: str

    @property
    def present(self) -> bool:
        return self.state is not FileState.MISSING


class FoundMap(NamedTuple):
    """One map: its files, and what is to be done."""

    key: MapKey
    entry: MapEntry | None
    case: Case
    current: FoundFile
    previous: FoundFile

    @property
    def action(self) -> Action:
        return decide(self.case)

    @property
    def is_refused(self) -> bool:
        """Whether this map alone keeps its namespace, or everything, from being served."""
        return self.action in (Action.REFUSE_NAMESPACE, Action.REFUSE_START)

    @property
    def problems(self) -> str:
        return "; ".join(f"{f.path} {f.problem}" for f in (self.current, self.previous) if f.problem)


class Knowledge(NamedTuple):
    """What the journal says, at its end (`books`) and at its beginning (`first`)."""

    store_id: bytes
    books: Books
    first: Books
    first_lsn: int
    last_lsn: int
    state: JournalState

    def life(self, entry: MapEntry | None) -> Life:
        if entry is None:
            return Life.UNKNOWN
        return Life.WHOLE if entry.incarnation >= self.first_lsn else Life.PART

    def reaches(self, entry: MapEntry, lsn: int) -> bool:
        """Whether the journal holds every change of this map after `lsn`."""
        if lsn >= self.first_lsn - 1 or entry.incarnation >= self.first_lsn:
            return True
        base = self.first.maps.get(entry.key)
        return base is not None and base.incarnation == entry.incarnation and lsn >= base.last_change


def read_knowledge(contents: JournalContents) -> Knowledge:
    """Sum up the journal. Raises `Damaged` or `ForeignStore` when its segments don't belong together."""
    books, first, store_id = Books(), Books(), b""
    for lsn, frame in contents.frames():
        if not isinstance(frame, Catalog):
            if not store_id:
                raise Damaged(contents.spans[0].path, 0, "a segment that does not begin with a catalog", REMEDY)
            books.apply(lsn, frame)
            continue
        if not store_id:
            store_id = frame.store_id
            first.read(frame)
            first.maps = {key: _copy(entry) for key, entry in first.maps.items()}
        elif frame.store_id != store_id:
            path, oldest = contents.path_of(lsn), contents.spans[0].path
            raise ForeignStore(f"{path} is a segment of another store than {oldest}: a copy in a wrong place? {REMEDY}")
        books.read(frame)
    state = JournalState.TORN if contents.torn else JournalState.CLEAN
    return Knowledge(
        store_id, books, first, contents.first_lsn, contents.last_lsn,
        JournalState.HOLED if contents.damage else state,
    )  # fmt: skip


def survey(disk: Disk, paths: Paths, known: Knowledge) -> list[FoundMap]:
    """Every map that the journal knows or a file claims to be, in the journal's order, strays last."""
    keys = list(known.books.maps) + [k for k in map_files(disk, paths) if k not in known.books.maps]
    return [_find(disk, paths, known, key) for key in keys]


def map_files(disk: Disk, paths: Paths) -> list[MapKey]:
    """The maps that have a file."""
    found: dict[MapKey, None] = {}
    for namespace in paths.namespaces(disk):
        for file_name in disk.listdir(paths.namespace(namespace)):
            name = map_name_of(file_name)
            if name is not None and is_map_name(name):
                found[namespace, name] = None
    return list(found)


def _find(disk: Disk, paths: Paths, known: Knowledge, key: MapKey) -> FoundMap:
    entry = known.books.maps.get(key)
    current = _examine(disk, paths.current(*key), known, key, entry.current if entry else None)
    previous = _examine(disk, paths.previous(*key), known, key, entry.previous if entry else None)
    case = Case(known.state, known.life(entry), current.state, previous.state)
    return FoundMap(key, entry, case, current, previous)


def _examine(disk: Disk, path: str, known: Knowledge, key: MapKey, recorded: Generation | None) -> FoundFile:
    if not disk.exists(path):
        problem = f"is missing (LSN {recorded.lsn} was saved there)" if recorded else ""
        return FoundFile(path, FileState.MISSING, None, problem)
    try:
        trailer, crc = check_map(disk, path)
    except Damaged as damage:
        return FoundFile(path, FileState.DAMAGED, None, f"is damaged: {damage.what} at byte {damage.offset}")
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EISDIR):  # the medium's own checksum is as good as ours
            raise
        return FoundFile(path, FileState.DAMAGED, None, f"can't be read: {error.strerror}")
    generation = Generation(trailer.lsn, crc)
    entry = known.books.maps.get(key)
    if (trailer.store_id, trailer.namespace, trailer.map) != (known.store_id, *key):
        owner = f"{trailer.namespace}/{trailer.map}" if trailer.store_id == known.store_id else "another store"
        return FoundFile(path, FileState.FOREIGN, generation, f"is a file of {owner}")
    if trailer.lsn > known.last_lsn:
        problem = f"holds LSN {trailer.lsn}, beyond the journal's end at LSN {known.last_lsn}"
        return FoundFile(path, FileState.AHEAD, generation, problem)
    if entry is None or trailer.incarnation != entry.incarnation:
        return FoundFile(path, FileState.FOREIGN, generation, f"is of a map dropped since (LSN {trailer.lsn})")
    if recorded and (generation.lsn < recorded.lsn or (generation.lsn == recorded.lsn and generation != recorded)):
        problem = f"holds LSN {trailer.lsn}, not what was saved there as LSN {recorded.lsn} or later"
        return FoundFile(path, FileState.FOREIGN, generation, problem)
    if not known.reaches(entry, trailer.lsn):
        problem = f"holds LSN {trailer.lsn}, and the journal begins at LSN {known.first_lsn}"
        return FoundFile(path, FileState.BEHIND, generation, problem)
    return FoundFile(path, FileState.GOOD, generation, "")


def _copy(entry: MapEntry) -> MapEntry:
    return MapEntry(entry.namespace, entry.name, entry.incarnation, entry.last_change)
