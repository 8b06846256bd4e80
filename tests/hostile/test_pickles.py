"""P8: no value runs code: not in the server, a worker, `outlive show`, or recovery."""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import pytest

from persistence_proc.pickle_file import _TRAILER, MAGIC, load_map
from persistence_proc.tools.foreign_values import show_value
from persistence_proc.tools.plain import plain
from protocol.errors import Damaged, MalformedMessage, UntrustedType, ValueUnreadable
from protocol.keys import decode_key, decode_keys
from protocol.values import Trust, ValueCodec
from tests.hostile.conftest import less_memory
from tests.hostile.evil_pickles import BOMBS, PROTO, STOP, as_map_file, calls, really_runs
from tests.hostile.inputs import OneFile
from tests.lab.effort import Effort
from tests.persistence_proc.commands import run
from tests.persistence_proc.raw_session import RawSession, insert
from tests.processes import PersistenceProcess, WorkerProcess
from tests.protocol import shapes
from tests.waiting import wait_until

WORKER = """
import resource, sys
from protocol.errors import UntrustedType, ValueUnreadable
from protocol.records import Position
from strategy_proc import connect
from tests.protocol import shapes

state = connect(trust=[shapes])
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))  # a length may be claimed: it ends as a named error
for name in state.map_names():
    try:
        state.map(name, Position)
        print("read", name, flush=True)
    except (UntrustedType, ValueUnreadable) as error:
        named = f"map {name!r}, key '" in str(error)
        print("refused" if named else f"nameless {error}", name, flush=True)
state.map("good")["k"] = 1
state.close()
print("left", flush=True)
"""


def test_the_canary_would_sing(canary: Path, lab: Effort) -> None:
    """Else its silence below proves nothing."""
    for name, payload in calls(canary).items():
        if name in ("os.system", "eval", "INST", "in containers", "old protocol", "after a value", "functools.partial"):
            really_runs(payload)
            assert canary.exists(), name
            canary.unlink()


def test_a_readers_codec_calls_nothing(canary: Path, lab: Effort) -> None:
    codec = ValueCodec(Trust([shapes]))
    good = codec.dump(shapes.Fill(symbol="a", price=shapes.Decimal(1)))
    for name, payload in calls(canary).items():
        for data in (payload, payload[:-1] + b"0" + good[2:]):
            with pytest.raises((UntrustedType, ValueUnreadable)):
                codec.load(data)
            with pytest.raises((UntrustedType, ValueUnreadable)):
                codec.load_many([good, data, good])
            assert not canary.exists(), f"{name} ran"
            lab.count("evil pickles")
    assert codec.load(good).symbol == "a"


def test_evil_in_place_of_a_key_is_malformed(canary: Path, lab: Effort) -> None:
    for name, payload in calls(canary).items():
        for read in (decode_keys, decode_key):
            with pytest.raises(MalformedMessage):
                read(payload.removeprefix(PROTO).removesuffix(STOP))
            assert not canary.exists(), f"{name} ran"
            lab.count("evil keys")


@pytest.mark.usefixtures("little_memory")
def test_what_shows_values_calls_nothing_and_ends(canary: Path, lab: Effort) -> None:
    for name, payload in {**calls(canary), **BOMBS}.items():
        value = show_value(payload)
        assert len(repr(value)) + len(json.dumps(plain(value))) < 2**24, f"{name}: no end of it"
        assert not canary.exists(), f"{name} ran"
        lab.count("evil pickles")


def forged(pickled: bytes, count: int = 1) -> bytes:
    """A map file whose checks are all good, around any pickle."""
    body = pickled + _TRAILER.pack(MAGIC, b"s" * 16, 3, 7, count, len(pickled), b"bot", b"m")
    return body + crc32(body).to_bytes(4, "little")


def test_a_forged_map_file_is_damage_and_runs_nothing(canary: Path, lab: Effort) -> None:
    for name, payload in {**calls(canary), **BOMBS}.items():
        for pickled in (payload, as_map_file(payload)):
            with pytest.raises(Damaged):
                load_map(OneFile("/bot/m.pkl", forged(pickled)), "/bot/m.pkl")
            assert not canary.exists(), f"{name} ran"
            lab.count("forged map files")


def test_the_server_keeps_evil_values_unread_and_a_worker_refuses_them_by_name(
    data_dir: Path, canary: Path, lab: Effort
) -> None:
    """Opaque to the server through a kill and a recovery; named by map and key in a worker, which lives on."""
    payloads = {name: payload for name, payload in {**calls(canary), **BOMBS}.items() if payload}
    evil = {f"m{n}": payload for n, payload in enumerate(payloads.values())}
    refused = {f"m{n}" for n in range(len(calls(canary)))}
    with PersistenceProcess(data_dir) as persistence:
        with RawSession(data_dir) as session:
            session.open()
            session.put(*(insert(name, "k", payload) for name, payload in evil.items()))
            session.put(*(insert("evil", name, payload) for name, payload in payloads.items()))
            session.flush()
            persistence.restart()
            session.connect()
            assert session.open_state()[1] == {
                **{name: {"k": payload} for name, payload in evil.items()},
                "evil": payloads,
            }
            session.close()
        with WorkerProcess(WORKER, env=persistence.env("bot")) as worker:
            said = [worker.read_line() for _ in (*evil, "evil")]
            assert worker.read_line() == "left"
            assert worker.wait() == 0
        assert {line.split()[1] for line in said if line.startswith("refused")} >= refused
        assert [line for line in said if line.startswith("nameless")] == []
        assert persistence.terminate() == 0
    assert not canary.exists(), "a value ran its code"
    for arguments in lab.pick([("--json",)], [(), ("--json",)]):
        with less_memory():
            done = run("inspect", data_dir, *arguments, "bot", "evil")
        assert done.returncode == 0, done.stderr
        assert all(name in done.stdout for name in payloads)
    assert not canary.exists(), "a value ran its code when it was shown"
    lab.count("evil pickles", 4 * len(evil))


def test_an_evil_file_in_a_map_files_place_is_quarantined_and_not_run(
    data_dir: Path, canary: Path, lab: Effort
) -> None:
    """A plain pickle, and one in a file whose checks are all good: recovery takes the generation before."""
    evil = calls(canary)["os.system"]
    with PersistenceProcess(data_dir) as persistence, RawSession(data_dir) as session:
        session.open()
        session.put(insert("m", "k", b"N."))
        session.flush()
        file = Path(persistence.data_dir, "bot", "m.pkl")
        wait_until(file.exists)
        for kept, data in enumerate((evil, forged(evil), forged(as_map_file(evil))), 1):
            assert persistence.terminate() == 0
            file.write_bytes(data)
            persistence.start()
            session.connect()
            assert session.open_state()[1] == {"m": {"k": b"N."}}, "the generation before and the journal have it"
            quarantine = Path(persistence.data_dir, "quarantine")
            assert len([one for one in quarantine.rglob("*") if one.is_file()]) >= kept, "the file is not kept"
            lab.count("forged map files")
    assert not canary.exists(), "recovery ran it"
