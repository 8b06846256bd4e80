"""The persistence process without threads and sockets: the real `Service` on a disk in memory, moved by hand.

The writer's and the checkpointer's loops are the real ones; each runs when it is told to, until it has nothing left to
do. A save that waits for its batch lets the writer go first, as the thread that waits would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from persistence_proc import service as service_module
from persistence_proc.checkpointer import Checkpointer
from persistence_proc.mailbox import Mailbox
from persistence_proc.paths import Paths
from persistence_proc.recovery import recover
from persistence_proc.security import Access
from persistence_proc.service import Service
from persistence_proc.writer import Writer
from protocol.keys import decode_key
from protocol.messages import decode_request
from tests.stateful.hosts import DATA, Clock, ProcessDisk
from tests.stateful.network import Message, Network

TURNS = 200  # far more than any settling takes: to end a loop that would never


class SteppedWriter(Writer):
    def start(self) -> None:
        """No thread."""

    def run(self) -> None:
        """Write what is handed over."""
        if not self._batches.empty():
            self._batches.put(None)
            self._run()

    def stop(self) -> None:
        self._stopping.set()
        self.run()
        self.journal.close()


class Waiting:
    """Instead of a condition: who waits lets the others work."""

    def __init__(self) -> None:
        self.others: Callable[[], None] = lambda: None

    def __enter__(self) -> None: ...
    def __exit__(self, *exc: object) -> None: ...
    def notify_all(self) -> None: ...

    def wait_for(self, condition: Callable[[], bool]) -> None:
        for _ in range(TURNS):
            if condition():
                return
            self.others()
        raise AssertionError("the checkpointer would wait for ever")


class SteppedCheckpointer(Checkpointer):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._changed: Any = Waiting()

    def start(self) -> None:
        """No thread."""

    def run(self) -> None:
        """Do what is asked for."""
        if not self._jobs.empty():
            self._jobs.put(None)
            self._run()

    def stop(self) -> None:
        self._stopping = True
        self.run()


class Persistence:
    """One life of the persistence process. Everything may raise `Killed`."""

    def __init__(
        self, disk: ProcessDisk, clock: Clock, network: Network, instance: str, heard: Callable[..., None]
    ) -> None:
        self.disk = disk
        self._clock, self._network, self._heard = clock, network, heard
        self._mailbox: Mailbox[object] = Mailbox()
        try:
            self._begin(instance)
        except BaseException:
            self._mailbox.close()
            raise

    def _begin(self, instance: str) -> None:
        self.recovered = recover(self.disk, DATA)
        with mock.patch.multiple(service_module, Writer=SteppedWriter, Checkpointer=SteppedCheckpointer):
            self.service = Service(
                self.disk, Paths(DATA), self.recovered, instance, Access(), self._mailbox, self._send, self._clock
            )
        self.writer: Any = self.service.writer
        self.saver: Any = self.service._checkpointer
        self.saver._changed.others = self._write_and_note

    def _send(self, address: bytes, parts: Message) -> None:
        self._heard(address, self._network.reply(address, [bytes(part) for part in parts]))

    # Steps

    def deliver(self) -> None:
        """Read what has arrived, as the server's loop does: changes first, then requests."""
        for parts in self._network.take_deltas():
            self.service.receive_delta(parts, "")
        for address, data in self._network.take_requests():
            self.service.requests.handle(address, "", decode_request(data), self._clock())

    def turn(self, hurry: bool = False) -> None:
        self._note()
        self.service.turn(hurry)

    def write(self) -> None:
        self.writer.run()

    def save(self) -> None:
        self.saver.run()

    def settle(self) -> None:
        """Until everything that arrived is durable and answered."""
        for _ in range(TURNS):
            self.deliver()
            self.turn()
            if self.writer._batches.empty() and not self.service.store.pending and not self._is_busy:
                return
            self.write()
        raise AssertionError("the persistence process never settles")

    @property
    def _is_busy(self) -> bool:
        return self.service.store.in_flight is not None or bool(self._mailbox._items)

    def _write_and_note(self) -> None:
        self.write()
        self._note()

    def _note(self) -> None:
        for report in self._mailbox.take():
            self.service.note(report)

    # The end

    def stop(self) -> None:
        """As on SIGTERM: everything durable, every map's file fresh."""
        for _ in range(TURNS):
            self.deliver()
            self.turn(hurry=True)
            self.write()
            self.save()
            self._note()
            if self.service.is_saved:
                break
        assert self.service.is_saved, "a stop that never ends"
        self.service.stop()
        self.abandon()

    def abandon(self) -> None:
        """As SIGKILL."""
        self.disk.die()
        self._mailbox.close()

    # Looking

    def maps(self, namespace: str) -> Iterator[tuple[str, dict[Any, bytes]]]:
        """What memory holds: map -> key -> pickle."""
        found = self.service.store.namespaces.get(namespace)
        for name, state in found.maps.items() if found else ():
            yield name, {decode_key(key): value for key, value in state.as_dict().items()}


@contextmanager
def small_files() -> Iterator[None]:
    """Segments of a few changes, so that rotation, saves and trims happen all the time."""
    from persistence_proc import checkpoints, journal, writer

    with (
        mock.patch.object(journal, "SEGMENT_BYTES", 8192),
        mock.patch.object(writer, "ROTATE_BYTES", 4096),
        mock.patch.multiple(checkpoints, MIN_INTERVAL=0.0, REST_SHARE=0.0, TRIM_INTERVAL=0.0),
    ):
        yield
