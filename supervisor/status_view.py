"""What `outlive status` shows: the supervisor's programs, and how the persistence process says it is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from protocol.messages import NamespaceStatus, StatusReport
from supervisor.control import ProgramStatus, SupervisorStatus
from supervisor.health import ask_persistence

_PATIENCE = 1.0
"""Seconds for the persistence process's answer; it may be recovering, hung or dead, and that is what we want to see."""
_STYLES = {"running": "green", "starting": "yellow", "backoff": "yellow", "fatal": "bold red", "done": "dim"}


def persistence_report(status: SupervisorStatus, timeout: float = _PATIENCE) -> StatusReport | None:
    """The persistence process's own report, or None when it does not answer."""
    return ask_persistence(status.data_dir, status.endpoint, status.curve_dir, timeout)


def as_json(status: SupervisorStatus, report: StatusReport | None) -> str:
    """{"supervisor": SupervisorStatus, "persistence": StatusReport or null}"""
    return json.dumps({"supervisor": _plain(status), "persistence": _plain(report)}, indent=2)


def show(status: SupervisorStatus, report: StatusReport | None, console: Console | None = None) -> None:
    console = console or Console()
    console.print(f"supervisor {status.state}, pid {status.pid}, for {duration(status.uptime)}: {status.data_dir}")
    console.print(_programs(status.programs))
    if report is None:
        console.print("the persistence process does not answer")
        return
    console.print(f"persistence {report.state}: {report.commits} commits, {report.saves} pickle files saved,")
    console.print(
        f"journal {size(report.journal_bytes)}, from change to disk {report.lag_last * 1000:.1f} ms "
        f"(99th percentile {report.lag_p99 * 1000:.1f} ms)"
    )
    if report.namespaces:
        console.print(_namespaces(report.namespaces))


def duration(seconds: float | None) -> str:
    """3700 -> "1h01m"."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def size(count: int) -> str:
    """Bytes -> "12.3 MiB"."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"


def _programs(programs: list[ProgramStatus]) -> Table:
    table = Table("program", "state", "pid", "up", "restarts", "exit", "memory", "cpu", box=box.SIMPLE)
    for program in programs:
        style = _STYLES.get(program.state, "")
        table.add_row(
            program.name,
            f"[{style}]{_state(program)}[/]" if style else _state(program),
            str(program.pid or "-"),
            duration(program.uptime),
            str(program.restarts),
            "-" if program.last_exit is None else str(program.last_exit),
            size(program.rss) if program.pid else "-",
            f"{program.cpu:.0f} %" if program.pid else "-",
        )
    return table


def _state(program: ProgramStatus) -> str:
    if program.recovering is not None:
        return f"recovering {program.recovering} %"
    return f"{program.state}, next try in {program.retry_in:.0f} s" if program.retry_in is not None else program.state


def _namespaces(namespaces: list[NamespaceStatus]) -> Table:
    table = Table("namespace", "session", "epoch", "applied", "durable", "entries", "coalesced", box=box.SIMPLE)
    for namespace in namespaces:
        table.add_row(
            namespace.name,
            namespace.refused or namespace.session,
            str(namespace.epoch),
            str(namespace.applied),
            str(namespace.durable),
            str(sum(namespace.maps.values())),
            f"{namespace.coalesced} of {namespace.received}",
        )
    return table


def _plain(struct: msgspec.Struct | None) -> Any:
    return None if struct is None else msgspec.to_builtins(struct)
