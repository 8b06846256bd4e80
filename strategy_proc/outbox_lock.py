"""The "one owner" lock of a namespace: a file beside the outbox that is only ever flock'ed.

It is never mapped (a mapping pins the lock in forked children), never renamed (the lock would stay on the old
inode) and never deleted (a second owner would lock another file of the same name).
"""

from __future__ import annotations

import fcntl
import os
import weakref

from protocol.disk import Disk, lock_holders
from protocol.errors import NamespaceInUse
from protocol.outbox_files import LOCK_FILE


class OutboxLock:
    """Held for the life of a session, and taken before anything of the outbox is looked at."""

    def __init__(self, disk: Disk, folder: str, namespace: str) -> None:
        self._disk, self._folder, self._namespace = disk, folder, namespace
        self.fd = -1
        """Open while the lock is held, else -1."""

    def acquire(self) -> None:
        """Take the lock or raise `NamespaceInUse`, which names every process that holds it."""
        self._disk.mkdir(os.path.dirname(self._folder))
        self._disk.mkdir(self._folder)
        path = os.path.join(self._folder, LOCK_FILE)
        fd = self._disk.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._disk.close(fd)
            raise NamespaceInUse(self._refusal(path)) from None
        except BaseException:
            self._disk.close(fd)
            raise
        self.fd = fd
        _held.add(self)

    def release(self) -> None:
        """Unlock, also for descriptors that a forked child may still hold. Harmless when not held."""
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            self.drop_in_child()

    def drop_in_child(self) -> None:
        """Close the descriptor only: unlocking it in a forked child would unlock the parent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._disk.close(fd)

    def _refusal(self, path: str) -> str:
        holders = ", ".join(f"pid {pid}" for pid in lock_holders(path)) or "a process that is not visible from here"
        return (
            f"namespace {self._namespace!r} is in use by {holders}. One process owns a namespace at a time; "
            f"stop that one first (its lock is {path})"
        )


_held: weakref.WeakSet[OutboxLock] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """A child that lives on must not keep the namespace from its parent's successor, even if it was forked by
    another thread while the parent was still connecting.
    """
    for lock in list(_held):
        lock.drop_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
