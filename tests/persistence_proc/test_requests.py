"""Requests that are held: what they are told when the world changes while they wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.changes import encode_changes
from protocol.disk import Disk
from protocol.frames import encode_record
from protocol.messages import Confirm, Delta, Refused, RefusedCode, decode_reply, encode
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
