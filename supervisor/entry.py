"""Run `entry = "module:function"`:  python -m supervisor.entry module:function [--spare FD [library ...]]

The function is called without arguments; an int that it returns is the exit code. The module is imported by its own
name, so that its types are found again when their values are loaded. It is looked for in the working directory first,
as `python -m` would; but only now, so that nothing there can be taken for a module of ours.

With --spare the process has its libraries ready and waits for the word on descriptor FD before it does any of this
(`supervisor.spare`). Until then it is nobody: no socket, no lock, no thread of ours, and nothing of the strategy's own.
The word names the working directory once more: where its path is a link to the newest release, the directory that the
spare was started in is yesterday's.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import NoReturn

from protocol.notify import NOTIFY_VARIABLE

_GO, _END = b"go ", b"\0"
ALWAYS = ("strategy_proc", "msgspec", "zmq")
"""What a strategy of ours imports anyway."""
_READ_BYTES = 1 << 16
_NO_SPARE = 70
"""Exit code of one that can't be a spare (EX_SOFTWARE)."""


def word(cwd: str | None) -> bytes:
    """What makes a spare the strategy, which works in `cwd` (None: where it is). The end of the pipe without it:
    nobody needs it any more."""
    return _GO + os.fsencode(cwd or "") + _END


def main(arguments: list[str]) -> int:
    if not arguments or ":" not in arguments[0] or (len(arguments) > 1 and arguments[1] != "--spare"):
        sys.exit("usage: python -m supervisor.entry module:function [--spare FD [library ...]]")
    entry = arguments[0]
    if len(arguments) > 2:
        wait_for_the_word(int(arguments[2]), entry.partition(":")[0], arguments[3:])
        sys.argv[2:] = []  # as if it had been started in the ordinary way
    return run(entry)


def run(entry: str) -> int:
    module_name, _, function_name = entry.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports: its own traceback says more
        sys.exit(f"outlive: entry {entry!r}: there is no module {error.name!r}")
    function = getattr(module, function_name, None)
    if not callable(function):
        sys.exit(f"outlive: entry {entry!r}: {module_name} has no function {function_name!r}")
    result = function()
    if hasattr(result, "__await__"):
        sys.exit(
            f"outlive: entry {entry!r}: {function_name} is a coroutine function; name one that runs it (asyncio.run)"
        )
    return result if isinstance(result, int) else 0


def wait_for_the_word(fd: int, module_name: str, libraries: list[str]) -> None:
    """Import what was asked for, say "warm", wait. Returns only when this process is to be the strategy."""
    os.set_inheritable(fd, False)
    started_in = os.getcwd()
    for name in (*ALWAYS, *libraries):
        try:
            importlib.import_module(name)
        except Exception as error:
            _give_up(f"preload {name!r}: {type(error).__name__}: {error}")
    if module_name in sys.modules:
        _give_up(f"preload {libraries}: one of them imports {module_name}, which is the strategy itself")
    gc.collect()
    gc.freeze()  # what the libraries have made stays; the strategy's collector need not walk it
    os.write(int(os.environ[NOTIFY_VARIABLE]), b"warm\n")
    said = b""
    while not said.endswith(_END) and (more := os.read(fd, _READ_BYTES)):
        said += more
    os.close(fd)
    if not (said.startswith(_GO) and said.endswith(_END)):
        os._exit(0)
    _go_to(os.fsdecode(said[len(_GO) : -len(_END)]), started_in)
    importlib.invalidate_caches()  # files that have come since


def _go_to(cwd: str, started_in: str) -> None:
    """Work where the strategy is to work now, and look for modules there as a process that is started now would."""
    if not cwd:
        return
    try:
        os.chdir(cwd)
    except OSError as error:
        sys.exit(f"outlive: {cwd}: {error.strerror}")
    given = os.environ.get("PYTHONPATH")  # its relative paths were made absolute when this process began
    relative = [path for path in given.split(os.pathsep) if not os.path.isabs(path)] if given else []
    now = {os.path.abspath(os.path.join(started_in, path)): os.path.abspath(path) for path in relative}
    sys.path[:] = [now.get(path, path) for path in sys.path]


def _give_up(why: str) -> NoReturn:
    print(f"outlive: no spare: {why}", file=sys.stderr, flush=True)
    os._exit(_NO_SPARE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
