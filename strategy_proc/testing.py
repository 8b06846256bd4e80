"""For a bot's own tests: sessions with the real maps, rules and errors, kept in memory, without any process.

    def test_my_bot_survives_a_crash():
        store = MemoryStore()
        state = store.connect("momentum")
        open_position(state)
        store.kill("momentum")                      # as kill -9: no close, no good-bye
        with store.connect("momentum") as state:
            assert "BTC/USDT" in state.map("active_positions", Position)
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

from protocol.errors import Fenced, NamespaceInUse, SyncFailed
from protocol.frames import Record
from protocol.names import check_namespace
from protocol.values import Trust, ValueCodec
from strategy_proc.recovered import Recovered, RecoveredStatus
from strategy_proc.session import Session
from strategy_proc.state import State, apply_record


class _Namespace:
    """What the store holds of one namespace."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.epoch = 0
        self.closed = False
        self.ts_last = 0
        self.session: Session | None = None


class MemoryOutbox:
    """Keeps records in a list that outlives the session."""

    def __init__(self, kept: _Namespace) -> None:
        self._kept = kept
        self._epoch = kept.epoch
        self.fail_sync: OSError | None = None
        """Set it, and `sync` fails as on a broken disk."""

    @property
    def tail(self) -> tuple[None, int, int]:
        return None, 0, self.seq

    @property
    def seq(self) -> int:
        return len(self._kept.records)

    def append(self, payload: bytes) -> int:
        self._kept.ts_last = time.time_ns()
        self._kept.records.append(payload)
        return self.seq

    def sync(self) -> None:
        if self.fail_sync is not None:
            raise SyncFailed(str(self.fail_sync))

    def close(self) -> None:
        """Of a session that was killed, or has a successor: changes nothing."""
        if self._kept.session is not None and self._kept.epoch == self._epoch:
            self._kept.closed = True
            self._kept.session = None

    def drop_in_child(self) -> None:
        """Nothing is shared with a child."""


class _NoLock:
    """Within one process the store itself knows who is connected."""

    def release(self) -> None: ...


class _NoPump:
    """Everything is durable at once: `flush` finds nothing to wait for."""

    def __init__(self, session: Session, outbox: MemoryOutbox) -> None:
        self._session, self._outbox = session, outbox
        self.beats = 0

    def wake(self) -> None:
        self._session._note_durable(self._outbox.seq)

    def beat(self) -> None:
        self.beats += 1

    def leave(self, timeout: float) -> bool:
        return True

    def stop(self) -> None: ...


class MemoryStore:
    """Stands for the persistence process and its disk."""

    def __init__(self) -> None:
        self._namespaces: dict[str, _Namespace] = {}

    def connect(
        self, namespace: str, *, trust: Iterable[type | FunctionType | str | ModuleType] = (), verify: bool = True
    ) -> Session:
        """As `strategy_proc.connect`. Raises `NamespaceInUse` while a session is neither closed nor killed."""
        kept = self._namespaces.setdefault(check_namespace(namespace), _Namespace())
        if kept.session is not None:
            raise NamespaceInUse(f"{namespace!r} has a live session; close() or kill() it")
        state: State = {}
        for seq, payload in enumerate(kept.records, 1):
            apply_record(state, Record(seq, kept.epoch, 1, payload))
        status = RecoveredStatus.CLEAN if kept.closed else RecoveredStatus.CRASHED
        recovered = Recovered(
            status=status if kept.records else RecoveredStatus.NEW,
            entries={name: len(items) for name, items in state.items() if items},
            from_outbox=0,
            ts_last=kept.ts_last,
        )
        kept.epoch += 1
        kept.closed = False
        outbox = MemoryOutbox(kept)
        session = Session(namespace, kept.epoch, outbox, _NoLock(), ValueCodec(Trust(trust), verify), state, recovered)
        session._pump = _NoPump(session, outbox)
        kept.session = session
        return session

    def kill(self, namespace: str) -> None:
        """As kill -9 of the bot: the session takes nothing more, what it recorded stays."""
        kept = self._namespaces[namespace]
        if kept.session is not None:
            kept.session._end(Fenced("killed by the test"))
            kept.session = None

    def contents(self, namespace: str) -> dict[str, dict[Any, Any]]:
        """What a restarted bot would find, as plain dicts; types of the shipped records only."""
        state: State = {}
        for seq, payload in enumerate(self._namespaces[namespace].records, 1):
            apply_record(state, Record(seq, 0, 1, payload))
        load = ValueCodec(Trust()).load
        return {name: {key: load(data) for key, data in items.items()} for name, items in state.items()}
