"""The one place where a change of a session's maps is recorded, alone or as part of a transaction.

* `lock` guards (dicts, seq, append). The pump and `sync` never hold it while they wait for anything.
* `attention` is true when a change needs a second look: a transaction is open, or the session is over.
* `half` names the change that is recorded but may not be in its dict yet: an exception from a signal handler may
  strike between the two, and whoever comes next finishes it. `_ENDING`: a transaction is being committed or undone.
  `_HALF_UNDONE`: it did not end well, and is not undone yet; where that is struck too, whoever comes next goes on.
* The pump never waits for `lock` without end: a signal handler inside a block may close the session, and wait for it.
* A signal handler may do anything at any time; what it can't do in the middle of something is refused, never awaited.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from protocol.changes import Change, encode_changes
from protocol.errors import ChangeTooLarge, ReentrantChange, SessionClosed, SessionOver, TransactionInProgress
from protocol.limits import MAX_CHANGE_BYTES
from protocol.values import ValueCodec
from strategy_proc.transaction import MISSING, Transaction, current_task

__all__ = ["MISSING", "OutboxLike", "Recorder"]

Half = tuple[Any, ...]
"""(map, key, value, pickle, tail before): MISSING as value is a delete, as key it is all of the map."""

_ENDING: Half = (None,)
_HALF_UNDONE: Half = (None, None)


class OutboxLike(Protocol):
    """What a session needs of its outbox (`strategy_proc.outbox.Outbox`, or the one for tests in memory)."""

    @property
    def tail(self) -> tuple[Any, int, int]: ...
    @property
    def seq(self) -> int: ...
    def append(self, payload: bytes) -> int: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...
    def drop_in_child(self) -> None: ...


class Recorder:
    """Shared by a session and its maps."""

    def __init__(self, outbox: OutboxLike, codec: ValueCodec) -> None:
        self.outbox = outbox
        self.dump, self.load = codec.dump, codec.load
        self.lock = threading.RLock()
        self.attention = False
        self.half: Half | None = None
        self.transaction: Transaction | None = None
        self.over: SessionOver | None = None

    # One change; called under the lock

    def record(self, change: Change, half: Half) -> None:
        """Keep one change: in the outbox, or in the open transaction."""
        if self.transaction is None:
            self.outbox.append(encode_changes((change,)))
        else:
            self.transaction.keep(change, half)

    def unwind(self, half: Half) -> None:
        """An exception struck in the middle of a change: if it is recorded, show it in the dict too."""
        transaction = self.transaction
        if self.outbox.seq > half[4][2] if transaction is None else transaction.holds(half):
            _finish(half)
        if self.half is half:
            self.half = None

    # Whole blocks

    def block(self, joins: bool = False, then: Callable[[], object] | None = None) -> Block:
        """A transaction; with `joins` part of the one that is open. `then` is called behind it.

        Entering it raises `TransactionInProgress`, leaving it `ChangeTooLarge` or `OutboxFull`.
        """
        return Block(self, joins, then)

    def commit(self, changes: list[Change]) -> None:
        """Record all changes of a block as one."""
        if self.over is not None:
            raise self.over
        payload = encode_changes(changes)
        if len(payload) > MAX_CHANGE_BYTES:
            raise ChangeTooLarge(f"a transaction of {len(payload)} bytes is over the limit of {MAX_CHANGE_BYTES}")
        self.outbox.append(payload)

    def settle(self) -> None:
        """Undo a block that did not end well, if there is one. Called under the lock; struck, it can be done again."""
        if self.half is not _HALF_UNDONE:
            return
        transaction = self.transaction  # None: struck before the first change could be made
        self.half, undone = _ENDING, False
        try:
            # A commit that failed behind the append is recorded, so it stays.
            if transaction is not None and self.outbox.tail[2] == transaction.before:
                transaction.roll_back()
            undone = True
        finally:
            if undone:
                self.half = self.transaction = None
                self.attention = False  # before the look at `over`: `end` may come in between
                if self.over is not None:
                    self.attention = True
            else:
                self.half = _HALF_UNDONE

    # May I?

    def check_may_change(self) -> None:
        """Raise unless the caller may change a map now. Called under the lock, off the usual path."""
        if self.half is _HALF_UNDONE:
            self.settle()
        if self.over is not None:
            raise self.over
        if self.transaction is not None:
            self._check_owner(self.transaction)
        half = self.half
        if half is None:
            return
        self.lock.release()
        reentered = self.lock._is_owned()  # type: ignore[attr-defined]
        self.lock.acquire()
        if reentered:
            raise ReentrantChange("a change inside another change of this thread (a signal handler or destructor?)")
        if self.half is half:  # else another thread came in between, and has finished it
            self.unwind(half)

    def check_alive(self) -> None:
        """Raise the reason if the session is over."""
        if self.over is not None:
            raise self.over

    def check_outside_transaction(self, what: str) -> None:
        """Raise `TransactionInProgress` for what has no place in a block of this thread; others' are no matter."""
        if not self.lock._is_owned():  # type: ignore[attr-defined]
            return
        self.settle()
        if self.transaction is not None:
            self._check_owner(self.transaction)
            raise TransactionInProgress(f"{what} inside a transaction")

    def let_others_end(self, timeout: float) -> bool:
        """Wait, in seconds, until no other thread is in a change or a transaction; False: one still is."""
        lock: Any = self.lock
        if lock._is_owned():
            return True
        free = False
        try:
            free = lock.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        finally:  # behind an exception of a signal handler nobody knows if it is held: so no question comes before
            try:
                lock.release()
            except RuntimeError:
                pass
        return bool(free)

    def is_changing(self) -> bool:
        """Whether this thread is in the middle of a change; for what a signal handler might ask."""
        return self.half is not None and bool(self.lock._is_owned())  # type: ignore[attr-defined]

    def _check_owner(self, transaction: Transaction) -> None:
        """The lock has told the thread already."""
        if transaction.task is not current_task():
            raise TransactionInProgress(
                "a transaction of another task of this thread is open: don't await inside a transaction"
            )

    # The end

    def end(self, reason: SessionOver) -> None:
        """No more changes; the first reason stays, except that a closed session is closed.

        Takes no lock, as a transaction may hold it for as long as it likes: `over` first, then `attention`.
        """
        if self.over is None or isinstance(reason, SessionClosed):
            self.over = reason
        self.attention = True

    def die_in_child(self, reason: SessionOver) -> None:
        """In a forked child, where another thread may have held the lock for ever.

        What this thread holds it gives back itself: a block that the child leaves is undone, and told.
        """
        if not self.lock._is_owned():  # type: ignore[attr-defined]
            self.lock = threading.RLock()
            self.transaction = None
        self.half = None
        self.over, self.attention = reason, True


class Block:
    """The `with` block of a transaction. Every step allows for Ctrl-C behind it.

    While it holds the lock it is an `_OpenBlock`. So one that has ended runs nothing at its death, where Python would
    drop what a signal handler raises.
    """

    __slots__ = ("_joins", "_recorder", "_then", "_transaction")

    def __init__(self, recorder: Recorder, joins: bool, then: Callable[[], object] | None) -> None:
        self._recorder, self._joins, self._then = recorder, joins, then
        self._transaction: Transaction | None = None

    def __enter__(self) -> None:
        recorder, transaction, opened = self._recorder, None, False
        try:
            with recorder.lock:
                if recorder.attention or recorder.half is not None:
                    recorder.check_may_change()
                if recorder.transaction is None:
                    transaction = Transaction(recorder.outbox.tail[2])
                elif not self._joins:  # this very block, too, may be the one that is open
                    raise TransactionInProgress("a transaction inside a transaction")
                self._transaction = transaction
                self.__class__, opened = _OpenBlock, True
                recorder.lock.acquire()  # once more, for `_end` to release
                if transaction is not None:
                    recorder.transaction = transaction
                    recorder.attention = True
        except BaseException:
            if opened:
                self._end(True)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        self._end(kind is not None)
        if self._then is not None and kind is None:
            self._then()

    def _end(self, failed: bool) -> None:
        """Record the changes or undo them, and give the lock back."""
        recorder, transaction = self._recorder, self._transaction
        self.__class__ = Block
        if transaction is None:  # part of a block that is still open
            recorder.lock.release()
            return
        recorder.half = _ENDING
        try:
            if not failed and transaction.changes:
                recorder.commit(transaction.changes)
        except BaseException:
            failed = True
            raise
        finally:
            try:
                if failed:
                    recorder.half = _HALF_UNDONE
                    try:
                        recorder.settle()
                    finally:
                        recorder.settle()  # what struck the first time has no need to strike again
                else:
                    recorder.half = recorder.transaction = None
                    recorder.attention = False  # before the look at `over`: `end` may come in between
                    if recorder.over is not None:
                        recorder.attention = True
            finally:
                recorder.lock.release()


class _OpenBlock(Block):
    """Is ended at its death at the latest: Ctrl-C may strike at the very gate of `__exit__`, where nothing has run."""

    __slots__ = ()

    def __del__(self) -> None:
        self._end(True)


def _finish(half: Half) -> None:
    """Do the dict's half of a change that is recorded already. Doing it twice is harmless."""
    target, key, value, data, _ = half
    if key is MISSING:
        dict.clear(target)
        target._recorded.clear()
    elif value is MISSING:
        dict.pop(target, key, None)
        target._recorded.pop(key, None)
    else:
        dict.__setitem__(target, key, value)
        target._recorded[key] = data
