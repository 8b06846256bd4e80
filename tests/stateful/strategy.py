"""Strategy processes without threads and sockets: the real `connect`, session, outbox and pump, moved by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from protocol.messages import Opened, Reply, Request
from protocol.values import Trust, ValueCodec
from strategy_proc import connecting, outbox, outbox_chain, outbox_segment, pump
from strategy_proc.pump import Pump
from strategy_proc.session import Session
from tests.stateful.changes import OpenSession
from tests.stateful.hosts import DATA, Clock, Host, HostLock, ProcessDisk
from tests.stateful.network import Network, Wire
from tests.strategy_proc.records import Level


class PatientEvent(threading.Event):
    """Waiting passes the clock's time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.sleep(timeout or 0.0)
        return self.is_set()


class SteppedPump(Pump):
    """`step` is one turn of the real loop. Whoever waits for the pump lets it and the others work: `drive`."""

    wire: Wire
    drive: Callable[[], None]

    def attach(self, wire: Wire, clock: Clock, drive: Callable[[], None]) -> SteppedPump:
        self.wire, self.drive = wire, drive
        self._stopping = PatientEvent(clock)
        return self

    def start(self) -> None:
        """No thread."""

    def step(self) -> None:
        """Ship, ask, listen, keep house."""
        if self._stopping.is_set():
            return
        wire: Any = self.wire
        self._ship(wire)
        self._ask(wire)
        while (received := self.wire.take_reply()) is not None:
            self._take(received[0])
        self._outbox.maintain()

    def wake(self) -> None:
        self.drive()

    def leave(self, timeout: float) -> bool:
        self._leaving.set()
        self.drive()
        return self._left.is_set()

    def stop(self) -> None:
        self._stopping.set()
        self.wire.abandon()
        self._bell.close()


class Worker:
    """One strategy process with one session. `identity` of the connecting comes with its folder on the host."""

    def __init__(self, host: Host, namespace: str, network: Network) -> None:
        self.host, self.namespace = host, namespace
        self.disk: ProcessDisk = host.disk()
        self.wire = Wire(network, namespace)
        self.session: Session | None = None
        self.maps: OpenSession | None = None
        self.pump: SteppedPump | None = None
        self.opened: Opened | None = None
        self._lock: HostLock | None = None

    def connect(
        self, clock: Clock, ask: Callable[[Worker, Request], tuple[Reply, list[bytes]] | None],
        drive: Callable[[Worker], None], takeover: bool,
    ) -> Session:  # fmt: skip
        """The real `connect` of this process. Raises what it raises, or `Killed`."""

        class Client:
            def __init__(_, *arguments: object) -> None: ...

            def ask(_, request: Request, timeout: float) -> tuple[Reply, list[bytes]] | None:
                answer = ask(self, request)
                if answer is None:
                    clock.sleep(timeout)
                elif isinstance(answer[0], Opened):
                    self.opened = answer[0]
                return answer

            def abandon(_) -> None:
                self.wire.abandon()

        def made_pump(*arguments: Any) -> SteppedPump:
            self.pump = SteppedPump(*arguments).attach(self.wire, clock, lambda: drive(self))
            return self.pump

        def lock(disk: object, folder: str, namespace: str) -> HostLock:
            self._lock = HostLock(self.host, folder)
            return self._lock

        with mock.patch.multiple(
            connecting, Disk=lambda: self.disk, OutboxLock=lock, RequestClient=Client, Pump=made_pump,
            boot_id=lambda: self.host.boot, check_private=lambda path: None, time=clock.as_module(), zmq=_NO_ZMQ,
        ):  # fmt: skip
            one = connecting._Connecting(self.namespace, DATA, "tcp://127.0.0.1:1", 10.0, takeover, None)
            self.session = one.run(ValueCodec(Trust([Level]), verify=False))
        return self.session

    def die(self) -> None:
        """As SIGKILL: the kernel lets go of what the process held."""
        self.disk.die()
        if self._lock is not None:
            self._lock.release()
        if self.pump is not None:
            self.pump.stop()
        self.wire.abandon()


class _NoContext:
    def destroy(self, linger: int) -> None: ...
    def term(self) -> None: ...


_NO_ZMQ: Any = SimpleNamespace(Context=_NoContext)


@contextmanager
def small_segments(clock: Callable[[], float]) -> Iterator[None]:
    """Outbox segments of a few changes and messages of fewer, so that rolling, reuse and folding happen."""
    size = 4096
    with (
        mock.patch.object(outbox, "SEGMENT_BYTES", size),
        mock.patch.object(outbox_segment, "SEGMENT_BYTES", size),
        mock.patch.multiple(outbox_chain, COMPACT_AT=size, COMPACT_BUSY_AT=size),
        mock.patch.multiple(
            pump, WINDOW_BYTES=2048, MESSAGE_BYTES=600, time=SimpleNamespace(monotonic=clock)
        ),
    ):  # fmt: skip
        yield
