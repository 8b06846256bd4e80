"""What `outlive status` shows: the supervisor's programs, and how the persistence process says it is."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from protocol.messages import NamespaceStatus, StatusReport
from supervisor.control import ProgramStatus, SupervisorStatus
from supervisor.health import ask_persistence

_PATIENCE = 1.0
"""Seconds for the persistence process's answer; it may be recovering, hung or dead, and that is what we want to see."""
_STYLES = {"running": "green", "starting": "yellow", "backoff": "yellow", "fatal": "bold red", "done": "dim"}
_SETTLED = frozenset({"running", "done", "stopped"})
_PIPE_WIDTH = 160
"""Columns where nobody's terminal says how many it has."""

FATAL, NOT_UP = 1, 4
"""Exit codes of `outlive status`; 3, nobody runs there, is the command line's."""


class StrategyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the two processes and the disk say of one strategy, in one place. Seconds, bytes."""

    name: str
    lag: float | None
    """Age of its oldest change that the persistence process has and the disk does not; None: nobody says."""
    outbox_bytes: int
    """Of its outbox on the disk."""
    session: str | None
    durable: int | None
    entries: int | None


def persistence_report(status: SupervisorStatus, timeout: float = _PATIENCE) -> StatusReport | None:
    """The persistence process's own report, or None when it does not answer."""
    return ask_persistence(status.data_dir, status.endpoint, status.curve_dir, timeout)


def exit_code(status: SupervisorStatus) -> int:
    """0: everything is up, or has left as it should."""
    states = {program.state for program in status.programs}
    return FATAL if "fatal" in states else NOT_UP if states - _SETTLED or status.state == "stopping" else 0


def as_json(status: SupervisorStatus, report: StatusReport | None) -> str:
    """{"supervisor": SupervisorStatus, "persistence": StatusReport or null, "strategies": [StrategyFigures]}"""
    found = {
        "supervisor": _plain(status),
        "persistence": _plain(report),
        "strategies": [_plain(figures) for figures in strategy_figures(status, report)],
    }
    return json.dumps(found, indent=2)


def strategy_figures(status: SupervisorStatus, report: StatusReport | None) -> list[StrategyFigures]:
    """One for each strategy, in order."""
    known = {namespace.name: namespace for namespace in report.namespaces} if report else {}
    return [
        _figures(program, status.data_dir, known.get(program.namespace))
        for program in status.programs
        if program.namespace is not None
    ]


def _figures(program: ProgramStatus, data_dir: str, namespace: NamespaceStatus | None) -> StrategyFigures:
    folder = os.path.join(data_dir, program.namespace or program.name, "outbox")
    return StrategyFigures(
        name=program.name,
        lag=namespace.lag if namespace else None,
        outbox_bytes=_bytes_in(folder),
        session=namespace.session if namespace else None,
        durable=namespace.durable if namespace else None,
        entries=sum(namespace.maps.values()) if namespace else None,
    )


def show(status: SupervisorStatus, report: StatusReport | None, console: Console | None = None) -> None:
    """Plain words and two tables; nothing in a name or a path can change how they look."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    where = clean(status.data_dir)
    _line(console, f"supervisor {status.state}, pid {status.pid}, for {duration(status.uptime)}: {where}")
    console.print(_programs(status, {figures.name: figures for figures in strategy_figures(status, report)}))
    for program in status.programs:
        if program.last_reason:
            _line(console, clean(f"{program.name}: the life before ended: {program.last_reason}"))
    if report is None:
        _line(console, "the persistence process does not answer: it is starting, or down")
        return
    for line in _persistence_lines(report):
        _line(console, line)
    if report.namespaces:
        console.print(_namespaces(report.namespaces))
    for namespace in report.namespaces:
        degraded = f"came back degraded: {', '.join(namespace.degraded)}" if namespace.degraded else ""
        for line in filter(None, (namespace.refused, degraded)):
            _line(console, clean(f"{namespace.name}: {line}"), "bold red")


def clean(text: str) -> str:
    """Without what a terminal would obey instead of showing it."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def duration(seconds: float | None) -> str:
    """3700 -> "1h01m"."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def size(count: int) -> str:
    """Bytes -> "12.3 MiB"."""
    if count >= 2**30:
        return f"{count / 2**30:.1f} GiB"
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"


def milliseconds(seconds: float | None) -> str:
    """0.0123 -> "12.3 ms"."""
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def _programs(status: SupervisorStatus, figures: dict[str, StrategyFigures]) -> Table:
    columns = ("program", "state", "pid", "up", "restarts", "exit", "memory", "cpu", "beat", "lag", "outbox")
    table = Table(*columns, box=box.SIMPLE)
    for program in status.programs:
        own = figures.get(program.name)
        table.add_row(
            Text(clean(program.name)),
            Text(_state(program), _STYLES.get(program.state, "")),
            str(program.pid or "-"),
            duration(program.uptime),
            str(program.restarts),
            "-" if program.last_exit is None else str(program.last_exit),
            size(program.rss) if program.pid else "-",
            f"{program.cpu:.0f} %" if program.pid else "-",
            duration(program.heard_ago),
            milliseconds(own.lag) if own else "",
            size(own.outbox_bytes) if own else "",
        )
    return table


def _state(program: ProgramStatus) -> str:
    if program.recovering is not None:
        return f"recovering {program.recovering} %"
    if program.spare is not None and program.state == "running":
        return f"{program.state}, spare {program.spare}"
    return f"{program.state}, next try in {program.retry_in:.0f} s" if program.retry_in is not None else program.state


def _persistence_lines(report: StatusReport) -> list[str]:
    received = sum(namespace.received for namespace in report.namespaces)
    coalesced = sum(namespace.coalesced for namespace in report.namespaces)
    free = size(report.disk_free) if report.disk_free >= 0 else "unknown"
    lines = [
        f"persistence {clean(report.state)}: {report.commits} commits; of {received} changes "
        f"{100 * coalesced / max(received, 1):.0f} % were folded into newer ones",
        f"append and fsync {milliseconds(report.fsync_last)} (99th percentile {milliseconds(report.fsync_p99)}); from "
        f"arrival to disk {milliseconds(report.lag_last)} ({milliseconds(report.lag_p99)})",
        f"{report.saves} pickle files saved, {report.unsaved} to be saved; "
        f"journal {size(report.journal_bytes)}, disk free {free}",
    ]
    if report.failed_saves:
        lines.append(f"the last {report.failed_saves} tries to save a pickle file have failed; its log says why")
    return lines


def _namespaces(namespaces: list[NamespaceStatus]) -> Table:
    table = Table("namespace", "session", "epoch", "applied", "durable", "entries", "coalesced", box=box.SIMPLE)
    for namespace in namespaces:
        table.add_row(
            Text(clean(namespace.name)),
            Text(clean(namespace.session)),
            str(namespace.epoch),
            str(namespace.applied),
            str(namespace.durable),
            str(sum(namespace.maps.values())),
            f"{namespace.coalesced} of {namespace.received}",
        )
    return table


def _bytes_in(folder: str) -> int:
    """What its files take on the disk; they come and go while we look."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return 0


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style))


def _plain(struct: msgspec.Struct | None) -> Any:
    return None if struct is None else msgspec.to_builtins(struct)
