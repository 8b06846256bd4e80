"""The persistence process of the model: recovering or serving, its writer, its saves, its journal's housekeeping.

Each function yields (label, server, disk): what may happen next to it by itself, disk operation by disk operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from persistence_proc.catalog import MapKey
from tests.model import server_part
from tests.model.disk_part import ADRIFT, SYNCED, WRITTEN, CatalogMemory, Frame, MapFile, Named, StateDisk
from tests.model.explorer import Label
from tests.model.network_part import Asked
from tests.model.recovery_part import Recovered
from tests.model.server_part import BatchMemory, StoreMemory

IDLE, SEALED, APPENDED, FAILED, LEFT = "idle", "sealed", "appended", "failed", "left"
"""The writer: nothing to do; a batch it could not append; one to sync; a sync has failed; a new segment is named."""
TEMPORARY, LINKED, REPLACED = "temporary", "linked", "replaced"
"""A save: synced without name; the current file is the previous one too; it has its name, not durably."""


class Save(NamedTuple):
    key: MapKey
    file: MapFile
    stage: str


class Serving(NamedTuple):
    instance: int
    memory: StoreMemory
    catalog: CatalogMemory
    """The writer's books."""
    durable_lsn: int
    writer: str = IDLE
    held: tuple[Asked, ...] = ()
    save: Save | None = None
    trimming: bool = False
    """A segment is unlinked, and the directory not synced since."""


class Recovering(NamedTuple):
    instance: int
    recovered: Recovered
    save: Save | None = None


Server = Serving | Recovering | None
Act = tuple[Label, Server, StateDisk]


class Way(NamedTuple):
    """How finely, and in which reading."""

    is_fine: bool
    readings: frozenset[str]


# Recovering


def recovering(server: Recovering, disk: StateDisk, way: Way) -> Iterator[Act]:
    recovered = server.recovered
    if recovered.to_save:
        key = recovered.to_save[0]
        items = dict(recovered.maps)[key]
        file = MapFile(recovered.entry(key).incarnation, recovered.last_lsn, items)
        save = server.save or Save(key, file, TEMPORARY)
        label: Label = ("recovery writes map {} at LSN {}", "/".join(key), file.lsn)
        for left, stage in save_steps(disk, save, way):
            if stage is not None:
                yield (*label, stage), server._replace(save=save._replace(stage=stage)), left
            else:
                done = recovered.with_file(key, file.generation)
                yield label, server._replace(recovered=done, save=None), left
        return
    disk = disk.begin_segment(recovered.last_lsn + 1, _catalog(recovered.catalog, way)).sync_journal_names()
    serving = Serving(server.instance, recovered.store(), recovered.catalog, recovered.last_lsn + 1)
    yield ("recovery begins segment {} and serves", recovered.last_lsn + 1), serving, disk


def save_steps(disk: StateDisk, save: Save, way: Way) -> Iterator[tuple[StateDisk, str | None]]:
    """The next step of a save as (disk, stage), or all of them at once; stage None: it is durable under its name."""
    stage: str | None = save.stage
    while stage is not None:
        current = disk.find(save.key, "current")
        if stage == TEMPORARY:
            if current is not None and "no-previous-generation" not in way.readings:
                disk = disk.name(Named(save.key, "previous", current))
            stage = LINKED
        elif stage == LINKED:
            disk, stage = disk.name(Named(save.key, "current", save.file)), REPLACED
        else:
            if "save-syncs-no-directory" not in way.readings:
                disk = disk.sync_names(save.key[0])
            stage = None
        if way.is_fine:
            break
    yield disk, stage


# The writer


def writer_steps(server: Serving, disk: StateDisk, way: Way) -> Iterator[Act]:
    memory = server.memory
    if server.writer == IDLE:
        if memory.pending and memory.in_flight is None:
            memory = server_part.seal(memory)
            yield _append(server._replace(memory=memory), disk, memory.last_lsn, way)
    elif server.writer == SEALED:
        yield _append(server, disk, memory.last_lsn, way)
    elif server.writer == APPENDED:
        disk = disk.set_last_frame(SYNCED)
        yield ("the sync of LSN {} returns", disk.segments[-1].last), _written(server, disk), disk
    elif server.writer == FAILED:
        lsn = _batch(server).lsn
        if "retries-the-failed-sync" in way.readings:
            yield ("the sync of LSN {} is tried again, and returns", lsn), _written(server, disk), disk
            return
        disk = disk.begin_segment(lsn, _catalog(server.catalog, way)).sync_journal_names()
        yield ("the writer leaves the segment: a new one begins at LSN {}", lsn), server._replace(writer=LEFT), disk
    else:
        lsn = _batch(server).lsn + 1
        disk = disk.append(Frame(lsn, _batch(server).sections, SYNCED))
        yield ("the writer appends and syncs the batch as LSN {}", lsn), _written(server, disk), disk


def _batch(server: Serving) -> BatchMemory:
    assert server.memory.in_flight is not None
    return server.memory.in_flight


def _append(server: Serving, disk: StateDisk, lsn: int, way: Way) -> Act:
    disk = disk.append(Frame(lsn, _batch(server).sections, WRITTEN))
    appended = server._replace(writer=APPENDED)
    if "acknowledges-before-the-sync" in way.readings:
        memory = server_part.acknowledge(appended.memory, lsn)
        appended = appended._replace(memory=memory, durable_lsn=lsn)
    if not way.is_fine:
        disk = disk.set_last_frame(SYNCED)
        return ("the writer appends and syncs LSN {}", lsn), _written(appended, disk), disk
    return ("the writer appends LSN {}, not synced", lsn), appended, disk


def _written(server: Serving, disk: StateDisk) -> Serving:
    """`Written`, then `Idle`: the batch is durable under the newest LSN."""
    lsn = disk.segments[-1].last
    catalog = server.catalog.after(lsn, _batch(server))
    memory = server_part.idle(server_part.acknowledge(server.memory, lsn), lsn)
    return server._replace(memory=memory, catalog=catalog, durable_lsn=max(lsn, server.durable_lsn), writer=IDLE)


def rotate(server: Serving, disk: StateDisk, way: Way) -> Act:
    lsn = server.memory.last_lsn + 1
    disk = disk.begin_segment(lsn, _catalog(server.catalog, way)).sync_journal_names()
    memory = server_part.idle(server.memory, lsn)
    return ("the journal rotates at LSN {}", lsn), server._replace(memory=memory, durable_lsn=lsn), disk


def _catalog(catalog: CatalogMemory, way: Way) -> CatalogMemory:
    if "catalog-without-namespaces" in way.readings:
        return catalog._replace(namespaces=())
    return CatalogMemory(catalog.namespaces) if "catalog-without-maps" in way.readings else catalog


# Its faults


def fail_append(server: Serving, disk: StateDisk) -> Act | None:
    """The disk is full: the batch is sealed and kept."""
    if server.writer != IDLE or not server.memory.pending or server.memory.in_flight is not None:
        return None
    sealed = server._replace(memory=server_part.seal(server.memory), writer=SEALED)
    return ("DISK FULL: the batch of LSN {} is kept", sealed.memory.last_lsn), sealed, disk


def fail_sync(server: Serving, disk: StateDisk) -> Act | None:
    if server.writer == LEFT:
        return ("THE SECOND SYNC FAILS: the process ends",), None, disk
    if server.writer != APPENDED:
        return None
    failed = server._replace(writer=FAILED)
    return ("THE SYNC OF LSN {} FAILS", disk.segments[-1].last), failed, disk.set_last_frame(ADRIFT)


# Saves


def saves_that_may_begin(server: Serving, way: Way) -> Iterator[tuple[MapKey, Save]]:
    """Only when memory equals a sealed batch for its map."""
    if server.save is not None:
        return
    memory = server.memory
    pending = {name for name, _ in memory.pending} if "saves-what-is-pending" not in way.readings else set()
    for one in memory.namespaces:
        name = one.entry[0]
        for found in one.maps:
            if name not in pending and found.incarnation and _is_worth(server, (name, found.name), way):
                ahead = "saves-ahead" in way.readings and bool(memory.pending)
                file = MapFile(found.incarnation, memory.last_lsn + ahead, found.items)
                if "save-syncs-no-file" in way.readings:
                    file = file._replace(is_synced=False)
                yield (name, found.name), Save((name, found.name), file, TEMPORARY)


def _is_worth(server: Serving, key: MapKey, way: Way) -> bool:
    one = server.memory.find(key[0])
    assert one is not None
    found = next(m for m in one.maps if m.name == key[1])
    unsaved = found.current is None or found.current.lsn < server.memory.last_lsn
    if way.readings & {"saves-what-is-pending", "saves-ahead"}:
        return unsaved
    was_recovered = found.current is not None and found.current.lsn <= server.instance
    return server_part.is_dirty(found) or (found.previous is None and was_recovered)


def save_step(server: Serving, disk: StateDisk, way: Way) -> Iterator[Act]:
    """The save that has begun goes on; it gets its name only when its batch is durable."""
    save = server.save
    if save is None:
        return
    waits = server.durable_lsn < save.file.lsn and "renames-before-the-batch-is-durable" not in way.readings
    if save.stage == TEMPORARY and waits and "saves-ahead" not in way.readings:
        return
    label: Label = ("save of map {} at LSN {}: {}", "/".join(save.key), save.file.lsn)
    for left, stage in save_steps(disk, save, way):
        if stage is not None:
            yield (*label, stage), server._replace(save=save._replace(stage=stage)), left
        else:
            memory = server_part.saved(server.memory, save.key, save.file.generation)
            yield (*label, "durable"), server._replace(memory=memory, save=None), left


def pinning(server: Serving, disk: StateDisk) -> Iterator[MapKey]:
    """Maps that hold the oldest of more than two segments; `Checkpoints.rotated` saves them again."""
    for one in server.memory.namespaces if len(disk.segments) > 2 else ():
        for found in one.maps:
            key = one.entry[0], found.name
            if server_part.needed_by(server.memory, key) < disk.segments[1].first:
                yield key


def trim(server: Serving, disk: StateDisk, way: Way) -> Iterator[Act]:
    """Old segments go one by one, the directory synced after each."""
    if server.trimming:
        yield ("the deletion is durable",), server._replace(trimming=False), disk.sync_journal_names()
        return
    if len(disk.segments) > 1 and disk.segments[1].first <= _needs(server, way):
        gone = disk.unlink_oldest()
        yield ("segment {} is deleted", disk.segments[0].first), server._replace(trimming=True), gone


def _needs(server: Serving, way: Way) -> int:
    if "trims-behind-the-current-generation" in way.readings:
        maps = [m for one in server.memory.namespaces for m in one.maps if server_part.is_dirty(m)]
        return min([server.memory.last_lsn + 1, *((m.current.lsn if m.current else m.incarnation) for m in maps)])
    return server_part.needs(server.memory)
