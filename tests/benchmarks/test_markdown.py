"""The documents' tables, from a run's figures."""

from __future__ import annotations

from benchmarks.markdown import budget, side_by_side
from benchmarks.results import Results, Row, Table


def results() -> Results:
    rows = [
        Row(name="Outlive", kind="ours", rounds=[{"p50": 2.0, "p99": 5.0}]),
        Row(name="LMDB nosync", rounds=[{"p50": 1.0, "p99": 10.0}]),
        Row(name="Redis", missing="not installed"),
    ]
    return Results(
        machine={}, quick=True, tables=[Table(name="put_20us/dict", title="", units={"p50": "µs"}, rows=rows)]
    )


def test_everyone_with_figures_stands_side_by_side() -> None:
    shown = side_by_side(results(), "fast", {"put_20us/dict": "a dict", "put_1ms/dict": "not run"})
    assert shown.splitlines() == [
        "| fast: p50 / p99, µs | Outlive | LMDB nosync |",
        "| --- | --- | --- |",
        "| a dict | 2 / 5 | 1 / 10 |",
    ]


def test_the_budget_says_what_is_met_not_met_and_not_measured() -> None:
    lines = budget(results()).splitlines()
    assert lines[2].endswith("| 2x | at most 0.75x | **not met** |")
    assert lines[3].endswith("| 0.5x | at most 0.4x | **not met** |")
    assert "| not measured | at most 1x | **not met** |" in lines[4]
