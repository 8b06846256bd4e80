"""The measurements are what they say: every store gives back what it was given, every name leads somewhere.

Nothing is timed here. A peer that is not installed is skipped by name.
"""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import budget, check
from benchmarks.measure import Contestant, contest, paced, summary, tight
from benchmarks.ours import Outlive, OutliveFlushed, OutliveSynced
from benchmarks.peers import PEERS, Peer, stores
from benchmarks.results import Results, Row, Table, load_results, ratio, save_results
from benchmarks.scenarios import SCENARIOS, meaning
from benchmarks.show import show_table
from benchmarks.values import KINDS, items

OURS: list[type[Peer]] = [Outlive, OutliveSynced, OutliveFlushed]
FLOORS = [kind for kind in PEERS if kind.is_floor]


def opened(kind: type[Peer], folder: Path) -> Peer:
    if kind.missing():
        pytest.skip(f"{kind.name}: {kind.missing()}")
    return kind(str(folder))


@pytest.mark.parametrize("kind", [*OURS, *stores(PEERS)], ids=lambda kind: kind.name)
def test_a_store_gives_back_what_it_was_given_also_when_it_is_opened_again(kind: type[Peer], data_dir: Path) -> None:
    given = {f"{name}-{n}": make(n) for name, make in KINDS.items() for n in range(3)}
    store = opened(kind, data_dir)
    try:
        for key, value in given.items():
            store.put(key, store.prepare(value))
            assert store[key] == value
        if kind.has_transactions:
            together = {"a": KINDS["dict"](7), "b": KINDS["position"](8)}
            store.put_many(list(together.items()))
            given |= together
        store.settle()
        assert store.load() == given
    finally:
        store.close()
    store = kind(str(data_dir))
    try:
        assert store.load() == given
    finally:
        store.close()


@pytest.mark.parametrize("kind", FLOORS, ids=lambda kind: kind.name)
def test_a_floor_takes_every_value(kind: type[Peer], data_dir: Path) -> None:
    floor = opened(kind, data_dir)
    try:
        for make in KINDS.values():
            floor.put("key", floor.prepare(make(0)))
    finally:
        floor.close()


def test_the_scenarios_are_documented_by_name_and_meaning() -> None:
    text = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE))
    assert documented == {name: meaning(scenario) for name, scenario in SCENARIOS.items()}


def test_the_budget_and_the_guard_name_scenarios_that_exist() -> None:
    assert {line.scenario for line in budget.BUDGET} <= set(SCENARIOS)
    assert set(check.GUARDED) <= set(SCENARIOS)
    assert all(check.guarded([name]) for name in check.GUARDED)


def test_contestants_have_their_turns_round_by_round_each_first_in_turn() -> None:
    turns: list[str] = []

    def contestant(name: str) -> Contestant:
        return Contestant(Row(name=name), lambda: turns.append(name) or [1_000, 2_000], lambda: turns.append("settled"))

    rows = contest([contestant("a"), contestant("b")], rounds=2)
    assert turns == ["a", "settled", "b", "settled", "b", "settled", "a", "settled"]
    assert [len(row.rounds) for row in rows] == [2, 2]
    assert rows[0].figure("max") == 2.0


def test_the_loops_call_once_for_each_item_in_order() -> None:
    puts = items(KINDS["dict"], 20, keys=7)
    for loop in (lambda call: tight(call, puts, 60.0), lambda call: paced(call, puts, 1_000, 60.0)):
        seen: list[object] = []
        assert len(loop(lambda key, value: seen.append((key, value)))) == 20  # noqa: B023 (called at once)
        assert seen == puts
    assert summary([]) == {}


def a_table(ours: list[float], peer: list[float]) -> Table:
    rows = [
        Row(name="Outlive", kind="ours", promise="p", rounds=[{"p50": value} for value in ours]),
        Row(name="LMDB nosync", promise="p", rounds=[{"p50": value} for value in peer]),
        Row(name="Redis", promise="p", missing="not installed: redis-server"),
    ]
    return Table(name="put_20us/dict", title="puts", units={"p50": "µs"}, rows=rows)


def test_a_ratio_is_taken_within_each_round() -> None:
    table = a_table([1.0, 10.0, 100.0], [2.0, 20.0, 100.0])
    assert ratio(table.rows[0], table.rows[1], "p50") == 0.5
    assert ratio(table.rows[0], table.rows[2], "p50") is None


def test_a_line_of_the_budget_is_met_not_met_or_not_measured() -> None:
    results = Results(machine={}, quick=True, tables=[a_table([3.0], [2.0])])
    lines = [line for line in budget.BUDGET if line.work.startswith(("put, 8-field dict", "idle"))]
    p50, p99, idle = budget.judge(results, lines)
    assert (p50.value, p50.is_met) == (1.5, False)
    assert p99.value is None
    assert not idle.is_met
    assert check.too_slow([p50, p99, idle]) == []
    assert check.too_slow([p50._replace(value=9.0)]) != []


def test_who_is_missing_is_shown_with_the_reason_and_results_are_kept(tmp_path: Path) -> None:
    table, said = a_table([1.0], [2.0]), StringIO()
    show_table(Console(file=said, width=120), table)
    assert "not installed: redis-server" in said.getvalue()
    assert "0.5x of LMDB nosync" in said.getvalue()
    results = Results(machine={"disk": "ext4"}, quick=True, tables=[table])
    save_results(results, str(tmp_path / "run.json"))
    assert load_results(str(tmp_path / "run.json")) == results
