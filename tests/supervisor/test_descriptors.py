"""Too few open files: programs go without, never the supervisor."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import psutil
import pytest

from supervisor.control import request
from supervisor.descriptors import check_room
from tests.supervisor.harness import SupervisorProcess, program

FEW = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({}, {}))"


def test_programs_that_find_no_room_wait_and_the_others_run_on(data_dir: Path) -> None:
    tables = {f"strategies.s{number}": program("serve") for number in range(12)}
    with SupervisorProcess(data_dir, tables, prelude=FEW.format(80, 80)) as supervisor:
        supervisor.wait_for("s0", "running")
        supervisor.wait_for("s11", "backoff")
        assert "s11 not started: Too many open files" in supervisor.errors()
        assert supervisor.program("s0").state == "running"
        assert supervisor.terminate() == 0


def test_a_shells_low_limit_is_raised_as_far_as_it_may_be(data_dir: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with SupervisorProcess(data_dir, {}, prelude=FEW.format(100, hard)) as supervisor:
        supervisor.wait_for("persistence", "running")
        raised = psutil.Process(supervisor.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert raised == (min(65536, hard) if hard != resource.RLIM_INFINITY else 65536, hard)
        assert supervisor.terminate() == 0


def test_the_last_descriptors_are_not_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (100, 100))
    check_room(68)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        check_room(69)


def test_what_zeromq_refuses_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="ipc:///x"):
        request("ipc:///" + "x" * 200, b"", timeout=0.1)
