"""The rules of one namespace, without any process: who may open, what is believed, what is applied."""

from __future__ import annotations

from typing import Any

import pytest

from persistence_proc.catalog import NamespaceEntry
from persistence_proc.coalescer import Coalescer, folded_changes
from persistence_proc.namespaces import Namespace
from protocol.changes import CLEAR, DELETE, DROP, INSERT, Change, encode_changes
from protocol.errors import MalformedMessage
from protocol.frames import encode_record
from protocol.keys import encode_key
from protocol.limits import SESSION_SILENCE
from protocol.messages import Confirm, Delta, Open, RefusedCode
from tests.persistence_proc.raw_session import clear, delete, insert, open_request, replace

OURS, THEIRS = b"o" * 16, b"t" * 16
ME, OTHER = b"m" * 16, b"x" * 16


def ask(identity: bytes = ME, life: int = 1, attempt: int = 1, **fields: Any) -> Open:
    return open_request(identity=identity, life=life, attempt=attempt, **fields)


def namespace(**fields: Any) -> Namespace:
    return Namespace(NamespaceEntry(name="bot", **fields))


def code(one: Namespace, request: Open, now: float = 0.0) -> RefusedCode | None:
    refusal = one.check_open(request, OURS, now)
    return refusal.code if refusal else None


def send(one: Namespace, pending: Coalescer, base: int, *records: list[Change], epoch: int = 1) -> bool:
    parts = [encode_record(base + n, epoch, 1, encode_changes(r)) for n, r in enumerate(records, 1)]
    delta = Delta(namespace="bot", epoch=epoch, base=base, upto=base + len(records))
    return one.receive(delta, parts, pending, 0.0, 1)


def changes_of(one: Namespace, pending: Coalescer) -> list[Change]:
    return folded_changes(pending.take()["bot"], one.maps)


# Opening


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (ask(), RefusedCode.STALE_OPEN),
        (ask(life=2, epoch=5, last=100, acked=90), None),
        (ask(life=2, epoch=6), RefusedCode.STATE_WENT_BACK),
        (ask(life=2, epoch=5, acked=101, last=101), RefusedCode.STATE_WENT_BACK),
        (ask(life=2, epoch=5, last=99), RefusedCode.STATE_WENT_BACK),
        (ask(life=2, epoch=4, last=99), None),
        (ask(life=2, store_id=THEIRS), RefusedCode.FOREIGN_STORE),
        (ask(life=2, store_id=OURS), None),
        (ask(OTHER), RefusedCode.SESSION_ALIVE),
        (ask(OTHER, takeover=True), None),
        (ask(life=2, boot_id="another"), RefusedCode.SESSION_ALIVE),
        (ask(life=2, version=2), RefusedCode.VERSION),
    ],
)
def test_who_may_open_a_namespace_that_has_a_live_session(request_: Open, expected: RefusedCode | None) -> None:
    one = namespace(epoch=4, applied=100)
    one.open(ask(), now=0.0)
    assert code(one, request_, now=1.0) == expected


def test_another_host_may_open_after_silence_or_a_close() -> None:
    one = namespace()
    one.open(ask(), now=0.0)
    assert code(one, ask(OTHER), now=SESSION_SILENCE - 0.1) == RefusedCode.SESSION_ALIVE
    assert code(one, ask(OTHER), now=SESSION_SILENCE + 0.1) is None
    one.closed = True
    assert code(one, ask(OTHER), now=0.1) is None


def test_a_bot_restarted_together_with_the_persistence_process_is_let_in() -> None:
    one = namespace()
    one.open(ask(), now=0.0)
    reborn = Namespace(one.entry())
    reborn.heard = 1.0
    assert code(reborn, ask(life=2), now=1.0) is None
    assert code(reborn, ask(life=2, boot_id="another"), now=1.0) == RefusedCode.SESSION_ALIVE


def test_since_stays_for_one_identity_and_begins_anew_after_another() -> None:
    one = namespace()
    seen = []
    for life, identity in enumerate((ME, ME, OTHER, OTHER, ME), 1):
        one.open(ask(identity, life=life), now=0.0)
        seen.append((one.epoch, one.since))
    assert seen == [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5)]


def test_only_the_newest_identities_are_remembered() -> None:
    one = namespace()
    for n in range(100):
        one.open(ask(n.to_bytes(16, "big")), now=0.0)
    assert len(one.openers) == 64
    assert one.epoch == 100


def test_a_refused_open_changes_nothing() -> None:
    one = namespace()
    one.open(ask(), now=0.0)
    before = one.entry()
    assert code(one, ask(OTHER), now=0.0) == RefusedCode.SESSION_ALIVE
    assert one.entry() == before


# Confirming


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"epoch": 2}, RefusedCode.FENCED),
        ({"epoch": 2, "store_id": THEIRS}, RefusedCode.FENCED),
        ({"epoch": 4}, RefusedCode.STATE_WENT_BACK),
        ({"acked": 11}, RefusedCode.STATE_WENT_BACK),
        ({"store_id": THEIRS}, RefusedCode.FOREIGN_STORE),
    ],
)
def test_whose_confirm_is_believed(fields: dict[str, Any], expected: RefusedCode | None) -> None:
    known: dict[str, Any] = {"epoch": 3, "store_id": OURS, "acked": 10, "upto": 20, "wait": 0.0}
    refusal = namespace(epoch=3, applied=10).check_confirm(Confirm(namespace="bot", **{**known, **fields}), OURS)
    assert (refusal.code if refusal else None) == expected


def confirm(identity: bytes) -> Confirm:
    return Confirm(namespace="bot", epoch=1, store_id=b"", acked=0, upto=1, wait=0.0, identity=identity)


def test_an_epoch_of_another_history_is_not_ours_though_its_number_is_the_same() -> None:
    """Whoever wipes or restores a store beside a bot that goes on gives the number again."""
    one = namespace(epoch=1, identity=ME)
    assert one.check_confirm(confirm(ME), OURS) is None
    refusal = one.check_confirm(confirm(OTHER), OURS)
    assert refusal is not None
    assert refusal.code == RefusedCode.STATE_WENT_BACK
    one.adopt(confirm(OTHER))  # a person says that it is ours
    assert one.check_confirm(confirm(OTHER), OURS) is None
    assert one.check_confirm(confirm(ME), OURS) is not None


def test_a_session_is_known_to_fit_until_it_falls_silent_or_leaves() -> None:
    one = namespace(epoch=3)
    assert not one.fits(0.0), "nobody was heard yet"
    one.accepted = True
    one.note_fit(0.0)
    assert not one.accepted, "a person's word was for a session that does not fit"
    assert one.fits(SESSION_SILENCE / 2)
    assert not one.fits(SESSION_SILENCE)
    one.closed = True
    assert not one.fits(0.0)


# Changes


def test_only_an_unbroken_run_is_applied() -> None:
    one, pending = namespace(epoch=1), Coalescer()
    assert send(one, pending, 0, [insert("a", 1)], [insert("a", 2)])
    assert not send(one, pending, 0, [insert("a", 1)])
    assert not send(one, pending, 3, [insert("a", 9)])
    assert one.gap
    assert send(one, pending, 1, [insert("a", 2)], [insert("a", 3)])
    assert not one.gap
    assert (one.applied, one.received) == (3, 3)


def test_a_fold_that_reaches_back_behind_applied_is_applied_whole() -> None:
    one, pending = namespace(epoch=1), Coalescer()
    send(one, pending, 0, [insert("a", 1, b"old")], [insert("a", 2)])
    payload = encode_changes([insert("a", 1, b"new"), delete("a", 2), insert("a", 3)])
    delta = Delta(namespace="bot", epoch=1, base=2, upto=5)
    assert one.receive(delta, [encode_record(5, 1, 5, payload)], pending, 0.0, 1)
    assert one.maps["a"].as_dict() == {encode_key(1): b"new", encode_key(3): b"v"}


def test_nothing_of_a_message_is_applied_when_its_second_record_is_bad() -> None:
    one, pending = namespace(epoch=1), Coalescer()
    good = encode_record(1, 1, 1, encode_changes([insert("a", 1)]))
    bad = encode_record(2, 1, 1, encode_changes([(INSERT, "a", b"no key", b"v")]))
    with pytest.raises(MalformedMessage):
        one.receive(Delta(namespace="bot", epoch=1, base=0, upto=2), [good, bad], pending, 0.0, 1)
    assert (one.applied, one.maps, bool(pending)) == (0, {}, False)


def test_a_batch_holds_the_newest_value_of_each_key() -> None:
    one, pending = namespace(epoch=1), Coalescer()
    send(one, pending, 0, [insert("a", 1, b"0")], *[[replace("a", 1, b"%d" % n)] for n in range(1, 100)])
    assert changes_of(one, pending) == [clear("a"), insert("a", 1, b"99")]


def test_an_order_opened_and_closed_while_the_disk_is_busy_leaves_nothing() -> None:
    one, pending = namespace(epoch=1), Coalescer()
    send(one, pending, 0, [insert("a", 0)])
    changes_of(one, pending)
    send(one, pending, 1, *[[change] for n in range(50) for change in (insert("a", f"o{n}"), delete("a", f"o{n}"))])
    assert changes_of(one, pending) == []


def test_a_delete_behind_a_put_that_is_being_written_is_kept() -> None:
    one, pending = namespace(epoch=1), Coalescer()
    send(one, pending, 0, [insert("a", 1)])
    changes_of(one, pending)  # sealed: in flight, not durable
    send(one, pending, 1, [delete("a", 1)])
    assert changes_of(one, pending) == [(DELETE, "a", encode_key(1), b"")]


def test_a_map_that_is_dropped_and_made_anew_is_another_one() -> None:
    one, pending = namespace(epoch=1), Coalescer()
    send(one, pending, 0, [insert("a", 1)])
    changes_of(one, pending)
    one.maps["a"].incarnation = 7
    send(one, pending, 1, [(DROP, "a", b"", b"")], [insert("a", 2)], [delete("a", 2)])
    assert changes_of(one, pending) == [(DROP, "a", b"", b""), (CLEAR, "a", b"", b"")]
    assert one.dropped == [("a", 7)], "its frames since its creation, until the drop is durable"
    assert one.maps["a"].incarnation == 0
