"""Run `entry = "module:function"`:  python -m supervisor.entry module:function

The function is called without arguments; an int that it returns is the exit code. The module is imported by its own
name, so that its types are found again when their values are loaded. It is looked for in the working directory first,
as `python -m` would; but only now, so that nothing there can be taken for a module of ours.
"""

from __future__ import annotations

import importlib
import os
import sys


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or ":" not in arguments[0]:
        sys.exit("usage: python -m supervisor.entry module:function")
    module_name, _, function_name = arguments[0].partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports: its own traceback says more
        sys.exit(f"outlive: entry {arguments[0]!r}: there is no module {error.name!r}")
    function = getattr(module, function_name, None)
    if not callable(function):
        sys.exit(f"outlive: entry {arguments[0]!r}: {module_name} has no function {function_name!r}")
    result = function()
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
