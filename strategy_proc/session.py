"""The session: it owns a namespace and its maps, waits for what shall be durable, and leaves in order.

How maps change, and under which lock, is the `Recorder`'s. Here nothing holds that lock while it waits.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
import weakref
from typing import Any, Protocol, TypeVar, overload

from protocol.changes import DROP, Change
from protocol.errors import (
    FlushTimeout,
    OutliveError,
    ReentrantChange,
    SessionClosed,
    SessionForked,
    SessionOver,
    StateRefused,
    SyncFailed,
    UntrustedType,
    ValueUnreadable,
)
from protocol.keys import encode_key
from protocol.names import check_map_name
from protocol.values import ValueCodec
from strategy_proc.persistent_map import PersistentMap, items_as_changes
from strategy_proc.recorder import Block, OutboxLike, Recorder
from strategy_proc.recovered import Recovered

log = logging.getLogger("outlive")

T = TypeVar("T")

LAST_CHANGE = 0.2  # seconds that a change of another thread, begun before the end, has until the outbox is closed

class LockLike(Protocol):
    """What makes the namespace ours (`strategy_proc.outbox.OutboxLock`)."""

    def release(self) -> None: ...


class PumpLike(Protocol):
    """What a session needs of its pump."""

    def wake(self) -> None: ...
    def beat(self) -> None: ...
    def leave(self, timeout: float) -> bool: ...
    def stop(self) -> None: ...


class Session:
    """A connected namespace, made by `connect`. Use it as a context manager, or `close()` it.

    All methods are thread-safe; none may be used in a forked child.
    """

    def __init__(
        self, namespace: str, epoch: int, outbox: OutboxLike, lock: LockLike, codec: ValueCodec,
        raw: dict[str, dict[Any, bytes]], recovered: Recovered,
    ) -> None:  # fmt: skip
        self.namespace = namespace
        self.epoch = epoch
        self.recovered = recovered
        self._outbox, self._ownership = outbox, lock
        self._recorder = Recorder(outbox, codec)
        self._codec = codec
        self._raw = raw
        self._maps: dict[str, PersistentMap[Any, Any]] = {}
        self._durable = outbox.seq
        self._progress = threading.Condition()  # guards _durable and _problem, wakes flush()
        self._problem: Exception | None = None
        self._pump: PumpLike | None = None
        self._closing = threading.RLock()
        self._is_closing = self._is_left = False
        self._syncing: set[int] = set()  # threads inside sync()
        _sessions.add(self)

    def __repr__(self) -> str:
        return f"<Session {self.namespace!r} epoch {self.epoch}, {self._recorder.over or 'open'}>"

    # Maps

    @overload
    def map(self, name: str, kind: type[T]) -> PersistentMap[Any, T]: ...
    @overload
    def map(self, name: str, kind: Any = None) -> PersistentMap[Any, Any]: ...
    def map(self, name: str, kind: Any = None) -> PersistentMap[Any, Any]:
        """The map `name`, with what was recovered in it. `kind`, the type of its values, makes its module trusted.

        Raises `BadName`; `UntrustedType` or `ValueUnreadable`, naming the key, when a stored value can't be loaded
        here: the bytes stay as they are, and other maps work.
        """
        check_map_name(name)
        with self._recorder.lock:
            self._recorder.check_alive()
            self._recorder.check_outside_transaction("map()")
            if kind is not None:
                self._codec.trust.add_module_of(kind)
            found = self._maps.get(name)
            if found is None:
                recorded = self._raw.get(name, {})
                items = self._decode(name, recorded)
                self._raw.pop(name, None)
                found = self._maps[name] = PersistentMap._make(self._recorder, name, items, recorded)
            return found

    def map_names(self) -> list[str]:
        """Maps that are open here or were recovered."""
        with self._recorder.lock:
            return sorted({*self._raw, *self._maps})

    def drop_map(self, name: str) -> None:
        """Delete a map for good, with its files. What is put under its name later is a new map."""
        check_map_name(name)
        with self._recorder.lock:
            self._recorder.check_may_change()
            self._recorder.check_outside_transaction("drop_map()")
            before = self._outbox.seq
            try:
                self._maps.get(name, PersistentMap._make(self._recorder, name, {}, {}))._remove_all(DROP)
            finally:
                if self._outbox.seq > before:
                    self._raw.pop(name, None)

    def _decode(self, name: str, recorded: dict[Any, bytes]) -> dict[Any, Any]:
        """All values at once; the collector would walk a growing heap meanwhile, again and again."""
        was_on = gc.isenabled()
        gc.disable()
        try:
            values = self._codec.load_many(recorded.values())
            return dict(zip(recorded, values, strict=True))
        except (UntrustedType, ValueUnreadable) as error:
            raise self._name_the_value(name, recorded, error) from error
        finally:
            if was_on:
                gc.enable()

    def _name_the_value(self, name: str, recorded: dict[Any, bytes], error: Exception) -> Exception:
        for key, data in recorded.items():
            try:
                self._codec.load(data)
            except (UntrustedType, ValueUnreadable) as found:
                return type(found)(f"map {name!r}, key {key!r}: {found}")
        return error

    # Changing

    def transaction(self, *, durable: bool = False) -> Block:
        """Changes of any maps in the block are kept whole or not at all; an exception undoes them.

        With `durable` they are on disk when the block has ended (`sync`). Don't do I/O or await inside: other threads
        wait for the block. Raises `TransactionInProgress` inside another one, `ChangeTooLarge`, `OutboxFull`; after
        any of them nothing has changed. `SyncFailed`: recorded, but not safe from a power cut.
        """
        return self._recorder.block(then=self.sync if durable else None)

    # Making durable

    def sync(self) -> None:
        """When this returns, every change before it survives a power cut. One fdatasync. Raises `SyncFailed`."""
        self._refuse_inside("sync()")
        with self._recorder.lock:
            self._recorder.check_alive()
            self._recorder.check_outside_transaction("sync()")
        me = threading.get_ident()
        try:
            self._syncing.add(me)  # in here, and taken out by one call of C: so it stays behind no exception
            self._outbox.sync()
        except SyncFailed:
            raise
        except OSError as error:
            raise SyncFailed(f"recorded and in memory, but not safe from a power cut: {error}") from error
        finally:
            self._syncing.discard(me)

    def _refuse_inside(self, what: str) -> None:
        """For what waits for other threads: they may wait for what a signal handler has interrupted here."""
        if self._recorder.is_changing() or threading.get_ident() in self._syncing:
            raise ReentrantChange(f"{what} in the middle of a change or a sync of this thread (a signal handler?)")

    def flush(self, timeout: float = 10.0) -> None:
        """When this returns, every change before it is durable in the persistence process.

        Another thread's transaction is waited for, too. Raises `FlushTimeout`; `Fenced`; `StateRefused` if the process
        serves another state or refused this one; `NotAllowed` while it refuses our keys; `InsecureDirectory` while its
        sockets lie where others may enter.
        """
        self._refuse_inside("flush()")
        if sys.is_finalizing():  # the pump stands still for ever
            timeout = 0.0
        deadline = time.monotonic() + timeout
        others_have_ended = self._recorder.let_others_end(timeout)
        self._recorder.check_alive()
        self._recorder.check_outside_transaction("flush()")
        if not others_have_ended:
            raise FlushTimeout(f"a transaction of another thread has not ended within {max(0.0, timeout):.3g} s")
        upto = self._outbox.seq
        if self._pump is not None:
            self._pump.wake()
        with self._progress:
            while self._durable < upto or isinstance(self._problem, StateRefused):
                self._recorder.check_alive()
                remaining = deadline - time.monotonic()
                if self._problem is not None:
                    raise self._problem
                if remaining <= 0:
                    raise FlushTimeout(
                        f"{upto - self._durable} changes are not confirmed after {max(0.0, timeout):.3g} s; "
                        "they are safe in the outbox and will be shipped"
                    )
                self._progress.wait(min(remaining, threading.TIMEOUT_MAX))

    def unsaved(self) -> dict[str, list[Any]]:
        """Map name -> keys whose value was changed in place and therefore is not kept. Empty is good.

        What a value's own `==` leaves out (`field(compare=False)`) is not looked at.
        """
        with self._recorder.lock:
            maps = list(self._maps.values())
        found = {m.name: m.unsaved() for m in maps}
        return {name: keys for name, keys in found.items() if keys}

    def beat(self) -> None:
        """Tell the supervisor that the bot is not hung. Costs nothing and never waits.

        It is not passed on while a transaction or a change is stuck: then no other thread could change anything.
        """
        if self._pump is not None:
            self._pump.beat()

    # Leaving

    def close(self, timeout: float = 10.0) -> None:
        """Flush, say good-bye, and release the namespace; all within `timeout` seconds. Again: does nothing.

        Raises `FlushTimeout` (and has left all the same: what is unconfirmed is in the outbox for the next session).
        While the interpreter ends it only releases the namespace: what is unconfirmed is in the outbox, too.
        """
        if sys.is_finalizing():
            self._leave_at_exit()
            return
        self._refuse_inside("close()")
        with self._closing:
            if self._is_left or self._is_closing:  # or a signal handler: what it interrupted goes on behind it
                return
            self._is_closing = True
            try:
                self._say_good_bye(time.monotonic() + timeout)
            finally:
                try:
                    self._leave()
                finally:
                    self._is_closing = False

    def _say_good_bye(self, deadline: float) -> None:
        if self._recorder.over is None:
            self.flush(deadline - time.monotonic())
            if self._pump is not None:
                self._pump.leave(max(0.0, deadline - time.monotonic()))

    def _leave(self) -> None:
        """Give everything back. Interrupted, it can be done again."""
        self._end(SessionClosed(f"the session of {self.namespace!r} is closed"))
        self._stop_pump()
        self._recorder.let_others_end(LAST_CHANGE)
        self._outbox.close()
        self._ownership.release()
        self._is_left = True

    def _stop_pump(self) -> None:
        """The pump may want to tell something just now, under a condition that a signal handler's thread holds."""
        progress: Any = self._progress
        held = progress._release_save() if progress._is_owned() else None
        try:
            if self._pump is not None:
                self._pump.stop()
        finally:
            if held is not None:
                progress._acquire_restore(held)

    def _leave_at_exit(self) -> None:
        """Other threads stand still for ever by now, the pump too, and any lock may be in their hands."""
        if not self._is_left:
            self._recorder.end(SessionClosed(f"the session of {self.namespace!r} is closed"))
            self._ownership.release()
            self._is_left = True

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.close()
        except OutliveError as error:
            log.warning("%s: left without confirmation: %s", self.namespace, error)

    # For the pump

    def _end(self, reason: SessionOver) -> None:
        """No more changes; the first reason stays, except that a closed session is closed."""
        self._recorder.end(reason)
        with self._progress:
            self._progress.notify_all()

    def _note_durable(self, durable: int) -> None:
        with self._progress:
            if durable > self._durable:
                self._durable = durable
            self._problem = None
            self._progress.notify_all()

    def _note_problem(self, problem: Exception) -> None:
        with self._progress:
            if self._problem is None or str(self._problem) != str(problem):
                log.error("%s: %s", self.namespace, problem)
            self._problem = problem
            self._progress.notify_all()

    def _whole_state(self) -> list[Change]:
        """All maps as one change. Called under the lock."""
        self._recorder.settle()
        changes: list[Change] = []
        for name, recorded in self._raw.items():
            changes += items_as_changes(name, recorded, encode_key)
        for name, found in self._maps.items():
            changes += items_as_changes(name, found._recorded, found._encode_key)
        return changes

    def _die_in_child(self) -> None:
        """In a forked child: the session belongs to the parent, and must not hold the lock for its successor."""
        self._progress = threading.Condition()
        self._closing = threading.RLock()
        self._is_left = True
        reason = f"the session of {self.namespace!r} belongs to the parent process; connect again"
        self._recorder.die_in_child(SessionForked(reason))
        self._outbox.drop_in_child()


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for session in list(_sessions):
        session._die_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
