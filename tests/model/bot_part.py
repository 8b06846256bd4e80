"""A bot of the model: its process, how that works on its outbox, and the pump's idea of how far things are.

What is left over at a start, what a confirm means to the pump and how records fold are the code's own functions.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

from protocol.errors import Damaged, StateRefused
from protocol.frames import Record
from protocol.messages import Confirmed, Delta, Open, Opened
from strategy_proc.compaction import fold_records
from strategy_proc.connecting import _Connecting
from strategy_proc.pump import Pump
from tests.model.changes import State, applied_to
from tests.model.explorer import Broken
from tests.model.network_part import Sent
from tests.model.outbox_part import Folder, Marks, NameChange, SegmentFile, boot_name

ASKING, BEGINNING, RUNNING = "asking", "beginning", "running"


class Sealed(NamedTuple):
    """A full segment: file, slots in use, last seq."""

    fid: int
    used: int
    last: int


class PumpMemory(NamedTuple):
    instance: str
    shipped: int
    applied: int
    durable: int
    applied_when_asked: int
    durable_when_asked: int


class Process(NamedTuple):
    """What dies with a bot. Names as in `SegmentChain` and `Outbox`; fids in the place of segments."""

    phase: str
    attempt: int = 0
    epoch: int = 0
    seq: int = 0
    acked: int = 0
    shipped: int = 0
    synced: int = 0
    acked_durably: int = 0
    tail: int = 0
    used: int = 0
    sealed: tuple[Sealed, ...] = ()
    spare: int = 0
    retired: tuple[tuple[int, int], ...] = ()
    reusable: tuple[tuple[int, int], ...] = ()
    """(fid, last seq) of files without a number; reusable once that is durable."""
    obsolete: tuple[int, ...] = ()
    """Numbers whose records stand in a newer file."""
    names_due: bool = False
    """A file took the place of others, and the directory was not synced since."""
    is_folding: bool = False
    """The pump holds the files' lock, in the middle of a fold."""
    state: State = ()
    pump: PumpMemory = PumpMemory("", 0, 0, 0, 0, 0)


class Bot(NamedTuple):
    namespace: str
    host: int
    slots: int
    """Records that fit into one segment."""
    folder: Folder
    process: Process | None = None

    @property
    def owner(self) -> Process:
        assert self.process is not None
        return self.process

    def become(self, folder: Folder | None = None, **changed: object) -> Bot:
        """With another folder or process; files that nobody can see any more are forgotten."""
        folder = folder or self.folder
        if self.process is None:
            return self._replace(folder=folder.tidy(())[0])
        process = self.process._replace(**changed)
        used = [process.tail, process.spare, *(s.fid for s in process.sealed)]
        used += [fid for fid, _ in process.retired + process.reusable]
        tidied, fids = folder.tidy(tuple(used))
        process = process._replace(
            tail=fids[process.tail], spare=fids[process.spare],
            sealed=tuple(s._replace(fid=fids[s.fid]) for s in process.sealed),
            retired=tuple((fids[f], n) for f, n in process.retired),
            reusable=tuple((fids[f], n) for f, n in process.reusable),
        )  # fmt: skip
        return self._replace(folder=tidied, process=process)

    def records(self) -> list[Record]:
        """Everything that this process can still read, oldest first."""
        process, found = self.owner, []
        for fid, used in [*((s.fid, s.used) for s in process.sealed), (process.tail, process.used)]:
            found += [slot for slot in self.folder.file(fid).slots[:used] if slot is not None] if fid else []
        return found

    # Starting

    def start(self, syncs_folder: bool) -> Bot:
        """Lock, read, and count a new life. The directories are synced on every start."""
        folder = self.folder._replace(life=self.folder.life + 1)
        if syncs_folder:
            folder = folder.sync_names()._replace(made=True)
        try:
            folder.read()
        except Damaged as refusal:
            raise Broken("P6", f"nothing is damaged, and the outbox is refused: {refusal}") from None
        return self._replace(folder=folder.tidy(())[0], process=Process(ASKING))

    def request(self) -> Open:
        contents, folder = self.folder.read(), self.folder
        return Open(
            namespace=self.namespace, identity=folder.identity, life=folder.life, attempt=self.owner.attempt,
            boot_id=boot_name(folder.boot), host=str(self.host), pid=1, store_id=b"",
            epoch=contents.epoch, acked=contents.acked, last=contents.last,
        )  # fmt: skip

    def opened(self, reply: Opened, state: State, behind_chain: bool) -> Bot:
        """Put outbox and snapshot together, and make the first segment of this life, synced and named.

        `behind_chain`, a reading: all of the old chain is kept, also what the server already has.
        """
        contents = self.folder.read()
        leftovers = self._leftovers(reply)
        for record in leftovers:
            state = applied_to(state, record.payload)
        kept = contents.records if behind_chain and contents.records else leftovers
        seq = leftovers[-1].seq if leftovers else reply.applied
        shipped = min(max(contents.shipped, reply.applied), seq)
        slots = tuple(Record(r.seq, reply.epoch, r.span, r.payload) for r in kept)
        slots += (None,) * max(0, self.slots - len(slots))
        file = self._segment(slots, reply.epoch, Marks(reply.applied, 0, shipped))
        folder, fid = self.folder.add(file)
        pump = PumpMemory(reply.instance, *[reply.applied] * 5)
        return self.become(
            folder.rename(NameChange(folder.newest + 1, fid)), phase=BEGINNING, epoch=reply.epoch, seq=seq,
            acked=reply.applied, shipped=shipped, synced=seq, acked_durably=reply.applied, tail=fid, used=len(kept),
            state=state, pump=pump,
        )  # fmt: skip

    def _leftovers(self, reply: Opened) -> list[Record]:
        contents = self.folder.read()
        identity = SimpleNamespace(store_id=b"")
        outbox = SimpleNamespace(contents=contents, identity=identity, folder="")
        connecting = SimpleNamespace(namespace=self.namespace, _set_aside=lambda folder, records: None)
        try:
            return _Connecting._leftovers(connecting, outbox, reply)[0]  # type: ignore[arg-type]
        except StateRefused as refusal:
            raise Broken("P6", f"nothing went back, and connect refuses: {refusal}") from None

    def begin(self, syncs_names: bool) -> Bot:
        """The name of the first segment is durable, then the old ones go."""
        folder = self.folder.sync_names() if syncs_names else self.folder
        old = [NameChange(number, 0) for number, fid in folder.names if fid != self.owner.tail]
        return self.become(folder.rename(*old), phase=RUNNING)

    def _segment(self, slots: tuple[Record | None, ...], epoch: int, marks: Marks, floor: int = 0) -> SegmentFile:
        folder = self.folder
        return SegmentFile(folder.life, epoch, folder.boot, floor, slots, marks, slots, marks)

    # Changing

    def put(self, payload: bytes) -> Bot:
        bot = self.switch() if self.owner.used >= len(self.folder.file(self.owner.tail).slots) else self
        process = bot.owner
        record = Record(process.seq + 1, process.epoch, 1, payload)
        folder = bot.folder.put(process.tail, bot.folder.file(process.tail).store(process.used, record))
        state = applied_to(process.state, payload)
        return bot.become(folder, seq=record.seq, used=process.used + 1, state=state)

    def switch(self) -> Bot:
        """Go on in the spare, or in a segment that the caller makes itself."""
        bot = self if self.owner.spare else self.prepare_spare(syncs_names=True, reuses_at_once=False)
        process = bot.owner
        sealed = (*process.sealed, Sealed(process.tail, process.used, process.seq))
        return bot.become(tail=process.spare, used=0, spare=0, sealed=sealed)

    def sync(self, trusts_names: bool) -> Bot:
        """What `sync` does: leave what is poisoned, make names durable, sync every segment that has something new.

        `trusts_names`, a reading: renames that a former try or a fold made are not synced.
        """
        bot = self
        if bot.folder.file(bot.owner.tail).adrift:
            bot = bot.switch()
        for one in bot.owner.sealed:
            if bot.folder.file(one.fid).adrift:
                bot = bot.put_over((one,), [r for r in bot.records_of(one) if r.seq > bot.owner.acked])
        if bot.owner.names_due and not trusts_names:
            bot = bot.sync_names().unlink_obsolete()
        folder = bot.folder
        for fid in [*(s.fid for s in bot.owner.sealed), bot.owner.tail]:
            folder = folder.put(fid, folder.file(fid).sync())
        tail = folder.file(bot.owner.tail).mark(synced=bot.owner.seq)
        return bot.become(folder.put(bot.owner.tail, tail), synced=bot.owner.seq)

    def fail_sync(self) -> Bot:
        """The sync of the segment in use fails: what was to be written is clean in memory, and not on the medium."""
        return self.become(self.folder.put(self.owner.tail, self.folder.file(self.owner.tail).fail_sync()))

    def records_of(self, one: Sealed) -> list[Record]:
        return [slot for slot in self.folder.file(one.fid).slots[: one.used] if slot is not None]

    def put_over(self, olds: tuple[Sealed, ...], records: list[Record], is_synced: bool = True) -> Bot:
        """One new segment takes the place of a run of sealed ones, under the number of the last."""
        process = self.owner
        slots = tuple(Record(r.seq, process.epoch, r.span, r.payload) for r in records)
        file = self._segment(slots, process.epoch, Marks(process.acked, 0, process.shipped))
        if not is_synced:
            file = file._replace(medium=(None,) * len(slots))
        folder, fid = self.folder.add(file)
        numbers = [folder.number_of(old.fid) for old in olds]
        fresh = Sealed(fid, len(slots), olds[-1].last)
        at = process.sealed.index(olds[0])
        sealed = (*process.sealed[:at], fresh, *process.sealed[at + len(olds) :])
        return self.become(
            folder.rename(NameChange(numbers[-1], fid)), sealed=sealed, names_due=True,
            obsolete=process.obsolete + tuple(numbers[:-1]),
        )  # fmt: skip

    # Keeping house

    def sync_names(self) -> Bot:
        process = self.owner
        reusable = process.reusable + process.retired
        return self.become(self.folder.sync_names(), names_due=False, retired=(), reusable=reusable)

    def unlink_obsolete(self) -> Bot:
        gone = [NameChange(number, 0) for number in self.owner.obsolete]
        return self.become(self.folder.rename(*gone), obsolete=(), is_folding=False)

    def prepare_spare(self, syncs_names: bool, reuses_at_once: bool) -> Bot:
        """A new segment or a reused one, synced, then named; it says durably what is acknowledged."""
        process, folder = self.owner, self.folder
        marks = Marks(process.acked, 0, process.shipped)
        pool = process.reusable + (process.retired if reuses_at_once else ())
        floor, slots = 0, (None,) * self.slots
        if pool:
            fid, floor = pool[-1]
            slots = (None, *folder.file(fid).slots[1:])
            file = self._segment(slots, process.epoch, marks, floor)
            folder = folder.put(fid, file)
        else:
            folder, fid = folder.add(self._segment(slots, process.epoch, marks))
        bot = self.become(
            folder.rename(NameChange(folder.newest + 1, fid)), spare=fid, acked_durably=process.acked,
            reusable=tuple(one for one in process.reusable if one[0] != fid),
            retired=tuple(one for one in process.retired if one[0] != fid),
        )  # fmt: skip
        return bot.sync_names() if syncs_names else bot

    def retire(self, bound: int) -> Bot:
        """Take sealed segments up to seq `bound` out of use: they lose their numbers."""
        gone = tuple(s for s in self.owner.sealed if s.last <= bound)
        changes = [NameChange(self.folder.number_of(s.fid), 0) for s in gone]
        fit = tuple((s.fid, s.last) for s in gone if len(self.folder.file(s.fid).slots) == self.slots)
        sealed = tuple(s for s in self.owner.sealed if s not in gone)
        return self.become(self.folder.rename(*changes), sealed=sealed, retired=self.owner.retired + fit)

    def say_acked_durably(self) -> Bot:
        """The segment in use says durably what is acknowledged."""
        tail = self.folder.file(self.owner.tail).mark(acked=self.owner.acked).sync()
        return self.become(self.folder.put(self.owner.tail, tail), acked_durably=self.owner.acked)

    def foldable(self) -> tuple[Sealed, ...]:
        return tuple(s for s in self.owner.sealed if s.last > self.owner.acked)

    def fold(self, ignores_shipped: bool, is_synced: bool) -> Bot:
        """The unacknowledged sealed segments as one, named over the last of them."""
        olds = self.foldable()
        records = [r for one in olds for r in self.records_of(one) if r.seq > self.owner.acked]
        folded = fold_records(records, 0 if ignores_shipped else self.owner.shipped)
        return self.put_over(olds, folded, is_synced).become(is_folding=True)

    # Shipping

    def next_delta(self) -> Sent | None:
        """Everything behind what was shipped, in one message."""
        process = self.owner
        records = tuple(r for r in self.records() if r.seq > process.pump.shipped)
        if not records:
            return None
        base, upto = records[0].base, records[-1].seq
        return Sent(Delta(namespace=self.namespace, epoch=process.epoch, base=base, upto=upto), records)

    def ship(self, upto: int, marks: bool) -> Bot:
        """`marks`: what was handed over is marked in the segment in use, before the socket has it."""
        process = self.owner
        shipped = max(process.shipped, upto) if marks else process.shipped
        folder = self.folder.put(process.tail, self.folder.file(process.tail).mark(shipped=shipped))
        return self.become(folder, shipped=shipped, pump=process.pump._replace(shipped=upto))

    def take(self, reply: Confirmed, resends_when_stuck: bool) -> Bot:
        """What the pump does with a reply to its confirm."""
        process = self.owner
        pump = confirmed(process.pump, reply, resends_when_stuck)
        acked = max(process.acked, pump.durable)
        folder = self.folder
        if acked > process.acked:
            folder = folder.put(process.tail, folder.file(process.tail).mark(acked=acked))
        return self.become(folder, acked=acked, pump=pump)


class _PumpStandIn(SimpleNamespace):
    _confirmed = Pump._confirmed
    _ship_again_from = Pump._ship_again_from


@cache
def confirmed(pump: PumpMemory, reply: Confirmed, resends_when_stuck: bool) -> PumpMemory:
    stand_in = _PumpStandIn(
        _session=SimpleNamespace(namespace="", _note_durable=lambda durable: None),
        _outbox=SimpleNamespace(mark_acked=lambda seq: None, seq=reply.applied),  # nobody else writes here
        _instance=pump.instance, _shipped=pump.shipped, _applied=pump.applied, _durable=pump.durable,
        _applied_when_asked=pump.applied_when_asked if resends_when_stuck else None,
        _durable_when_asked=pump.durable_when_asked,
        _in_flight=deque(), _bytes_in_flight=0, _is_time_to_resend=lambda reply: True,
    )  # fmt: skip
    stand_in._confirmed(reply)
    return PumpMemory(
        stand_in._instance, stand_in._shipped, stand_in._applied, stand_in._durable,
        stand_in._applied, stand_in._durable,
    )  # fmt: skip
