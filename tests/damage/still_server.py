"""The real persistence process and the real `connect`, without threads, sockets and time: a call, and it has happened.

The parts are the product's own: `recover`, `Requests`, `Writer`'s commit, `save_map`, `_Connecting`, `Outbox`.
Only the wire between them is a function call, so that ten thousand starts take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

from persistence_proc import journal as journal_module
from persistence_proc import survey
from persistence_proc.catalog import Generation, MapKey
from persistence_proc.mailbox import Mailbox
from persistence_proc.paths import Paths
from persistence_proc.pickle_file import Trailer, save_map
from persistence_proc.recovery import Recovered, recover
from persistence_proc.requests import Requests
from persistence_proc.security import Access
from persistence_proc.service import _books_of, _store_of
from persistence_proc.tools import reading
from persistence_proc.writer import Idle, Writer, Written
from protocol.changes import Change, encode_changes
from protocol.disk import Disk
from protocol.messages import Close, Delta, Done, Open, Reply, decode_reply
from strategy_proc import connecting, outbox_segment
from strategy_proc import outbox as outbox_module
from strategy_proc.outbox import Outbox
from strategy_proc.state import State

DIR = "/state"
JOURNAL_BYTES, OUTBOX_BYTES = 4096, 2048
BOOT, NEXT_BOOT = "the boot of the damage", "the boot after it"


_decide = cache(survey.decide)  # a fifth of the time of each start, for the same few hundred cases


@contextmanager
def small_world(boot: str = BOOT) -> Iterator[None]:
    """Small segments, and a boot id of our own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "SEGMENT_BYTES", JOURNAL_BYTES)
        for module in (outbox_module, outbox_segment):
            patch.setattr(module, "SEGMENT_BYTES", OUTBOX_BYTES)
        patch.setattr(connecting, "RETRY", 0.0)
        patch.setattr(survey, "decide", _decide)
        for user in (connecting, reading):
            patch.setattr(user, "boot_id", lambda: boot)
        yield


class StillServer:
    """A store being served; nothing happens but in a call."""

    def __init__(self, disk: Disk, data_dir: str = DIR) -> None:
        self._disk, self._paths = disk, Paths(data_dir)
        self.recovered: Recovered = recover(disk, data_dir)
        self.store = _store_of(self.recovered)
        self._reports: list[object] = []
        self._writer = Writer(
            disk, self._paths.journal, self.recovered.store_id, self.recovered.journal, _books_of(self.recovered),
            _Reports(),
        )  # fmt: skip
        self._replies: list[list[bytes]] = []
        self._requests = Requests(self.store, "instance", Access(), lambda _, parts: self._replies.append(parts))

    def ask(self, request: Open | Close) -> tuple[Reply, list[bytes]]:
        self._requests.handle(b"bot", "", request, 0.0)
        while not self._replies:
            self.commit()
            self._requests.answer(0.0)
        head, *parts = self._replies.pop()
        return decode_reply(head), parts

    def receive(self, delta: Delta, parts: list[bytes]) -> None:
        namespace = self.store.namespaces[delta.namespace]
        assert namespace.receive(delta, parts, self.store.pending, 0.0, 1)

    def commit(self) -> None:
        """Everything pending is durable."""
        if not self.store.pending:
            return
        batch = self.store.seal()
        lsn = self._writer._commit(batch)
        self.store.written(Written(batch, lsn), 0.0)
        self.store.idle(Idle(lsn, False, 0))

    def save(self, key: MapKey) -> None:
        state = self.store.map(key)
        assert state is not None
        items, lsn = state.freeze(), self.store.last_lsn
        trailer = Trailer(self.store.store_id, *key, state.incarnation, lsn)
        folder = self._paths.namespace(key[0])
        saved = save_map(self._disk, folder, key[1], items.items(), len(items), trailer, before_rename=lambda: None)
        state.thaw()
        state.merge(10**9)
        self.store.saved(key, state, Generation(lsn, saved.crc))

    def rotate(self) -> None:
        """A new segment begins; what no map needs any more goes."""
        journal, lsn = self._writer.journal, self.store.last_lsn + 1
        journal.rotate(lsn, self._writer._books.catalog(self.store.store_id))
        self.store.last_lsn = lsn
        journal.delete_before(self.store.needs())

    def stop(self) -> None:
        self._writer.journal.close()


class _Reports(Mailbox[object]):
    """A mailbox that nobody waits for."""

    def __init__(self) -> None:
        pass

    def post(self, item: object) -> None:
        raise AssertionError(f"nothing fails here, and yet: {item}")


class _Wire:
    """Stands where the request socket is."""

    def __init__(self, server: StillServer) -> None:
        self._server = server

    def ask(self, request: Open, timeout: float) -> tuple[Reply, list[bytes]]:
        return self._server.ask(request)

    def abandon(self) -> None: ...


class Bot:
    """A connected namespace: `connect` up to the first change, on a disk that is handed in."""

    def __init__(self, server: StillServer, disk: Disk, namespace: str, data_dir: str = DIR) -> None:
        self._server, self._namespace = server, namespace
        attempt = connecting._Connecting(namespace, data_dir, "ipc:///nowhere", 5.0, False, None)
        attempt.disk = disk
        self.outbox = Outbox.load(disk, f"{data_dir}/{namespace}/outbox", namespace, connecting.boot_id())
        self.state: State
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(connecting, "RequestClient", lambda *_: _Wire(server))
                opened, self.state, self.recovered = attempt._recover(None, None, self.outbox)  # type: ignore[arg-type]
        except BaseException:
            self.outbox.close()
            raise
        self.epoch, self._shipped = opened.epoch, opened.applied

    def record(self, *changes: Change) -> int:
        return self.outbox.append(encode_changes(changes))

    def ship(self, acknowledge: bool = True) -> None:
        """Everything recorded is durable in the journal; whether the bot has heard so is another matter."""
        while (run := self.outbox.unshipped(self._shipped, 2**20)) is not None:
            base, upto, parts = run
            self.outbox.mark_shipped(upto)
            delta = Delta(namespace=self._namespace, epoch=self.epoch, base=base, upto=upto)
            self._server.receive(delta, [bytes(part) for part in parts])
            self._server.commit()
            self._shipped = upto
        if acknowledge:
            self.outbox.mark_acked(self._shipped)
        self.outbox.maintain()

    def leave(self) -> None:
        """`close()`: shipped, and good-bye said."""
        self.ship()
        done, _ = self._server.ask(Close(namespace=self._namespace, epoch=self.epoch, upto=self._shipped))
        assert isinstance(done, Done), done
        self.kill()

    def kill(self) -> None:
        """As SIGKILL leaves it: the files are what they are."""
        self.outbox.close()
