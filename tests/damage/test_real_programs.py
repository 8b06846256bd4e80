"""P6 with the real programs on a real disk: one line, the exit code that is documented, never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from protocol.errors import ConfigError, MalformedMessage, OutliveError, PersistenceUnavailable, SocketPathTooLong
from strategy_proc import connect
from tests.damage.damages import Damage, files_of, folders, inside, role_of, whole_files
from tests.damage.oracle import ADVICE, AT_BYTE, damaged_disk, start
from tests.damage.still_server import BOOT, DIR
from tests.damage.stores import SHAPES, Image, Shape, build, write_image
from tests.lab.effort import Effort
from tests.persistence_proc.commands import run
from tests.processes import PersistenceProcess


@cache
def shape_of(name: str) -> Shape:
    return build(name)


def refused_starts(lab: Effort, name: str, count: int) -> list[tuple[Damage, str]]:
    """Damages at which the persistence process has to refuse, of all kinds; and the words of the refusal."""
    shape, chance = shape_of(name), lab.chance(name)
    foreign = build("busy", elsewhere=True)
    every = [*whole_files(shape, foreign), *folders(shape, foreign)]
    for path in files_of(shape.image):
        every += inside(shape, path, chance, far=False)
    chance.shuffle(every)
    found: dict[str, tuple[Damage, str]] = {}
    for damage in every:
        refusal = None if damage.unreadable else start(damaged_disk(damage), [], BOOT).refused
        if isinstance(refusal, OutliveError):
            key = f"{type(refusal).__name__} {role_of(damage.paths[0])} {damage.kind.split()[0]}"
            found.setdefault(key, (damage, str(refusal)))
        if len(found) >= count:
            break
    assert found, "no damage is refused: nothing is tested here"
    return list(found.values())


def placed(image: Image, data_dir: Path) -> None:
    """`image` as a data directory of ours."""
    for old in data_dir.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    write_image(image, str(data_dir))


@pytest.mark.parametrize("name", SHAPES)
def test_a_refused_start_is_one_line_and_exit_code_2(lab: Effort, data_dir: Path, name: str) -> None:
    for damage, words in refused_starts(lab, name, lab.pick(1, 20)):
        placed(damage.image, data_dir)
        argv = [sys.executable, "-m", "persistence_proc", "--data-dir", str(data_dir), "--log-level", "error"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 2, (damage.kind, damage.paths, done.stderr)
        assert done.stderr.count("\n") == 1, f"{damage}: more than a line:\n{done.stderr}"
        assert done.stderr == f"persistence: {words.replace(DIR, str(data_dir))}\n"
        assert ADVICE.search(done.stderr), done.stderr
        assert AT_BYTE.search(done.stderr) or not damage.inside, done.stderr
        lab.count("real starts refused")


@pytest.mark.parametrize("name", SHAPES)
def test_show_is_lines_and_never_a_traceback(lab: Effort, data_dir: Path, name: str) -> None:
    for damage, _ in refused_starts(lab, name, lab.pick(1, 20)):
        placed(damage.image, data_dir)
        done = run("inspect", data_dir)
        assert done.returncode in (0, 1, 2)
        assert done.stderr.startswith("outlive: "), f"{damage}: shown without a word about it"
        assert all(line.startswith("outlive: ") for line in done.stderr.splitlines()), done.stderr
        assert str(data_dir) in done.stderr, done.stderr
        lab.count("real looks at damage")


@pytest.mark.parametrize("name", ["busy", "closed"])
def test_a_served_store_keeps_the_bytes_of_a_damaged_map_through_start_and_stop(data_dir: Path, name: str) -> None:
    shape = shape_of(name)
    damaged = bytearray(shape.image["bot/a.pkl"] or b"")
    damaged[30] ^= 1
    placed({**shape.image, "bot/a.pkl": bytes(damaged)}, data_dir)
    with PersistenceProcess(data_dir) as persistence:
        assert persistence.terminate() == 0
    kept = [path.read_bytes() for path in (data_dir / "quarantine").iterdir()]
    assert bytes(damaged) in kept, "the damaged file is not in the quarantine"


# ENDPOINT


@pytest.fixture(scope="module")
def endpoint_text() -> bytes:
    return json.dumps({"address": "ipc:///tmp/nobody-here", "pid": 1, "instance": "x"}).encode()


def broken_endpoints(lab: Effort, text: bytes) -> Iterator[bytes]:
    chance = lab.chance("endpoint")
    yield from (text[:length] for length in range(0, len(text), lab.pick(7, 1)))
    for at in range(0, len(text), lab.pick(5, 1)):
        for bit in lab.pick([chance.randrange(8)], list(range(8))):
            yield text[:at] + bytes([text[at] ^ (1 << bit)]) + text[at + 1 :]
    for address in (
        "tcp://127.0.0.1:1",
        "tcp://:::5757",
        "ipc://",
        "ipc:///a\\u0000b",
        "tcp://a b:5",
        "tcp://-:5",
    ):
        yield text.replace(b"ipc:///tmp/nobody-here", address.encode())
    yield from (bytes(512), text + bytes(512), b"[" * 100_000, b"null", text.replace(b"1", b"9" * 400))


def test_a_damaged_endpoint_file_is_named_and_no_bot_starts(lab: Effort, data_dir: Path, endpoint_text: bytes) -> None:
    for broken in broken_endpoints(lab, endpoint_text):
        (data_dir / "ENDPOINT").write_bytes(broken)
        with pytest.raises((PersistenceUnavailable, MalformedMessage, ConfigError, SocketPathTooLong)) as caught:
            connect("bot", data_dir=data_dir, timeout=0.0)
        named = ("tcp:",) if isinstance(caught.value, ConfigError) else (str(data_dir / "ENDPOINT"), "is it running?")
        assert any(word in str(caught.value) for word in named), f"{broken[:80]!r}: {caught.value}"
        assert "\n" not in str(caught.value)
        lab.count("damaged ENDPOINT files")


def test_a_damaged_endpoint_file_is_written_anew_by_the_next_start(data_dir: Path) -> None:
    (data_dir / "ENDPOINT").write_bytes(b"{")
    with PersistenceProcess(data_dir):
        connect("bot", data_dir=data_dir).close()


def test_a_folder_in_the_place_of_each_small_file_is_one_line(data_dir: Path) -> None:
    for name in ("LOCK", "ENDPOINT", "STORE"):
        placed({**shape_of("young").image, name: None}, data_dir)
        argv = [sys.executable, "-m", "persistence_proc", "--data-dir", str(data_dir), "--log-level", "error"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode in (1, 2), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert str(data_dir / name) in done.stderr


def test_the_sweep_wrote_nothing_outside_its_folder() -> None:
    assert not os.path.exists(DIR) or not stat.S_ISDIR(os.stat(DIR).st_mode), "the sweep's disk is not in memory"
