"""One namespace: who owns it, how far it is, and which messages it believes.

* `applied` grows by unbroken runs only; `durable` follows it, never the other way round.
* An `epoch` is fenced the moment its successor's `open` is read: from then on no change of it is applied.
* `(epoch, seq)` names a change, `seq` alone never does; so whoever is fenced is told nothing about durability.
* A check either refuses and changes nothing, or has no objection; only then is anything changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from persistence_proc.catalog import MAX_OPENERS, MapEntry, NamespaceEntry
from persistence_proc.coalescer import Coalescer
from persistence_proc.map_state import MapState
from persistence_proc.refusals import boot_conflict, foreign_store, refused, went_back
from protocol.changes import CLEAR, DELETE, DROP, INSERT, Change, decode_changes
from protocol.errors import MalformedMessage
from protocol.folding import Fold
from protocol.frames import decode_records
from protocol.limits import PROTOCOL_VERSION, SESSION_SILENCE
from protocol.messages import Confirm, Delta, Open, Refused, RefusedCode

NOBODY = bytes(16)
"""Identity that no outbox has: whoever comes next begins anew."""


class Namespace:
    """State and rules of one namespace, owned by the server's thread."""

    def __init__(self, entry: NamespaceEntry) -> None:
        self.name = entry.name
        self.epoch, self.applied, self.durable = entry.epoch, entry.applied, entry.applied
        self.identity, self.since, self.openers = entry.identity, entry.since, dict(entry.openers)
        self.closed, self.ts_last, self.boot_id = entry.closed, entry.ts_last, entry.boot_id
        self.was_closed = False
        """Whether the session before the present one left by `close`."""
        self.maps: dict[str, MapState] = {}
        self.dropped: list[tuple[str, int]] = []
        """(map, oldest LSN that it needs) dropped since the last seal: until that is durable, a kill brings it back."""
        self.refused = ""
        """Why recovery could not bring it back; then `carried` has its maps, untouched."""
        self.carried: list[MapEntry] = []
        # Of the present session, as far as this process has heard it
        self.heard: float | None = None
        self.fitted: float | None = None
        """When it last showed that its history is ours, monotonic seconds."""
        self.gap = False
        self.accepted = False
        """A person said that the live session is right."""
        self.snapshot_wanted = False
        """That session's whole state is awaited."""
        self.snapshot_told = False
        self.adopted_stores: set[bytes] = set()
        # Since this process started
        self.received = 0
        self.written = 0

    def entry(self) -> NamespaceEntry:
        """What the journal says of it: a copy of the present."""
        return NamespaceEntry(
            name=self.name,
            epoch=self.epoch,
            applied=self.applied,
            identity=self.identity,
            since=self.since,
            openers=dict(self.openers),
            closed=self.closed,
            ts_last=self.ts_last,
            boot_id=self.boot_id,
        )

    # Opening

    def check_open(self, request: Open, store_id: bytes, now: float) -> Refused | None:
        """Why this open can't be granted, or None."""
        if request.version != PROTOCOL_VERSION:
            text = f"this process speaks protocol version {PROTOCOL_VERSION}, the strategy {request.version}"
            return refused(RefusedCode.VERSION, text, PROTOCOL_VERSION)
        if self.refused:
            return refused(RefusedCode.NAMESPACE_DAMAGED, self.refused)
        newest = self.openers.get(request.identity.hex())
        if newest is not None and (request.life, request.attempt) <= newest:
            return refused(RefusedCode.STALE_OPEN, "a newer open of this outbox was already read", newest[0])
        return self.check_history(request, store_id) or self._check_alive(request, now)

    def check_history(self, request: Open, store_id: bytes) -> Refused | None:
        """Why the outbox that asks and the state here are not of one history, or None. Only a person settles that."""
        if request.store_id and request.store_id != store_id:
            return foreign_store(self.name, request.store_id, store_id)
        if self.applied < request.acked:
            return went_back(self.name, f"its outbox saw change {request.acked} acknowledged", self.applied)
        if request.epoch > self.epoch:
            text = f"its outbox was written in epoch {request.epoch}, and the newest known here is {self.epoch}"
            return went_back(self.name, text, self.applied)
        is_owner = request.identity == self.identity and request.boot_id == self.boot_id != ""
        if is_owner and request.epoch == self.epoch and self.applied > request.last:
            text = f"its outbox knows changes up to {request.last} only, and is older than what it wrote itself"
            return went_back(self.name, text, self.applied)
        return None

    def _check_alive(self, request: Open, now: float) -> Refused | None:
        """On one machine the lock file has decided already; between machines silence has to."""
        same_machine = self._is_owner(request) and self.boot_id in ("", request.boot_id)
        if same_machine or request.takeover or not self.is_live(now):
            return None
        return boot_conflict(self.name, now - (self.heard or now))

    def is_live(self, now: float) -> bool:
        """Whether the present session was heard within the last seconds, and has not left."""
        return self.heard is not None and not self.closed and now - self.heard < SESSION_SILENCE

    def open(self, request: Open, now: float) -> None:
        """Hand out the next epoch; the one before is fenced from here on. `since` stays for the same outbox."""
        self.since = self.since_of(request)
        self.epoch += 1
        if self.openers.get(request.identity.hex(), (-1, 0))[0] != request.life:  # else: the same life, asking again
            self.was_closed = self.closed
        self.identity, self.boot_id = request.identity, request.boot_id
        self.openers.pop(request.identity.hex(), None)
        self.openers[request.identity.hex()] = (request.life, request.attempt)
        while len(self.openers) > MAX_OPENERS:
            del self.openers[next(iter(self.openers))]
        self.heard, self.closed, self.gap = now, False, False
        self.accepted = self.snapshot_wanted = self.snapshot_told = False
        self.note_fit(now)

    def since_of(self, request: Open) -> int:
        """`since` of the session that this open begins."""
        return self.since if self._is_owner(request) else self.epoch + 1

    def _is_owner(self, request: Open) -> bool:
        """Whether the outbox that asks is the newest session's. After `adopt` that is whoever knows its epoch."""
        return request.identity == self.identity or (not self.identity and request.epoch == self.epoch > 0)

    # Confirming

    def is_session(self, epoch: int, identity: bytes) -> bool:
        """Whether this is the present session. An epoch alone says it only within one history: who restores an older
        store, or begins a new one, beside a bot that goes on, gives its number again. An unknown identity is anybody's.
        """
        return epoch == self.epoch and (identity == self.identity or not identity or not self.identity)

    def check_session(self, epoch: int, identity: bytes = b"") -> Refused | None:
        """Refused if this is not the present session."""
        if epoch < self.epoch:
            text = f"epoch {epoch} of namespace {self.name!r} is over: a newer session owns it"
            return refused(RefusedCode.FENCED, text, self.epoch)
        if epoch > self.epoch:
            return went_back(
                self.name, f"its session has epoch {epoch}, and the newest here is {self.epoch}", self.applied
            )
        if not self.is_session(epoch, identity):
            text = f"its session has epoch {epoch}, which belongs to another outbox here"
            return went_back(self.name, text, self.applied)
        return None

    def check_confirm(self, request: Confirm, store_id: bytes) -> Refused | None:
        """Why this session's history is not ours, or None. Refused with FENCED it says nothing of durability."""
        if request.epoch < self.epoch:
            return self.check_session(request.epoch)
        if request.store_id and request.store_id != store_id and request.store_id not in self.adopted_stores:
            return foreign_store(self.name, request.store_id, store_id)
        if request.acked > self.applied:
            return went_back(self.name, f"its outbox saw change {request.acked} acknowledged", self.applied)
        return self.check_session(request.epoch, request.identity)

    def note_fit(self, now: float) -> None:
        """The present session's history is ours. What a person accepted meanwhile was for nothing, and is over."""
        self.fitted = now
        if not self.snapshot_wanted:
            self.accepted = False

    def fits(self, now: float) -> bool:
        """Whether a live session has shown within the last seconds that there is nothing to settle."""
        silent = self.fitted is None or now - self.fitted >= SESSION_SILENCE
        return not (silent or self.closed or self.snapshot_wanted)

    def adopt(self, request: Confirm) -> None:
        """A person accepted this live session: its epoch is the valid one, and its whole state is wanted."""
        self.adopted_stores.add(request.store_id)
        self.snapshot_wanted = True
        if not self.is_session(request.epoch, request.identity):
            self.epoch = self.since = request.epoch
            self.identity, self.boot_id = request.identity, ""

    # Changes

    def receive(self, delta: Delta, parts: Sequence[bytes], pending: Coalescer, now: float, ts: int) -> bool:
        """Apply the part of (base, upto] that is new; false if there is none, or a gap before it.

        Raises `MalformedMessage` before anything is applied, also when only the last record of the message is bad.
        """
        self.heard = now
        if delta.upto <= self.applied:
            return False
        if delta.base > self.applied:
            self.gap = True
            return False
        run = decode_run(delta, parts)
        if self.snapshot_wanted and not _is_snapshot(run[0][2]):
            self.gap = True
            return False
        folds = pending.touch(self.name, now)
        if self.snapshot_wanted:
            self._drop_missing(run[0][2], folds)
        for base, seq, changes in run:
            if seq > self.applied:
                self.apply(changes, folds)
                self.received += seq - max(base, self.applied)
                self.applied = seq
        self.ts_last, self.gap, self.closed = ts, False, False
        return True

    def apply(self, changes: Sequence[Change], folds: dict[str, Fold]) -> None:
        """Apply changes to memory, and fold those that are not redundant."""
        maps = self.maps
        for op, name, key, value in changes:
            state = maps.get(name)
            if state is None:
                if op in (DELETE, DROP):
                    continue
                state = self._create(name, folds)
            if op <= DELETE:
                effect, new = state.apply(op, key, value)
                if effect:
                    _fold_of(folds, name).add(effect, key, value, new and effect == INSERT)
            elif op == CLEAR:
                if len(state):
                    state.clear(CLEAR)
                    _fold_of(folds, name).add(CLEAR, b"", b"", False)
            else:
                self.drop(name, folds)

    def _create(self, name: str, folds: dict[str, Fold]) -> MapState:
        """A new map. The CLEAR makes it exist in the journal even if its first items are folded away."""
        state = self.maps[name] = MapState()
        _fold_of(folds, name).add(CLEAR, b"", b"", False)
        return state

    def drop(self, name: str, folds: dict[str, Fold]) -> None:
        """Remove a map for good; what comes later under its name is another incarnation."""
        state = self.maps.pop(name)
        state.dropped = True
        if state.incarnation:
            self.dropped.append((name, state.needs()))
        _fold_of(folds, name).add(DROP, b"", b"", False)

    def _drop_missing(self, snapshot: Sequence[Change], folds: dict[str, Fold]) -> None:
        kept = {name for _, name, _, _ in snapshot}
        for name in [name for name in self.maps if name not in kept]:
            self.drop(name, folds)
        self.accepted = self.snapshot_wanted = self.snapshot_told = False


def decode_run(delta: Delta, parts: Sequence[bytes]) -> list[tuple[int, int, list[Change]]]:
    """(base, seq, changes) of each record of a delta: an unbroken run up to `delta.upto`. Raises `MalformedMessage`."""
    run: list[tuple[int, int, list[Change]]] = []
    last = None
    for part in parts:
        for record in decode_records(part):
            seq, epoch, span, payload = record
            base = seq - span
            joins = base == last if last is not None else 0 <= base <= delta.base < seq
            if not joins or span < 1 or not 0 < epoch <= delta.epoch:
                text = f"record {base}..{seq} of epoch {epoch} does not fit in {delta}"
                raise MalformedMessage(text, payload)
            run.append((base, seq, decode_changes(payload)))
            last = seq
    if last != delta.upto:
        raise MalformedMessage(f"the records do not reach {delta.upto}", b"")
    return run


def _is_snapshot(changes: Sequence[Change]) -> bool:
    """Whether a record is "map := items" for every map that it names."""
    seen: set[str] = set()
    for op, name, _, _ in changes:
        if name not in seen and op != CLEAR:
            return False
        seen.add(name)
    return True


def _fold_of(folds: dict[str, Fold], name: str) -> Fold:
    fold = folds.get(name)
    if fold is None:
        fold = folds[name] = Fold()
    return fold
