from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from protocol.notify import NOTIFY_VARIABLE, Notifier


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            pass


def test_each_word_is_a_line(pipe: tuple[int, int]) -> None:
    notifier = Notifier({NOTIFY_VARIABLE: str(pipe[1])})
    assert notifier.listening
    notifier.recovering(40)
    notifier.ready()
    notifier.beat()
    assert os.read(pipe[0], 100) == b"recovering 40\nready\nbeat\n"


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "٣", "999999", "99999999999999999999999", "9" * 5000])
def test_without_a_usable_descriptor_everything_does_nothing(text: str) -> None:
    notifier = Notifier({NOTIFY_VARIABLE: text})
    notifier.ready()
    notifier.beat()
    assert not notifier.listening


def test_without_the_variable_everything_does_nothing() -> None:
    assert not Notifier({}).listening


def test_a_full_pipe_loses_the_word_and_not_the_time(pipe: tuple[int, int]) -> None:
    notifier = Notifier({NOTIFY_VARIABLE: str(pipe[1])})
    for _ in range(40_000):
        notifier.beat()
    assert notifier.listening
    words = os.read(pipe[0], 2**20)
    assert set(words.split(b"\n")) == {b"beat", b""}


def test_a_closed_pipe_ends_the_talk(pipe: tuple[int, int]) -> None:
    notifier = Notifier({NOTIFY_VARIABLE: str(pipe[1])})
    os.close(pipe[0])
    notifier.ready()
    assert not notifier.listening


def test_a_grandchild_does_not_inherit_the_pipe(pipe: tuple[int, int]) -> None:
    os.set_inheritable(pipe[1], True)
    Notifier({NOTIFY_VARIABLE: str(pipe[1])})
    script = f"import os\ntry: os.fstat({pipe[1]})\nexcept OSError: print('not there')"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, close_fds=False, check=True)
    assert run.stdout.strip() == b"not there"
