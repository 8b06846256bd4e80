"""Where recovery keeps what it can't use: moved there, durably, and named in the notes; nothing is deleted.

A file is moved only once something better stands in its place, or when it belongs nowhere.
"""

from __future__ import annotations

import os

from persistence_proc.journal import JournalContents
from persistence_proc.paths import Paths
from persistence_proc.recovery_table import Action, FileState
from persistence_proc.survey import FoundMap
from protocol.disk import Disk


class Quarantine:
    """The quarantine of one store. `notes` get a line for each thing that is kept."""

    def __init__(self, disk: Disk, paths: Paths, notes: list[str]) -> None:
        self._disk, self._paths, self._notes = disk, paths, notes

    def keep_journal_damage(self, contents: JournalContents) -> None:
        """A copy of the torn tail's bytes, and the segments that nothing needs any more."""
        torn = contents.torn
        if torn is not None:
            self._disk.mkdir(self._paths.quarantine)
            name = f"{os.path.basename(torn.path)}.{torn.offset}.torn"
            data = self._disk.read_file(torn.path)[torn.offset : torn.offset + torn.length]
            self._disk.replace_file(os.path.join(self._paths.quarantine, name), data)
            self._notes.append(
                f"{torn.path}: a torn frame of {torn.length} bytes at byte {torn.offset}; nobody was told of it"
            )
        if contents.damage is not None:
            self._notes.append(f"an old part of the journal that nothing needs any more: {contents.damage}")
        for path in contents.unusable:
            self._keep(path)

    def keep_unused(self, one: FoundMap) -> None:
        """Move away the files of a map that something better stands in for, or that belong nowhere."""
        if one.action in (Action.NOTHING, Action.REFUSE_NAMESPACE):
            return
        for file in (one.current, one.previous):
            superseded = file.state in (FileState.GOOD, FileState.BEHIND) and file is one.previous
            in_use = file is one.current and one.action is Action.LOAD_CURRENT
            if file.present and not superseded and not in_use:
                self._notes.append(f"{file.path} {file.problem}")
                self._keep(file.path)

    def keep_all(self, one: FoundMap) -> None:
        """Move away whatever there is of a map."""
        for file in (one.current, one.previous):
            if file.present:
                self._keep(file.path)

    def _keep(self, path: str) -> None:
        self._disk.mkdir(self._paths.quarantine)
        target = self._free_name(path)
        self._disk.replace(path, target)
        self._disk.fsync_dir(self._paths.quarantine)
        self._disk.fsync_dir(os.path.dirname(path))
        self._disk.fsync_dir(self._paths.data_dir)
        self._notes.append(f"{path} is kept as {target}")

    def _free_name(self, path: str) -> str:
        stem = os.path.relpath(path, self._paths.data_dir).replace(os.sep, "-")
        number = 1
        while self._disk.exists(os.path.join(self._paths.quarantine, f"{stem}.{number}")):
            number += 1
        return os.path.join(self._paths.quarantine, f"{stem}.{number}")
