"""Requests that are held: what they are told when the world changes while they wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from persistence_proc import requests
from persistence_proc.catalog import NamespaceEntry
from persistence_proc.held_requests import NO_DEADLINE, Held, HeldRequests
from persistence_proc.namespaces import Namespace
from protocol.changes import encode_changes
from protocol.disk import Disk
from protocol.frames import encode_record
from protocol.messages import (
    Close,
    Confirm,
    Confirmed,
    Delta,
    Done,
    Forget,
    Refused,
    RefusedCode,
    decode_reply,
    encode,
)
from tests.persistence_proc.raw_session import insert, open_request
from tests.persistence_proc.service_harness import Harness
from tests.waiting import wait_until


@pytest.fixture
def harness(data_dir: Path) -> Iterator[Harness]:
    one = Harness(data_dir, Disk())
    one.open()
    yield one
    one.close()


def test_a_question_that_waits_learns_nothing_of_what_its_successor_made_durable(harness: Harness) -> None:
    service = harness.service
    asked = Confirm(namespace="bot", epoch=1, store_id=b"", acked=0, upto=1, wait=30.0)
    service.requests.handle(b"replaced", "", asked, service._clock())
    successor = open_request(identity=b"j" * 16, takeover=True)
    service.requests.handle(b"successor", "", successor, service._clock())
    wait_until(lambda: harness.turn() or b"successor" in harness.heads)
    record = encode_record(1, 2, 1, encode_changes([insert("a", "x")]))
    service.receive_delta([encode(Delta(namespace="bot", epoch=2, base=0, upto=1)), record], "")
    wait_until(lambda: harness.turn() or service.store.namespaces["bot"].durable == 1)
    harness.turn()
    told = decode_reply(harness.heads[b"replaced"])
    assert isinstance(told, Refused)
    assert told.code == RefusedCode.FENCED


def test_changes_of_another_outbox_with_the_same_epoch_are_not_ours(harness: Harness) -> None:
    record = encode_record(1, 1, 1, encode_changes([insert("a", "x")]))
    for identity, applied in ((b"j" * 16, 0), (b"i" * 16, 1)):
        delta = Delta(namespace="bot", epoch=1, base=0, upto=1, identity=identity)
        harness.service.receive_delta([encode(delta), record], "")
        assert harness.service.store.namespaces["bot"].applied == applied


def replaced(harness: Harness) -> None:
    successor = open_request(identity=b"j" * 16, takeover=True)
    harness.service.requests.handle(b"successor", "", successor, harness.service._clock())


def forgotten(harness: Harness) -> None:
    harness.service.store.namespaces["bot"].heard = None
    harness.service.requests.handle(b"person", "", Forget(namespace="bot"), harness.service._clock())


def gap(harness: Harness) -> None:
    record = encode_record(9, 1, 1, encode_changes([insert("a", "x")]))
    harness.service.receive_delta([encode(Delta(namespace="bot", epoch=1, base=8, upto=9)), record], "")


def put(harness: Harness) -> None:
    harness.put(1)


CONFIRM = Confirm(namespace="bot", epoch=1, store_id=b"", acked=0, upto=1, wait=3600.0)
CLOSE = Close(namespace="bot", epoch=1, upto=1)


@pytest.mark.parametrize(
    ("request_", "event", "told"),
    [
        (CONFIRM, put, Confirmed(instance="i", applied=1, durable=1)),
        (CONFIRM, gap, Confirmed(instance="i", applied=0, durable=0, gap=True)),
        (CONFIRM, replaced, RefusedCode.FENCED),
        (CONFIRM, forgotten, RefusedCode.FENCED),
        (CLOSE, put, Done()),
        (CLOSE, replaced, RefusedCode.FENCED),
    ],
    ids=["durable", "gap", "replaced", "forgotten", "closed", "closed too late"],
)
def test_who_waits_is_told_when_it_happens_and_not_when_the_wait_is_over(
    harness: Harness, monkeypatch: pytest.MonkeyPatch,
    request_: Confirm | Close, event: Callable[[Harness], None], told: object,
) -> None:  # fmt: skip
    monkeypatch.setattr(requests, "CONFIRM_WAIT", 3600.0)
    harness.service.requests.handle(b"asks", "", request_, harness.service._clock())
    harness.turn()
    assert b"asks" not in harness.heads
    event(harness)
    answer = decode_reply(wait_until(lambda: harness.turn() or harness.heads.get(b"asks")))
    assert (answer.code if isinstance(answer, Refused) else answer) == told


def test_who_asks_for_what_is_so_already_is_told_in_the_same_turn(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "CONFIRM_WAIT", 3600.0)
    harness.put(1)
    harness.wait_saved()
    harness.turn()
    harness.service.requests.handle(b"asks", "", CONFIRM, harness.service._clock())
    harness.turn()
    assert decode_reply(harness.heads[b"asks"]) == Confirmed(instance="i", applied=1, durable=1)


def held(address: bytes, name: str = "bot", deadline: float = 1.0) -> Held:
    return Held(address, CONFIRM, Namespace(NamespaceEntry(name=name)), 1, deadline)


def test_of_those_who_wait_only_who_may_have_an_answer_is_looked_at() -> None:
    waiting = HeldRequests()
    for one in (held(b"a", "one"), held(b"b", "two", 2.0), held(b"c", "two", 3.0), held(b"d", "three", NO_DEADLINE)):
        waiting.add(one)
    assert {one.address for one in waiting.due([], 0.0)} == {b"d"}
    assert {one.address for one in waiting.due(["two", "nobody"], 0.0)} == {b"b", b"c", b"d"}
    assert {one.address for one in waiting.due(["one"], 2.0)} == {b"a", b"b", b"d"}, "each once"
    assert waiting.wait(2.0) == 1.0


def test_who_asks_again_waits_once_and_who_is_answered_no_more() -> None:
    waiting = HeldRequests()
    waiting.add(held(b"a", deadline=1.0))
    waiting.add(second := held(b"a", "elsewhere", deadline=5.0))
    assert waiting.due(["bot"], 2.0) == []
    assert waiting.all() == [second]
    waiting.remove(second)
    assert waiting.due(["bot", "elsewhere"], 9.0) == []
    assert waiting.wait(9.0) is None
