"""A function in a fresh interpreter: a worker that is restarted, a bot among others, a reader with an empty heap.

    seconds = call(load_pickle, path=path)

    with Child(ingest, folder=folder) as child:     # a generator: up to its first `yield` it gets ready
        child.await_ready()
        child.go()                                  # on to the next `yield`
        puts = child.result()

The functions are in `benchmarks.workers`; they take and give what JSON can say.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Generator
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

READY = "ready"
ROOT = Path(__file__).parent.parent
"""Where this package is found: it is not installed with the others."""
PATIENCE = 120.0  # seconds for a child to leave in order


class Child:
    """Started at once. At the end of the block it is told to leave, and waited for."""

    def __init__(self, function: Callable[..., Any], **given: Any) -> None:
        argv = [sys.executable, "-m", "benchmarks.child", function.__module__, function.__qualname__, json.dumps(given)]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def await_ready(self) -> None:
        """Until it has come to its first `yield`."""
        if (said := self._line()) != READY:
            raise RuntimeError(f"a child should be ready, and says {said!r}")

    def go(self, **wanted: Any) -> None:
        """Let it go on to its next `yield`; what is wanted of it is what this one gives."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()

    def result(self) -> Any:
        """What it returned, or has come to."""
        return json.loads(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a child ended with {self._process.wait()}")
        return line.strip()


def call(function: Callable[..., Any], **given: Any) -> Any:
    """What `function` returns in a fresh interpreter."""
    with Child(function, **given) as child:
        return child.result()


def _serve(found: Any) -> None:
    """Print what a function returned, or what a generator yields, each time when it is asked to go on."""
    if not isinstance(found, Generator):
        print(json.dumps(found), flush=True)
        return
    try:
        next(found)
        print(READY, flush=True)
        for line in sys.stdin:
            print(json.dumps(found.send(json.loads(line))), flush=True)
    finally:
        found.close()


if __name__ == "__main__":
    module, name, arguments = sys.argv[1:]
    _serve(getattr(import_module(module), name)(**json.loads(arguments)))
