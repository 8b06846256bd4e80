"""The control socket: how the command line and others ask the supervisor, and what it answers.

    REQ -> REP over ipc, RUN_DIR/control; one JSON `Command`, one JSON `Answer` of at most a few hundred KiB

The run directory is private (0700), so only the same user comes this far. It also holds LOCK (one supervisor for one
directory), ID (the mark by which orphans are found, and the place it was made for: a copy of the directory makes a
mark of its own), CONFIG (the path of the configuration file; by it `supervisor.elsewhere` finds us) and the logs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec
import psutil
import zmq

from protocol.disk import check_private
from protocol.errors import MalformedMessage, OutliveError, PersistenceUnavailable, SocketPathTooLong
from protocol.limits import MAX_SOCKET_PATH_BYTES

_MAX_COMMAND_BYTES = 4096
_LONGEST_PATH = 4096
_LAST_BREATH, _LOOK = 5.0, 0.02
"""Seconds for the lock of a dead supervisor: a child that it was just starting has it until its program begins."""


class AlreadyRunning(OutliveError):
    """Raised when another supervisor serves this run directory."""


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked. `name` is a program; with "stop" none means everything."""

    verb: Literal["status", "stop", "restart", "kill", "reload"]
    name: str = ""


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a program. `number` counts from 1; `ts` is ns UTC."""

    number: int
    ts: int
    name: str
    what: str
    pid: int | None
    detail: str = ""


class ProgramStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One program. Times in seconds, sizes in bytes."""

    name: str
    kind: str
    namespace: str | None
    state: str
    pid: int | None
    created: float | None
    """When the process was made (unix time); with the pid its identity."""
    uptime: float | None
    starts: int
    restarts: int
    """Starts after the first."""
    last_exit: int | None
    """Exit code of the process before, negative for a signal."""
    last_reason: str = ""
    """Why the process before has ended: "SIGKILL after 3.1 s", "hung (no beat for 30.0 s), SIGABRT after 95.2 s"."""
    heard_ago: float | None = None
    """Since its last word: ready, beat, recovering. None where it says nothing."""
    rss: int
    cpu: float
    """Per cent of one core."""
    spare: str | None = None
    """How far its next process is that was started ahead (`supervisor.spare`); None: it is to have none."""
    spare_pid: int | None = None
    recovering: int | None
    """Per cent, while it says so."""
    retry_in: float | None
    log: str


class SupervisorStatus(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """The supervisor and all its programs; happenings are the newest few hundred."""

    pid: int
    created: float
    state: Literal["starting", "up", "stopping"]
    uptime: float
    run_dir: str
    data_dir: str
    endpoint: str | None
    curve_dir: str | None
    programs: list[ProgramStatus]
    happenings: list[Happening]


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """It is under way."""

    message: str


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """No, and why."""

    message: str


Answer: TypeAlias = SupervisorStatus | Done | Refused

_encode = msgspec.json.Encoder().encode
_NO_MESSAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # the last: a field nested without end
_command = msgspec.json.Decoder(Command)
_answer: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(SupervisorStatus | Done | Refused)


def decode_command(data: bytes) -> Command:
    """Raises `MalformedMessage`."""
    try:
        return _command.decode(data)
    except _NO_MESSAGE as error:
        raise MalformedMessage(f"no command: {error}", data) from None


def decode_answer(data: bytes) -> Answer:
    """Raises `MalformedMessage`."""
    try:
        return _answer.decode(data)
    except _NO_MESSAGE as error:
        raise MalformedMessage(f"no answer: {error}", data) from None


class RunDir:
    """The supervisor's folder, owned by one supervisor at a time. `lock` raises `AlreadyRunning`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = -1
        self._held = -1
        """Of the directory itself: while it is open, none that replaces it can get its number, and so its mark."""
        self._mark = ""

    def lock(self, config_path: str = "") -> None:
        """Make it, check it, take it, and say which file is run. Raises `InsecureDirectory` and `OSError` too."""
        make_private(self.path)
        self._held = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = os.open(os.path.join(self.path, "LOCK"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + _LAST_BREATH
        while not self._take():
            holder = self.holder
            if _is_alive(holder) or time.monotonic() > until:
                self.unlock()
                raise AlreadyRunning(f"a supervisor (pid {holder}) is running in {self.path} already") from None
            time.sleep(_LOOK)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        with open(os.path.join(self.path, "CONFIG"), "wb") as file:
            file.write(os.fsencode(config_path))

    def _take(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_free(self) -> bool:
        """Whether no supervisor holds it; looked at without making anything."""
        try:
            fd = os.open(os.path.join(self.path, "LOCK"), os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def is_same(self, other: RunDir) -> bool:
        """Whether both are one directory that is there, by whatever path."""
        try:
            return os.path.samefile(self.path, other.path)
        except OSError:
            return False

    def unlock(self) -> None:
        for fd in (self._lock, self._held):
            if fd >= 0:
                os.close(fd)
        self._lock = self._held = -1

    @property
    def holder(self) -> str:
        """The pid of who has locked it, or had; "" if nobody ever has."""
        return os.fsdecode(self._text("LOCK")).strip()

    @property
    def config_path(self) -> str:
        """The configuration file that is run here, or was; "" for a single command."""
        return os.fsdecode(self._text("CONFIG"))

    def _text(self, name: str) -> bytes:
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return file.read(_LONGEST_PATH)
        except OSError:
            return b""

    @property
    def mark(self) -> str:
        """The id of this directory, in it as "ID DEVICE:INODE". A copy is another place, whose supervisor must not
        take the children of the first for its orphans: it is made anew there. Raises `OSError`."""
        if not self._mark:
            status = os.stat(self.path)
            self._mark = self._mark_made_for(f"{status.st_dev}:{status.st_ino}")
        return self._mark

    def _mark_made_for(self, place: str) -> str:
        path = os.path.join(self.path, "ID")
        try:
            with open(path, errors="replace") as file:
                mark, _, made_for = file.read().strip().partition(" ")
        except FileNotFoundError:
            mark = made_for = ""
        if not mark or made_for != place:
            mark = secrets.token_hex(16)
            with open(path, "w") as file:
                file.write(f"{mark} {place}\n")
        return mark

    @property
    def address(self) -> str:
        """The control socket's. Raises `SocketPathTooLong`."""
        path = os.path.join(self.path, "control")
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise SocketPathTooLong(
                f"{path} has {len(os.fsencode(path))} bytes, a socket path may have {MAX_SOCKET_PATH_BYTES}: "
                "set a shorter persistence.runtime_dir or data_dir"
            )
        return f"ipc://{path}"


class ControlServer:
    """The supervisor's end. Its descriptor is edge-triggered: call `serve` at every turn of the loop.

    Raises `OSError` where it can't listen.
    """

    def __init__(self, run_dir: RunDir, handle: Callable[[Command], Answer]) -> None:
        self._handle = handle
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 200)  # the answer to "stop" may still be on its way when we leave
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_COMMAND_BYTES)
        # With a domain libzmq refuses peers of the protocol before ZMTP 3: one that sends its bytes and leaves would
        # end the whole process by an assertion on its identity.
        self._socket.setsockopt(zmq.ZAP_DOMAIN, b"outlive")
        try:
            self._socket.bind(run_dir.address)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(error.errno, os.strerror(error.errno or 0), run_dir.address) from None

    def fileno(self) -> int:
        return int(self._socket.getsockopt(zmq.FD))

    def serve(self) -> None:
        """Answer what has arrived."""
        while int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            try:
                data = b"".join(self._socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                continue  # what had arrived was no request, and the socket has dropped it
            try:
                answer = self._handle(decode_command(data))
            except MalformedMessage as error:
                answer = Refused(message=error.why)
            self._socket.send(_encode(answer), zmq.NOBLOCK)

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def ask(run_dir: RunDir, command: Command, timeout: float = 5.0) -> Answer:
    """The command line's end. Raises `PersistenceUnavailable` when no supervisor answers in `timeout` seconds."""
    if not _is_served(run_dir.address.removeprefix("ipc://")):
        raise PersistenceUnavailable(f"no supervisor is running in {run_dir.path}")
    check_private(run_dir.path)
    reply = request(run_dir.address, _encode(command), timeout)
    if reply is None:
        raise PersistenceUnavailable(f"no supervisor answers in {run_dir.path}")
    try:
        return decode_answer(reply)
    except MalformedMessage as error:
        raise OutliveError(f"the supervisor in {run_dir.path} answers what is {error.why}") from None


def _is_served(path: str) -> bool:
    """Whether anybody listens there: a killed supervisor leaves its socket file, on which ZeroMQ would wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
    return True


def request(address: str, data: bytes, timeout: float) -> bytes | None:
    """One request over a fresh REQ socket; None when nothing comes back in `timeout` seconds. Raises `OSError`."""
    try:
        with zmq.Context() as context, context.socket(zmq.REQ) as client:
            client.setsockopt(zmq.LINGER, 0)
            client.connect(address)
            client.send(data)
            if not client.poll(int(timeout * 1000)):
                return None
            return bytes(client.recv_multipart()[0])
    except zmq.ZMQError as error:
        raise OSError(error.errno, f"{address}: {error}") from None


def _is_alive(pid: str) -> bool:
    try:
        return bool(psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, ValueError, OverflowError):
        return False


def make_private(path: str) -> None:
    """A directory of ours alone, made if missing. Raises `InsecureDirectory`."""
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    check_private(path)
