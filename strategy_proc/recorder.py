"""The one place where a change of a session's maps is recorded, alone or as part of a transaction.

* `lock` guards (dicts, seq, append). The pump and `sync` never hold it while they wait for anything.
* `attention` is true when a change needs a second look: a transaction is open, or the session is over.
* `half` names the change that is recorded but may not be in its dict yet: an exception from a signal handler may
  strike between the two, and whoever comes next finishes it. `_ENDING`: a transaction is being committed or undone.
* A signal handler may do anything at any time; what it can't do in the middle of something is refused, never awaited.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from protocol.changes import CLEAR, DELETE, Change, encode_changes
from protocol.errors import ChangeTooLarge, ReentrantChange, SessionClosed, SessionOver, TransactionInProgress
from protocol.limits import MAX_CHANGE_BYTES
from protocol.values import ValueCodec
from strategy_proc.transaction import MISSING, Transaction, current_owner

__all__ = ["MISSING", "OutboxLike", "Recorder"]

Half = tuple[Any, ...]
"""(map, key, value, pickle, seq before): MISSING as value is a delete, as key it is all of the map."""

_ENDING: Half = (None,)


class OutboxLike(Protocol):
    """What a session needs of its outbox (`strategy_proc.outbox.Outbox`, or the one for tests in memory)."""

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
        transaction = self.transaction
        if transaction is None:
            self.outbox.append(encode_changes((change,)))
            return
        target, key = half[0], half[1]
        if change[0] == CLEAR:
            transaction.remember_all(target)
        else:
            transaction.remember(target, key, deletes=change[0] == DELETE)
        transaction.add(change, half)

    def unwind(self, half: Half) -> None:
        """An exception struck in the middle of a change: if it is recorded, show it in the dict too."""
        transaction = self.transaction
        if self.outbox.seq > half[4] if transaction is None else transaction.holds(half):
            _finish(half)
        if self.half is half:
            self.half = None

    # Whole blocks

    @contextmanager
    def block(self) -> Iterator[None]:
        """A transaction. Raises `TransactionInProgress` if one is open, `ChangeTooLarge`, `OutboxFull`."""
        with self.lock:
            self.check_may_change()
            if self.transaction is not None:
                raise TransactionInProgress("a transaction inside a transaction")
            with self._open_block():
                yield

    @contextmanager
    def atomically(self) -> Iterator[None]:
        """One transaction, or part of the one that is open."""
        with self.lock:
            self.check_may_change()
            if self.transaction is not None:
                yield
            else:
                with self._open_block():
                    yield

    @contextmanager
    def _open_block(self) -> Iterator[None]:
        before = self.outbox.seq
        transaction = self.transaction = Transaction()
        self.attention = True
        try:
            yield
            self.half = _ENDING
            if transaction.changes:
                self._commit(transaction.changes)
        except BaseException:
            self.half = _ENDING
            if self.outbox.seq == before:  # else Ctrl-C struck behind the append: it is recorded, so it stays
                transaction.roll_back()
            raise
        finally:
            self.half = None
            self.transaction = None
            self.attention = self.over is not None

    def _commit(self, changes: list[Change]) -> None:
        if self.over is not None:
            raise self.over
        payload = encode_changes(changes)
        if len(payload) > MAX_CHANGE_BYTES:
            raise ChangeTooLarge(f"a transaction of {len(payload)} bytes is over the limit of {MAX_CHANGE_BYTES}")
        self.outbox.append(payload)

    # May I?

    def check_may_change(self) -> None:
        """Raise unless the caller may change a map now. Called under the lock, off the usual path."""
        self.check_alive()
        self._check_owner()
        half = self.half
        if half is None:
            return
        self.lock.release()
        reentered = self.lock._is_owned()  # type: ignore[attr-defined]
        self.lock.acquire()
        if reentered:
            raise ReentrantChange("a change inside another change of this thread (a signal handler or destructor?)")
        self.unwind(half)

    def check_alive(self) -> None:
        """Raise the reason if the session is over."""
        if self.over is not None:
            raise self.over

    def check_outside_transaction(self, what: str) -> None:
        """Raise `TransactionInProgress` for what has no place in a block."""
        if self.transaction is not None:
            self._check_owner()
            raise TransactionInProgress(f"{what} inside a transaction")

    def is_changing(self) -> bool:
        """Whether this thread is in the middle of a change; for what a signal handler might ask."""
        return self.half is not None and bool(self.lock._is_owned())  # type: ignore[attr-defined]

    def _check_owner(self) -> None:
        if self.transaction is not None and self.transaction.owner != current_owner():
            raise TransactionInProgress(
                "a transaction of another task of this thread is open: don't await inside a transaction"
            )

    # The end

    def end(self, reason: SessionOver) -> None:
        """No more changes; the first reason stays, except that a closed session is closed."""
        with self.lock:
            if self.over is None or isinstance(reason, SessionClosed):
                self.over = reason
            self.attention = True

    def die_in_child(self, reason: SessionOver) -> None:
        """In a forked child, where another thread may have held the lock for ever."""
        self.lock = threading.RLock()
        self.over, self.attention = reason, True
        self.transaction = self.half = None


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
