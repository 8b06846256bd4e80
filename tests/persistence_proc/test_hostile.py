"""Peers that mean no good, or are broken: whatever they send, everybody else is served."""

from __future__ import annotations

import psutil
import zmq

from persistence_proc.__main__ import MAX_FILES
from persistence_proc.catalog import NamespaceEntry
from persistence_proc.namespaces import Namespace
from persistence_proc.requests import Requests
from persistence_proc.security import Access
from persistence_proc.store import Store
from persistence_proc.writer import Idle
from protocol.changes import DROP
from protocol.endpoints import parse_endpoint, read_endpoint_file
from protocol.messages import Close, Confirm, Confirmed, Refused, RefusedCode, Status, decode_reply, encode
from tests.persistence_proc.raw_session import RawSession, insert, open_request
from tests.processes import PersistenceProcess
from tests.waiting import wait_until

NESTED = b"\x91" * 100_000 + b"\x01"  # msgpack: a list in a list in a list ...


def code_of(reply: object) -> RefusedCode:
    assert isinstance(reply, Refused), reply
    return reply.code


def test_a_close_of_a_namespace_that_nobody_opened_changes_nothing(session: RawSession) -> None:
    assert code_of(session.ask(Close(namespace="nobody", epoch=0, upto=0))) == RefusedCode.MALFORMED
    assert code_of(session.ask(Close(namespace="nobody", epoch=1, upto=0))) == RefusedCode.STATE_WENT_BACK
    assert session.status().namespaces == []


def test_fields_nested_without_end_are_malformed(session: RawSession) -> None:
    session.open()
    assert code_of(session.ask(b"\x82\xa4type\xa6status\xa1x" + NESTED)) == RefusedCode.MALFORMED
    session.send_raw(b"\x95\xa3bot\x01\x00\x01" + NESTED, b"")
    session.send_raw(encode((1, "bot", 0, 1)), b"\x91\x94\x01\xa1a\xc4\x01x" + NESTED)
    wait_until(lambda: session.status().malformed == 3)


def test_an_epoch_that_no_record_can_carry_is_refused(session: RawSession) -> None:
    session.open()
    assert code_of(session.confirm(epoch=2**40)) == RefusedCode.MALFORMED
    assert code_of(session.ask(session.open_request(epoch=2**40))) == RefusedCode.MALFORMED
    assert code_of(session.ask(session.open_request(boot_id="b" * 1000))) == RefusedCode.MALFORMED


def test_a_peer_that_asks_and_never_reads_disturbs_nobody(session: RawSession) -> None:
    file = read_endpoint_file(session.data_dir)
    assert file is not None
    with zmq.Context() as context, context.socket(zmq.DEALER) as greedy:
        greedy.linger, greedy.rcvhwm = 0, 1
        greedy.connect(parse_endpoint(file.address).requests)
        for _ in range(2000):
            greedy.send_multipart([b"", encode(Status())])
        session.open()
        session.put(insert("a", 1))
        assert session.flush().durable == 1


def test_more_bots_than_the_usual_limit_of_descriptors_can_connect(persistence: PersistenceProcess) -> None:
    soft, hard = psutil.Process(persistence.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard or soft >= MAX_FILES


def store_with(*names: str) -> Store:
    store = Store(bytes(16), 9)
    for name in names:
        store.add(Namespace(NamespaceEntry(name)))
    return store


def test_a_peer_has_one_request_held_at_most() -> None:
    store, replies = store_with("bot"), []
    store.namespaces["bot"].open(open_request(), 0.0)
    requests = Requests(store, "i", Access(), lambda address, parts: replies.append(decode_reply(parts[0])))
    ask = Confirm(namespace="bot", epoch=1, store_id=b"", acked=0, upto=1, wait=1.0)
    for _ in range(1000):
        requests.handle(b"one", "", ask, 0.0)
    requests.handle(b"other", "", ask, 0.0)
    requests.answer(2.0)
    assert len(replies) == 2
    assert all(isinstance(reply, Confirmed) for reply in replies)


def test_a_session_that_slept_while_its_namespace_was_forgotten_is_fenced() -> None:
    store = store_with("bot")
    one = store.namespaces["bot"]
    one.open(open_request(), 0.0)
    store.forget(one, 10.0)
    refusal = one.check_session(1)
    assert refusal is not None
    assert refusal.code == RefusedCode.FENCED


def test_segments_of_frames_that_are_still_to_come_never_go() -> None:
    """A deletion is carried out later than it is decided: by then a clean map may have changed."""
    assert store_with("bot").needs() == 10


def test_a_map_holds_its_frames_until_its_drop_is_durable() -> None:
    store = store_with("bot")
    one = store.namespaces["bot"]
    one.apply([insert("a", 1)], store.pending.touch("bot", 0.0))
    store.idle(Idle(store.seal().lsn, False, 0))
    one.apply([(DROP, "a", b"", b""), insert("a", 2)], store.pending.touch("bot", 0.0))
    assert store.needs() == 10, "pending"
    batch = store.seal()
    assert store.needs() == 10, "in flight"
    store.idle(Idle(batch.lsn, False, 0))
    assert store.needs() == 11, "durable: the next one of the name was created there"
