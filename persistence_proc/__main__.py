"""`python -m persistence_proc --data-dir DIR`: start the persistence process.

Exit codes: 0 stopped on request, everything saved; 1 the disk failed, or another process has the store: to be tried
again; 2 refused to start, and a person is needed. One line says why.
"""

from __future__ import annotations

import gc
import logging
import resource
import signal
import sys
from typing import NoReturn

import click

from persistence_proc.server import SWITCH_INTERVAL, Server
from persistence_proc.service import CannotKeep
from persistence_proc.settings import LOG_LEVELS, check_settings
from protocol.errors import OutliveError, StoreInUse

MAX_FILES = 65536
"""Descriptors that we ask for, if the machine allows them."""
COLLECT_AFTER = 100_000
"""New containers until the collector looks for cycles, of which we make next to none. A message has thousands of
changes, and with Python's 700 it looked at them again and again: a tenth of the time."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data-dir", required=True, metavar="DIR", help="Where the state lives; made, private, if not there.")
@click.option("--runtime-dir", metavar="DIR", help="Where the sockets lie, if not in DIR/sockets (a short path).")
@click.option("--endpoint", metavar="tcp://HOST:PORT", help="Listen on TCP instead; uses PORT and PORT + 1.")
@click.option("--curve-dir", metavar="DIR", help="CURVE keys and clients.toml; needed for TCP beyond loopback.")
@click.option("--log-level", default="info", show_default=True, metavar="|".join(LOG_LEVELS))
def serve(data_dir: str, runtime_dir: str | None, endpoint: str | None, curve_dir: str | None, log_level: str) -> None:
    """Keep the state of trading bots alive."""
    try:
        settings = check_settings(data_dir, runtime_dir, endpoint, curve_dir, log_level)
        logging.basicConfig(
            level=log_level.upper(), format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr
        )
        sys.setswitchinterval(SWITCH_INTERVAL)
        gc.set_threshold(COLLECT_AFTER)
        _raise_file_limit()
        sys.exit(Server(settings).run())
    except (CannotKeep, StoreInUse) as error:  # who has the store may be a tool, or about to end
        _leave(error, 1)
    except OutliveError as error:
        _leave(error, 2)
    except OSError as error:
        _leave(error, 1)


def main() -> NoReturn:
    """Read the command line and serve. A wrong use is one line, too."""
    try:
        serve.main(prog_name="python -m persistence_proc", standalone_mode=False)
    except click.ClickException as error:
        _leave(error, 2)
    except click.Abort:
        sys.exit(128 + signal.SIGINT)
    sys.exit(0)


def _raise_file_limit() -> None:
    """A bot takes two descriptors, and ZeroMQ aborts the process where it can't accept one more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _leave(error: Exception, code: int) -> NoReturn:
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    click.echo(f"persistence: {' '.join(message.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
