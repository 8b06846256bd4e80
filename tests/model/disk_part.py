"""The data directory of the model: journal segments, two generations of each map, and what a power cut leaves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, product
from typing import Any, NamedTuple
from zlib import crc32

from persistence_proc.catalog import Books, Catalog, Generation, MapEntry, MapKey
from tests.model.outbox_part import STORE
from tests.model.server_part import BatchMemory, Entry, freeze_entry, thaw_commit, thaw_entry

SYNCED, WRITTEN, ADRIFT = "synced", "written", "adrift"
"""How durable a frame is; `ADRIFT`: its sync failed, and a later one may succeed without it."""


class CatalogMemory(NamedTuple):
    namespaces: tuple[Entry, ...] = ()
    maps: tuple[tuple[Any, ...], ...] = ()

    def thaw(self) -> Catalog:
        maps = [MapEntry(*one) for one in self.maps]
        return Catalog(STORE, [thaw_entry(one) for one in self.namespaces], maps, [])

    def after(self, lsn: int, batch: BatchMemory) -> CatalogMemory:
        """What the writer's books say when a batch is written: its saves noted, its commit applied."""
        books = Books(self.thaw())
        for key, incarnation, generation in batch.saves:
            entry = books.maps.get(key)
            if entry is not None and entry.incarnation == incarnation:
                entry.previous, entry.current = entry.current, generation
        books.apply(lsn, thaw_commit(batch.sections))
        return freeze_books(books)


def freeze_books(books: Books) -> CatalogMemory:
    maps = tuple(
        (m.namespace, m.name, m.incarnation, m.last_change, m.current, m.previous) for m in books.maps.values()
    )
    return CatalogMemory(tuple(freeze_entry(one) for one in books.namespaces.values()), maps)


class Frame(NamedTuple):
    lsn: int
    sections: tuple[Any, ...]
    state: str


class Segment(NamedTuple):
    """A journal segment: its first frame is the catalog, with LSN `first`. It has its name when that is synced."""

    first: int
    catalog: CatalogMemory
    frames: tuple[Frame, ...] = ()

    @property
    def last(self) -> int:
        return self.frames[-1].lsn if self.frames else self.first

    def after_power_cuts(self) -> Iterator[Segment]:
        """The last frame may be torn; one that was synced is there."""
        if self.frames and self.frames[-1].state != SYNCED:
            yield self._replace(frames=self.frames[:-1])
        yield self._replace(frames=tuple(frame._replace(state=SYNCED) for frame in self.frames))


class MapFile(NamedTuple):
    """One pickle file. Its contents were synced before it got a name, or a power cut tears it."""

    incarnation: int
    lsn: int
    items: tuple[tuple[bytes, bytes], ...]
    is_synced: bool = True
    is_damaged: bool = False

    @property
    def generation(self) -> Generation:
        return Generation(self.lsn, crc32(repr(self.items).encode()))


class Named(NamedTuple):
    """A name in a namespace's directory: `kind` is "current" or "previous"."""

    key: MapKey
    kind: str
    file: MapFile


class StateDisk(NamedTuple):
    """`files` as reads give them; `pending` names are not durable yet, `durable` is what a cut is sure to keep."""

    segments: tuple[Segment, ...] = ()
    unsynced_segments: tuple[int, ...] = ()
    """First LSNs of segments whose name is not durable yet."""
    gone: tuple[Segment, ...] = ()
    """Unlinked, and not durably so."""
    files: tuple[Named, ...] = ()
    durable: tuple[Named, ...] = ()
    pending: tuple[Named, ...] = ()

    def find(self, key: MapKey, kind: str) -> MapFile | None:
        return next((one.file for one in self.files if one.key == key and one.kind == kind), None)

    def name(self, named: Named) -> StateDisk:
        return self._replace(files=_named(self.files, (named,)), pending=(*self.pending, named))

    def sync_names(self, namespace: str = "") -> StateDisk:
        """The directory of one namespace, or of all."""
        kept = tuple(one for one in self.pending if namespace not in ("", one.key[0]))
        synced = tuple(one for one in self.pending if one not in kept)
        return self._replace(durable=_named(self.durable, synced), pending=kept)

    def sync_journal_names(self) -> StateDisk:
        return self._replace(unsynced_segments=(), gone=())

    def append(self, frame: Frame) -> StateDisk:
        last = self.segments[-1]
        return self._replace(segments=(*self.segments[:-1], last._replace(frames=(*last.frames, frame))))

    def set_last_frame(self, state: str) -> StateDisk:
        last = self.segments[-1]
        frames = (*last.frames[:-1], last.frames[-1]._replace(state=state))
        return self._replace(segments=(*self.segments[:-1], last._replace(frames=frames)))

    def begin_segment(self, first: int, catalog: CatalogMemory) -> StateDisk:
        """Whole and synced, then named; the name is durable after `sync_journal_names`."""
        segments = (*self.segments, Segment(first, catalog))
        return self._replace(segments=segments, unsynced_segments=(*self.unsynced_segments, first))

    def unlink_oldest(self) -> StateDisk:
        return self._replace(segments=self.segments[1:], gone=(*self.gone, self.segments[0]))

    def sync_frames(self) -> StateDisk:
        """What recovery does with what it has read. A frame whose sync failed before is clean and may yet be lost."""
        segments = tuple(
            one._replace(frames=tuple(f._replace(state=SYNCED) if f.state == WRITTEN else f for f in one.frames))
            for one in self.segments
        )
        return self._replace(segments=segments)

    def after_power_cuts(self) -> Iterator[StateDisk]:
        optional = [s for s in self.segments if s.first in self.unsynced_segments] + list(self.gone)
        sure = [s for s in self.segments if s.first not in self.unsynced_segments]
        for kept in _subsets(optional):
            named = sorted((*sure, *kept), key=lambda segment: segment.first)
            for segments in product(*(tuple(one.after_power_cuts()) for one in named)):
                for files in dict.fromkeys(_named(self.durable, names) for names in _subsets(self.pending)):
                    left = tuple(one._replace(file=_torn(one.file)) for one in files)
                    yield StateDisk(tuple(segments), files=left, durable=left)

    def surely(self) -> StateDisk:
        """What the least lucky cut leaves of frames and names."""
        return next(self.after_power_cuts())


def _torn(file: MapFile) -> MapFile:
    return file if file.is_synced else file._replace(is_synced=True, is_damaged=True)


def _named(files: tuple[Named, ...], new: tuple[Named, ...]) -> tuple[Named, ...]:
    found = {(one.key, one.kind): one for one in files} | {(one.key, one.kind): one for one in new}
    return tuple(found[name] for name in sorted(found))


def _subsets(found: Any) -> Iterator[tuple[Any, ...]]:
    return chain.from_iterable(combinations(found, n) for n in range(len(found) + 1))
