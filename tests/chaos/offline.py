"""Look at a data directory as anybody could: a plain Python reader, and recovery on a copy."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

from persistence_proc.journal import segment_paths
from persistence_proc.journal_format import scan_segment
from persistence_proc.recovery import Recovered, recover
from protocol.disk import Disk
from tests.chaos.oracle import Lost
from tests.promises.workload import Maps

SIDES = ("left", "right")


def read_pickles(data_dir: Path, namespace: str, seen: set[Path]) -> dict[int, dict[Any, Any]]:
    """Load the files of a namespace with plain `pickle`: side -> items. Those in `seen` must be there."""
    found = {}
    for side, name in enumerate(SIDES):
        path = data_dir / namespace / f"{name}.pkl"
        try:
            with path.open("rb") as file:
                found[side] = pickle.load(file)
        except FileNotFoundError:
            if path in seen:
                raise Lost(f"{path} was there and is gone") from None
            continue
        except (pickle.UnpicklingError, EOFError, ValueError) as error:
            raise Lost(f"{path} can't be read while it is replaced: {error!r}") from error
        seen.add(path)
    return found


def recovered_without_outboxes(data_dir: Path, names: list[str]) -> dict[str, Maps]:
    """What the journal and the map files alone give: recovery on a copy that has no outbox."""
    with tempfile.TemporaryDirectory(prefix="ol-copy-") as folder:
        copy = os.path.join(folder, "state")
        shutil.copytree(data_dir, copy, ignore=shutil.ignore_patterns("outbox", "sockets", "supervisor.d"))
        recovered = recover(Disk(), copy)
        recovered.journal.close()
        if recovered.refused:
            raise Lost(f"recovery refuses {recovered.refused}")
        return {name: _maps(recovered, name) for name in names}


def _maps(recovered: Recovered, namespace: str) -> Maps:
    left, right = (_items(recovered, namespace, name) for name in SIDES)
    return left, right


def _items(recovered: Recovered, namespace: str, name: str) -> dict[Any, Any]:
    found = recovered.maps.get((namespace, name))
    items = found.items if found is not None else {}
    return {pickle.loads(b"\x80\x05" + key + b"."): pickle.loads(value) for key, value in items.items()}


def tear_the_tail(data_dir: Path, garbage: bytes) -> bool:
    """Leave behind the newest frame what a commit that was being written leaves. False if there is no journal yet."""
    paths = segment_paths(Disk(), str(data_dir / "journal"))
    if not paths:
        return False
    with open(paths[-1], "r+b") as file:
        file.seek(scan_segment(paths[-1], memoryview(file.read())).end)
        file.write(garbage)
    return True
