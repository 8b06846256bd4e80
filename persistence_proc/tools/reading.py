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
from persistence_proc.tools.outbox_fit import gap_before, newer_records
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


def look_settled(disk: Disk, data_dir: str) -> Seen | None:
    """`look`; again where a running process has replaced something meanwhile, or it seems that something is lost.

    Raises what the last look raised: `StateRefused`, OSError.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            seen = look(disk, data_dir)
        except (StateRefused, OSError):
            continue
        if seen is None or not any(found.is_refused for found in seen.found):
            return seen
    return look(disk, data_dir)


def _read_settled(disk: Disk, paths: Paths) -> ShownStore:
    """Files and journal."""
    try:
        seen = look_settled(disk, paths.data_dir)
    except FileNotFoundError as error:
        return _from_files(disk, paths, f"{error.filename} is missing")
    except OSError as error:
        return _from_files(disk, paths, f"{error.filename}: {error.strerror}")
    except StateRefused as error:
        return _from_files(disk, paths, str(error))
    return _from_journal(seen) if seen is not None else _from_files(disk, paths, lost_journal(disk, paths))


def lost_journal(disk: Disk, paths: Paths) -> str:
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
    if conflict := _does_not_join(contents, namespace):
        store.problems.append(f"the outbox of {name} is not shown: {conflict}")
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
    return newer_records(contents, entry.applied if entry else 0, entry.since if entry else 0)


def _does_not_join(contents: OutboxContents, namespace: ShownNamespace) -> str:
    """Why what the outbox holds can't be put on top of what is shown; empty if it can."""
    if namespace.entry is None and namespace.maps:
        return "without the journal nobody knows up to which change the files are"
    applied = namespace.entry.applied if namespace.entry else 0
    return gap_before(contents, _newer(contents, namespace.entry), applied)


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
