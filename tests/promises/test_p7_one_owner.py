"""P7: a namespace has one live writer; a zombie changes nothing and is told so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from protocol.errors import Fenced, FlushTimeout, NamespaceInUse
from strategy_proc import connect
from tests.processes import PersistenceProcess, WorkerProcess
from tests.waiting import wait_until

ZOMBIE = """
import sys
from protocol.errors import Fenced
from strategy_proc import connect
state = connect("bot", data_dir=sys.argv[1], endpoint=sys.argv[2])
m = state.map("m")
m["mine"] = "zombie"
state.flush()
print("flushed", flush=True)
sys.stdin.readline()
for n in range(100):
    m["zombie"] = n
print("written", flush=True)
sys.stdin.readline()
try:
    while True:
        m["mine"] = "late"
except Fenced as error:
    print("fenced", flush=True)
sys.stdin.readline()
"""

FORKER = """
import os, sys, time
from protocol.errors import SessionForked
from strategy_proc import connect
state = connect()
m = state.map("m")
m["before"] = 1
child = os.fork()
if child == 0:
    try:
        m["child"] = 1
    except SessionForked:
        os.write(1, b"refused\\n")
    time.sleep(600)
m["after"] = 2
os.write(1, b"%d\\n" % child)
time.sleep(600)
"""


def own_folder(parent: Path, name: str) -> str:
    folder = parent / name
    folder.mkdir(mode=0o700)
    return str(folder)


def test_a_second_session_of_a_namespace_is_refused_with_the_pid_of_the_first(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:
        with connect("bot", data_dir=persistence.data_dir), pytest.raises(NamespaceInUse, match=str(os.getpid())):
            connect("bot", data_dir=persistence.data_dir, timeout=1)
        connect("bot", data_dir=persistence.data_dir).close()


def test_a_session_of_another_host_is_refused_while_the_first_is_alive(data_dir: Path) -> None:
    with PersistenceProcess(own_folder(data_dir, "store")) as persistence:
        endpoint = f"ipc://{persistence.data_dir}/sockets"
        hosts = own_folder(data_dir, "a"), own_folder(data_dir, "b")
        with connect("bot", data_dir=hosts[0], endpoint=endpoint), pytest.raises(NamespaceInUse):
            connect("bot", data_dir=hosts[1], endpoint=endpoint, timeout=0.3)


def test_a_zombie_that_wakes_up_after_its_replacement_changes_nothing_and_is_told_so(data_dir: Path) -> None:
    with PersistenceProcess(own_folder(data_dir, "store")) as persistence:
        endpoint = f"ipc://{persistence.data_dir}/sockets"
        hosts = own_folder(data_dir, "a"), own_folder(data_dir, "b")
        with WorkerProcess(ZOMBIE, hosts[0], endpoint) as zombie:
            assert zombie.read_line() == "flushed"
            persistence.kill()
            zombie.write_line("write what nobody takes")
            assert zombie.read_line() == "written"
            zombie.stop()
            persistence.start()
            with connect("bot", data_dir=hosts[1], endpoint=endpoint, takeover=True) as state:
                m = state.map("m")
                assert m == {"mine": "zombie"}
                m["mine"] = "new owner"
                zombie.write_line("go on")
                zombie.cont()
                assert zombie.read_line() == "fenced"
                zombie.kill()
                m["last"] = 1
                state.flush()
        persistence.restart()
        with connect("bot", data_dir=hosts[1], endpoint=endpoint) as state:
            assert state.map("m") == {"mine": "new owner", "last": 1}
        with connect("bot", data_dir=hosts[0], endpoint=endpoint, takeover=True) as state:
            assert state.map("m") == {"mine": "new owner", "last": 1}
            assert state.recovered.set_aside > 0, "the zombie's changes belong to another history"


def test_what_a_replaced_session_had_recorded_is_set_aside_also_when_its_successor_is_further(data_dir: Path) -> None:
    with PersistenceProcess(own_folder(data_dir, "store")) as persistence:
        endpoint = f"ipc://{persistence.data_dir}/sockets"
        hosts = own_folder(data_dir, "a"), own_folder(data_dir, "b")
        old = connect("bot", data_dir=hosts[0], endpoint=endpoint)
        m = old.map("m")
        assert old._pump is not None
        old._pump.stop()
        m["recorded, never shipped"] = 1
        with pytest.raises(FlushTimeout):
            old.close(0)
        with connect("bot", data_dir=hosts[1], endpoint=endpoint, takeover=True) as state:
            state.map("m").update(a=1)
            state.map("m")["b"] = 2
        with connect("bot", data_dir=hosts[0], endpoint=endpoint, takeover=True) as state:
            assert state.map("m") == {"a": 1, "b": 2}
            assert state.recovered.set_aside == 1, "a change that had returned is gone without a word"


def test_a_fenced_session_raises_from_every_call(data_dir: Path) -> None:
    with PersistenceProcess(own_folder(data_dir, "store")) as persistence:
        endpoint = f"ipc://{persistence.data_dir}/sockets"
        hosts = own_folder(data_dir, "a"), own_folder(data_dir, "b")
        old = connect("bot", data_dir=hosts[0], endpoint=endpoint)
        m = old.map("m")
        with connect("bot", data_dir=hosts[1], endpoint=endpoint, takeover=True):
            wait_until(lambda: isinstance(old._recorder.over, Fenced), what="the old session is told")
            for call in (lambda: m.update(a=1), m.clear, old.sync, old.flush, lambda: old.map("other")):
                with pytest.raises(Fenced):
                    call()
            assert m == {}
        old.close()


def test_a_bot_that_forked_a_helper_and_was_killed_can_be_replaced_at_once(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence:
        with WorkerProcess(FORKER, env=persistence.env("bot")) as worker:
            lines = {worker.read_line(), worker.read_line()}
            child = int(next(iter(lines - {"refused"})))
            assert "refused" in lines
            try:
                worker.kill()
                os.kill(child, 0)  # the helper lives on
                with connect("bot", data_dir=persistence.data_dir, timeout=5) as state:
                    assert state.map("m") == {"before": 1, "after": 2}
            finally:
                os.kill(child, 9)
