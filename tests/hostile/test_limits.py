"""What is over a limit is refused by name where it is made; made all the same, it does not come through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.changes import encode_changes
from protocol.errors import ChangeTooLarge
from protocol.frames import encode_record
from protocol.keys import encode_key
from protocol.limits import MAX_CHANGE_BYTES, MAX_KEY_BYTES
from protocol.messages import Delta, encode
from strategy_proc import Session, connect
from strategy_proc.testing import MemoryStore
from tests.hostile.peers import frame, is_dropped, zmtp
from tests.hostile.siege import MEGABYTE, Siege
from tests.lab.effort import Effort
from tests.persistence_proc.raw_session import RawSession, insert
from tests.strategy_proc.outboxes import Lives, payload
from tests.strategy_proc.outboxes import insert as inserted
from tests.waiting import wait_until

SMALL = 2000  # bytes of a change, where the limit itself does not matter


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("protocol.values", "strategy_proc.recorder"):
        monkeypatch.setattr(f"{module}.MAX_CHANGE_BYTES", SMALL)


@contextlib.contextmanager
def unchanged(state: Session) -> Iterator[None]:
    """The block is refused as too large, and leaves the maps and the outbox as they were."""
    maps = {name: state.map(name) for name in state.map_names()}
    before = {name: (list(one.items()), dict(one._recorded)) for name, one in maps.items()}
    seq, outbox = state._outbox.seq, list(state._outbox._kept.records)  # type: ignore[attr-defined]
    with pytest.raises(ChangeTooLarge, match="over the limit"):
        yield
    after = {name: (list(one.items()), dict(one._recorded)) for name, one in maps.items()}
    assert after == before, "a refused change shows"
    assert state._outbox.seq == seq, "a refused change is recorded"
    assert state._outbox._kept.records == outbox  # type: ignore[attr-defined]
    assert state.unsaved() == {}


@pytest.mark.usefixtures("small_limit")
def test_a_refused_change_leaves_maps_and_outbox_as_they_were(lab: Effort) -> None:
    """P4: also where the last of many parts is the one too much."""
    big, half = "v" * (SMALL + 1), "v" * (SMALL // 2)
    store = MemoryStore()
    with store.connect("bot") as state:
        one, two = state.map("one"), state.map("two")
        one.update({"a": 1, "b": 2})
        two["c"] = 3
        tries = [
            lambda: one.__setitem__("a", big), lambda: one.__setitem__("new", big), lambda: one.setdefault("x", big),
            lambda: one.update({"x": half, "y": half, "z": half}), lambda: one.update({"x": 1, "y": big}),
            lambda: one.__ior__({"b": half, "d": half, "a": half}), lambda: one.__setitem__("k" * 5000, 1),
            lambda: two.__setitem__(10**10_000, 1), lambda: two.__setitem__(("a", b"x" * 4096), 1),
        ]  # fmt: skip
        for attempt in tries:
            with unchanged(state):
                attempt()
            lab.count("changes over the limit")
        for last in (big, half):
            with unchanged(state), state.transaction():
                del one["b"]
                two.clear()
                one["x"], two["y"] = half, half
                one.pop("a")
                two["z"] = last
            lab.count("transactions over the limit")
        one["after"] = half
        assert (dict(one), dict(two)) == ({"a": 1, "b": 2, "after": half}, {"c": 3})
    with store.connect("bot") as state:
        assert state.map("one") == {"a": 1, "b": 2, "after": half}


def test_the_limit_is_what_it_says(lab: Effort) -> None:
    """The real 64 MiB, and one byte more."""
    with MemoryStore().connect("bot") as state:
        overhead = len(state._codec.dump(b"x" * 2**20)) - 2**20
        one = state.map("m")
        one["fits"] = b"x" * (MAX_CHANGE_BYTES - overhead)
        with unchanged(state):
            one["too large"] = b"x" * (MAX_CHANGE_BYTES - overhead + 1)
    assert len(encode_key("k" * (MAX_KEY_BYTES - 5))) == MAX_KEY_BYTES
    with pytest.raises(ChangeTooLarge):
        encode_key("k" * (MAX_KEY_BYTES - 4))
    lab.count("changes over the limit", 2)


def test_a_state_too_large_to_be_sent_leaves_the_outbox_as_it_was(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, lab: Effort
) -> None:
    """`replace_all`, after `outlive accept`: no server would take it, so nothing is thrown away for it."""
    monkeypatch.setattr("strategy_proc.outbox.MAX_FOLD_BYTES", 100)
    lives = Lives(data_dir)
    try:
        outbox = lives.start()
        for _ in range(5):
            outbox.append(payload(inserted("k", b"v" * 50)))
        before = list(lives.read().records)
        with pytest.raises(ChangeTooLarge):
            outbox.replace_all(0, payload(inserted("k", b"v" * 500)), b"another store...")
        assert list(lives.read().records) == before, "what was recorded is gone"
        assert lives.read().identity.store_id == outbox.identity.store_id  # type: ignore[union-attr]
    finally:
        lives.close()
    lab.count("states over the limit")


def test_what_a_raw_sender_sends_beyond_the_limits_is_malformed_and_harms_nobody(siege: Siege, lab: Effort) -> None:
    """No sender of ours makes them: keys too long, names that are none, seqs that leap, records without end."""
    long_key = b"X" + (MAX_KEY_BYTES + 1).to_bytes(4, "little") + b"k" * (MAX_KEY_BYTES + 1)
    bad = [
        (1, "m", long_key, b"v"), (1, "m" * 64, b"K\1", b"v"), (1, "../m", b"K\1", b"v"), (1, "", b"K\1", b"v"),
        (9, "m", b"K\1", b"v"), (1, "m", b"", b"v"), (1, "m", b"K\1", b""), (4, "m", b"K\1", b""),
        (3, "m", b"K\1", b"v"),
    ]  # fmt: skip
    with RawSession(siege.data_dir) as session:
        session.open()
        for change in bad:
            session.send_raw(
                encode(Delta(namespace="bot", epoch=1, base=0, upto=1)),
                encode_record(1, 1, 1, encode_changes([change])),
            )
        for upto, span in ((2**63, 1), (2**63, 2**32 - 1), (2**64 - 1, 1), (2**32, 2**32 - 1)):
            record = encode_record(upto, 1, span, encode_changes([insert("m", "k")]))
            session.send_raw(encode(Delta(namespace="bot", epoch=1, base=0, upto=upto)), record)
        wait_until(lambda: session.status().malformed == len(bad) + 4, what="every one of them being counted")
        assert session.status().namespaces[0].applied == 0, "something of it was applied"
        session.put(insert("m", "k"))
        assert session.flush().durable == 1
        siege.check_unharmed(50 * MEGABYTE)
        lab.count("raw messages over the limits", len(bad) + 4)


def test_a_value_over_the_limit_of_a_message_is_dropped_with_its_connection(siege: Siege, lab: Effort) -> None:
    with RawSession(siege.data_dir) as session:
        session.open()
        with zmtp(siege.endpoint.deltas, "PUSH") as one:
            one.sendall(frame(encode(Delta(namespace="bot", epoch=1, base=0, upto=1)), 1))
            one.sendall(b"\x02" + (2**30 + 1).to_bytes(8, "big") + b"v" * 100_000)
            assert is_dropped(one)
        session.put(insert("m", "k"))
        assert session.flush().durable == 1
        siege.check_unharmed(50 * MEGABYTE)
        lab.count("raw messages over the limits")


def test_thousands_of_maps_are_kept_and_given_back(siege: Siege, lab: Effort) -> None:
    """There is no limit of maps to run into: many cost files, not correctness, and others are served meanwhile."""
    many = lab.pick(60, 2000)
    with connect("many", data_dir=siege.data_dir) as state:
        maps = [state.map(f"m{n}") for n in range(many)]
        with state.transaction():
            for n, one in enumerate(maps):
                one["k"] = n
        with RawSession(siege.data_dir) as other:
            other.open()
            other.put(insert("m", "k"))
            assert other.flush().durable == 1
        state.flush(60)
    siege.persistence.restart()
    with connect("many", data_dir=siege.data_dir, timeout=60) as state:
        assert all(state.map(f"m{n}") == {"k": n} for n in range(many))
    lab.count("maps of one namespace", many)
