"""A disk that remembers what was synced, so that a test can stop at any call and see what is left.

A kill keeps everything that was written; the kernel has it. A power cut keeps what was synced, and of the rest what
chance decides: each 512-byte sector of each write that was not synced, each truncation, each name that was made, moved
or removed without a sync of its directory.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import NamedTuple

from protocol.disk import Disk

SECTOR = 512


class _Write(NamedTuple):
    offset: int
    data: bytes

    def keep(self, content: bytearray, chance: random.Random) -> None:
        at = self.offset
        while at < self.offset + len(self.data):
            end = min((at // SECTOR + 1) * SECTOR, self.offset + len(self.data))
            if chance.random() < 0.5:
                put(content, at, self.data[at - self.offset : end - self.offset])
            at = end


class _Truncate(NamedTuple):
    length: int


class _File:
    """Contents on the medium, and what was done since the last sync."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.pending: list[_Write | _Truncate] = []

    def sync(self) -> None:
        for step in self.pending:
            _apply(self.content, step)
        self.pending = []

    def left(self, chance: random.Random) -> bytes:
        """What a cut leaves."""
        content = bytearray(self.content)
        for step in self.pending:
            if isinstance(step, _Write):
                step.keep(content, chance)
            elif chance.random() < 0.5:
                _apply(content, step)
        return bytes(content)

    def written(self) -> bytes:
        """What a kill leaves."""
        other = self.copy()
        other.sync()
        return bytes(other.content)

    def copy(self) -> _File:
        other = _File()
        other.content, other.pending = bytearray(self.content), list(self.pending)
        return other


class _Name(NamedTuple):
    """A change of a directory: `made` now names `file` (a directory: None), `gone` names nothing any more."""

    made: str | None
    file: _File | None
    gone: str | None


class _Folder:
    def __init__(self) -> None:
        self.names: dict[str, _File | None] = {}
        self.pending: list[_Name] = []

    def sync(self) -> None:
        for step in self.pending:
            _rename(self.names, step)
        self.pending = []

    def left(self, chance: random.Random) -> dict[str, _File | None]:
        names = dict(self.names)
        for step in self.pending:
            if chance.random() < 0.5:
                _rename(names, step)
        return names


class Moment(NamedTuple):
    """The state at some call: every way in which it can end there can be built from it."""

    root: str
    folders: dict[str, _Folder]

    def kill(self, target: str) -> ForgetfulDisk:
        """Make `target` the directory that a kill leaves, on a disk that knows what of it was never synced."""
        os.makedirs(target, mode=0o700)
        disk = ForgetfulDisk(target)
        for path, folder in sorted(_copied(self.folders).items()):
            place = target + path[len(self.root) :]
            os.makedirs(place, mode=0o700, exist_ok=True)
            disk.adopt(place, folder)
        return disk

    def cut_power(self, target: str, chance: random.Random) -> None:
        """Make `target` a directory as chance leaves it."""
        self._build(self.root, target, chance, {})

    def _build(self, path: str, target: str, chance: random.Random, left: dict[_File, bytes]) -> None:
        os.makedirs(target, mode=0o700, exist_ok=True)
        for name, file in self.folders[path].left(chance).items():
            if file is None:
                self._build(os.path.join(path, name), os.path.join(target, name), chance, left)
                continue
            if file not in left:  # a file with two names has one content
                left[file] = file.left(chance)
            with open(os.path.join(target, name), "wb") as made:
                made.write(left[file])


class ForgetfulDisk(Disk):
    """A real disk below `root`, with a record of what a cut would leave. `on_step` is called before each change."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._files: dict[str, _File] = {}
        self._open: dict[int, tuple[_File, int]] = {}
        self._folders: dict[str, _Folder] = {}
        self.on_step: Callable[[], None] = lambda: None
        for path, folders, files in os.walk(root):
            folder = self._folders[path] = _Folder()
            folder.names.update(dict.fromkeys(folders))
            for name in files:
                full = os.path.join(path, name)
                file = self._files[full] = folder.names[name] = _File()
                with open(full, "rb") as source:
                    file.content = bytearray(source.read())

    def moment(self) -> Moment:
        """Everything as it is now."""
        with self._lock:
            return Moment(self._root, _copied(self._folders))

    def adopt(self, path: str, folder: _Folder) -> None:
        """Take over a folder with all that was written in it, synced or not."""
        self._folders[path] = folder
        names = dict(folder.names)
        for step in folder.pending:
            _rename(names, step)
        for name, file in names.items():
            if file is not None:
                full = os.path.join(path, name)
                self._files[full] = file
                with open(full, "wb") as made:
                    made.write(file.written())

    # Files

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        with self._lock:
            self.on_step()
            is_new = bool(flags & os.O_CREAT) and not os.path.exists(path)
            fd = super().open(path, flags, mode)
            if is_new:
                self._files[path] = _File()
                self._name(path, self._files[path])
            file = self._files[path]
            if flags & os.O_TRUNC:
                file.pending.append(_Truncate(0))
            self._open[fd] = file, 0
            return fd

    def close(self, fd: int) -> None:
        with self._lock:
            del self._open[fd]
            super().close(fd)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        with self._lock:
            self.on_step()
            file, at = self._open[fd]
            file.pending.append(_Write(at, bytes(data)))
            self._open[fd] = file, at + len(data)
            super().write(fd, data)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        with self._lock:
            self.on_step()
            self._open[fd][0].pending.append(_Write(offset, bytes(data)))
            super().pwrite(fd, data, offset)

    def truncate(self, fd: int, length: int) -> None:
        with self._lock:
            self.on_step()
            self._open[fd][0].pending.append(_Truncate(length))
            super().truncate(fd, length)

    def fsync(self, fd: int) -> None:
        with self._lock:
            self.on_step()
            self._open[fd][0].sync()

    def fdatasync(self, fd: int) -> None:
        self.fsync(fd)

    # Names

    def fsync_dir(self, path: str) -> None:
        with self._lock:
            self.on_step()
            if path in self._folders:  # what is above the root stays
                self._folders[path].sync()

    def replace(self, source: str, target: str) -> None:
        with self._lock:
            self.on_step()
            super().replace(source, target)
            file = self._files[source]
            if self._files.get(target) is file:
                return  # two names of one file: POSIX does nothing
            self._files[target] = self._files.pop(source)
            if os.path.dirname(source) == os.path.dirname(target):
                self._name(target, file, gone=os.path.basename(source))
            else:
                self._name(target, file)
                self._forget(source)

    def link_or_copy(self, source: str, target: str) -> None:
        with self._lock:
            self.on_step()
            super().link_or_copy(source, target)
            self._files[target] = self._files[source]
            self._name(target, self._files[source])

    def unlink(self, path: str) -> None:
        with self._lock:
            self.on_step()
            super().unlink(path)
            del self._files[path]
            self._forget(path)

    def mkdir(self, path: str) -> None:
        with self._lock:
            self.on_step()
            super().mkdir(path)
            if path not in self._folders:
                self._folders[path] = _Folder()
                self._name(path, None)

    def _name(self, path: str, file: _File | None, gone: str | None = None) -> None:
        folder, name = os.path.split(path)
        if folder in self._folders:
            self._folders[folder].pending.append(_Name(name, file, gone))

    def _forget(self, path: str) -> None:
        folder, name = os.path.split(path)
        self._folders[folder].pending.append(_Name(None, None, name))


def _copied(folders: dict[str, _Folder]) -> dict[str, _Folder]:
    copies: dict[_File | None, _File | None] = {None: None}
    for folder in folders.values():
        for file in (*folder.names.values(), *(step.file for step in folder.pending)):
            if file is not None and file not in copies:
                copies[file] = file.copy()
    copied = {}
    for path, folder in folders.items():
        other = copied[path] = _Folder()
        other.names = {name: copies[file] for name, file in folder.names.items()}
        other.pending = [step._replace(file=copies[step.file]) for step in folder.pending]
    return copied


def put(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _apply(content: bytearray, step: _Write | _Truncate) -> None:
    if isinstance(step, _Write):
        put(content, step.offset, step.data)
    else:
        del content[step.length :]
        content.extend(bytes(step.length - len(content)))


def _rename(names: dict[str, _File | None], step: _Name) -> None:
    if step.gone is not None:
        names.pop(step.gone, None)
    if step.made is not None:
        names[step.made] = step.file
