"""`connect`: lock the namespace, read the outbox, open at the persistence process, put the two together.

The order is the promise: the lock before anything is looked at; the outbox's directories synced before the first
change; `open` answered (everything durable, older sessions fenced) before the leftovers are applied; the leftovers in
a new synced segment before an old one goes.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType, ModuleType

import zmq

from protocol.curve import CurveKeys
from protocol.disk import Disk, boot_id, check_private
from protocol.endpoints import Endpoint, parse_endpoint, read_endpoint_file
from protocol.errors import (
    ConfigError,
    ForeignStore,
    NamespaceDamaged,
    NamespaceInUse,
    NotAllowed,
    OutboxFull,
    OutliveError,
    PersistenceUnavailable,
    ProtocolMismatch,
    StateWentBack,
)
from protocol.frames import Record, encode_record
from protocol.messages import Open, Opened, Refused, RefusedCode
from protocol.names import check_namespace
from protocol.requests import RequestClient
from protocol.values import Trust, ValueCodec
from strategy_proc.outbox import Outbox, OutboxLock
from strategy_proc.pump import Pump
from strategy_proc.recovered import Recovered, RecoveredStatus
from strategy_proc.session import Session
from strategy_proc.state import State, apply_record, decode_state

log = logging.getLogger("outlive")

NAMESPACE_VARIABLE, DATA_DIR_VARIABLE = "OUTLIVE_NAMESPACE", "OUTLIVE_DATA_DIR"
ENDPOINT_VARIABLE, CURVE_DIR_VARIABLE = "OUTLIVE_ENDPOINT", "OUTLIVE_CURVE_DIR"
FIRST_PATIENCE = 1.0  # seconds for the first answer to `open`; doubles, as a large state takes long to send
RETRY = 0.02  # seconds between two looks at a process that is not there or not ready yet

_FINAL: dict[RefusedCode, type[OutliveError]] = {
    RefusedCode.FOREIGN_STORE: ForeignStore,
    RefusedCode.STATE_WENT_BACK: StateWentBack,
    RefusedCode.NAMESPACE_DAMAGED: NamespaceDamaged,
    RefusedCode.NOT_ALLOWED: NotAllowed,
    RefusedCode.VERSION: ProtocolMismatch,
    RefusedCode.MALFORMED: ProtocolMismatch,
}


def connect(
    namespace: str | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    timeout: float = 10.0,
    trust: Iterable[type | FunctionType | str | ModuleType] = (),
    verify: bool = False,
    takeover: bool = False,
    curve_dir: str | None = None,
) -> Session:
    """Own `namespace` and get its recovered state.

    Under the supervisor everything comes from the environment. By hand: `data_dir` is the persistence process's (it
    names the sockets), or with a remote `endpoint` a local folder for the outbox. `timeout` in seconds; a process
    that is recovering is waited for longer. `trust`: classes, functions or module names whose pickles are written and
    read, besides plain data and the modules of the maps' types. `verify`: read every value back once (for tests).
    `takeover`: fence a live session of another host. `curve_dir`: folder of the CURVE keys, for tcp.

    Raises `PersistenceUnavailable`, `NamespaceInUse`, `StateWentBack`, `ForeignStore`, `Damaged`, `NamespaceDamaged`,
    `InsecureDirectory`, `SocketPathTooLong`, `NotAllowed`, `ProtocolMismatch`, `BadName`, `ConfigError`; `OutboxFull`
    when the disk has no room for the changes of a new session, or refuses its files.
    It never starts on empty or older state by mistake.
    """
    if namespace is not None:
        check_namespace(namespace)
    namespace = check_namespace(_setting(namespace, NAMESPACE_VARIABLE, "a namespace: connect('momentum')"))
    folder = os.path.abspath(_setting(data_dir, DATA_DIR_VARIABLE, "a data directory: connect(..., data_dir='state')"))
    address = endpoint or os.environ.get(ENDPOINT_VARIABLE)
    curve = curve_dir or os.environ.get(CURVE_DIR_VARIABLE)
    codec = ValueCodec(Trust(trust), verify)
    return _Connecting(namespace, folder, address, timeout, takeover, CurveKeys(curve) if curve else None).run(codec)


def _setting(given: str | os.PathLike[str] | None, variable: str, what: str) -> str:
    value = os.fspath(given) if given is not None else os.environ.get(variable)
    if not value:
        raise ConfigError(f"connect needs {what}, or {variable} in the environment (the supervisor sets it)")
    return value


class _Connecting:
    """One call of `connect`: what has been taken so far, so that a failure gives it back."""

    def __init__(
        self, namespace: str, data_dir: str, address: str | None, timeout: float, takeover: bool,
        keys: CurveKeys | None,
    ) -> None:  # fmt: skip
        self.namespace, self.data_dir, self.address = namespace, data_dir, address
        self.timeout, self.takeover, self.keys = timeout, takeover, keys
        self.deadline = time.monotonic() + timeout
        self.disk = Disk()
        self.failure: type[OutliveError] = PersistenceUnavailable
        """What it is when time runs out."""

    def run(self, codec: ValueCodec) -> Session:
        endpoint = self._find_endpoint()
        with _named(self.data_dir):
            folder = self._make_folders()
        with ExitStack() as taken:
            lock = OutboxLock(self.disk, folder, self.namespace)
            taken.callback(lock.release)
            with _named(folder):
                lock.acquire()
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            taken.callback(context.destroy, linger=0)
            with _named(folder):
                outbox = Outbox.load(self.disk, folder, self.namespace, boot_id())
            taken.callback(outbox.close)
            opened, state, recovered = self._recover(context, endpoint, outbox)
            session = Session(self.namespace, opened.epoch, outbox, lock, codec, state, recovered)
            outbox.put_lock = session._recorder.lock
            pump = Pump(
                session, outbox, context, endpoint, self.keys, opened.store_id, opened.instance, opened.applied,
                self._present_endpoint,
            )  # fmt: skip
            taken.callback(pump.stop)
            session._durable = opened.applied
            session._pump = pump
            pump.start()
            taken.pop_all()
        return session

    def _recover(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint, outbox: Outbox
    ) -> tuple[Opened, State, Recovered]:
        client = RequestClient(context, endpoint, self.keys)
        try:
            opened, parts = self._open(client, outbox)
        finally:
            client.abandon()
        with _named(outbox.folder):
            leftovers, aside = self._leftovers(outbox, opened)
        state = decode_state(opened, parts)
        for record in leftovers:
            apply_record(state, record)
        with _named(outbox.folder):
            outbox.begin(opened.store_id, opened.epoch, opened.applied, leftovers)
        return opened, state, _describe(opened, state, leftovers, aside)

    # Where

    def _find_endpoint(self) -> Endpoint:
        """The address given, or the one that the data directory names; waits for it to appear."""
        while True:
            endpoint = self._present_endpoint()
            if endpoint is not None:
                return endpoint
            if time.monotonic() > self.deadline:
                raise PersistenceUnavailable(
                    f"no persistence process has served {self.address or self.data_dir} within {self.timeout} s; "
                    f"is it running? python -m persistence_proc --data-dir {self.data_dir}"
                )
            time.sleep(RETRY)

    def _present_endpoint(self) -> Endpoint | None:
        """None while it is not there. Sockets that lie where others could have made them are refused."""
        address = self.address
        if not address and os.path.isdir(self.data_dir):
            check_private(self.data_dir)
            found = read_endpoint_file(self.data_dir)
            address = found.address if found is not None else None
        if not address:
            return None
        endpoint = parse_endpoint(address)
        if endpoint.directory is not None:
            if not os.path.exists(endpoint.directory):
                return None
            try:
                check_private(endpoint.directory)
            except FileNotFoundError:
                return None
        return endpoint

    def _make_folders(self) -> str:
        if not os.path.isdir(self.data_dir):
            self.disk.mkdir(self.data_dir)
            self.disk.fsync_dir(os.path.dirname(self.data_dir))
        check_private(self.data_dir)
        home = os.path.join(self.data_dir, self.namespace)
        for folder in (home, os.path.join(home, "outbox")):
            self.disk.mkdir(folder)
            check_private(folder)
        return os.path.join(home, "outbox")

    # Open

    def _open(self, client: RequestClient, outbox: Outbox) -> tuple[Opened, list[bytes]]:
        attempt, patience = 0, FIRST_PATIENCE
        reason = f"it does not answer; is it running? {self._how_to_be_answered()}"
        while True:
            attempt += 1
            answer = client.ask(self._request(outbox, attempt), max(min(patience, self._remaining()), RETRY))
            if answer is None:
                patience *= 2
                self.failure = PersistenceUnavailable
            elif isinstance(answer[0], Opened):
                return answer[0], answer[1]
            elif isinstance(answer[0], Refused):
                reason = self._refused(answer[0], outbox)
                time.sleep(RETRY)
            if self._remaining() <= 0:
                where = self.address or self.data_dir
                raise self.failure(f"the persistence process of {where} did not open {self.namespace!r}: {reason}")

    def _how_to_be_answered(self) -> str:
        """ZeroMQ does not say whether nobody listens, or somebody who wants other keys."""
        if self.address is None or not self.address.startswith("tcp://"):
            return f"python -m persistence_proc --data-dir {self.data_dir}"
        keys = "is server.key its present key" if self.keys is not None else "does it want keys (curve_dir)"
        return f"{keys}?"

    def _request(self, outbox: Outbox, attempt: int) -> Open:
        contents, identity = outbox.contents, outbox.identity
        return Open(
            namespace=self.namespace, identity=identity.identity, life=identity.life, attempt=attempt,
            boot_id=boot_id(), host=socket.gethostname(), pid=os.getpid(), store_id=identity.store_id,
            epoch=contents.epoch, acked=contents.acked, last=contents.last, takeover=self.takeover,
        )  # fmt: skip

    def _refused(self, refused: Refused, outbox: Outbox) -> str:
        """Raise if it is final; else the reason, for when time runs out."""
        if refused.code in _FINAL:
            raise _FINAL[refused.code](refused.message)
        alive = refused.code == RefusedCode.SESSION_ALIVE
        self.failure = NamespaceInUse if alive else PersistenceUnavailable
        if refused.code == RefusedCode.STALE_OPEN:
            with _named(outbox.folder):
                outbox.skip_life(refused.number)
        elif refused.code == RefusedCode.RECOVERING:
            self.deadline = max(self.deadline, time.monotonic() + self.timeout)
        return f"its present session is alive: {refused.message}" if alive else refused.message

    def _remaining(self) -> float:
        return self.deadline - time.monotonic()

    # Putting the two together

    def _leftovers(self, outbox: Outbox, opened: Opened) -> tuple[list[Record], int]:
        """Changes that the server lacks; and how many belong to another history and were set aside."""
        contents = outbox.contents
        if outbox.identity.store_id not in (b"", opened.store_id):
            raise ForeignStore(
                f"the outbox of {self.namespace!r} belongs to store {outbox.identity.store_id.hex()}, "
                f"this is {opened.store_id.hex()}; 'outlive accept {self.namespace}' puts it into quarantine"
            )
        torn = [r for r in contents.set_aside if r.seq > opened.applied]
        # Whatever its seq: the history that replaced it has other changes under the same numbers
        foreign = [r for r in contents.records if r.epoch < opened.since] + torn
        ours = [r for r in contents.records if r.epoch >= opened.since and r.seq > opened.applied]
        if opened.applied < contents.acked or (ours and ours[0].base > opened.applied):
            raise StateWentBack(
                f"the persistence process has {self.namespace!r} up to change {opened.applied}, this outbox knows "
                f"that {max(contents.acked, ours[0].base if ours else 0)} were acknowledged: older files were "
                f"restored; 'outlive accept {self.namespace}' goes on from the older state"
            )
        if foreign:
            self._set_aside(outbox.folder, foreign)
        return ours, sum(r.span for r in foreign)

    def _set_aside(self, folder: str, records: list[Record]) -> None:
        path = os.path.join(folder, f"set-aside-{time.time_ns()}.records")
        self.disk.write_file(path, b"".join(encode_record(*record) for record in records))
        self.disk.fsync_dir(folder)
        log.error("%s: %d records of another history are set aside in %s", self.namespace, len(records), path)


@contextmanager
def _named(folder: str) -> Iterator[None]:
    """A refusal of the disk while a session starts, by its name and with what to do."""
    try:
        yield
    except OutliveError:
        raise
    except OSError as error:
        raise OutboxFull(
            f"no session can begin in {folder}: {error}. What is recorded there stays as it is; make room, or let us "
            "write there, and connect again"
        ) from error


def _describe(opened: Opened, state: State, leftovers: list[Record], aside: int) -> Recovered:
    clean = opened.closed and not leftovers
    status = RecoveredStatus.CLEAN if clean else RecoveredStatus.CRASHED
    return Recovered(
        status=RecoveredStatus.NEW if opened.new and not leftovers else status,
        entries={name: len(items) for name, items in state.items() if items},
        from_outbox=sum(r.span for r in leftovers),
        ts_last=opened.ts_last,
        previous_used=tuple(m.name for m in opened.maps if m.previous_used),
        set_aside=aside,
    )
