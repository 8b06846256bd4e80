"""The launcher, the logs and the control socket, each by itself."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from protocol.errors import MalformedMessage
from supervisor.config import Config
from supervisor.console import Console
from supervisor.control import Command, ControlServer, Done, RunDir, ask, decode_answer, decode_command, make_private
from supervisor.log_files import LogFile, ProgramLog
from supervisor.loop import Supervisor
from supervisor.output import Output
from tests.waiting import LONG, wait_until


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "supervisor.launcher", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG)


def test_the_launcher_becomes_the_program_in_a_session_of_its_own() -> None:
    script = "import os; print(os.getpid() == os.getsid(0), os.getppid())"
    result = launch(str(os.getpid()), "--", sys.executable, "-c", script)
    assert result.stdout.split() == ["True", str(os.getpid())]


def test_the_launcher_starts_nothing_when_its_parent_has_gone() -> None:
    result = launch("1", "--", sys.executable, "-c", "print('started')")
    assert result.returncode == 137
    assert result.stdout == ""


def test_the_launcher_names_a_program_that_can_not_be_executed() -> None:
    result = launch(str(os.getpid()), "--", "no-such-program")
    assert result.returncode == 127
    assert result.stderr == "outlive: no-such-program: No such file or directory\n"


def test_a_log_is_rotated_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "a.log"), max_bytes=10, keep=2)
    for line in (b"one 56789\n", b"two 56789\n", b"three 789\n", b"four 6789\n"):
        log.write(line)
    log.close()
    found = {path.name: path.read_bytes()[:4] for path in tmp_path.iterdir()}
    assert found == {"a.log": b"four", "a.log.1": b"thre", "a.log.2": b"two "}


def test_the_console_shows_whole_lines_with_names(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(stream)
    output = Output("bot", ProgramLog(str(tmp_path / "bot.log"), 1000, 1), console)
    program = output.begin()
    os.write(program, b"hel")
    output.follow()
    os.write(program, b"lo\n\xff\nlast")
    output.follow()
    wait_until(lambda: stream.getvalue() == "bot          | hello\nbot          | \ufffd\n")
    output.end()
    console.close()
    assert stream.getvalue().endswith("bot          | last\n")
    assert output.last_line == "last"
    output.log.close()
    assert (tmp_path / "bot.log").read_bytes() == b"hello\n\xff\nlast"


def test_half_a_million_short_lines_are_shown_in_a_few_pieces(tmp_path: Path) -> None:
    """The loop has others to look after: a step for each line would keep it from them."""
    shown: list[list[str]] = []

    class Screen(Console):
        def lines(self, name: str, texts: list[str]) -> None:
            shown.append(texts)

    log = ProgramLog(str(tmp_path / "bot.log"), 1 << 30, 1)
    output = Output("bot", log, Screen(io.StringIO()))
    fd = output.begin()
    os.write(fd, b"y\n" * 250_000)
    output.say("a line of ours")
    os.write(fd, b"y\r\n" * 100_000)
    output.follow()
    assert [line for texts in shown for line in texts] == ["y"] * 350_000
    assert len(shown) <= 16


def test_a_terminal_that_stands_still_holds_nobody_up_and_is_told_what_was_left_out() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as seen, open(writer, "w") as terminal:
        console = Console(terminal)
        for number in range(50_000):
            console.line("bot", f"{number:08} " + "x" * 80)
        shown: list[bytes] = []
        thread = threading.Thread(target=lambda: shown.extend(iter(seen.readline, b"")))
        thread.start()
        console.close(LONG)
        terminal.close()
        thread.join()
    assert re.fullmatch(rb"outlive +\| \d+ lines left out; the log files have them\n", shown[-1])
    numbers = [int(line.split()[2]) for line in shown[:-1]]
    assert numbers == list(range(len(numbers)))
    assert 1000 < len(numbers) < 50_000
    assert len(numbers) + int(shown[-1].split()[2]) == 50_000


def test_a_terminal_that_has_gone_is_forgotten() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as terminal:
        console = Console(terminal)
        console.line("bot", "hello")
        console.close(LONG)
        console.line("bot", "nobody reads this")


def test_a_log_that_can_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "later" / "a.log"), max_bytes=1000, keep=1)
    log.write(b"lost\n")
    (tmp_path / "later").mkdir()
    log.write(b"kept\n")
    log.close()
    assert (tmp_path / "later" / "a.log").read_bytes() == b"kept\n"


@pytest.fixture
def served(data_dir: Path) -> Iterator[RunDir]:
    """A control socket that is served; it must still answer at the end."""
    run_dir = RunDir(str(data_dir / "run"))
    make_private(run_dir.path)
    server = ControlServer(run_dir, lambda command: Done(message=command.verb))
    ended = threading.Event()

    def serve() -> None:
        while not ended.wait(0.001):
            server.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield run_dir
        assert ask(run_dir, Command(verb="status")) == Done(message="status")
    finally:
        ended.set()
        thread.join()
        server.close()


@pytest.mark.parametrize(
    "data", [b"", b"status", b'{"verb": "explode"}', b'{"verb": "stop", "force": 1}', b"\xff" * 4000]
)
def test_a_malformed_command_is_refused_and_the_next_one_answered(served: RunDir, data: bytes) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.connect(served.address)
        client.send(data)
        assert client.poll(int(LONG * 1000))
        assert b"no command" in client.recv()


@pytest.mark.parametrize("parts", [[b"no envelope"], [b"", b"", b""], [b""], [b"", *[b"x"] * 3000], [b"x"] * 3000])
def test_what_is_no_request_at_all_ends_nobody(served: RunDir, parts: list[bytes]) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.connect(served.address)
        for _ in range(20):
            client.send_multipart(parts)
        client.send_multipart([b"", b'{"verb": "status"}'])
        wait_until(lambda: client.poll(100) and b"done" in client.recv_multipart()[-1])


def test_a_supervisor_runs_in_the_main_thread_only(data_dir: Path) -> None:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            Supervisor(Config()).run()
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"type":"done","message":"\xff"}', b'{"x":' + b"[" * 100_000])
def test_what_is_no_command_or_no_answer_is_malformed(data: bytes) -> None:
    for decode in (decode_command, decode_answer):
        with pytest.raises(MalformedMessage):
            decode(data)
