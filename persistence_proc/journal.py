"""The journal: append group commits, and read them all back. The format is in `journal_format`.

* Frame N+1 is never written before the sync of frame N has returned; the caller syncs after each append.
* A segment gets its name only when its catalog is durable. Old ones are deleted oldest first.
* A failed sync is never retried on that file: the journal is poisoned. The caller may `start` a new segment whose
  catalog carries the LSN that failed: a reader takes frames of a segment only up to where the next one begins.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

from persistence_proc.catalog import (
    Books,
    Catalog,
    Commit,
    Generation,
    MapEntry,
    MapKey,
    NamespaceEntry,
    Section,
)
from persistence_proc.journal_format import (
    NONCE_BYTES,
    REMEDY,
    Scan,
    decode_frame,
    encode_frame,
    encode_payload,
    first_lsn_of,
    frames_in,
    scan_segment,
    segment_name,
)
from persistence_proc.paths import TEMPORARY_SUFFIX
from protocol.disk import Disk
from protocol.errors import Damaged

__all__ = [
    "SEGMENT_BYTES",
    "Books",
    "Catalog",
    "Commit",
    "Generation",
    "Journal",
    "JournalContents",
    "MapEntry",
    "MapKey",
    "NamespaceEntry",
    "Section",
    "TornTail",
    "read_journal",
]

SEGMENT_BYTES = 8 * 2**20  # written full of zeros in advance (10 ms), so that a sync carries no metadata
_NEXT, _SPARE = "next" + TEMPORARY_SUFFIX, "spare" + TEMPORARY_SUFFIX


class Journal:
    """The writer. Owned by one thread, but for `prepare_spare` and `delete_before`."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._folder = folder
        self._lock = threading.Lock()  # over the list of segments and the spare
        self._segments: list[tuple[int, str]] = []
        self._bytes_before: dict[str, int] = {}
        self._spare: str | None = None
        self._fd = -1
        self._nonce = b""
        self._capacity = 0
        self.used = 0
        """Bytes in the current segment, with its catalog."""
        self.catalog_bytes = 0
        self.last_lsn = 0
        self.poisoned = False

    @classmethod
    def start(cls, disk: Disk, folder: str, store_id: bytes, catalog: Catalog, lsn: int) -> Journal:
        """Begin a new segment whose first frame, `lsn`, is the catalog. Files of former lives are only read.

        Raises OSError; nothing has changed then.
        """
        if catalog.store_id != store_id:
            raise ValueError("a catalog of another store")
        journal = cls(disk, folder)
        disk.mkdir(folder)
        for name in disk.listdir(folder):
            path = os.path.join(folder, name)
            first = first_lsn_of(name)
            if name.endswith(TEMPORARY_SUFFIX):
                disk.unlink(path)
            elif first is not None:
                journal._segments.append((first, path))
                journal._bytes_before[path] = disk.file_bytes(path)
        if journal._segments and journal._segments[-1][0] >= lsn:
            raise ValueError(f"LSN {lsn} is not behind the segment {journal._segments[-1][1]}")
        disk.fsync_dir(os.path.dirname(folder) or ".")
        journal._begin_segment(lsn, catalog)
        return journal

    @property
    def segments(self) -> list[tuple[int, str]]:
        """(first LSN, path) of all segments, oldest first."""
        with self._lock:
            return list(self._segments)

    @property
    def total_bytes(self) -> int:
        """Size of the journal: all of the older segments, and what is used of the current one."""
        with self._lock:
            return sum(self._bytes_before.values()) + self.used

    def append(self, lsn: int, commit: Commit) -> None:
        """Write one frame at the segment's end; it is durable after `sync`.

        Raises OSError (a full disk): the segment then ends where it did, and the same call may be made again.
        """
        self._check(lsn)
        frame = encode_frame(self._nonce, lsn, encode_payload(commit))
        try:
            self._disk.pwrite(self._fd, frame, self.used)
        except OSError:
            self._take_back()
            raise
        self.used += len(frame)
        self.last_lsn = lsn

    def sync(self) -> None:
        """All frames are on the medium. Raises OSError; after that the journal takes nothing more."""
        self._check(self.last_lsn + 1)
        try:
            self._disk.fdatasync(self._fd)
        except OSError:
            self.poisoned = True
            raise

    def rotate(self, lsn: int, catalog: Catalog) -> None:
        """Go on in a new segment, whose first frame is the catalog. Raises OSError; the old one goes on then."""
        self._check(lsn)
        self._begin_segment(lsn, catalog)

    def prepare_spare(self) -> None:
        """Have a file ready for the next rotation. Any thread may call it. Raises OSError."""
        with self._lock:
            if self._spare is not None:
                return
        path = os.path.join(self._folder, _SPARE)
        self._disk.close(self._blank(path))
        with self._lock:
            self._spare = path

    def delete_before(self, lsn: int) -> None:
        """Delete the segments all of whose frames are below `lsn`; never the current one. Any thread may call it."""
        while True:
            with self._lock:
                if len(self._segments) < 2 or self._segments[1][0] > lsn:
                    return
                _, path = self._segments[0]
            try:
                self._disk.unlink(path)
            except FileNotFoundError:  # deleted already: what counts is that it is gone
                pass
            with self._lock:
                self._segments.pop(0)
                self._bytes_before.pop(path, None)
            self._disk.fsync_dir(self._folder)  # one by one: a power cut can't bring back a hole

    def close(self) -> None:
        """Let go of the file. What was not synced is in the kernel's hands."""
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1

    def _check(self, lsn: int) -> None:
        if self.poisoned or self._fd < 0:
            raise OSError(errno.EIO, "this journal segment takes nothing more", self._folder)
        if lsn != self.last_lsn + 1:
            raise ValueError(f"LSN {lsn} after {self.last_lsn}")

    def _begin_segment(self, lsn: int, catalog: Catalog) -> None:
        disk, path = self._disk, os.path.join(self._folder, segment_name(lsn))
        nonce = os.urandom(NONCE_BYTES)
        frame = encode_frame(nonce, lsn, encode_payload(catalog))
        temporary, fd = self._take_spare()
        try:
            disk.pwrite(fd, frame, 0)
            disk.fsync(fd)
            disk.replace(temporary, path)
            disk.fsync_dir(self._folder)
        except OSError:
            disk.close(fd)
            self._discard(temporary)
            self.poisoned |= disk.exists(path)  # it has its name, but perhaps not durably: which one counts?
            raise
        self._adopt(fd, nonce, lsn, path, len(frame))

    def _adopt(self, fd: int, nonce: bytes, lsn: int, path: str, used: int) -> None:
        self.close()
        with self._lock:
            if self._segments and self._segments[-1][1] not in self._bytes_before:
                self._bytes_before[self._segments[-1][1]] = self.used
            self._segments.append((lsn, path))
        self._fd, self._nonce, self.last_lsn, self.used, self.catalog_bytes = fd, nonce, lsn, used, used
        self._capacity = self._disk.size(fd)

    def _take_spare(self) -> tuple[str, int]:
        with self._lock:
            spare, self._spare = self._spare, None
        path = os.path.join(self._folder, _NEXT)
        if spare is None:
            return path, self._blank(path)
        self._disk.replace(spare, path)  # so that the next spare has its name free
        return path, self._disk.open(path, os.O_RDWR)

    def _blank(self, path: str) -> int:
        """A new file of zeros, synced."""
        fd = self._disk.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            self._disk.zero_fill(fd, SEGMENT_BYTES)
            self._disk.fsync(fd)
        except OSError:
            self._disk.close(fd)
            self._discard(path)
            raise
        return fd

    def _discard(self, path: str) -> None:
        try:
            self._disk.unlink(path)
        except OSError:
            pass

    def _take_back(self) -> None:
        """Make the file end in zeros behind the last frame again, or right there if there is no room for zeros."""
        try:
            self._disk.truncate(self._fd, self.used)
        except OSError:
            self.poisoned = True
            return
        try:
            self._disk.truncate(self._fd, max(self.used, self._capacity))
        except OSError:
            pass


class TornTail(NamedTuple):
    """Bytes behind the last good frame of the newest segment: a commit that nobody was told of."""

    path: str
    offset: int
    length: int


class SegmentSpan(NamedTuple):
    """The frames [first, last] of one segment file that count."""

    path: str
    first: int
    last: int


class JournalContents(NamedTuple):
    """What a journal holds: the newest unbroken run of segments."""

    disk: Disk
    spans: list[SegmentSpan]
    torn: TornTail | None
    damage: Damaged | None
    """Why the run does not begin with the oldest file; whoever needs frames before it must refuse."""
    unusable: list[str]
    """Paths of the segments before the run."""
    newest_bytes: int
    """Length of the newest segment's frames, and of the torn tail behind them."""

    @property
    def first_lsn(self) -> int:
        return self.spans[0].first

    @property
    def last_lsn(self) -> int:
        return self.spans[-1].last

    def path_of(self, lsn: int) -> str:
        """The segment that holds this frame."""
        return next(span.path for span in self.spans if span.first <= lsn <= span.last)

    def frames(self, above: int = 0) -> Iterator[tuple[int, Catalog | Commit]]:
        """(LSN, what it says) of all frames above an LSN. One segment at a time is in memory."""
        for span in self.spans:
            if span.last <= above:
                continue
            for frame in frames_in(memoryview(self.disk.read_file(span.path))):
                if above < frame.lsn <= span.last:
                    yield frame.lsn, decode_frame(span.path, frame)


def segment_paths(disk: Disk, folder: str) -> list[str]:
    """The segment files of a journal, oldest first."""
    names = disk.listdir(folder) if disk.exists(folder) else []
    return [os.path.join(folder, name) for name in names if first_lsn_of(name) is not None]


def read_journal(disk: Disk, folder: str) -> JournalContents | None:
    """Check every segment; None if there is none.

    Raises `Damaged` when the newest segment is damaged before its tail. Damage further back ends the run there.
    """
    paths = segment_paths(disk, folder)
    spans: list[SegmentSpan] = []
    torn: TornTail | None = None
    damage: Damaged | None = None
    newest_bytes = 0
    while paths:
        path = paths[-1]
        try:
            scan = scan_segment(path, memoryview(disk.read_file(path)))
            if not spans:
                torn, newest_bytes = _tail(path, scan), scan.end + scan.dirty
            last = _last_that_counts(path, scan, spans[0].first if spans else None)
        except Damaged as found:
            if not spans:
                raise
            damage = found
            break
        spans.insert(0, SegmentSpan(path, scan.first, last))
        paths.pop()
    return JournalContents(disk, spans, torn, damage, paths, newest_bytes) if spans else None


def _tail(path: str, scan: Scan) -> TornTail | None:
    if scan.beyond is not None:
        what = f"a damaged frame behind LSN {scan.last} (a valid one follows at byte {scan.beyond})"
        raise Damaged(path, scan.end, what, REMEDY)
    return TornTail(path, scan.end, scan.dirty) if scan.dirty else None


def _last_that_counts(path: str, scan: Scan, next_first: int | None) -> int:
    """The frames up to the beginning of the next segment: what came later was never acknowledged from here."""
    if next_first is None:
        return scan.last
    if scan.last < next_first - 1:
        what = f"frames {scan.last + 1} to {next_first - 1} are missing"
        raise Damaged(path, scan.end, what, REMEDY)
    return next_first - 1
