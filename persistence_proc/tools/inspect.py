"""`python -m persistence_proc.tools.inspect --data-dir DIR [NAMESPACE [MAP [KEY]]]`: show the state that is on disk.

Needs no running system and writes nothing. Exit codes: 0 shown; 1 what was asked for is not there; 2 no such
directory, or a wrong use. What could not be read is named on the standard error, one line each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from persistence_proc.tools.command import leave, run
from persistence_proc.tools.foreign_values import show_key, show_value
from persistence_proc.tools.place import find_place, place
from persistence_proc.tools.plain import plain
from persistence_proc.tools.reading import ShownMap, ShownNamespace, read_store
from protocol.disk import Disk
from protocol.records import Record

Row = dict[str, Any]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@place
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON document.")
@click.argument("namespace", required=False)
@click.argument("map_name", metavar="[MAP]", required=False)
@click.argument("key", required=False)
def main(
    data_dir: str | None, config_path: str | None, as_json: bool,
    namespace: str | None, map_name: str | None, key: str | None,
) -> None:  # fmt: skip
    """Show namespaces, the maps of one, the entries of a map, or one entry. Values of unknown classes show as <...>."""
    data_dir, _ = find_place(data_dir, config_path)
    try:
        store = read_store(Disk(), data_dir)
    except OSError as error:
        leave(f"{data_dir}: {error.strerror}", 2)
    for problem in store.problems:
        click.echo(f"outlive: {' '.join(problem.split())}", err=True)
    print_rows = _print_json if as_json else _print_table
    if namespace is None:
        print_rows([_namespace_row(one) for one in store.namespaces.values()], "namespaces")
        return
    found = _find(store.namespaces, namespace, f"no namespace {namespace!r} in {data_dir}")
    if map_name is None:
        print_rows([_map_row(name, one) for name, one in found.maps.items()], namespace)
        return
    shown = _find(found.maps, map_name, f"no map {map_name!r} in namespace {namespace!r}")
    _show_entries(shown, f"{namespace}/{map_name}", key, as_json, print_rows)


def _show_entries(
    shown: ShownMap, title: str, key: str | None, as_json: bool, print_rows: Callable[[list[Row], str], None]
) -> None:
    if shown.problem and not shown.items:
        leave(f"{title} can't be shown: {shown.problem}", 1)
    entries = [(show_key(data), show_value(value)) for data, value in shown.items.items() if _fits(data, key)]
    if key is not None and not entries:
        leave(f"no key {key!r} in {title}", 1)
    if as_json:
        print_rows([{"key": plain(name), "value": plain(value)} for name, value in entries], title)
    elif key is None:
        print_rows([{"key": _text(name), "value": repr(value)} for name, value in entries], title)
    else:
        for name, value in entries:
            print_rows(_fields(value), f"{title} {_text(name)}")


def _find(among: dict[str, Any], name: str, otherwise: str) -> Any:
    if name not in among:
        names = ", ".join(sorted(among))
        leave(otherwise + (f"; there is {names}" if names else ""), 1)
    return among[name]


# Rows


def _namespace_row(one: ShownNamespace) -> Row:
    entry = one.entry
    return {
        "namespace": one.name,
        "maps": len(one.maps),
        "entries": sum(len(shown.items) for shown in one.maps.values()),
        "epoch": entry.epoch if entry else None,
        "seq": entry.applied if entry else None,
        "only in outbox": one.in_outbox,
        "session": None if entry is None else "closed" if entry.closed else "open or crashed",
        "last change": _time(entry.ts_last) if entry and entry.ts_last else None,
        "problem": one.problem,
    }


def _map_row(name: str, one: ShownMap) -> Row:
    return {
        "map": name,
        "entries": len(one.items),
        "bytes": sum(len(key) + len(value) for key, value in one.items.items()),
        "saved LSN": one.saved_lsn,
        "last change LSN": one.last_change,
        "only in outbox": one.in_outbox,
        "problem": one.problem,
    }


def _fields(value: Any) -> list[Row]:
    """One entry in full: a line per field where there are fields."""
    if isinstance(value, Record):
        pairs: Iterable[tuple[Any, Any]] = ((name, getattr(value, name)) for name in value.__struct_fields__)
    elif isinstance(value, dict):
        pairs = value.items()
    else:
        pairs = [(type(value).__name__, value)]
    return [{"field": _text(name), "value": repr(item)} for name, item in pairs]


def _time(ts: int) -> str:
    return datetime.fromtimestamp(ts // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# Keys


def _fits(data: bytes, wanted: str | None) -> bool:
    """A key given as text means the str, the int, or whatever else prints like it."""
    if wanted is None:
        return True
    key = show_key(data)
    return key == wanted if isinstance(key, str) else repr(key) == wanted


def _text(key: Any) -> str:
    """A str as it is where that is harmless to a terminal, else as Python writes it."""
    return key if isinstance(key, str) and key.isprintable() else repr(key)


# Output


def _print_json(rows: list[Row], title: str) -> None:
    click.echo(json.dumps(rows, indent=2))


def _print_table(rows: list[Row], title: str) -> None:
    """A table for people; for a pipe, lines of fields with tabs between them."""
    heads = list(rows[0]) if rows else []
    cells = [["" if cell is None else _cell(cell) for cell in row.values()] for row in rows]
    used = [i for i, head in enumerate(heads) if head != "problem" or any(row[i] for row in cells)]
    if not sys.stdout.isatty():
        for line in [heads, *cells] if heads else []:
            click.echo("\t".join(line[i] for i in used))
        return
    table = Table(title=Text(title), title_justify="left")
    for i in used:
        table.add_column(heads[i], justify="right" if isinstance(rows[0][heads[i]], int) else "left", overflow="fold")
    for line in cells:
        table.add_row(*(Text(line[i]) for i in used))
    Console().print(table if rows else Text(f"{title}: nothing"))


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


if __name__ == "__main__":
    run(main, "outlive show")
