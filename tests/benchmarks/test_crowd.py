"""The other bots of `growth_workers`: as many as wanted, also when it is fewer than before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.child import Child
from benchmarks.scenarios.crowd import shares
from benchmarks.server import Server
from benchmarks.workers import hold_sessions


def echo() -> Iterator[Any]:
    wanted = yield None
    while True:
        wanted = yield wanted


def test_a_child_gets_what_is_wanted_of_it() -> None:
    with Child(echo) as child:
        child.await_ready()
        for wanted in ({}, {"sessions": 3}):
            child.go(**wanted)
            assert child.result() == wanted


def test_bots_come_and_go_and_change_what_they_keep(data_dir: Path) -> None:
    with Server(str(data_dir)) as server:
        bots = hold_sessions(str(data_dir), "other")
        next(bots)

        def connected() -> int:
            return sum(namespace.session == "open" for namespace in server.status().namespaces)

        for count in (3, 1):
            assert bots.send({"sessions": count}) == count
            assert connected() == count
        assert bots.send({"pause": 1_000_000, "seconds": 0.01}) == 1
        bots.close()
        assert connected() == 0


def test_bots_are_spread_over_processes_as_equally_as_it_goes() -> None:
    assert shares(19, 8) == [3, 3, 3, 2, 2, 2, 2, 2]
    assert shares(0, 2) == [0, 0]
