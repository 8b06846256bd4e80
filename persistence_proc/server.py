"""The loop of the persistence process: sockets, signals, and one turn after the other.

* The lock is taken before a socket is bound, and the sockets are bound before recovery begins: whoever connects
  meanwhile is told "recovering, n %".
* Ready is said after recovery, so that a strategy that is started then is served at once.
* On SIGTERM or SIGINT: read what has arrived, make it durable, save every map, answer whoever waits, leave. A
  recovery is left at its next step.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgspec
import zmq

from persistence_proc.mailbox import Mailbox
from persistence_proc.paths import Paths
from persistence_proc.recovery import Recovered, recover
from persistence_proc.refusals import refused
from persistence_proc.security import load_access, make_private_directory, secure_socket, start_authenticator, take_lock
from persistence_proc.service import Service
from persistence_proc.settings import Settings
from persistence_proc.status import Malformed, status_report
from protocol.disk import Disk
from protocol.endpoints import EndpointFile
from protocol.errors import ConfigError, MalformedMessage
from protocol.limits import MAX_MESSAGE_BYTES
from protocol.messages import RefusedCode, Status, decode_request, encode
from protocol.notify import Notifier

log = logging.getLogger("persistence")

RECEIVE_SECONDS = 0.005  # longest run of deltas before whoever waits is looked at again
RECEIVE_HIGH_WATER = 256  # messages per strategy that ZeroMQ holds for us; the rest stays in its outbox
SEND_HIGH_WATER = 8  # replies per peer that ZeroMQ holds; who does not read gets no more, and REQ waits for one
BEAT_SECONDS = 1.0
DRAIN_SECONDS = 1.0  # at the end: how long strategies that go on sending are listened to
STOP_SECONDS = 30.0  # at the end: how long a full disk is waited for
LINGER_MS = 1000  # the last replies leave within this time
SWITCH_INTERVAL = 0.0005  # seconds; with Python's 5 ms a save in its thread would delay commits


class _RecoveryStopped(Exception):
    """Raised inside a recovery that a signal asked to end."""


class Server:
    """One persistence process. `run` returns the exit code, or raises `OutliveError` or OSError."""

    def __init__(self, settings: Settings, disk: Disk | None = None, notifier: Notifier | None = None) -> None:
        self._settings = settings
        self._disk = disk or Disk()
        self._notifier = notifier or Notifier()
        self._paths = Paths(settings.data_dir)
        self._access = load_access(settings.curve_dir)
        self._mailbox: Mailbox[object] = Mailbox()
        self._context: zmq.Context[Any] = zmq.Context()
        self._instance = str(uuid.uuid4())
        self._started = time.monotonic()
        self._service: Service | None = None
        self._percent = 0
        self._stopping = False
        self._malformed = Malformed()
        self._locks: list[int] = []

    def run(self) -> int:
        """Serve until a signal says stop."""
        self._prepare_directories()
        authenticator = start_authenticator(self._context, self._access)
        try:
            self._bind()
            self._write_endpoint()
            self._handle_signals()
            threading.Thread(target=self._recover, name="recovery", daemon=True).start()
            return self._loop()
        except _RecoveryStopped:
            log.info("stopped while recovering; the next start begins it again")
            return 0
        finally:
            if self._service is not None:
                self._service.stop()
            if authenticator is not None:
                authenticator.stop()
            self._context.destroy(linger=LINGER_MS)
            for fd in self._locks:
                self._disk.close(fd)

    # Beginning

    def _prepare_directories(self) -> None:
        data_dir, sockets = self._settings.data_dir, self._settings.socket_dir
        make_private_directory(self._disk, data_dir)
        self._locks.append(take_lock(self._disk, self._paths.lock, data_dir))
        if sockets is not None:
            make_private_directory(self._disk, sockets)
            self._locks.append(take_lock(self._disk, os.path.join(sockets, "LOCK"), sockets))

    def _bind(self) -> None:
        self._router = self._context.socket(zmq.ROUTER)
        self._pull = self._context.socket(zmq.PULL)
        endpoint = self._settings.endpoint
        if endpoint.directory is None and not self._access.checks_users:
            log.warning("%s is open to every user of this machine: there is no --curve-dir", endpoint.address)
        for socket, address in ((self._router, endpoint.requests), (self._pull, endpoint.deltas)):
            socket.maxmsgsize = MAX_MESSAGE_BYTES
            socket.rcvhwm, socket.sndhwm = RECEIVE_HIGH_WATER, SEND_HIGH_WATER
            socket.linger = LINGER_MS
            if endpoint.directory is None:
                _notice_vanished_peers(socket)
            secure_socket(socket, self._settings.curve_dir)
            try:
                socket.bind(address)
            except zmq.ZMQError as error:
                raise ConfigError(f"can't listen on {address}: {error}") from None

    def _write_endpoint(self) -> None:
        file = EndpointFile(address=self._settings.endpoint.address, pid=os.getpid(), instance=self._instance)
        self._disk.replace_file(self._paths.endpoint, msgspec.json.encode(file))

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        self._mailbox.wake()

    def _recover(self) -> None:
        try:
            self._mailbox.post(recover(self._disk, self._settings.data_dir, self._progress))
        except Exception as error:
            self._mailbox.post(error)

    def _progress(self, percent: int) -> None:
        if self._stopping:
            raise _RecoveryStopped  # killed anywhere and run again, recovery gives the same: nobody has to wait for it
        self._percent = percent
        self._mailbox.wake()

    # The loop

    def _loop(self) -> int:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._mailbox.fileno(), zmq.POLLIN)
        next_beat = 0.0
        while not (self._stopping and self._service is not None):
            readable = dict(poller.poll(self._timeout_ms()))
            for report in self._mailbox.take():
                self._note(report, poller)
            if self._pull in readable:
                self._receive(self._pull, self._delta, RECEIVE_SECONDS)
            if self._router in readable:
                self._receive(self._router, self._request, RECEIVE_SECONDS)
            if self._service is not None:
                self._service.turn()
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + BEAT_SECONDS
                self._beat()
        return self._stop(self._service)

    def _timeout_ms(self) -> int:
        wait = self._service.wait() if self._service is not None else None
        seconds = BEAT_SECONDS if wait is None else min(wait, BEAT_SECONDS)
        return -int(-seconds * 1000 // 1)

    def _beat(self) -> None:
        if self._service is None:
            self._notifier.recovering(self._percent)
        else:
            self._notifier.beat()

    def _note(self, report: object, poller: zmq.Poller) -> None:
        if isinstance(report, Recovered):
            self._begin_service(report)
            poller.register(self._pull, zmq.POLLIN)
        elif isinstance(report, Exception):
            raise report  # of the recovery
        elif self._service is not None:
            self._service.note(report)

    def _begin_service(self, recovered: Recovered) -> None:
        for note in recovered.notes:
            log.warning("%s", note)
        self._service = Service(
            self._disk, self._paths, recovered, self._instance, self._access, self._mailbox, self._send
        )
        names = ", ".join(sorted(recovered.namespaces)) or "none yet"
        log.info("serving %s at %s; namespaces: %s", self._settings.data_dir, self._settings.endpoint.address, names)
        self._notifier.ready()

    # Messages

    def _receive(self, socket: zmq.Socket[Any], handle: Callable[[list[bytes], str], None], seconds: float) -> bool:
        """Read what is there, for a bounded time; true if there was anything."""
        until, got = time.monotonic() + seconds, False
        while time.monotonic() < until:
            try:
                parts, user = self._read(socket)
            except zmq.Again:
                break
            got = True
            handle(parts, user)
        return got

    def _read(self, socket: zmq.Socket[Any]) -> tuple[list[bytes], str]:
        if not self._access.checks_users:
            return socket.recv_multipart(zmq.NOBLOCK), ""
        frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
        try:
            user = frames[-1].get("User-Id")
        except zmq.ZMQError:
            user = ""
        return [frame.bytes for frame in frames], str(user)

    def _delta(self, parts: list[bytes], user: str) -> None:
        assert self._service is not None
        try:
            self._service.receive_delta(parts, user)
        except MalformedMessage as error:
            self._malformed.count(user or "deltas", error)

    def _request(self, parts: list[bytes], user: str) -> None:
        address, *rest = parts
        try:
            if len(rest) != 2 or rest[0]:
                raise MalformedMessage(f"{len(rest)} parts are no request", b"".join(rest)[:64])
            request = decode_request(rest[1])
        except MalformedMessage as error:
            self._malformed.count(user or "requests", error)
            self._send(address, [encode(refused(RefusedCode.MALFORMED, error.why))])
            return
        if isinstance(request, Status):
            self._send(address, [encode(self._status())])
        elif self._service is None:
            text = f"the persistence process is recovering, {self._percent} %"
            self._send(address, [encode(refused(RefusedCode.RECOVERING, text, self._percent))])
        elif self._stopping and not _is_last(request):
            self._send(address, [encode(refused(RefusedCode.STOPPING, "the persistence process is stopping"))])
        else:
            self._service.requests.handle(address, user, request, time.monotonic())

    def _send(self, address: bytes, parts: list[bytes]) -> None:
        try:
            self._router.send_multipart([address, b"", *parts], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:  # its peer has gone, or does not read: it will ask again
            pass

    def _status(self) -> object:
        return status_report(
            self._service, self._instance, self._settings.data_dir, self._started, self._stopping, self._malformed.total
        )

    # The end

    def _stop(self, service: Service | None) -> int:
        """Drain what has arrived, save everything, and say how that went."""
        assert service is not None
        log.info("stopping: saving everything")
        drain_until = time.monotonic() + DRAIN_SECONDS
        give_up_at = time.monotonic() + STOP_SECONDS
        draining = True
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._mailbox.fileno(), zmq.POLLIN)
        while draining or not service.is_saved:
            if draining:
                draining = self._receive(self._pull, self._delta, RECEIVE_SECONDS) and time.monotonic() < drain_until
            self._receive(self._router, self._request, RECEIVE_SECONDS)
            for report in self._mailbox.take():
                service.note(report)
            service.turn(hurry=True)
            if service.gives_up or time.monotonic() > give_up_at:
                log.error("leaving although not everything could be saved; the journal and the outboxes hold it")
                return 1
            if not draining and not service.is_saved:
                poller.poll(10 if service.checkpoints.is_merging else 100)
        log.info("everything is saved")
        return 0


def _is_last(request: object) -> bool:
    """What is still answered while stopping: a session's last questions."""
    return type(request).__name__ in ("Confirm", "Close")


def _notice_vanished_peers(socket: zmq.Socket[Any]) -> None:
    """By TCP's keep-alives, within two minutes: a host that lost its power says no good-bye."""
    socket.tcp_keepalive, socket.tcp_keepalive_idle = 1, 60
    socket.tcp_keepalive_intvl, socket.tcp_keepalive_cnt = 15, 4
