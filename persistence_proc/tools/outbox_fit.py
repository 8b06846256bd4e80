"""Whether an outbox whose bot is gone fits the state here: what its next `connect` would be told, asked beforehand.

The rule is the server's (`Namespace.check_history`), and `connect`'s for what it finds behind that.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple

from persistence_proc.catalog import NamespaceEntry
from persistence_proc.namespaces import Namespace
from protocol.disk import Disk, boot_id
from protocol.errors import Damaged, ForeignStore
from protocol.frames import Record
from protocol.messages import Open
from protocol.outbox_files import OutboxContents, read_outbox


class OutboxFit(NamedTuple):
    """What the next `connect` would do with an outbox. Both numbers are of changes that were never acknowledged."""

    conflict: str
    """Why it would be refused; empty if it would not."""
    waiting: int = 0
    """It would take so many."""
    foreign: int = 0
    """It would set so many aside: another outbox has opened the namespace since they were recorded."""


def judge_outbox(disk: Disk, folder: str, entry: NamespaceEntry, store_id: bytes) -> OutboxFit:
    """Judge the outbox in `folder`, whose lock is ours, against what the journal says. Raises OSError."""
    try:
        contents = read_outbox(disk, folder, entry.name, boot_id())
    except (Damaged, ForeignStore) as error:
        return OutboxFit(str(error))
    except OSError as error:
        if error.errno != errno.EIO:  # nothing is said about what is recorded there: ask again
            raise
        return OutboxFit(f"{error.filename} can't be read: {error.strerror}")
    known, request = Namespace(entry), _open_request(contents, entry.name)
    refusal = known.check_history(request, store_id)
    if refusal is not None:
        return OutboxFit(refusal.message)
    since = known.since_of(request)
    conflict = gap_before(contents, newer_records(contents, entry.applied, since), entry.applied)
    waiting = sum(record.span for record in contents.records if record.epoch >= since)
    every = sum(record.span for record in (*contents.records, *contents.set_aside))
    return OutboxFit(conflict, waiting, every - waiting)


def newer_records(contents: OutboxContents, applied: int, since: int) -> list[Record]:
    """The records that a state at change `applied` lacks, of the history that began with epoch `since`."""
    return [record for record in contents.records if record.seq > applied and record.epoch >= since]


def gap_before(contents: OutboxContents, newer: list[Record], applied: int) -> str:
    """Why `newer` can't be put on top of a state at change `applied`; empty if they can."""
    begins = max(contents.acked, newer[0].base if newer else 0)
    if begins <= applied:
        return ""
    return f"it knows that changes up to {begins} were acknowledged, and the state here ends at change {applied}"


def _open_request(contents: OutboxContents, namespace: str) -> Open:
    """What its bot would ask. Without an identity it would begin with one that nobody knows."""
    identity = contents.identity
    return Open(
        namespace=namespace, identity=identity.identity if identity else os.urandom(16),
        life=identity.life + 1 if identity else 1, attempt=1, boot_id=boot_id(), host=socket.gethostname(),
        pid=os.getpid(), store_id=identity.store_id if identity else b"", epoch=contents.epoch,
        acked=contents.acked, last=contents.last,
    )  # fmt: skip
