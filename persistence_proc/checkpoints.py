"""When which map is saved, and when old journal segments go.

* All saves together take about a tenth of the time: after each, nine times its duration is rest.
* A map is not saved again within `MIN_INTERVAL`, so small maps are nearly always fresh on disk and never a storm.
* The order is that in which they became dirty, which is about the order in which they pin the journal; a map that
  pins the oldest segment goes first, also a clean one (its previous generation holds the segment), and one whose
  replay would take longer than loading it does not wait for the rest to end.
* A save begins only when memory equals a sealed batch for its map.
"""

from __future__ import annotations

from collections.abc import Iterable

from persistence_proc.catalog import Generation, MapKey
from persistence_proc.checkpointer import Checkpointer, SaveAbandoned, Saved, SaveJob
from persistence_proc.map_state import MapState
from persistence_proc.store import Store
from persistence_proc.writer import Writer

MIN_INTERVAL = 0.2  # seconds between the saves of one map
REST_SHARE = 9.0  # seconds of rest per second of saving
RETRY_REST = 1.0  # seconds of rest after a failed save
MAX_REPLAY_BYTES = 64 * 2**20  # of journal behind a map, or the size of its file: about as long as loading it
BLOCKED_WAIT = 0.005  # seconds; a due map that can't be frozen yet is no reason to spin
TRIM_INTERVAL = 1.0  # seconds between looks for segments to delete: each look visits every map
MERGE_SLICE = 5000  # changes merged per turn of the loop: about a millisecond


class Checkpoints:
    """Policy and bookkeeping, on the server's thread."""

    def __init__(self, store: Store, writer: Writer, checkpointer: Checkpointer) -> None:
        self._store, self._writer, self._checkpointer = store, writer, checkpointer
        self._dirty: dict[MapKey, None] = {}
        self._pinning: dict[MapKey, None] = {}
        self._pressing: dict[MapKey, None] = {}
        self._saving: SaveJob | None = None
        self._merging: list[MapState] = []
        self._rest_until = 0.0
        self._trim_at = 0.0
        self._eligible_at = 0.0  # before then no dirty map is old enough
        self.failures = 0
        """Saves that failed, one after the other."""

    @property
    def is_clean(self) -> bool:
        """Whether every map's newest file holds everything that is sealed."""
        return not self._dirty and self._saving is None

    @property
    def unsaved(self) -> int:
        """How many maps have changed since their file was written."""
        return len(self._dirty) + (self._saving is not None)

    @property
    def is_merging(self) -> bool:
        return bool(self._merging)

    def note_changed(self, keys: Iterable[MapKey]) -> None:
        """These maps were changed by the newest batch."""
        for key in keys:
            self._dirty.setdefault(key)

    def wait(self, now: float) -> float | None:
        """Seconds until `step` can do something; None if it has nothing to do."""
        if self._saving is not None or not (self._dirty or self._pinning or self._pressing):
            return None
        due = 0.0 if self._pressing else max(self._rest_until, 0.0 if self._pinning else self._eligible_at)
        return max(BLOCKED_WAIT, due - now)

    def step(self, now: float, hurry: bool = False) -> None:
        """Start the next save if one is due. `hurry`: no rests, the process is about to end."""
        self._checkpointer.rests = not hurry
        if self._saving is not None:
            return
        key = self._choose(now, hurry)
        state = self._store.map(key) if key is not None else None
        if key is None or state is None:
            return
        for queue in (self._dirty, self._pinning, self._pressing):
            queue.pop(key, None)
        state.journal_mark = self._store.journal_written
        self._saving = SaveJob(key, state, state.freeze(), state.incarnation, self._store.last_lsn)
        self._checkpointer.save(self._saving)

    def finished(self, saved: Saved, now: float) -> None:
        """The save that was started has ended."""
        job, self._saving = saved.job, None
        job.state.thaw()
        self._merging.append(job.state)
        job.state.saved_at = now
        self._rest_until = now + REST_SHARE * saved.seconds
        if saved.file is not None:
            self.failures = 0
            job.state.file_bytes = saved.file.size
            if not job.state.dropped:
                self._store.saved(job.key, job.state, Generation(job.lsn, saved.file.crc))
        elif not isinstance(saved.error, SaveAbandoned):
            self.failures += 1
            self._rest_until = now + RETRY_REST
        if not job.state.dropped and job.state.is_dirty:
            self._dirty.setdefault(job.key)
        if now >= self._trim_at and len(self._writer.journal.segments) > 1:
            self._trim_at = now + TRIM_INTERVAL
            self._trim()

    def merge(self) -> None:
        """Merge one slice of what changed during a save."""
        if self._merging and self._merging[0].merge(MERGE_SLICE):
            self._merging.pop(0)

    def rotated(self) -> None:
        """A new segment has begun: prepare the next, delete what may go, and find who holds the oldest."""
        self._checkpointer.do(lambda: self._writer.journal.prepare_spare())
        self._trim()
        segments = self._writer.journal.segments
        for namespace in self._store.namespaces.values():
            for name, state in namespace.maps.items():
                key = namespace.name, name
                behind = self._store.journal_written - state.journal_mark
                if state.is_dirty and behind > max(MAX_REPLAY_BYTES, state.file_bytes):
                    self._pressing.setdefault(key)
                elif len(segments) > 2 and state.needs() < segments[1][0]:
                    self._pinning.setdefault(key)

    def _trim(self) -> None:
        segments, needed = self._writer.journal.segments, self._store.needs()
        if len(segments) > 1 and segments[1][0] <= needed:
            self._checkpointer.do(lambda: self._writer.journal.delete_before(needed))

    def _choose(self, now: float, hurry: bool) -> MapKey | None:
        if hurry:
            return self._first(self._dirty)
        key = self._first(self._pressing)
        if key is None and now >= self._rest_until:
            key = self._first(self._pinning)
            if key is None and now >= self._eligible_at:
                key = self._first(self._dirty, now - MIN_INTERVAL)
        return key

    def _first(self, queue: dict[MapKey, None], saved_before: float | None = None) -> MapKey | None:
        """The first map of a queue that can be frozen now; forgets those that are gone."""
        gone, found, next_at = [], None, 0.0
        for key in queue:
            state = self._store.map(key)
            if state is None:
                gone.append(key)
            elif saved_before is not None and state.saved_at > saved_before:
                next_at = min(next_at or state.saved_at, state.saved_at)
            elif not state.is_frozen and state.incarnation and not self._store.pending.touches(key[0]):
                found = key
                break
        for key in gone:
            del queue[key]
        if saved_before is not None:
            self._eligible_at = next_at + MIN_INTERVAL if found is None and next_at else 0.0
        return found
