"""A real service, driven from one thread on a disk in memory, and watched at each call to it.

Store, requests, writer, checkpointer and recovery are the product's own; only the two threads are replaced: their
loops run when they are told, so that a workload does the same calls each time, and a test can place one thread's work
inside the other's.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from hashlib import blake2b
from types import SimpleNamespace

import pytest

from persistence_proc import checkpoints, journal, pickle_file, service, writer
from persistence_proc.checkpointer import Checkpointer
from persistence_proc.paths import Paths
from persistence_proc.recovery import recover
from persistence_proc.security import Access
from persistence_proc.service import Service
from persistence_proc.writer import Writer, WriterFailed
from protocol.changes import CLEAR, DROP, Change
from protocol.messages import Opened, decode_reply
from tests.crash.store_history import History, Kept
from tests.lab.memory_disk import MemoryDisk
from tests.persistence_proc.raw_session import clear, delete, insert, open_request, replace

FOLDER = "/state"
NAMESPACES = ("bot", "other")
SEGMENT_BYTES = 1024
"""Two sectors: a third commit makes the file grow."""
NEVER = 2**40


class Entropy:
    """Stands in for `os.urandom`: equal disks are worked on with equal nonces, so equal work leaves equal disks."""

    def __init__(self) -> None:
        self.restart(b"")

    def restart(self, seed: bytes) -> None:
        self.state = seed, 0

    def take(self, length: int) -> bytes:
        seed, count = self.state
        self.state = seed, count + 1
        return blake2b(b"%d" % count, key=seed, digest_size=length).digest()


class CalledWriter(Writer):
    """Works when it is told."""

    def start(self) -> None:
        pass

    def work(self) -> None:
        """What is queued, one batch at most; nothing any more once it has given up."""
        if not self._batches.empty():
            self._batches.put(None)
            self._run()

    def stop(self) -> None:
        self._stopping.set()
        self.work()
        self.journal.close()


class CalledCheckpointer(Checkpointer):
    """Works when it is told."""

    def start(self) -> None:
        pass

    def work(self) -> None:
        """Everything that is queued; `turn_to_writer` runs where it would wait for the writer."""
        while not self._jobs.empty():
            self._jobs.put(None)
            self._run()

    def turn_to_writer(self, run: Callable[[], None]) -> None:
        self._changed.wait_for = lambda predicate, timeout=None: (predicate() or run()) or predicate()  # type: ignore

    def hurry(self) -> None:
        """From now on it waits for nobody: the process is about to end."""
        self._stopping = True

    def stop(self) -> None:
        self.hurry()
        self.work()


@pytest.fixture
def entropy(monkeypatch: pytest.MonkeyPatch) -> Entropy:
    """Small segments, no chance, nothing that the clock decides: a workload does the same calls each time."""
    one = Entropy()
    monkeypatch.setattr(os, "urandom", one.take)
    monkeypatch.setattr(pickle_file, "secrets", SimpleNamespace(token_hex=lambda n: one.take(n).hex()))
    monkeypatch.setattr(service, "time", SimpleNamespace(time_ns=lambda: 7))
    monkeypatch.setattr(service, "Writer", CalledWriter)
    monkeypatch.setattr(service, "Checkpointer", CalledCheckpointer)
    monkeypatch.setattr(journal, "SEGMENT_BYTES", SEGMENT_BYTES)
    monkeypatch.setattr(writer, "ROTATE_BYTES", NEVER)
    monkeypatch.setattr(writer, "ROTATE_CATALOGS", 0)
    monkeypatch.setattr(checkpoints, "MIN_INTERVAL", float(NEVER))  # a save begins when it is hurried
    monkeypatch.setattr(checkpoints, "REST_SHARE", 0.0)
    monkeypatch.setattr(checkpoints, "TRIM_INTERVAL", 0.0)
    return one


class World:
    """One store from its creation on. `watch` is called before each call to the disk."""

    def __init__(self, entropy: Entropy) -> None:
        self.disk = MemoryDisk()
        self.histories = [History(name) for name in NAMESPACES]
        self.watch: Callable[[], None] = lambda: None
        self.failing_syncs = 0
        self.failure: BaseException | None = None
        self._entropy, self._now, self._lives = entropy, itertools.count(1), itertools.count(1)
        self._inserts = itertools.count(1)
        self._epochs = dict.fromkeys(NAMESPACES, 0)
        entropy.restart(b"world")

    @property
    def kept(self) -> list[Kept]:
        return [history.kept for history in self.histories]

    # Lives

    def begin(self) -> None:
        """The process starts: recovery, a session of each namespace that there was, all settled."""
        self.disk.on_call = self._on_call
        recovered = recover(self.disk, FOLDER)
        for history in self.histories:
            entry = recovered.namespaces.get(history.name)
            history.forget_after(entry.applied if entry else 0)
            history.note(acknowledged=history.applied)
        mailbox = SimpleNamespace(post=self._post)
        clock = lambda: float(next(self._now))  # noqa: E731
        self.service = Service(self.disk, Paths(FOLDER), recovered, "i", Access(), mailbox, self._send, clock)
        self.saver.turn_to_writer(self.writer.work)
        self.saver.work()
        for history in self.histories:
            if history.name == "bot" or history.name in recovered.namespaces:
                self.open(history.name)
        self.settle()

    @property
    def writer(self) -> CalledWriter:
        found = self.service.writer
        assert isinstance(found, CalledWriter)
        return found

    @property
    def saver(self) -> CalledCheckpointer:
        found = self.service._checkpointer
        assert isinstance(found, CalledCheckpointer)
        return found

    def settle(self) -> None:
        """Until nothing is left to do but saves that nothing hurries."""
        for _ in range(3):
            self.service.turn()
            self.writer.work()
            self.saver.work()
        self.service.turn()

    def open(self, name: str) -> None:
        request = open_request(name, life=next(self._lives), last=self._history(name).applied)
        self.service.requests.handle(name.encode(), "", request, 0.0)

    def send(self, name: str, *changes: Change) -> None:
        """One record reaches the service; nothing is written yet."""
        history = self._history(name)
        history.do(changes)
        self.service.receive_delta(history.message(self._epochs[name], changes), "")

    # Steps

    def do(self, step: str) -> None:
        """One of the methods below, and what follows from it."""
        getattr(self, step)()
        self.settle()

    def insert(self) -> None:
        self.send("bot", insert("a", next(self._inserts)))

    def replace(self) -> None:
        self.send("bot", replace("a", 1, b"r%d" % next(self._inserts)))

    def delete(self) -> None:
        self.send("bot", delete("a", 1))

    def clear(self) -> None:
        self.send("bot", clear("a"))

    def drop(self, name: str = "a") -> None:
        self.send("bot", (DROP, name, b"", b""))

    def transaction(self) -> None:
        number = next(self._inserts)
        self.send("bot", insert("a", 1), delete("a", 2), insert("b", number), (CLEAR, "c", b"", b""))

    def both(self) -> None:
        """Changes of two namespaces in one commit."""
        if not self._epochs["other"]:
            self.open("other")
            self.settle()
        self.insert()
        self.send("other", insert("a", next(self._inserts)), replace("a", 1, b"o"))

    def reopen(self) -> None:
        self.open("bot")

    def save(self) -> None:
        """A change, and a save of every map that is dirty, begun before the change is durable."""
        self.insert()
        while True:
            self.service.turn(hurry=True)
            self.saver.work()
            self.writer.work()
            if self.service.is_saved or self.failure:
                return

    def rotate(self) -> None:
        """A change, behind which a new segment begins, and what can go of the old ones goes."""
        self.insert()
        writer.ROTATE_BYTES = 0
        try:
            self.service.turn()
            self.writer.work()
        finally:
            writer.ROTATE_BYTES = NEVER

    def fail_sync(self) -> None:
        """The journal's sync fails: the change goes to a new segment."""
        self.failing_syncs = 1
        self.insert()

    def stop(self) -> None:
        """An orderly end, and the next start."""
        self.flush()
        self.service.stop()
        self.begin()

    def flush(self) -> None:
        """Until every map's file is fresh."""
        while not self.service.is_saved:
            self.service.turn(hurry=True)
            self.writer.work()
            self.saver.work()

    def kill(self) -> None:
        """The process is killed with a change not yet sealed, and started again."""
        self.insert()
        self.disk = self.disk.moment().after_kill()
        self.begin()

    # One thread's work inside the other's

    def save_beside_a_drop(self, last: Callable[[], None], at: int = -1, act: Callable[[], object] = int) -> int:
        """Save a map of one namespace while `last` of the other waits for a commit that is in flight.

        `act` comes before the saver's call number `at`. Returns how many calls there were.
        """
        self.send("other", insert("a", next(self._inserts)))
        self.commit()
        self.insert()
        self.service.turn()
        last()
        self.service.turn(hurry=True)
        calls = self.save_while(at, act)
        self.settle()
        return calls

    def save_while(self, at: int, act: Callable[[], object]) -> int:
        """The saver's work, `act` before its call number `at`."""
        calls, watch = itertools.count(), self.watch

        def count() -> None:
            watch()
            if next(calls) == at:
                self.watch = watch
                act()
                self.watch = count

        self.watch = count
        self.saver.work()
        self.watch = watch
        return next(calls)

    def commit(self) -> None:
        self.service.turn()
        self.writer.work()

    # Plumbing

    def _history(self, name: str) -> History:
        return next(one for one in self.histories if one.name == name)

    def _on_call(self, name: str, path: str) -> None:
        self.watch()
        if name == "fdatasync" and self.failing_syncs:
            self.failing_syncs -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def _post(self, report: object) -> None:
        """The loop hears of it at once: the most that anybody may have been told."""
        if isinstance(report, WriterFailed):
            self.failure = report.error
            return
        self.service.note(report)
        for history in self.histories:
            namespace = self.service.store.namespaces.get(history.name)
            if namespace is not None:
                maps = namespace.maps.items()
                twice = frozenset((name, one.incarnation) for name, one in maps if one.current and one.previous)
                history.note(acknowledged=namespace.durable, saved_twice=twice)
        self.service.requests.answer(0.0)

    def _send(self, address: bytes, parts: list[bytes]) -> None:
        reply = decode_reply(parts[0])
        if isinstance(reply, Opened):
            name = address.decode()
            self._epochs[name] = reply.epoch
            self._history(name).note(epoch=reply.epoch)


def lived_in(entropy: Entropy, *steps: str) -> World:
    """A new store on which `steps` were done."""
    world = World(entropy)
    world.begin()
    for step in steps:
        world.do(step)
    return world
