"""Everything the server's thread owns of the state: namespaces, what is pending, and how far the journal is.

* At most one batch is in flight; a seal takes everything pending, so right after it memory equals that batch's state.
* `durable` of a namespace moves only when its batch is reported written.
"""

from __future__ import annotations

from collections import Counter, deque

from persistence_proc.catalog import Generation, MapKey
from persistence_proc.coalescer import Coalescer, commit_of, folded_changes
from persistence_proc.map_state import MapState, entry_needs
from persistence_proc.namespaces import NOBODY, Namespace
from persistence_proc.writer import Batch, Idle, Written
from protocol.changes import DROP
from protocol.folding import Fold
from protocol.messages import NamespaceStatus

LAGS_KEPT = 1000


class Store:
    """The state of one data directory while it is served."""

    def __init__(self, store_id: bytes, last_lsn: int) -> None:
        self.store_id = store_id
        self.namespaces: dict[str, Namespace] = {}
        self.pending = Coalescer()
        self.last_lsn = last_lsn
        """Of the newest frame, sealed or written."""
        self.in_flight: Batch | None = None
        self.journal_written = 0
        """Bytes appended since the process started."""
        self.commits = 0
        self.saves = 0
        self.stale_refused = 0
        self.lags: deque[float] = deque(maxlen=LAGS_KEPT)
        """Seconds from the arrival of a batch's oldest change until it was durable, newest last."""
        self.removing: Counter[str] = Counter()
        """Dropped maps per namespace whose files are still to be deleted."""
        self.stirred: set[str] = set()
        """Namespaces to which something has happened that a request may wait for."""
        self._saves: list[tuple[MapKey, int, Generation]] = []
        self._epochs: dict[str, int] = {}

    def add(self, namespace: Namespace) -> None:
        """Serve a recovered or new namespace."""
        self.namespaces[namespace.name] = namespace
        self._epochs[namespace.name] = namespace.epoch

    def is_settled(self, name: str) -> bool:
        """Whether everything that memory holds of a namespace is durable."""
        in_flight = self.in_flight is not None and name in self.in_flight.marks
        return not in_flight and not self.pending.touches(name)

    def epoch_is_durable(self, namespace: Namespace) -> bool:
        """Whether the journal knows the present epoch."""
        return self._epochs.get(namespace.name) == namespace.epoch

    # Batches

    def seal(self) -> Batch:
        """Everything pending as the next batch."""
        assert self.in_flight is None
        since = self.pending.since or 0.0
        lsn = self.last_lsn = self.last_lsn + 1
        sections, changed, dropped, needs = [], [], [], lsn
        marks: dict[str, tuple[int, int]] = {}
        for name, folds in self.pending.take().items():
            namespace = self.namespaces[name]
            changes = folded_changes(folds, namespace.maps)
            namespace.written += len(changes)
            sections.append((namespace.entry(), changes))
            marks[name] = namespace.epoch, namespace.applied
            changed += self._note_changed(namespace, folds, lsn)
            dropped += [(name, map_name) for map_name, _ in namespace.dropped]
            needs = min([needs, *(lsn for _, lsn in namespace.dropped)])
            namespace.dropped.clear()
        saves, self._saves = self._saves, []
        self.in_flight = Batch(lsn, commit_of(sections), saves, marks, changed, dropped, needs, since)
        self.removing.update(name for name, _ in dropped)
        return self.in_flight

    @staticmethod
    def _note_changed(namespace: Namespace, folds: dict[str, Fold], lsn: int) -> list[MapKey]:
        changed = []
        for name in folds:
            state = namespace.maps.get(name)
            if state is not None:
                state.incarnation = state.incarnation or lsn
                state.last_change = lsn
                changed.append((namespace.name, name))
        return changed

    def written(self, report: Written, now: float) -> None:
        """The batch in flight is durable. If it got another LSN than it was sealed for, the maps learn it."""
        batch, lsn = report
        for name, (epoch, applied) in batch.marks.items():
            self.namespaces[name].durable = applied
            self._epochs[name] = epoch
        self.stirred.update(batch.marks)
        if lsn != batch.lsn:
            for key in batch.changed:
                state = self.map(key)
                if state is not None:
                    state.last_change = lsn
                    state.incarnation = lsn if state.incarnation == batch.lsn else state.incarnation
        self.commits += 1
        self.lags.append(now - batch.since)

    def idle(self, report: Idle) -> None:
        """The writer can take the next batch."""
        if self.in_flight is not None:
            self.stirred.update(self.in_flight.marks)  # settled, perhaps
        self.in_flight = None
        self.last_lsn, self.journal_written = report.last_lsn, report.written_bytes

    # Maps and files

    def map(self, key: MapKey) -> MapState | None:
        namespace = self.namespaces.get(key[0])
        return namespace.maps.get(key[1]) if namespace else None

    def saved(self, key: MapKey, state: MapState, generation: Generation) -> None:
        """A new file is in place; the next catalog will say so."""
        state.saved(generation)
        self._saves.append((key, state.incarnation, generation))
        self.saves += 1

    def needs(self) -> int:
        """The oldest LSN that recovery may need. Segments wholly before it may go, now or later.

        Maps of refused namespaces count too: their frames are kept for whoever repairs them. So do dropped ones, until
        their drop is durable.
        """
        lowest = self.last_lsn + 1  # what comes later is needed, whatever it will be
        if self.in_flight is not None:
            lowest = min(lowest, self.in_flight.needs)
        for namespace in self.namespaces.values():
            for state in namespace.maps.values():
                lowest = min(lowest, state.needs())
            for entry in namespace.carried:
                lowest = min(lowest, entry_needs(entry))
            for _, needed in namespace.dropped:
                lowest = min(lowest, needed)
        return lowest

    def forget(self, namespace: Namespace, now: float) -> None:
        """Drop all maps, also those that recovery refused. The epoch ends: a session that only slept is fenced.

        `applied` stays, so that nothing old can come back; but no change is known of any more.
        """
        folds = self.pending.touch(namespace.name, now)
        for name in list(namespace.maps):
            namespace.drop(name, folds)
        for entry in namespace.carried:
            folds.setdefault(entry.name, Fold()).add(DROP, b"", b"", False)
            namespace.dropped.append((entry.name, entry_needs(entry)))
        namespace.carried, namespace.refused, namespace.closed = [], "", True
        namespace.identity, namespace.boot_id, namespace.ts_last = NOBODY, "", 0
        namespace.epoch += 1

    # For people

    def report(self, namespace: Namespace, now: float) -> NamespaceStatus:
        """What `outlive status` shows of one namespace."""
        pending = self.pending.pending(namespace.name)
        session = "closed" if namespace.closed else "open" if namespace.is_live(now) else "silent"
        return NamespaceStatus(
            name=namespace.name,
            epoch=namespace.epoch,
            applied=namespace.applied,
            durable=namespace.durable,
            maps={name: len(state) for name, state in namespace.maps.items()},
            session="refused" if namespace.refused else session,
            heard_ago=None if namespace.heard is None else now - namespace.heard,
            received=namespace.received,
            coalesced=max(0, namespace.received - namespace.written - pending),
            refused=namespace.refused,
            degraded=[name for name, state in namespace.maps.items() if state.previous_used],
            lag=self._lag(namespace, now),
        )

    def _lag(self, namespace: Namespace, now: float) -> float:
        if namespace.durable >= namespace.applied:
            return 0.0
        batch = self.in_flight
        since = batch.since if batch is not None and namespace.name in batch.marks else self.pending.since
        return 0.0 if since is None else max(0.0, now - since)
