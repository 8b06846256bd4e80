from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence_proc.journal_format import segment_name
from persistence_proc.recovery import recover
from persistence_proc.tools.foreign_values import Placeholder, Unreadable, show_value
from persistence_proc.tools.plain import plain
from persistence_proc.tools.reading import read_store
from protocol.disk import Disk
from protocol.keys import encode_key
from protocol.values import Trust, ValueCodec
from strategy_proc import connect
from tests.persistence_proc.commands import bot, put, run, run_once
from tests.processes import PersistenceProcess
from tests.protocol import shapes
from tests.protocol.test_values import PLAIN_VALUES, TRUSTED_VALUES


@pytest.fixture
def stored(data_dir: Path) -> Path:
    run_once(data_dir)
    return data_dir


def shown(data_dir: Path, *path: str) -> list[dict[str, Any]]:
    done = run("inspect", data_dir, *path, "--json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def fingerprint(data_dir: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_namespaces_maps_entries_and_one_key_are_shown(stored: Path) -> None:
    assert [(row["namespace"], row["maps"], row["entries"], row["session"]) for row in shown(stored)] == [
        ("bot", 2, 5, "closed")
    ]
    assert {(row["map"], row["entries"]) for row in shown(stored, "bot")} == {("positions", 1), ("misc", 4)}
    (position,) = shown(stored, "bot", "positions")
    assert position["key"] == "BTC/USDT"
    assert position["value"]["type"] == "Position"
    assert position["value"]["quantity"] == "1.5"
    assert position == shown(stored, "bot", "positions", "BTC/USDT")[0]


def test_values_of_unknown_classes_show_their_class_name_and_content(stored: Path) -> None:
    values = {str(row["key"]): row["value"] for row in shown(stored, "bot", "misc")}
    assert values["['a', 1]"] == {"type": "tests.protocol.shapes.Bar", "close": 1.0, "tags": ["x"]}
    assert values["fill"]["type"] == "tests.protocol.shapes.Fill"
    assert values["fill"]["price"] == "3"


def test_a_key_given_as_text_means_the_str_and_the_int(stored: Path) -> None:
    assert [row["key"] for row in shown(stored, "bot", "misc", "5")] == [5, "5"]
    assert [row["key"] for row in shown(stored, "bot", "misc", "('a', 1)")] == [["a", 1]]


def test_without_a_terminal_the_output_is_lines_with_tabs(stored: Path) -> None:
    lines = run("inspect", stored, "bot", "misc").stdout.splitlines()
    assert lines[0] == "key\tvalue"
    assert "5\t[1, 2]" in lines
    assert run("inspect", stored, "bot", "positions", "BTC/USDT").stdout.splitlines()[1] == "symbol\t'BTC/USDT'"


def test_looking_writes_nothing(stored: Path) -> None:
    before = fingerprint(stored)
    for path in ((), ("bot",), ("bot", "misc"), ("bot", "misc", "5")):
        assert run("inspect", stored, *path).returncode == 0
    assert fingerprint(stored) == before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("nobody",), "no namespace 'nobody'"),
        (("bot", "nothing"), "no map 'nothing'"),
        (("bot", "misc", "x"), "no key 'x'"),
    ],
)
def test_what_is_not_there_is_one_line(stored: Path, path: tuple[str, ...], message: str) -> None:
    done = run("inspect", stored, *path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_directory_is_one_line(data_dir: Path) -> None:
    done = run("inspect", data_dir / "missing")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert run("inspect", data_dir).returncode == 0  # an empty one is empty


def test_a_wrong_option_is_one_line(data_dir: Path) -> None:
    done = run("inspect", data_dir, "--bogus")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_changes_that_only_an_outbox_holds_are_shown(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence, bot(persistence) as worker:
        assert worker.read_line() == "stored"
        persistence.kill()
        put(worker, "late")
        worker.kill()
    (row,) = shown(data_dir)
    assert row["only in outbox"] == 1
    assert shown(data_dir, "bot", "misc", "late")[0]["value"] == "typed"


def test_a_running_system_can_be_looked_at(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence, bot(persistence) as worker:
        assert worker.read_line() == "stored"
        for n in range(300):
            put(worker, f"k{n}")
            if n % 30 == 0:
                store = read_store(Disk(), str(data_dir))
                assert len(store.namespaces["bot"].maps["misc"].items) == 4 + n + 1
                assert store.problems == []
        worker.end_input()
        assert worker.wait() == 0


def test_a_damaged_file_is_named_in_one_line_and_the_rest_is_shown(stored: Path) -> None:
    damaged = stored / "bot" / "misc.pkl"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    done = run("inspect", stored, "bot", "positions")
    assert done.returncode == 0
    assert str(damaged) in done.stderr
    assert done.stderr.count("\n") == 1
    assert "BTC/USDT" in done.stdout


def test_without_a_journal_the_files_alone_are_shown(stored: Path) -> None:
    for segment in (stored / "journal").iterdir():
        segment.unlink()
    assert f"{stored / 'journal'}: no journal segment" in run("inspect", stored).stderr
    assert {row["map"] for row in shown(stored, "bot")} == {"positions", "misc"}
    assert len(shown(stored, "bot", "misc")) == 4


def test_a_damaged_journal_is_named_and_the_files_are_shown(stored: Path) -> None:
    for segment in (stored / "journal").iterdir():
        segment.write_bytes(b"junk" * 1000)
    done = run("inspect", stored, "bot", "misc")
    assert done.returncode == 0
    assert "first frame of a journal segment" in done.stderr
    assert "[1, 2]" in done.stdout


@pytest.mark.parametrize("segment", ["a folder", "of another store"])
def test_a_journal_that_is_not_ours_to_read_is_named_and_the_files_are_shown(stored: Path, segment: str) -> None:
    ours = list((stored / "journal").glob("*.log"))
    for path in ours:
        path.unlink()
    if segment == "a folder":
        ours[0].mkdir()
    else:
        recover(Disk(), str(stored / "elsewhere")).journal.close()
        (stored / "elsewhere" / "journal" / segment_name(1)).rename(stored / "journal" / segment_name(1))
    done = run("inspect", stored, "bot", "misc")
    assert done.returncode == 0
    assert str(stored / "journal") in done.stderr
    assert "[1, 2]" in done.stdout


def test_an_outbox_that_goes_on_behind_the_state_is_not_mixed_with_it(data_dir: Path) -> None:
    with PersistenceProcess(data_dir) as persistence, bot(persistence) as worker:
        assert worker.read_line() == "stored"
        persistence.terminate()
        put(worker, "late")
        worker.kill()
    for segment in (data_dir / "journal").iterdir():
        segment.unlink()
    done = run("inspect", data_dir, "bot", "misc")
    assert "late" not in done.stdout
    assert "the outbox of bot is not shown" in done.stderr
    misc = data_dir / "bot" / "misc.pkl"
    misc.unlink()
    assert run("inspect", data_dir, "bot", "misc").returncode == 1, "a part of a map is shown as the map"


# Values of strangers


@pytest.mark.parametrize("value", PLAIN_VALUES, ids=lambda v: ascii(v)[:20])
def test_plain_values_are_shown_as_they_are(value: Any) -> None:
    assert repr(show_value(ValueCodec(Trust()).dump(value))) == repr(value)
    json.dumps(plain(value), allow_nan=False)


@pytest.mark.parametrize("value", TRUSTED_VALUES, ids=lambda v: ascii(v)[:20])
def test_values_of_unknown_classes_are_shown_by_name(value: Any) -> None:
    back = show_value(ValueCodec(Trust([shapes])).dump(value))
    assert "tests.protocol.shapes." in repr(back)
    json.dumps(plain(back), allow_nan=False)


def test_no_code_of_a_value_is_run(capfd: pytest.CaptureFixture[str]) -> None:
    shown = show_value(pickle.dumps(shapes.Evil()))
    assert isinstance(shown, Placeholder)
    assert repr(shown) == f"<{os.system.__module__}.system 'echo owned'>"
    assert capfd.readouterr().out == ""


def test_a_value_that_is_no_pickle_is_shown_as_unreadable() -> None:
    assert isinstance(show_value(b"junk"), Unreadable)
    assert "unreadable, 4 bytes" in repr(show_value(b"junk"))


def test_a_name_can_not_give_orders_to_the_terminal() -> None:
    assert "\x1b" not in repr(show_value(b"cevil\nna\x1b[31mme\n."))
    assert "\x1b" not in repr(show_value(b"cevil\nna\x1b[31mme\n)R."))


@given(st.binary(max_size=200))
def test_any_bytes_can_be_shown(data: bytes) -> None:
    value = show_value(data)
    json.dumps(plain(value), allow_nan=False)
    repr(value)


def laughs() -> Any:
    """2**40 times "ha", in a few hundred bytes."""
    value: Any = "ha"
    for _ in range(40):
        value = [value, value]
    return value


ENDLESS = {
    "deep": b"\x80\x05" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "shared": pickle.dumps(laughs()),
    "long int": pickle.dumps({"n": 10**10_000}),
    "empty": pickle.dumps(bytearray(2**24))[:-2] + b".",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_value_without_end_as_text_is_shown_as_unreadable(name: str) -> None:
    assert isinstance(show_value(ENDLESS[name]), Unreadable)


@pytest.mark.parametrize("key", [7**5200, ("a", -(7**5200))], ids=["an int", "in a tuple"])
def test_a_key_without_end_as_text_hides_no_other(data_dir: Path, key: Any) -> None:
    with PersistenceProcess(data_dir), connect("bot", data_dir=data_dir) as state:
        state.map("m").update({"before": 1, key: 2, "behind": 3})
    before, endless, behind = shown(data_dir, "bot", "m")
    assert (before, behind) == ({"key": "before", "value": 1}, {"key": "behind", "value": 3})
    assert endless["value"] == 2
    assert endless["key"] == {"type": "unreadable", "why": "an int of 14599 bits", "bytes": len(encode_key(key))}
    assert shown(data_dir, "bot", "m", "behind") == [behind]
    table = run("inspect", data_dir, "bot", "m").stdout.splitlines()
    assert len(table) == 4
    assert "an int of 14599 bits" in table[2]


def test_values_that_contain_themselves_are_shown_to_where_they_begin_again() -> None:
    twice: list[Any] = []
    twice += [twice, twice]
    assert plain(show_value(pickle.dumps(twice))) == ["...", "..."]
    itself = show_value(b"\x80\x05cevil\nName\n)R\x94h\0h\0\x86b.")  # its state: itself, twice
    assert repr(itself) == "<evil.Name ..., ...>"
    json.dumps(plain(itself))
