"""Read a whole data directory as it lies there: files, journal and outboxes, with or without a running system.

Nothing is written and no code of a bot is run. What can't be read is named in one line, and the rest is shown. The
result is what recovery and the next `connect` would make of it, as far as that can be seen from the outside.
"""

from __future__ import annotations

import msgspec

from persistence_proc.catalog import MapKey, NamespaceEntry
from persistence_proc.paths import Paths
from persistence_proc.pickle_file import load_map
from persistence_proc.recovery import Seen, look
from persistence_proc.survey import map_files
from protocol.changes import DROP, apply_change, decode_changes
from protocol.disk import Disk, boot_id
from protocol.errors import Damaged, MalformedMessage, OutliveError, StateRefused
from protocol.frames import Record
from protocol.outbox_files import OutboxContents, read_outbox

ATTEMPTS = 5  # a running system moves files under the reader: looked at again, it is usually whole


class ShownMap(msgspec.Struct):
    """One map: encoded key -> pickled value, and what is known of its files."""

    items: dict[bytes, bytes]
    saved_lsn: int | None = None
    """LSN that the current file holds."""
    last_change: int | None = None
    """LSN of its newest change in the journal."""
    in_outbox: int = 0
    """Changes that only the outbox holds."""
    problem: str = ""
    unreadable: bool = False
    """Its files can't be used: `items` is not what it holds."""


class ShownNamespace(msgspec.Struct):
    """One namespace. `entry` is None where no journal tells."""

    name: str
    entry: NamespaceEntry | None
    maps: dict[str, ShownMap] = {}
    in_outbox: int = 0
    """Changes above `applied` that only the outbox holds."""
    problem: str = ""

    def map(self, name: str) -> ShownMap:
        return self.maps.setdefault(name, ShownMap({}))


class ShownStore(msgspec.Struct):
    """A data directory."""

    namespaces: dict[str, ShownNamespace]
    last_lsn: int | None
    problems: list[str]

    def namespace(self, name: str, entry: NamespaceEntry | None = None) -> ShownNamespace:
        return self.namespaces.setdefault(name, ShownNamespace(name, entry))


def read_store(disk: Disk, data_dir: str) -> ShownStore:
    """Everything that can be read. Raises OSError only if the directory itself can't be.

    The outboxes come first: what a running bot's outbox drops meanwhile is then in the journal.
    """
    paths = Paths(data_dir)
    disk.listdir(data_dir)
    outboxes = {name: _read_outbox(disk, paths.outbox(name), name) for name in paths.namespaces(disk)}
    store = _read_settled(disk, paths)
    for name, contents in outboxes.items():
        if isinstance(contents, str):
            store.problems.append(contents)
        elif contents is not None:
            _add_outbox(store, name, contents)
    return store


def _read_settled(disk: Disk, paths: Paths) -> ShownStore:
    """Files and journal; again where a running process has replaced something meanwhile."""
    problem = ""
    for _ in range(ATTEMPTS):
        try:
            seen = look(disk, paths.data_dir)
        except FileNotFoundError as error:
            problem = f"{error.filename} is missing"
            continue
        except OSError as error:
            problem = f"{error.filename}: {error.strerror}"
            continue
        except StateRefused as error:
            problem = str(error)
            continue
        if seen is not None and any(found.is_refused for found in seen.found):
            last = _from_journal(seen)
            continue
        return _from_journal(seen) if seen is not None else _from_files(disk, paths, _lost_journal(disk, paths))
    return last if not problem else _from_files(disk, paths, problem)


def _lost_journal(disk: Disk, paths: Paths) -> str:
    """What to say where there is no segment: nothing, if there never was a store."""
    if not disk.exists(paths.store) and not map_files(disk, paths):
        return ""
    return f"{paths.journal}: no journal segment, though there is a store: what is shown is what the map files hold"


def _from_journal(seen: Seen) -> ShownStore:
    books = seen.known.books
    store = ShownStore({}, seen.known.last_lsn, [seen.problem] if seen.problem else [])
    for name, entry in books.namespaces.items():
        store.namespace(name, entry)
    for found in seen.found:
        one, namespace = seen.maps.get(found.key), store.namespace(found.key[0])
        if found.problems:
            store.problems.append(found.problems)
        if found.entry is None:
            continue
        current = found.current.generation
        namespace.maps[found.key[1]] = ShownMap(
            one.items if one else {}, current.lsn if current else None, found.entry.last_change,
            problem=found.problems if one is None or one.previous_used else "", unreadable=one is None,
        )  # fmt: skip
        if one is None:
            namespace.problem = f"{namespace.problem} {found.problems}".strip()
    return store


def _from_files(disk: Disk, paths: Paths, problem: str) -> ShownStore:
    """The pickle files alone: there is no journal, or none that can be read."""
    store = ShownStore({}, None, [problem] if problem else [])
    for key in map_files(disk, paths):
        shown, problems = _newest_file(disk, paths, key)
        store.problems += problems
        if shown is not None:
            store.namespace(key[0]).maps[key[1]] = shown
    return store


def _newest_file(disk: Disk, paths: Paths, key: MapKey) -> tuple[ShownMap | None, list[str]]:
    problems: list[str] = []
    for path in (paths.current(*key), paths.previous(*key)):
        try:
            loaded = load_map(disk, path)
        except Damaged as error:
            problems.append(f"{path}: {error.what}")
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
        else:
            return ShownMap(loaded.items, loaded.trailer.lsn, problem="; ".join(problems)), problems
    return None, problems


# Outboxes


def _read_outbox(disk: Disk, folder: str, name: str) -> OutboxContents | str | None:
    """None if there is none, a sentence if it can't be read."""
    problem = ""
    for _ in range(ATTEMPTS if disk.exists(folder) else 0):
        try:
            return read_outbox(disk, folder, name, boot_id())
        except (OutliveError, OSError) as error:
            problem = str(error)
    return problem or None


def _add_outbox(store: ShownStore, name: str, contents: OutboxContents) -> None:
    """Apply what only the outbox holds, as the next `connect` would."""
    if not contents.segments and contents.identity is None:
        return
    namespace = store.namespace(name)
    if _is_of_another_history(contents, namespace.entry):
        store.problems.append(f"the outbox of {name} belongs to another history of it; it is not shown")
        return
    if (unfit := _does_not_join(contents, namespace)) is not None:
        store.problems.append(f"the outbox of {name} is not shown: {unfit}")
        return
    try:
        _apply_records(contents, namespace)
    except MalformedMessage as error:
        store.problems.append(f"the outbox of {name} holds a record that can't be read: {error}")


def _is_of_another_history(contents: OutboxContents, entry: NamespaceEntry | None) -> bool:
    identity = contents.identity
    if entry is None or not entry.identity or identity is None:
        return False
    return identity.identity != entry.identity


def _newer(contents: OutboxContents, entry: NamespaceEntry | None) -> list[Record]:
    """The records that the state lacks."""
    applied, since = (entry.applied, entry.since) if entry else (0, 0)
    return [record for record in contents.records if record.seq > applied and record.epoch >= since]


def _does_not_join(contents: OutboxContents, namespace: ShownNamespace) -> str | None:
    """Why what the outbox holds can't be put on top of what is shown, or None."""
    if namespace.entry is None and namespace.maps:
        return "without the journal nobody knows up to which change the files are"
    applied = namespace.entry.applied if namespace.entry else 0
    newer = _newer(contents, namespace.entry)
    begins = max(contents.acked, newer[0].base if newer else 0)
    if begins <= applied:
        return None
    return f"it knows that changes up to {begins} were acknowledged, and the state here ends at change {applied}"


def _apply_records(contents: OutboxContents, namespace: ShownNamespace) -> None:
    applied = namespace.entry.applied if namespace.entry else 0
    for record in _newer(contents, namespace.entry):
        namespace.in_outbox += record.seq - max(record.base, applied)
        for op, name, key, value in decode_changes(record.payload):
            shown = namespace.map(name)
            shown.in_outbox += 1
            if op == DROP:
                del namespace.maps[name]
            elif not shown.unreadable:
                apply_change(shown.items, op, key, value)
