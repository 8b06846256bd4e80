"""The command line (`supervisor.cli` is its entry point). An error is one line on stderr; there is never a traceback.

Exit codes: 0 done, 1 it failed (with `status`: something is FATAL), 2 a mistake in the call or the configuration,
3 no supervisor is running there, 4 (`status` only) something is not up. `run` passes on the exit code of a single
script.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import NoReturn

import click

from protocol.errors import ConfigError, OutliveError, PersistenceUnavailable
from supervisor.config import Config, load_config
from supervisor.control import Answer, Command, RunDir, SupervisorStatus
from supervisor.place import CONFIG_FILE, ask_at, ask_in, config_at, place, run_dir_at, single
from supervisor.programs import OUR_PYTHON

_NOT_RUNNING = 3
_LOOK_EVERY = 0.02
"""Seconds between looks whether a supervisor has left."""


class _WithCommand(click.Command):
    """Keeps what stands behind `--` away from click, which would lose where it began."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.obj = None
        if "--" in args:
            at = args.index("--")
            args, ctx.obj = args[:at], args[at + 1 :]
        return super().parse_args(ctx, args)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def outlive() -> None:
    """Keep trading bots running, and their state alive when they are not."""


@outlive.command(cls=_WithCommand)
@click.argument("config_path", metavar="[CONFIG]", required=False)
@click.option("--data-dir", help="where the state is, for a single command; default: state")
@click.option("--namespace", help="of the single command; default: the name of its script")
@click.option("--quiet", is_flag=True, help="print nothing; the log files have it all")
@click.pass_obj
def run(
    argv: list[str] | None, config_path: str | None, data_dir: str | None, namespace: str | None, quiet: bool
) -> None:
    """Supervise what CONFIG (default: outlive.toml) lists, or one command:

    outlive run -- python bot.py
    """
    from supervisor.loop import Supervisor

    if argv is not None and config_path is not None:
        raise click.UsageError("either a configuration or a command behind --, not both")
    if argv is None and (namespace is not None or data_dir is not None):
        raise click.UsageError("--data-dir and --namespace are for a command behind --; a configuration has its own")
    console = None if quiet else sys.stdout
    if argv is not None:
        sys.exit(Supervisor(single(argv, data_dir, namespace), console=console).run())
    path = config_path or CONFIG_FILE

    def read() -> Config:
        return load_config(path)

    sys.exit(Supervisor(read(), console=console, reload=read, config_path=path).run())


@outlive.command()
@place
@click.option("--json", "as_json", is_flag=True, help="for programs")
def status(config_path: str | None, data_dir: str | None, as_json: bool) -> None:
    """What runs, since when, how big, and how far the disk is behind.

    Exit code 0: all is up. 1: something is FATAL. 4: something is not up (yet). 3: no supervisor runs there.
    """
    from supervisor import status_view

    answer = ask_at(config_path, data_dir, Command(verb="status"))
    assert isinstance(answer, SupervisorStatus)
    report = status_view.persistence_report(answer)
    if as_json:
        click.echo(status_view.as_json(answer, report))
    else:
        status_view.show(answer, report)
    sys.exit(status_view.exit_code(answer))


@outlive.command()
@place
@click.argument("name", required=False, default="")
@click.option("--timeout", default=120.0, show_default=True, help="seconds to wait until all have left")
def stop(config_path: str | None, data_dir: str | None, name: str, timeout: float) -> None:
    """Stop one program, or everything: strategies first, then services, then persistence."""
    run_dir = run_dir_at(config_path, data_dir)
    answer = ask_in(run_dir, Command(verb="stop", name=name))
    if name:
        click.echo(_message(answer))
    else:
        _wait_until_free(run_dir, timeout)
        click.echo("stopped")


@outlive.command()
@place
@click.argument("name")
def restart(config_path: str | None, data_dir: str | None, name: str) -> None:
    """SIGTERM one program, and start it again; also what was stopped, is done or FATAL."""
    click.echo(_message(ask_at(config_path, data_dir, Command(verb="restart", name=name))))


@outlive.command()
@place
@click.argument("name")
def kill(config_path: str | None, data_dir: str | None, name: str) -> None:
    """SIGKILL one program; it is started again at once."""
    click.echo(_message(ask_at(config_path, data_dir, Command(verb="kill", name=name))))


@outlive.command()
@place
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="go on showing what comes, over restarts; Ctrl-C ends it")
@click.option("-n", "--lines", default=20, show_default=True, type=click.IntRange(min=0), help="the newest so many")
def logs(config_path: str | None, data_dir: str | None, name: str, follow: bool, lines: int) -> None:
    """What a program has printed: a strategy, a service, persistence; "outlive" and "events" are the supervisor's own.

    Nothing needs to run.
    """
    from supervisor.logs_view import LogReader, log_file

    reader = LogReader(log_file(config_at(config_path, data_dir), name))
    try:
        _show(reader.last_lines(lines))
        for data in reader.follow() if follow else ():
            _show(data)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


@outlive.command()
@place
def reload(config_path: str | None, data_dir: str | None) -> None:
    """Read the configuration again, and touch only what has changed. A mistake in it changes nothing."""
    click.echo(_message(ask_at(config_path, data_dir, Command(verb="reload"))))


@outlive.command()
@click.argument("config_path", metavar="[CONFIG]", default=CONFIG_FILE)
@click.option("--user/--system", "own", default=True, help="for your own systemd (default), or the machine's")
@click.option("--user-name", help="whom a --system unit runs as; default: who owns the configuration")
@click.option("--output", help="write it there instead of to standard output")
@click.option("--force", is_flag=True, help="overwrite that file")
def systemd(config_path: str, own: bool, user_name: str | None, output: str | None, force: bool) -> None:
    """Write a unit by which systemd runs CONFIG (default: outlive.toml) from boot on, and say how to enable it."""
    from supervisor import systemd_unit

    system = not own
    text = systemd_unit.unit_text(load_config(config_path), config_path, system=system, user=user_name)
    name = systemd_unit.unit_name(config_path) if output is None else os.path.basename(output)
    if output is None:
        click.echo(text, nl=False)
        click.echo(f"Save it as {systemd_unit.unit_path(name, system=system)}, then:", err=True)
    else:
        systemd_unit.save(text, output, force=force)
        click.echo(f"Written. If it is in {systemd_unit.unit_path('', system=system)}:", err=True)
    for step in systemd_unit.steps(name, system=system):
        click.echo(f"  {step}", err=True)


_passed_on = {"ignore_unknown_options": True, "help_option_names": []}


@outlive.command(context_settings=_passed_on)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def show(arguments: tuple[str, ...]) -> None:
    """Read the state on disk: [NAMESPACE [MAP [KEY]]]; nothing needs to run."""
    _become("persistence_proc.tools.inspect", [], arguments)


@outlive.command(context_settings=_passed_on)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def accept(arguments: tuple[str, ...]) -> None:
    """NAMESPACE: what is there now is right, although it is older than what was known."""
    _become("persistence_proc.tools.admin", ["accept"], arguments)


@outlive.command(context_settings=_passed_on)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def forget(arguments: tuple[str, ...]) -> None:
    """NAMESPACE: delete its state for good."""
    _become("persistence_proc.tools.admin", ["forget"], arguments)


def main() -> NoReturn:
    """Run the command that the arguments name, and leave with its exit code."""
    try:
        outlive.main(prog_name="outlive", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except click.Abort:
        sys.exit(128 + signal.SIGINT)
    except PersistenceUnavailable as error:
        _fail(str(error), _NOT_RUNNING)
    except ConfigError as error:
        _fail(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read us has left; nothing to complain about
        sys.exit(1)
    except OutliveError as error:
        _fail(str(error), 1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)
    sys.exit(0)


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _message(answer: Answer) -> str:
    return getattr(answer, "message", "")


def _wait_until_free(run_dir: RunDir, timeout: float) -> None:
    """Its lock is what it lets go last. (Its pid would not do: a process that nobody reaps seems to be there still.)"""
    end = time.monotonic() + timeout
    while not run_dir.is_free():
        if time.monotonic() > end:
            raise click.ClickException(f"the supervisor in {run_dir.path} is still stopping after {timeout:g} s")
        time.sleep(_LOOK_EVERY)


def _become(module: str, verb: list[str], arguments: tuple[str, ...]) -> NoReturn:
    """These read and settle what is on disk: the persistence side's work, in its own process."""
    os.execv(sys.executable, [*OUR_PYTHON, module, *verb, *_place_options(verb, arguments), *arguments])


def _place_options(verb: list[str], arguments: tuple[str, ...]) -> list[str]:
    """Where the state is and which keys are ours, if the arguments don't say it."""
    given = {argument.split("=")[0] for argument in arguments}
    if given & {"-h", "--help", "--data-dir", "--config"}:
        return []
    persistence = config_at(None, None).persistence
    options = ["--data-dir", persistence.data_dir]
    if verb and persistence.curve_dir is not None and "--curve-dir" not in given:
        options += ["--curve-dir", persistence.curve_dir]
    return options


def _fail(message: str, code: int) -> NoReturn:
    click.echo("outlive: " + " ".join(message.split()), err=True)
    sys.exit(code)
