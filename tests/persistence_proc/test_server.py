"""The persistence process as a strategy sees it: a real process, raw sockets, real signals."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.changes import DROP, Change, encode_changes
from protocol.frames import encode_record
from protocol.messages import Accept, Confirm, Confirmed, Delta, Done, Forget, Opened, Refused, RefusedCode, encode
from tests.persistence_proc.raw_session import RawSession, clear, delete, insert, replace
from tests.processes import PersistenceProcess
from tests.waiting import LONG, wait_until


def start_and_fail(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a persistence process that must not come up."""
    argv = [sys.executable, "-m", "persistence_proc", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LONG, check=False)
    return done.returncode, done.stderr


def assert_one_line(errors: str, *words: str) -> None:
    assert errors.count("\n") == 1, errors
    assert "Traceback" not in errors
    for word in words:
        assert word in errors


# A session


def test_a_new_namespace_is_empty_and_its_first_epoch_is_one(session: RawSession) -> None:
    opened = session.open()
    assert (opened.epoch, opened.since, opened.applied, opened.new, opened.maps) == (1, 1, 0, True, [])


def test_what_was_put_is_durable_and_comes_back_in_order(session: RawSession) -> None:
    session.open()
    session.put(insert("a", "x", b"1"))
    session.put(insert("a", "y", b"2"), insert("b", 7, b"3"))
    session.put(replace("a", "x", b"4"))
    session.put(delete("a", "y"), insert("a", "y", b"5"))
    assert session.flush().durable == 4
    opened, state = session.open_state()
    assert opened.epoch == 2
    assert opened.since == 1
    assert state == {"a": {"x": b"4", "y": b"5"}, "b": {7: b"3"}}
    assert list(state["a"]) == ["x", "y"]


def test_a_confirm_waits_for_what_is_not_there_and_then_says_how_far_it_is(session: RawSession) -> None:
    session.open()
    session.put(insert("a", "x"))
    session.flush()
    reply = session.confirm(upto=5, wait=0.01)
    assert isinstance(reply, Confirmed)
    assert (reply.applied, reply.durable, reply.gap) == (1, 1, False)


def test_a_gap_is_dropped_told_once_and_filled_by_a_resend(session: RawSession) -> None:
    session.open()
    session.send(1, [[insert("a", "y")]])
    reply = wait_until(lambda: r if isinstance(r := session.confirm(upto=2, wait=0.05), Confirmed) and r.gap else None)
    assert reply.applied == 0
    session.send(0, [[insert("a", "x")], [insert("a", "y")]])
    session.seq = 2
    last = session.flush()
    assert not last.gap
    assert list(session.open_state()[1]["a"]) == ["x", "y"]


def test_a_resend_is_harmless(session: RawSession) -> None:
    session.open()
    records = [[insert("a", "x", b"1")], [insert("a", "y", b"1")], [delete("a", "x")], [replace("a", "y", b"2")]]
    session.send(0, records)
    session.send(0, records)
    session.send(2, records[2:] + [[insert("a", "z", b"3")]])
    session.send(0, records)
    session.seq = 5
    assert session.flush().applied == 5
    assert session.open_state()[1] == {"a": {"y": b"2", "z": b"3"}}


def test_a_closed_session_is_clean_and_an_unclosed_one_is_not(session: RawSession) -> None:
    session.open()
    session.put(insert("a", "x"))
    assert isinstance(session.close(), Done)
    assert session.status().namespaces[0].session == "closed"
    assert session.open().closed
    assert not session.open().closed


def test_status_counts_what_was_received_and_coalesced(session: RawSession) -> None:
    session.open()
    session.send(0, [[insert("a", "x", b"0")]] + [[replace("a", "x", b"%d" % n)] for n in range(1, 500)])
    session.seq = 500
    session.flush()
    report = session.status()
    one = report.namespaces[0]
    assert (report.state, one.received, one.applied, one.durable, one.maps) == ("serving", 500, 500, 500, {"a": 1})
    assert one.coalesced >= 498
    assert report.commits >= 2
    assert report.lag_p99 > 0


# Epochs


def test_a_zombie_changes_nothing_and_is_told_without_a_word_of_durability(
    persistence: PersistenceProcess, session: RawSession
) -> None:
    session.open()
    session.put(insert("a", "x", b"old"))
    session.flush()
    with RawSession(persistence.data_dir) as successor:
        successor.open(takeover=True)
        session.put(insert("a", "zombie"))
        session.put(replace("a", "x", b"zombie"))
        reply = session.confirm()
        assert isinstance(reply, Refused)
        assert reply.code == RefusedCode.FENCED
        closing = session.close()
        assert isinstance(closing, Refused)
        assert closing.code == RefusedCode.FENCED
        wait_until(lambda: successor.status().stale_refused == 2)
        assert successor.open_state()[1] == {"a": {"x": b"old"}}


def test_another_machine_is_refused_while_the_session_is_alive(
    persistence: PersistenceProcess, session: RawSession
) -> None:
    session.open()
    with RawSession(persistence.data_dir, boot_id="another") as other:
        assert other.refused_open().code == RefusedCode.SESSION_ALIVE
        twin = RawSession(persistence.data_dir, identity=session.identity, boot_id="another")
        with twin:
            assert twin.refused_open(life=9).code == RefusedCode.SESSION_ALIVE
        assert other.open(takeover=True).since == 2


def test_a_restarted_bot_is_let_in_at_once(session: RawSession) -> None:
    assert [session.open().epoch for _ in range(3)] == [1, 2, 3]


def test_a_late_open_of_a_former_try_does_not_fence_the_live_session(session: RawSession) -> None:
    session.open(attempt=2)
    life = session.life - 1
    late = session.refused_open(life=life, attempt=1)
    assert late.code == RefusedCode.STALE_OPEN
    assert late.number == life
    session.put(insert("a", "x"))
    assert session.flush().durable == 1


def test_an_identity_that_comes_back_after_another_begins_anew(
    persistence: PersistenceProcess, session: RawSession
) -> None:
    session.open()
    with RawSession(persistence.data_dir) as other:
        assert other.open(takeover=True).since == 2
    assert session.open(takeover=True).since == 3
    assert session.open().since == 3


# Histories that do not fit


def test_an_outbox_of_another_store_is_refused(session: RawSession) -> None:
    session.open()
    reply = session.refused_open(store_id=b"s" * 16)
    assert reply.code == RefusedCode.FOREIGN_STORE
    assert "outlive accept bot" in reply.message


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({"acked": 5000}, ("5000", "change 1")),
        ({"epoch": 9}, ("epoch 9", "is 1")),
        ({"last": 0, "acked": 0}, ("up to 0", "change 1")),
    ],
)
def test_state_that_went_back_is_refused_with_both_numbers(
    session: RawSession, fields: dict[str, int], numbers: tuple[str, str]
) -> None:
    session.open()
    session.put(insert("a", "x"))
    session.flush()
    reply = session.refused_open(**fields)
    assert reply.code == RefusedCode.STATE_WENT_BACK
    for number in (*numbers, "outlive accept bot"):
        assert number in reply.message


def test_a_live_session_over_a_wiped_directory_sends_everything_once_a_person_accepts(session: RawSession) -> None:
    session.epoch, session.seq, session.store_id = 7, 500, b"s" * 16
    first = session.confirm(acked=500)
    assert isinstance(first, Refused)
    assert first.code == RefusedCode.FOREIGN_STORE
    assert isinstance(session.ask(Accept(namespace="bot")), Done)
    wanted = session.confirm(acked=500)
    assert isinstance(wanted, Confirmed)
    assert wanted.snapshot_wanted
    assert wanted.store_id not in (b"", session.store_id)
    payload = encode_record(501, 7, 501, _payload(clear("a"), insert("a", "x", b"1"), clear("b"), insert("b", 1, b"2")))
    session.send_raw(encode(Delta(namespace="bot", epoch=7, base=0, upto=501)), payload)
    session.seq = 501
    assert session.flush().durable == 501
    session.store_id = wanted.store_id
    opened, state = session.open_state(acked=501, last=501)
    assert (opened.epoch, opened.since, opened.applied) == (8, 7, 501)
    assert state == {"a": {"x": b"1"}, "b": {1: b"2"}}


def _payload(*changes: Change) -> bytes:
    return encode_changes(changes)


def test_accept_of_a_live_session_that_fits_is_refused_and_nothing_is_asked_of_it(session: RawSession) -> None:
    session.open()
    refusal = session.ask(Accept(namespace="bot"))
    assert isinstance(refusal, Refused)
    assert refusal.message.startswith("nothing to settle")
    assert isinstance(session.confirm(acked=9), Refused), "whoever comes with more than is here was not accepted"


def test_accept_before_its_session_is_heard_is_over_when_the_session_turns_out_to_fit(
    persistence: PersistenceProcess, session: RawSession
) -> None:
    session.open()
    persistence.restart()
    session.connect()
    assert isinstance(session.ask(Accept(namespace="bot")), Done)
    assert isinstance(session.confirm(upto=0), Confirmed)
    assert isinstance(session.confirm(acked=9), Refused)


def test_a_snapshot_drops_the_maps_that_it_does_not_name(
    persistence: PersistenceProcess, session: RawSession
) -> None:
    session.open()
    session.put(insert("stale", "x"))
    session.flush()
    persistence.restart()
    session.connect()
    assert isinstance(session.ask(Accept(namespace="bot")), Done)
    wanted = session.confirm(acked=9)
    assert isinstance(wanted, Confirmed)
    assert wanted.snapshot_wanted
    session.send(1, [[clear("fresh"), insert("fresh", "y")]])
    session.seq = 2
    session.flush()
    assert session.open_state()[1] == {"fresh": {"y": b"v"}}


def test_forget_deletes_everything_and_ends_the_epoch(persistence: PersistenceProcess, session: RawSession) -> None:
    session.open()
    session.put(insert("a", "x"))
    session.flush()
    file = Path(persistence.data_dir) / "bot" / "a.pkl"
    wait_until(file.exists)
    live = session.ask(Forget(namespace="bot"))
    assert isinstance(live, Refused)
    assert live.code == RefusedCode.SESSION_ALIVE
    session.close()
    assert isinstance(session.ask(Forget(namespace="bot")), Done)
    assert not file.exists()
    persistence.restart()
    session.connect()
    opened, state = session.open_state()
    assert (opened.epoch, opened.since, state) == (3, 3, {})
    assert (opened.new, opened.applied) == (True, 1), "nothing is there, and nothing old can come back"
    session.put(insert("a", "y"))
    session.flush()
    assert not session.open().new
    unknown = session.ask(Forget(namespace="nobody"))
    assert isinstance(unknown, Refused)
    assert unknown.code == RefusedCode.UNKNOWN_NAMESPACE


# Kills and stops


def test_sigkill_loses_nothing_durable(persistence: PersistenceProcess, session: RawSession) -> None:
    session.open()
    expected = {}
    for n in range(200):
        session.put(insert("a", n, b"%d" % n))
        expected[n] = b"%d" % n
    before = session.flush().instance
    persistence.restart()
    session.connect()
    reply = session.confirm()
    assert isinstance(reply, Confirmed)
    assert reply.instance != before
    assert reply.durable == 200
    session.put(insert("a", "after"))
    session.flush()
    assert session.open_state()[1] == {"a": {**expected, "after": b"v"}}


def test_sigterm_saves_everything_that_has_arrived_and_exits_zero(
    persistence: PersistenceProcess, session: RawSession
) -> None:
    session.open()
    for n in range(1000):
        session.put(insert("a", n, pickle.dumps(n)))
        session.put(insert(f"map{n % 7}", n, pickle.dumps(n)))
    wait_until(lambda: session.status().namespaces[0].applied == 2000)
    assert persistence.terminate() == 0
    folder = Path(persistence.data_dir) / "bot"
    with open(folder / "a.pkl", "rb") as file:
        assert pickle.load(file) == {n: n for n in range(1000)}
    persistence.start()
    session.connect()
    assert session.open(acked=0, last=2000).applied == 2000


def test_whoever_waits_is_answered_before_the_process_leaves(
    persistence: PersistenceProcess, session: RawSession
) -> None:
    session.open()
    session._requests.send(encode(_confirm_of(session)))
    wait_until(lambda: _heard(persistence, session))
    assert persistence.terminate() == 0
    assert session._requests.poll(round(LONG * 1000))


def _confirm_of(session: RawSession) -> object:
    return Confirm(namespace="bot", epoch=session.epoch, store_id=b"", acked=0, upto=99, wait=60.0)


def _heard(persistence: PersistenceProcess, session: RawSession) -> bool:
    with RawSession(persistence.data_dir) as other:
        return bool(other.status().namespaces)


def test_sigint_is_a_stop_too(persistence: PersistenceProcess) -> None:
    persistence.signal(signal.SIGINT)
    assert persistence.wait() == 0


def test_dropped_maps_stay_dropped_over_kills(persistence: PersistenceProcess, session: RawSession) -> None:
    session.open()
    session.put(insert("a", "x"), insert("b", "y"))
    session.flush()
    wait_until((Path(persistence.data_dir) / "bot" / "a.pkl").exists)
    session.put((DROP, "a", b"", b""), (DROP, "b", b"", b""), insert("b", "new"))
    session.flush()
    persistence.restart()
    session.connect()
    assert session.open_state()[1] == {"b": {"new": b"v"}}


# Bad input


def test_malformed_bytes_are_counted_and_everybody_else_is_served(session: RawSession) -> None:
    session.open()
    good = encode(Delta(namespace="bot", epoch=1, base=0, upto=2))
    one = encode_record(1, 1, 1, _payload(insert("a", "x")))
    bad_key = encode_record(2, 1, 1, _payload((1, "a", b"cos\nsystem\n", b"v")))
    bad_crc = one[:30] + b"\xff" + one[31:]
    messages = [
        [b"\xc1"], [b""], [good], [good, b"junk"], [good, one], [good, one + bad_key], [good, one, bad_crc],
        [good, one, encode_record(3, 1, 1, _payload(insert("a", "y")))],
        [good, one, encode_record(2, 5, 1, _payload(insert("a", "y")))],
        [good, encode_record(2, 1, 0, _payload(insert("a", "y")))],
    ]  # fmt: skip
    for parts in messages:
        session.send_raw(*parts)
    refusal = session.ask(b"\xc1 no request")
    assert isinstance(refusal, Refused)
    assert refusal.code == RefusedCode.MALFORMED
    report = wait_until(lambda: r if (r := session.status()).malformed > len(messages) else None)
    assert report.malformed == len(messages) + 1
    assert report.namespaces[0].applied == 0
    session.put(insert("a", "x"))
    assert session.flush().durable == 1


def test_malformed_messages_of_a_peer_are_logged_once(persistence: PersistenceProcess, session: RawSession) -> None:
    session.open()
    for _ in range(50):
        session.send_raw(b"\xc1")
    wait_until(lambda: session.status().malformed == 50)
    assert persistence.errors().count("malformed message from") == 1


@pytest.mark.parametrize("name", ["../escape", "journal", "", "a b", "x" * 64])
def test_a_name_that_is_no_namespace_is_refused(session: RawSession, name: str) -> None:
    assert session.refused_open(namespace=name).code == RefusedCode.MALFORMED


def test_impossible_numbers_are_refused(session: RawSession) -> None:
    assert session.refused_open(life=-1).code == RefusedCode.MALFORMED
    assert session.refused_open(identity=b"short").code == RefusedCode.MALFORMED
    assert session.refused_open(version=99).code == RefusedCode.VERSION


def test_deltas_of_an_unknown_namespace_or_a_future_epoch_change_nothing(session: RawSession) -> None:
    session.send(0, [[insert("a", "x")]], epoch=1)
    wait_until(lambda: session.status().stale_refused == 1)
    session.open()
    session.send(0, [[insert("a", "x")]], epoch=5)
    report = wait_until(lambda: r if (r := session.status()).stale_refused == 2 else None)
    assert report.namespaces[0].applied == 0


# Starting


def test_a_second_process_on_the_same_data_is_refused_and_the_first_goes_on(
    persistence: PersistenceProcess, session: RawSession
) -> None:
    code, errors = start_and_fail("--data-dir", persistence.data_dir)
    assert code == 1, "it may end, and then a supervisor's next try succeeds"
    assert_one_line(errors, "in use", str(persistence.pid))
    assert session.open().epoch == 1


def test_a_second_process_cannot_take_the_sockets_of_another_store(
    data_dir: Path, persistence: PersistenceProcess, session: RawSession
) -> None:
    sockets = str(Path(persistence.data_dir) / "sockets")
    code, errors = start_and_fail("--data-dir", str(data_dir / "second"), "--runtime-dir", sockets)
    assert code == 1
    assert_one_line(errors, "in use")
    assert session.open().epoch == 1


def test_a_directory_open_to_others_is_refused(data_dir: Path) -> None:
    os.chmod(data_dir, 0o750)
    code, errors = start_and_fail("--data-dir", str(data_dir))
    assert code == 2
    assert_one_line(errors, "0750", "chmod 700")


def test_a_socket_path_that_is_too_long_is_refused_before_anything_is_made(data_dir: Path) -> None:
    long = data_dir / ("d" * 100)
    code, errors = start_and_fail("--data-dir", str(long))
    assert code == 2
    assert_one_line(errors, "107", "--runtime-dir")
    assert not long.exists()
    with PersistenceProcess(long, "--runtime-dir", str(data_dir / "run")), RawSession(long) as session:
        assert session.open().epoch == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--endpoint", "tcp://0.0.0.0:5757"], "--curve-dir"),
        (["--endpoint", "udp://x"], "no endpoint"),
        (["--log-level", "loud"], "loud"),
        (["--loud"], "no such option"),
        (["extra"], "extra"),
        (["--endpoint", "tcp://127.0.0.1:5757", "--runtime-dir", "/x"], "--runtime-dir"),
    ],
)
def test_impossible_settings_are_one_line(data_dir: Path, arguments: list[str], word: str) -> None:
    code, errors = start_and_fail("--data-dir", str(data_dir), *arguments)
    assert code == 2
    assert_one_line(errors.lower(), word)


def test_a_start_without_a_data_directory_is_one_line() -> None:
    code, errors = start_and_fail()
    assert code == 2
    assert_one_line(errors, "--data-dir")


def test_ten_kills_in_a_row_lose_nothing_durable(persistence: PersistenceProcess, session: RawSession) -> None:
    session.open()
    durable = 0
    for _ in range(10):
        for _ in range(50):
            session.put(insert("a", session.seq, b"x"))
        durable = session.flush().durable
        session.put(insert("a", "extra"))
        persistence.restart()
        session.connect()
        reply = session.confirm(wait=0.0)
        assert isinstance(reply, Confirmed)
        assert reply.durable >= durable
        session.seq = reply.applied
    opened = session.ask(session.open_request())
    assert isinstance(opened, Opened)
