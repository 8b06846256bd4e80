"""How these programs end: a wrong use or an error is one line on the standard error, never a traceback."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from protocol.errors import OutliveError


def run(command: click.Command, name: str) -> NoReturn:
    """Run `command` on the program's arguments and exit: 0 done, 1 refused, 2 wrong use."""
    try:
        command.main(prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        leave(error.format_message(), 2)
    except click.Abort as error:
        at_work = isinstance(error.__cause__, KeyboardInterrupt)  # at a question, click hides it
        leave("interrupted; say it again to have it done" if at_work else "nothing was changed", 1)
    except BrokenPipeError:  # a reader that has gone away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OutliveError, OSError) as error:
        leave(str(error), 1)
    sys.exit(0)


def leave(message: str, code: int) -> NoReturn:
    """End with this message, on one line."""
    click.echo(f"outlive: {' '.join(message.split())}", err=True)
    sys.exit(code)
