from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable

import pytest

from protocol.errors import (
    ChangeTooLarge,
    KeyRefused,
    OutboxFull,
    ReentrantChange,
    SessionForked,
    SyncFailed,
    TransactionInProgress,
    ValueRefused,
)
from strategy_proc import PersistentMap, Session
from strategy_proc.testing import MemoryStore
from strategy_proc.transaction import Transaction
from tests.waiting import wait_until


def test_a_transaction_is_one_record(store: MemoryStore, state: Session) -> None:
    a, b = state.map("a"), state.map("b")
    before = state._outbox.seq
    with state.transaction():
        a["x"] = 1
        b["y"] = 2
        del a["x"]
        b.clear()
        b["z"] = 3
    assert state._outbox.seq == before + 1
    assert store.contents("bot") == {"a": {}, "b": {"z": 3}}


def test_an_empty_transaction_records_nothing(state: Session) -> None:
    with state.transaction():
        pass
    assert state._outbox.seq == 0


def test_an_exception_undoes_the_block_order_included(store: MemoryStore, state: Session) -> None:
    m = state.map("m")
    m.update(a=1, b=2, c=3)
    before = store.contents("bot")
    with pytest.raises(ValueError, match="no"), state.transaction():
        del m["a"]
        m["a"] = 4
        m["d"] = 5
        m["b"] = 6
        m.clear()
        m["e"] = 7
        raise ValueError("no")
    assert list(m.items()) == [("a", 1), ("b", 2), ("c", 3)]
    assert state.unsaved() == {}
    assert store.contents("bot") == before
    m["f"] = 8
    assert list(store.contents("bot")["m"]) == ["a", "b", "c", "f"]


def test_a_transaction_inside_a_transaction_is_refused(state: Session) -> None:
    with pytest.raises(TransactionInProgress), state.transaction():
        with state.transaction():
            pass


def test_update_inside_a_transaction_is_part_of_it(state: Session) -> None:
    m = state.map("m")
    with pytest.raises(ZeroDivisionError), state.transaction():
        m.update(a=1, b=2)
        raise ZeroDivisionError
    assert m == {}


def test_another_task_of_the_thread_cannot_fall_into_the_block(store: MemoryStore, state: Session) -> None:
    m = state.map("m")

    async def holder(inside: asyncio.Event, go: asyncio.Event) -> None:
        with state.transaction():
            m["a"] = 1
            inside.set()
            await go.wait()
            raise ZeroDivisionError

    async def scenario() -> None:
        inside, go = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(holder(inside, go))
        await inside.wait()
        for change in (lambda: m.update(b=1), lambda: m.pop("a"), m.clear, state.sync, state.flush):
            with pytest.raises(TransactionInProgress):
                change()
        with pytest.raises(TransactionInProgress):
            m["b"] = 2
        with pytest.raises(TransactionInProgress), state.transaction():
            pass
        go.set()
        with pytest.raises(ZeroDivisionError):
            await task
        m["b"] = 3

    asyncio.run(scenario())
    assert m == {"b": 3}
    assert store.contents("bot") == {"m": {"b": 3}}


def test_another_thread_waits_for_the_block(store: MemoryStore, state: Session) -> None:
    m = state.map("m")
    started = threading.Event()

    def other() -> None:
        started.set()
        m["x"] = "other"

    thread = threading.Thread(target=other)
    with state.transaction():
        m["x"] = "block"
        thread.start()
        started.wait()
        assert m["x"] == "block"
    thread.join()
    assert m["x"] == "other"
    assert store.contents("bot")["m"] == {"x": "other"}


def test_many_threads_leave_dict_and_record_in_step(store: MemoryStore, state: Session) -> None:
    m = state.map("m")

    def work(n: int) -> None:
        for i in range(300):
            m[f"k{i % 7}"] = (n, i)
            if i % 5 == 0:
                m.pop(f"k{i % 3}", None)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(store.contents("bot")["m"].items()) == list(m.items())


def test_a_change_inside_a_change_is_refused_and_both_maps_stay_in_step(store: MemoryStore, state: Session) -> None:
    """A signal handler may run between any two bytecodes; here the outbox itself stands for it."""
    m = state.map("m")
    m["a"] = 1
    append, refused = state._outbox.append, []

    def interrupted(payload: bytes) -> int:
        seq = append(payload)
        try:
            m["handler"] = 1
        except ReentrantChange as error:
            refused.append(error)
        return seq

    state._outbox.append = interrupted  # type: ignore[method-assign]
    m["b"] = 2
    assert len(refused) == 1
    assert m == {"a": 1, "b": 2} == store.contents("bot")["m"]


@pytest.mark.parametrize("change", [lambda m: m.update(a=2), lambda m: m.pop("a"), lambda m: m.clear()])
def test_an_exception_between_record_and_dict_leaves_them_in_step(store: MemoryStore, state: Session, change) -> None:
    """Ctrl-C may strike behind the append: what is recorded is then shown, what is not is not."""
    m = state.map("m")
    m["a"] = 1
    append = state._outbox.append

    def struck(payload: bytes) -> int:
        append(payload)
        raise KeyboardInterrupt

    state._outbox.append = struck  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        if change.__code__.co_names == ("update",):
            m["a"] = 2
        else:
            change(m)
    state._outbox.append = append  # type: ignore[method-assign]
    assert m == store.contents("bot")["m"]
    assert state.unsaved() == {}
    m["next"] = 3
    assert m == store.contents("bot")["m"]


def test_a_full_disk_refuses_the_change_and_the_map_stays(state: Session) -> None:
    m = state.map("m")
    m["a"] = 1

    def full(payload: bytes) -> int:
        raise OutboxFull("no space left")

    state._outbox.append = full  # type: ignore[method-assign]
    with pytest.raises(OutboxFull):
        m["a"] = 2
    with pytest.raises(OutboxFull), state.transaction():
        m["b"] = 3
    assert m == {"a": 1}
    assert state.unsaved() == {}


def test_a_transaction_over_the_limit_is_refused_whole(state: Session) -> None:
    m = state.map("m")
    with pytest.raises(ChangeTooLarge), state.transaction():
        m["a"] = bytes(40 * 2**20)
        m["b"] = bytes(40 * 2**20)
    assert m == {}


def test_a_failed_sync_of_a_durable_transaction_says_that_the_change_is_recorded(state: Session) -> None:
    m = state.map("m")
    state._outbox.fail_sync = OSError("no")  # type: ignore[attr-defined]
    with pytest.raises(SyncFailed), state.transaction(durable=True):
        m["a"] = 1
    assert m == {"a": 1}


def test_durable_releases_the_lock_before_the_sync(state: Session) -> None:
    m = state.map("m")
    done = threading.Event()

    def sync() -> None:
        thread = threading.Thread(target=lambda: (m.update(other=1), done.set()))
        thread.start()
        wait_until(done.is_set, what="the other thread's change during the sync")
        thread.join()

    state._outbox.sync = sync  # type: ignore[method-assign]
    with state.transaction(durable=True):
        m["a"] = 1
    assert m == {"a": 1, "other": 1}


@pytest.mark.parametrize("rolls_back", [False, True])
def test_a_signal_handler_cannot_slip_a_change_into_a_transaction_that_is_ending(
    store: MemoryStore, state: Session, rolls_back: bool
) -> None:
    """What is being committed is encoded already, what is being undone is thrown away: the change would be lost."""
    m = state.map("m")
    refused = []

    def handler() -> None:
        try:
            m["handler"] = 1
        except ReentrantChange as error:
            refused.append(error)

    append = state._outbox.append

    def interrupted(payload: bytes) -> int:
        handler()
        if rolls_back:
            raise OutboxFull("no space left")
        return append(payload)

    state._outbox.append = interrupted  # type: ignore[method-assign]
    if rolls_back:
        with pytest.raises(OutboxFull), state.transaction():
            m["a"] = 1
    else:
        with state.transaction():
            m["a"] = 1
    assert len(refused) == 1
    state._outbox.append = append  # type: ignore[method-assign]
    m["b"] = 2
    assert m == store.contents("bot")["m"]


@pytest.mark.parametrize("change", [lambda m: m.pop("a"), lambda m: m.clear()])
def test_a_removal_that_is_struck_inside_a_block_is_shown_if_it_is_recorded(
    store: MemoryStore, state: Session, change: Callable[[PersistentMap[str, int]], object]
) -> None:
    m = state.map("m")
    m["a"] = 1
    with state.transaction():
        m["b"] = 2
        keep = state._recorder.transaction.keep  # type: ignore[union-attr]

        def struck(*args: object) -> None:
            keep(*args)
            raise KeyboardInterrupt

        state._recorder.transaction.keep = struck  # type: ignore[union-attr,method-assign]
        with contextlib.suppress(KeyboardInterrupt):
            change(m)
        state._recorder.transaction.keep = keep  # type: ignore[union-attr,method-assign]
    assert m == store.contents("bot")["m"]
    assert state.unsaved() == {}


def test_a_map_that_is_being_dropped_takes_no_change_of_a_signal_handler(store: MemoryStore, state: Session) -> None:
    m = state.map("m")
    m["a"] = 1
    append = state._outbox.append

    def interrupted(payload: bytes) -> int:
        append(payload)
        with pytest.raises(ReentrantChange):
            m["handler"] = 1
        raise KeyboardInterrupt

    state._outbox.append = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        state.drop_map("m")
    state._outbox.append = append  # type: ignore[method-assign]
    assert m == {}
    assert "m" not in store.contents("bot")


@pytest.mark.parametrize("next_one", [lambda m: m.update(f=8), lambda m: m.pop("a"), lambda m: m.snapshot()])
def test_a_rollback_that_is_struck_again_and_again_is_finished_by_whoever_comes_next(
    store: MemoryStore, state: Session, monkeypatch: pytest.MonkeyPatch, next_one: Callable[[PersistentMap], object]
) -> None:
    m = state.map("m")
    m.update(a=1, b=2, c=3)
    roll_back = Transaction.roll_back

    def struck(transaction: Transaction) -> None:
        """When nearly all of it is done."""
        roll_back(transaction)
        dict.clear(m)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "roll_back", struck)
        with pytest.raises(KeyboardInterrupt), state.transaction():
            del m["a"]
            m["d"] = 4
            raise ValueError
    next_one(m)
    assert list(m.items()) == list(store.contents("bot")["m"].items())
    assert state.unsaved() == {}
    state.sync()


def test_a_block_that_is_entered_while_it_is_open_is_refused_and_goes_on(store: MemoryStore, state: Session) -> None:
    m = state.map("m")
    block = state.transaction()
    with block:
        m["a"] = 1
        with pytest.raises(TransactionInProgress), block:
            m["x"] = 1
        m["b"] = 2
    assert m == store.contents("bot")["m"] == {"a": 1, "b": 2}
    with pytest.raises(ZeroDivisionError), block:  # and may be used again
        m["c"] = 3
        raise ZeroDivisionError
    assert m == store.contents("bot")["m"] == {"a": 1, "b": 2}


def test_tasks_that_share_a_block_do_not_end_each_others(store: MemoryStore, state: Session) -> None:
    m = state.map("m")
    block = state.transaction()

    async def holder(inside: asyncio.Event, go: asyncio.Event) -> None:
        with block:
            m["a"] = 1
            inside.set()
            await go.wait()
            m["b"] = 2

    async def scenario() -> None:
        inside, go = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(holder(inside, go))
        await inside.wait()
        with pytest.raises(TransactionInProgress), block:
            m["x"] = 1
        go.set()
        await task

    asyncio.run(scenario())
    assert m == store.contents("bot")["m"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_that_has_ended_runs_nothing_at_its_death(state: Session, fails: bool) -> None:
    """What a signal handler raises in there would be dropped by Python: a SIGTERM that is never heard of."""
    m, block = state.map("m"), state.transaction()
    with contextlib.suppress(ZeroDivisionError), block:
        m["a"] = 1
        if fails:
            raise ZeroDivisionError
    called: list[str] = []
    sys.setprofile(lambda frame, event, arg: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        del block
    finally:
        sys.setprofile(None)
    assert called == []


@pytest.mark.parametrize("refused", [{"p": 1, "q": print}, {"p": 1, 2.5: 2}])
def test_an_update_that_is_refused_inside_a_block_leaves_nothing_for_it_to_commit(
    store: MemoryStore, state: Session, refused: dict[object, object]
) -> None:
    m = state.map("m")
    with state.transaction():
        m["k"] = 0
        with pytest.raises((KeyRefused, ValueRefused)):
            m.update(refused)
    assert m == store.contents("bot")["m"] == {"k": 0}


def test_a_child_that_leaves_the_block_it_was_forked_in_is_told_and_changes_nothing(
    store: MemoryStore, state: Session
) -> None:
    m = state.map("m")
    m["a"] = 1
    child = 0
    try:
        with state.transaction():
            m["a"] = 2
            child = os.fork()
    except SessionForked:
        os._exit(42 if m == {"a": 1} else 1)
    finally:
        if child == 0:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert m == store.contents("bot")["m"] == {"a": 2}


def test_a_half_that_another_thread_has_finished_is_not_finished_again(store: MemoryStore, state: Session) -> None:
    """The look whether it is ours to finish gives the lock away for a moment."""
    m = state.map("m")
    m["a"] = 1
    recorder = state._recorder
    recorder.half = (m, "k", "never recorded", b"", recorder.outbox.tail)
    other = threading.Thread(target=m.update, args=({"other": 1},))

    class Given:
        """A lock that lets another thread in as soon as it is given away."""

        def __init__(self, lock: object) -> None:
            self._lock = lock

        def __getattr__(self, name: str) -> object:
            return getattr(self._lock, name)

        def __enter__(self) -> object:
            return self._lock.__enter__()  # type: ignore[attr-defined]

        def __exit__(self, *exc: object) -> None:
            self._lock.__exit__(*exc)  # type: ignore[attr-defined]

        def release(self) -> None:
            self._lock.release()  # type: ignore[attr-defined]
            recorder.lock = self._lock  # type: ignore[assignment]
            other.start()
            other.join()

    recorder.lock = Given(recorder.lock)  # type: ignore[assignment]
    m["mine"] = 1
    assert m == store.contents("bot")["m"] == {"a": 1, "other": 1, "mine": 1}
