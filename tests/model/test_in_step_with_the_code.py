"""The model says what the code does, in the code's names: if one is renamed or reordered, a test here falls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from persistence_proc.catalog import MapEntry, NamespaceEntry
from persistence_proc.journal import Journal
from persistence_proc.namespaces import Namespace
from persistence_proc.pickle_file import Trailer, save_map
from persistence_proc.store import Store
from persistence_proc.writer import Batch
from strategy_proc.outbox import Outbox
from strategy_proc.pump import Pump
from tests.lab.memory_disk import MemoryDisk
from tests.model.bot_part import Process, PumpMemory
from tests.model.disk_part import CatalogMemory, MapFile, Segment, StateDisk
from tests.model.outbox_part import Marks, SegmentFile
from tests.model.recovery_part import first_disk, recover
from tests.model.server_part import BatchMemory, MapMemory, NamespaceMemory, StoreMemory
from tests.model.serving_part import LINKED, REPLACED, TEMPORARY, Save, Way, save_steps
from tests.strategy_proc.outboxes import BOOT, NAMESPACE, STORE

OF_THE_MODEL_ALONE = {
    Process: {"phase", "attempt", "tail", "used", "state", "pump", "retired", "reusable", "names_due", "is_folding"},
    SegmentFile: {"slots", "marks", "medium", "medium_marks", "adrift"},
    NamespaceMemory: {"entry"},
    BatchMemory: {"sections"},
    MapFile: {"is_synced", "is_damaged", "items"},
}
"""Fields without a name in the code."""


def names_of(owner: object) -> set[str]:
    """Attributes, with and without the underscore of what is private."""
    return {
        name.lstrip("_") for name in {*dir(owner), *getattr(owner, "__slots__", ()), *getattr(owner, "_fields", ())}
    }


@pytest.fixture
def outbox() -> Outbox:
    made = Outbox.load(MemoryDisk(), f"/{NAMESPACE}/outbox", NAMESPACE, BOOT)
    made.begin(STORE, 1, 0, [])
    return made


def check(kind: type, *owners: object) -> None:
    known = set().union(*map(names_of, owners))
    missing = set(kind._fields) - OF_THE_MODEL_ALONE.get(kind, set()) - known  # type: ignore[attr-defined]
    assert not missing, f"{kind.__name__} of the model names what the code does not: {missing}"


def test_the_outbox_of_the_model_has_the_fields_of_the_outbox(outbox: Outbox) -> None:
    check(Process, outbox)
    check(Marks, outbox)
    check(SegmentFile, outbox._files._head)


def test_the_pump_of_the_model_has_the_fields_of_the_pump() -> None:
    fields = {f"_{name}" for name in PumpMemory._fields}
    assert fields <= set(Pump.__init__.__code__.co_names), "the pump keeps these"


def test_the_server_of_the_model_has_the_fields_of_the_store() -> None:
    check(StoreMemory, Store(STORE, 1))
    check(NamespaceMemory, Namespace(NamespaceEntry(name="bot")))
    check(BatchMemory, Batch)
    assert set(MapMemory._fields) - {"items"} <= set(MapEntry.__struct_fields__)
    check(MapFile, Trailer)
    assert [f.name for f in msgspec.structs.fields(NamespaceEntry)][:6] == [
        "name", "epoch", "applied", "identity", "since", "openers",
    ], "the model reads entries by position"  # fmt: skip


def calls_of(disk: MemoryDisk, act: Callable[[], object]) -> list[str]:
    """The calls that `act` makes to change the disk, with the end of the path."""
    calls: list[str] = []
    disk.on_call = lambda name, path: calls.append(f"{name} {Path(path).suffix}")
    act()
    disk.on_call = lambda name, path: None
    return calls


def test_a_save_of_the_model_takes_the_steps_of_a_save() -> None:
    """Written and synced, awaited, the previous kept, renamed, the directory synced."""
    disk = MemoryDisk()
    waited = mock.Mock(side_effect=lambda: disk.on_call("awaits", "."))

    def save(lsn: int) -> None:
        trailer = Trailer(STORE, "bot", "m", 1, lsn)
        save_map(disk, "/", "m", [], 0, trailer, before_rename=waited)

    save(1)
    calls = [call for call in calls_of(disk, lambda: save(2)) if call.split()[0] not in ("open", "write", "unlink")]
    assert calls == ["fsync .tmp", "awaits ", "link_or_copy .pkl", "replace .tmp", "replace .tmp", "fsync_dir "]
    key, way = ("bot", "m"), Way(is_fine=True, readings=frozenset())
    left, stage, stages = StateDisk(), TEMPORARY, []
    while stage is not None:
        stages.append(stage)
        [(left, stage)] = save_steps(left, Save(key, MapFile(1, 2, ()), stage), way)
    assert stages == [TEMPORARY, LINKED, REPLACED]
    assert left.durable == left.files


def test_a_segment_of_the_model_begins_as_a_segment_does() -> None:
    """Whole and synced before it has its name; the name durable before anything counts on it."""
    disk = MemoryDisk()
    catalog = CatalogMemory().thaw()
    calls = calls_of(disk, lambda: Journal.start(disk, "/journal", STORE, catalog, 1))
    order = [call for call in calls if call.split()[0] in ("pwrite", "fsync", "replace", "fsync_dir")]
    assert order[-4:] == ["pwrite .tmp", "fsync .tmp", "replace .tmp", "fsync_dir "]
    begun = StateDisk().begin_segment(1, CatalogMemory())
    assert begun.unsynced_segments == (1,)
    assert begun.sync_journal_names().surely().segments == (Segment(1, CatalogMemory()),)


def test_a_new_store_of_the_model_recovers_to_nothing() -> None:
    recovered = recover(first_disk(), is_damaged=False)
    assert (recovered.last_lsn, recovered.maps, recovered.to_save) == (1, (), ())
