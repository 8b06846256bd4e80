"""Somebody is told: by a command or a webhook, beside the loop, bounded in time and number."""

from __future__ import annotations

import http.server
import json
import os
import re
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from protocol.errors import ConfigError
from protocol.messages import NamespaceStatus, StatusReport
from supervisor.config import parse_config
from supervisor.events import Event
from supervisor.health import Judge
from supervisor.hook_settings import HookEvent, HookSettings
from supervisor.hooks import Hooks
from tests.supervisor.harness import SupervisorProcess, is_gone, outlive, program, write_config
from tests.waiting import LONG, wait_until


def event(name: str = "a", what: str = "fatal") -> Event:
    return Event(
        v=1, number=1, ts=1, time="now", supervisor=1, event=what, name=name, kind="strategy", detail="it died"
    )


class Told:
    """Hooks that append what they are told to a file."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.file = folder / "told"
        script = f"import sys; open({str(self.file)!r}, 'a').write(sys.stdin.read() + chr(10))"
        settings = {"command": ["python", "-c", script], "interval": 0.001, **settings}
        self.hooks = Hooks(HookSettings(**settings), os.environ)

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []


def test_a_command_is_told_on_its_input_and_in_its_environment(tmp_path: Path) -> None:
    told = str(tmp_path / "told")
    script = f"import os, sys; open({told!r}, 'w').write(os.environ['OUTLIVE_EVENT_NAME'] + sys.stdin.read())"
    hooks = Hooks(HookSettings(command=["python", "-c", script]), os.environ)
    hooks.offer(event())
    hooks.close()
    name, _, body = (tmp_path / "told").read_text().partition("{")
    assert name == "a"
    assert json.loads("{" + body) == msgspec.to_builtins(event()) | {"count": 1}
    assert not list(hooks.problems())


def test_a_refused_store_can_be_told_of_although_it_ends_everything(data_dir: Path) -> None:
    hook = {"command": ["sh", "-c", f"cat > {data_dir / 'told'}"], "on": ["persistence-refused"]}
    patient = f"import supervisor.hooks as h; h._PATIENCE = {LONG}"
    with SupervisorProcess(data_dir, {"persistence": program("refuse"), "hooks": hook}, patient) as supervisor:
        assert supervisor.wait() == 2, supervisor.errors()
        told = json.loads((data_dir / "told").read_text())
        assert told["detail"] == "the persistence process refuses to start: no, I do not want this data"


def test_the_docs_list_each_event_that_can_be_chosen_and_no_other() -> None:
    text = (Path(__file__).parents[2] / "docs" / "supervision.md").read_text()
    listed = re.search(r"^`on` chooses from the events:.*?\n\n", text, re.MULTILINE | re.DOTALL)
    assert listed is not None
    assert sorted(re.findall(r"`([a-z-]+)`", listed[0])) == sorted({*get_args(HookEvent), "on"})


def test_what_a_hook_leaves_running_is_neither_waited_for_nor_left(tmp_path: Path) -> None:
    helper = tmp_path / "helper"
    script = f"set -m; sleep 1000 & echo $! > {helper}; echo it is late >&2; exit 3"
    hooks = Hooks(HookSettings(command=["bash", "-c", script], timeout=1000), os.environ)
    hooks.offer(event())
    assert wait_until(lambda: list(hooks.problems())) == ["hook for fatal of a: the command: exit code 3: it is late"]
    hooks.close()
    wait_until(lambda: is_gone(int(helper.read_text())))


def test_of_a_hook_that_complains_without_end_only_the_end_is_kept(tmp_path: Path) -> None:
    """64 MiB: a reader that kept them would need more than them."""
    script = (
        f"import os, sys; [os.write(2, b'x' * {1 << 16}) for _ in range(1024)]; os.write(2, b'\\nend'); sys.exit(3)"
    )
    hooks = Hooks(HookSettings(command=["python", "-c", script], timeout=1000), os.environ)
    hooks.offer(event())
    tracemalloc.start()
    try:
        assert wait_until(lambda: list(hooks.problems())) == ["hook for fatal of a: the command: exit code 3: end"]
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
        hooks.close()


def test_what_was_not_asked_for_is_not_told(tmp_path: Path) -> None:
    told = Told(tmp_path, on=("hang",))
    told.hooks.offer(event(what="fatal"))
    told.hooks.offer(event(what="hang"))
    told.hooks.close()
    assert [body["event"] for body in told.bodies()] == ["hang"]


def test_the_same_again_is_counted_into_one(tmp_path: Path) -> None:
    told = Told(tmp_path, interval=1000)
    told.hooks.offer(event())
    wait_until(told.bodies)
    for _ in range(50):
        told.hooks.offer(event())
    told.hooks.offer(event("b"))
    wait_until(lambda: len(told.bodies()) == 2)
    told.hooks.close()  # at the end nobody waits for an interval
    assert [(body["name"], body["count"]) for body in told.bodies()] == [("a", 1), ("b", 1), ("a", 50)]


def test_too_many_different_ones_are_counted_as_left_out(tmp_path: Path) -> None:
    told = Told(tmp_path)
    with told.hooks._changed:  # its thread stands still meanwhile
        for number in range(1_000):
            told.hooks.offer(event(f"bot{number}"))
        assert len(told.hooks._waiting) < 200
    wait_until(lambda: any("left_out" in body for body in told.bodies()))
    told.hooks.close()


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["python", "-c", "print('no'); raise SystemExit('I can not')"], "exit code 1: I can not"),
        (["no-such-program"], "no-such-program: No such file or directory"),
        (["python", "-c", "import time; time.sleep(600)"], "killed after 0.5 s"),
    ],
)
def test_a_hook_that_fails_is_one_line(command: list[str], problem: str) -> None:
    hooks = Hooks(HookSettings(command=command, timeout=0.5 if "killed" in problem else LONG), os.environ)
    hooks.offer(event())
    lines: list[str] = []
    wait_until(lambda: lines.extend(hooks.problems()) or lines)
    hooks.close()
    assert problem in lines[0]
    assert lines[0].startswith("hook for fatal of a: the command: ")


@pytest.fixture
def peer() -> Iterator[tuple[str, list[Any]]]:
    """A web server: its URL, and what was posted to it."""
    posted: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", posted
        server.shutdown()
        thread.join()


def test_a_webhook_is_posted_json(peer: tuple[str, list[Any]]) -> None:
    hooks = Hooks(HookSettings(webhook=peer[0]), os.environ)
    hooks.offer(event())
    wait_until(lambda: peer[1])
    hooks.close()
    assert (peer[1][0]["event"], peer[1][0]["name"]) == ("fatal", "a")


def test_a_webhook_that_answers_with_an_error_is_one_line(peer: tuple[str, list[Any]]) -> None:
    hooks = Hooks(HookSettings(webhook=f"{peer[0]}/broken"), os.environ)
    hooks.offer(event())
    lines: list[str] = []
    wait_until(lambda: lines.extend(hooks.problems()) or lines)
    hooks.close()
    assert "the webhook: exit code 1: the webhook failed: HTTP Error 500" in lines[0]


def test_a_hook_that_hangs_holds_no_restart_up_and_ends_with_the_supervisor(data_dir: Path) -> None:
    mark = data_dir / "hook"
    script = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    tables = {
        "hooks": {"command": ["python", "-c", script], "on": ["exit"], "timeout": 600},
        "restart": {"backoff_first": 0.01},
        "strategies.a": program("exit", 1),
    }
    with SupervisorProcess(data_dir, tables) as supervisor:
        wait_until(lambda: mark.exists() and mark.read_text())
        wait_until(lambda: supervisor.program("a").restarts > 3)
        supervisor.kill()
        wait_until(lambda: not Path(f"/proc/{mark.read_text()}").exists())


def test_a_fatal_strategy_is_told_of_and_a_failing_hook_is_in_the_log(data_dir: Path) -> None:
    tables = {
        "hooks": {"command": ["python", "-c", "raise SystemExit('no pager')"], "on": ["fatal"]},
        "restart": {"limit": 2, "backoff_first": 0.01},
        "strategies.a": program("exit", 1),
    }
    with SupervisorProcess(data_dir, tables) as supervisor:
        wait_until(lambda: supervisor.serves() and "no pager" in supervisor.log("outlive"))
        assert supervisor.program("a").state == "fatal"
        assert supervisor.terminate() == 0


def test_state_that_comes_back_degraded_is_told_of(data_dir: Path) -> None:
    script = "import strategy_proc\nwith strategy_proc.connect() as state:\n    state.map('book')['a'] = {}\n"
    tables: dict[str, dict[str, Any]] = {
        "persistence": {},
        "supervisor": {"exit_when_done": True},
        "hooks": {"command": ["sh", "-c", f"cat > {data_dir}/told"], "on": ["degraded"]},
    }
    for number in range(2):  # two lives, two generations of its file
        tables["strategies.bot"] = {"command": ["python", "-c", script.format(number)]}
        with SupervisorProcess(data_dir, tables) as supervisor:
            assert supervisor.wait() == 0
    current = data_dir / "state" / "bot" / "book.pkl"
    current.write_bytes(current.read_bytes()[:-1] + b"\x00")
    tables["strategies.bot"] = program("serve")
    with SupervisorProcess(data_dir, tables) as supervisor:
        wait_until(lambda: (data_dir / "told").exists() and (data_dir / "told").read_text())
        told = json.loads((data_dir / "told").read_text())
        assert (told["event"], told["name"], told["kind"]) == ("degraded", "bot", "namespace")
        assert "for book" in told["detail"]
        assert supervisor.terminate() == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('on = ["explode"]', "hooks.on[0]: 'explode' is none of fatal, hang, degraded,"),
        ('webhook = "ftp://x"', "hooks.webhook: 'ftp://x' is no http:// or https:// URL"),
        ('webhook = "http://x:99999"', "hooks.webhook"),
        ("timeout = 0", "hooks.timeout: 0.0 must be more than 0"),
        ('command = [""]', "hooks.command: the program's name is empty"),
    ],
)
def test_a_mistake_in_the_hooks_names_the_key(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"[hooks]\n{text}\n", "/")
    assert words in str(caught.value)


def test_a_hook_that_can_not_be_executed_is_refused_before_anything_is_started(data_dir: Path) -> None:
    write_config(data_dir, {"hooks": {"command": ["./page-me"]}})
    result = outlive(data_dir, "run")
    assert result.returncode == 2
    assert result.stderr.endswith("page-me' that can be executed\n")
    assert str(data_dir) in result.stderr


def report(state: str = "serving", **namespace: Any) -> StatusReport:
    one = NamespaceStatus(
        name="bot", epoch=1, applied=1, durable=1, maps={}, session="open", heard_ago=0.0, received=1, coalesced=0,
        **namespace,
    )  # fmt: skip
    return StatusReport(
        instance="i", pid=1, data_dir="d", state=state, uptime=1.0, lsn=1, commits=1, saves=0, journal_bytes=1,
        lag_last=0.0, lag_p99=0.0, stale_refused=0, malformed=0, namespaces=[one],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "events"),
    [
        ([None] * 9, []),
        ([report(), None, None, report(), None, None], []),
        ([report(), None, None, None, None, report()], ["persistence-down", "persistence-up"]),
        ([report(degraded=["book"])] * 3, ["degraded"]),
        ([report(refused="damaged"), report(refused="damaged")], ["degraded"]),
        ([report("disk_full"), report("disk_full"), report(), report("disk_full")], ["disk-full", "disk-full"]),
    ],
)
def test_what_persistence_says_of_itself_is_told_once(answers: list[StatusReport | None], events: list[str]) -> None:
    judge = Judge()
    assert [found.event for answer in answers for found in judge.learn(answer)] == events
