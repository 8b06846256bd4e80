"""`python -m persistence_proc.tools.admin accept|forget NAMESPACE --data-dir DIR`: what only a person can decide.

accept   What the persistence process has is right, and an outbox that disagrees goes to the quarantine; or, while
         its bot lives, the bot's state is right and is taken as a whole; or, for a namespace that recovery refused,
         go on without the maps that are lost. Where the two sides agree there is nothing to settle, and nothing is
         changed.
forget   Delete a namespace: its maps for good, and its outbox.

Exit codes: 0 done; 1 not done, one line says why; 2 wrong use.
"""

from __future__ import annotations

import os

import click

from persistence_proc.catalog import NamespaceEntry
from persistence_proc.paths import Paths
from persistence_proc.recovery import Seen, recover
from persistence_proc.recovery_table import Action
from persistence_proc.security import take_lock
from persistence_proc.tools.admin_server import Connection, is_served, running_server, serving
from persistence_proc.tools.command import run
from persistence_proc.tools.outbox_admin import claim_outbox, held_in_outbox, remove_outbox, set_outbox_aside
from persistence_proc.tools.outbox_fit import OutboxFit, judge_outbox
from persistence_proc.tools.place import find_place, place
from persistence_proc.tools.reading import look_settled, lost_journal
from protocol.disk import Disk
from protocol.errors import ConfigError, NamespaceInUse, OutliveError, StateRefused
from protocol.messages import Accept, Done, Forget, Refused, RefusedCode
from protocol.names import check_namespace


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def admin() -> None:
    """Settle what only a person can decide."""


_outbox_dir = click.option("--outbox-dir", metavar="DIR", help="The outbox, if not in DIR/NAMESPACE/outbox.")

_curve_dir = click.option(
    "--curve-dir", envvar="OUTLIVE_CURVE_DIR", metavar="DIR", help="Our keys, for a server that wants them."
)


@admin.command()
@click.argument("namespace")
@place
@_outbox_dir
@_curve_dir
def accept(
    namespace: str, data_dir: str | None, config_path: str | None, outbox_dir: str | None, curve_dir: str | None
) -> None:
    """Go on from the state that is there, although something else was newer."""
    data_dir, curve_dir = find_place(data_dir, config_path, curve_dir)
    disk, paths = Disk(), _paths(data_dir, namespace)
    seen, _ = _look(disk, paths)
    if seen is not None and _has_lost_maps(seen, namespace):
        _accept_loss(disk, paths, namespace)
        return
    folder = outbox_dir or paths.outbox(namespace)
    if not disk.exists(folder):
        raise OutliveError(f"nothing to settle: namespace {namespace!r} has no outbox in {folder} (see --outbox-dir)")
    try:
        lock = claim_outbox(disk, folder, namespace)
    except NamespaceInUse:
        _ask_for_snapshot(running_server(disk, paths, curve_dir), namespace)
        return
    try:
        _settle_outbox(disk, paths, folder, namespace)
    finally:
        if lock is not None:
            disk.close(lock)


@admin.command()
@click.argument("namespace")
@place
@_outbox_dir
@_curve_dir
@click.option("--yes", is_flag=True, help="Don't ask.")
def forget(
    namespace: str, data_dir: str | None, config_path: str | None, outbox_dir: str | None, curve_dir: str | None,
    yes: bool,
) -> None:  # fmt: skip
    """Delete all maps of a namespace, and its outbox, for good."""
    data_dir, curve_dir = find_place(data_dir, config_path, curve_dir)
    disk, paths = Disk(), _paths(data_dir, namespace)
    if not yes:
        click.confirm(f"Delete all state of {namespace!r} in {data_dir} for good?", abort=True)
    folder = outbox_dir or paths.outbox(namespace)
    lock = claim_outbox(disk, folder, namespace)
    try:
        with serving(disk, paths, curve_dir) as server:
            reply = server.ask(Forget(namespace=namespace))
        unknown = isinstance(reply, Refused) and reply.code is RefusedCode.UNKNOWN_NAMESPACE
        if isinstance(reply, Refused) and not (unknown and lock is not None):
            raise OutliveError(reply.message)
        removed = remove_outbox(disk, folder)
    finally:
        if lock is not None:
            disk.close(lock)
    click.echo(f"namespace {namespace!r} is forgotten" + (f", with {removed} files of its outbox" if removed else ""))


def _paths(data_dir: str, namespace: str) -> Paths:
    check_namespace(namespace)
    paths = Paths(os.path.abspath(data_dir))
    if not os.path.isdir(paths.data_dir):
        raise ConfigError(f"{data_dir} is no directory")
    return paths


def _ask_for_snapshot(server: Connection, namespace: str) -> None:
    reply = server.ask(Accept(namespace=namespace))
    if isinstance(reply, Refused):
        raise OutliveError(reply.message)
    said = reply.message if isinstance(reply, Done) else ""
    click.echo(f"namespace {namespace!r} has a live bot: {said}")


def _look(disk: Disk, paths: Paths) -> tuple[Seen | None, str]:
    """What is on disk, None if that is no store yet; and why nobody could go on from it, empty if one can."""
    try:
        seen = look_settled(disk, paths.data_dir)
    except (StateRefused, FileNotFoundError) as error:
        return None, str(error)
    if seen is None:
        return None, lost_journal(disk, paths)
    stopped = [one.problems for one in seen.found if one.action is Action.REFUSE_START]
    return seen, "; ".join(stopped)


def _has_lost_maps(seen: Seen, namespace: str) -> bool:
    """Whether recovery refuses this namespace for maps that are lost."""
    return any(one.key[0] == namespace and one.action is Action.REFUSE_NAMESPACE for one in seen.found)


def _settle_outbox(disk: Disk, paths: Paths, folder: str, namespace: str) -> None:
    """Set an outbox aside that the state here does not fit. Raises `OutliveError` for one that fits.

    It looks anew, because its bot may have gone on until the lock was ours. From then on the outbox stays as it is, and
    what it saw acknowledged is in the journal already.
    """
    seen, unreadable = _look(disk, paths)
    if unreadable:
        raise OutliveError(f"whether the outbox of {namespace!r} fits can't be seen: {unreadable}")
    entry = seen.known.books.namespaces.get(namespace) if seen else None
    fit = judge_outbox(disk, folder, entry or NamespaceEntry(name=namespace), seen.known.store_id if seen else b"")
    if not fit.conflict:
        raise OutliveError(f"nothing to settle: the outbox of {namespace!r} fits the state here; {_next(fit)}")
    click.echo(f"setting aside {held_in_outbox(disk, folder)}: {fit.conflict}")
    click.echo(f"set aside, kept in {set_outbox_aside(disk, paths, folder, namespace)}")


def _next(fit: OutboxFit) -> str:
    """What the next connect does, in words."""
    words = "it holds no unacknowledged changes"
    if fit.waiting:
        words = f"its {fit.waiting} unacknowledged changes will be taken at the next connect"
    return words + (f", and {fit.foreign} of another history set aside" if fit.foreign else "")


def _accept_loss(disk: Disk, paths: Paths, namespace: str) -> None:
    """Recover once with the loss accepted; the persistence process starts on the result."""
    if is_served(disk, paths):
        raise OutliveError(f"stop the persistence process of {paths.data_dir} first: maps are given up in recovery")
    lock = take_lock(disk, paths.lock, paths.data_dir)
    try:
        recovered = recover(disk, paths.data_dir, accepted=frozenset({namespace}))
        recovered.journal.close()
    finally:
        disk.close(lock)
    for note in recovered.notes:
        click.echo(note)
    click.echo(f"namespace {namespace!r} goes on without what is lost")


if __name__ == "__main__":
    run(admin, "outlive")
