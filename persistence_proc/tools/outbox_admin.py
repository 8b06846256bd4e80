"""What a person may do to an outbox whose bot is gone. Always under its lock, which itself is never moved."""

from __future__ import annotations

import fcntl
import os
import time

from persistence_proc.paths import TEMPORARY_SUFFIX, Paths
from protocol.disk import Disk, lock_holders
from protocol.errors import Damaged, NamespaceInUse
from protocol.outbox_files import IDENTITY_FILE, LOCK_FILE, SEGMENT_SUFFIX
from protocol.segments import decode_segment


def claim_outbox(disk: Disk, folder: str, namespace: str) -> int | None:
    """Lock the outbox; None if there is none. Raises `NamespaceInUse` while its bot lives."""
    if not disk.exists(folder):
        return None
    path = os.path.join(folder, LOCK_FILE)
    fd = disk.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        disk.close(fd)
        holders = ", ".join(f"pid {pid}" for pid in lock_holders(path)) or "a live process"
        raise NamespaceInUse(f"namespace {namespace!r} is in use by {holders}: stop that first") from None
    return fd


def held_in_outbox(disk: Disk, folder: str) -> str:
    """Which changes `set_outbox_aside` would take away, in words."""
    return _changes_held(disk, [os.path.join(folder, name) for name in _contents(disk, folder)])


def set_outbox_aside(disk: Disk, paths: Paths, folder: str, namespace: str) -> str:
    """Move the outbox's contents into a new folder of the quarantine, durably; the folder."""
    names = _contents(disk, folder)
    target = _new_folder(disk, paths, folder, namespace)
    for name in names:
        disk.replace(os.path.join(folder, name), os.path.join(target, name))
    disk.fsync_dir(target)
    disk.fsync_dir(folder)
    return target


def remove_outbox(disk: Disk, folder: str) -> int:
    """Delete the outbox's contents, durably; how many files it were."""
    names = _contents(disk, folder)
    for name in names:
        disk.unlink(os.path.join(folder, name))
    if names:
        disk.fsync_dir(folder)
    return len(names)


def _contents(disk: Disk, folder: str) -> list[str]:
    """Everything but the lock. The identity comes last: without it, what remains would be nobody's."""
    names = disk.listdir(folder) if disk.exists(folder) else []
    ours = [name for name in names if name.endswith((SEGMENT_SUFFIX, TEMPORARY_SUFFIX))]
    return ours + ([IDENTITY_FILE] if IDENTITY_FILE in names else [])


def _changes_held(disk: Disk, paths: list[str]) -> str:
    """In words, as well as the segments can still be read."""
    seqs: list[int] = []
    acked = unreadable = 0
    for path in paths:
        if not path.endswith(SEGMENT_SUFFIX):
            continue
        try:
            segment = decode_segment(path, disk.read_file(path))
        except (Damaged, OSError):
            unreadable += 1
            continue
        acked = max(acked, segment.acked)
        seqs += [seq for record in segment.records for seq in (record.base + 1, record.seq)]
    words = f"changes {min(seqs)} to {max(seqs)}" if seqs else "no readable changes"
    words += f" ({max(0, max(seqs) - acked)} of them never acknowledged)" if seqs else ""
    return words + (f" and {unreadable} unreadable segments" if unreadable else "")


def _new_folder(disk: Disk, paths: Paths, folder: str, namespace: str) -> str:
    """A fresh folder in the quarantine; of an outbox that lies elsewhere, beside it, on the same disk."""
    inside = os.path.abspath(folder).startswith(paths.data_dir + os.sep)
    quarantine = paths.quarantine if inside else os.path.join(os.path.dirname(os.path.abspath(folder)), "quarantine")
    stem = os.path.join(quarantine, f"{namespace}-outbox-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    target, number = stem, 1
    while disk.exists(target):
        number += 1
        target = f"{stem}-{number}"
    disk.mkdir(quarantine)
    disk.fsync_dir(os.path.dirname(quarantine))
    disk.mkdir(target)
    disk.fsync_dir(quarantine)
    return target
