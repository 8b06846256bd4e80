"""The one thread of a session that owns its sockets: ships the outbox, asks what is durable, keeps house.

* Changes are shipped in order. What is on its way and not yet applied stays below a window, so that a stopped server
  costs no memory and the outbox can fold what was never handed to a socket.
* `shipped`, `applied`, `durable` belong to this thread; others learn of them through the session's condition.
* Shipping again is harmless; when in doubt (new instance, gap, no progress) it is done, from `applied`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import zmq

from protocol.changes import encode_changes
from protocol.curve import REFUSED, CurveKeys, refused
from protocol.endpoints import Endpoint
from protocol.errors import (
    Fenced,
    ForeignStore,
    MalformedMessage,
    NamespaceDamaged,
    NotAllowed,
    OutliveError,
    ProtocolMismatch,
    StateWentBack,
)
from protocol.limits import CONFIRM_WAIT
from protocol.messages import Close, Confirm, Confirmed, Delta, Done, Refused, RefusedCode, Reply, encode
from protocol.notify import Notifier
from protocol.requests import RequestClient
from strategy_proc.beats import Beats
from strategy_proc.bell import Bell
from strategy_proc.delta_socket import DeltaSocket

if TYPE_CHECKING:
    from strategy_proc.outbox import Outbox
    from strategy_proc.session import Session

log = logging.getLogger("outlive")

WINDOW_BYTES = 4 * 2**20  # handed to the socket and not yet applied; small against a server's appetite for a second
MESSAGE_BYTES = 2**19  # one delta; big for its overhead, and small for others whose changes wait behind it
QUICKEST, IDLEST = 0.001, 0.04  # seconds between looks at the outbox: under traffic, and after a quiet while
ASLEEP = CONFIRM_WAIT  # seconds between looks at the sockets while everything is durable; a change ends it at once
ASLEEP_BEATING = 1.0  # the same in a bot that beats: a beat is passed on at a look
BUSY_WAIT = 0.25  # a confirm that waits for something in flight: a server that died is noticed this soon
PATIENCE = 0.5  # seconds over the asked wait until a reply counts as lost
PROGRESS = 0.25  # seconds without any new acknowledgement until a backlog is folded for what it is
HOUSEKEEPING = 0.05  # seconds between two looks at the segments while nothing is shipped
TRY_AGAIN = 1.0  # seconds after a failure of the pump itself, a refusal of its keys, or a loss of its connection
WHOLE_STATE_PATIENCE = 5.0  # seconds before an accepted state that was sent counts as lost

_PROBLEMS: dict[RefusedCode, type[Exception]] = {
    RefusedCode.STATE_WENT_BACK: StateWentBack,
    RefusedCode.UNKNOWN_NAMESPACE: StateWentBack,
    RefusedCode.FOREIGN_STORE: ForeignStore,
    RefusedCode.NAMESPACE_DAMAGED: NamespaceDamaged,
    RefusedCode.NOT_ALLOWED: NotAllowed,
    RefusedCode.VERSION: ProtocolMismatch,
}


class Pump:
    """Runs from `start` to `stop`. Other threads call only `wake`, `beat`, `leave` and `stop`."""

    def __init__(
        self, session: Session, outbox: Outbox, context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint,
        keys: CurveKeys | None, store_id: bytes, instance: str, applied: int,
        find_endpoint: Callable[[], Endpoint | None],
    ) -> None:  # fmt: skip
        self._session, self._outbox, self._context, self._endpoint = session, outbox, context, endpoint
        self._keys, self._store_id, self._instance = keys, store_id, instance
        self._identity = outbox.identity.identity
        self._find_endpoint = find_endpoint
        self._shipped = self._applied = self._durable = applied
        self._in_flight: deque[tuple[int, int]] = deque()  # (upto, bytes) of deltas not yet applied
        self._bytes_in_flight = 0
        self._answer_due = 0.0
        self._applied_when_asked = self._durable_when_asked = applied
        self._applied_when_resent = -1
        self._whole_state_sent = ("", 0, 0.0)  # to which instance, behind which seq, when (monotonic seconds)
        self._notifier = Notifier()
        self._beats = Beats(self._notifier, outbox, session._recorder)
        self._kept_house = 0.0
        self._progress_at = -PROGRESS  # monotonic seconds, of the newest acknowledgement
        self._look_again_at = math.inf  # monotonic seconds: whether there is anybody to connect to, and where
        self._is_refused = False  # by whom we are connected to; such sockets are dead
        self._is_told = False  # the session knows of something that keeps us from connecting
        self._resend_at, self._resend_patience = 0.0, BUSY_WAIT  # of what seems stuck: a slow link is not made faster
        self._poller: zmq.Poller | None = None
        self._awaited: zmq.Socket[bytes] | None = None
        self._said_goodbye = False
        self._stopping = threading.Event()
        self._leaving = threading.Event()
        self._left = threading.Event()
        self._bell = Bell()
        self._sleep = threading.Lock()  # held by the pump; released, it wakes
        self._sleep.acquire()
        self._thread = threading.Thread(target=self._run, name=f"outlive-pump-{session.namespace}", daemon=True)

    # For other threads

    def start(self) -> None:
        self._notifier.ready()
        self._thread.start()

    def wake(self) -> None:
        """Look at the outbox now."""
        self._bell.ring()
        self._outbox.ring()

    def beat(self) -> None:
        """Pass a beat on at the next look, within a second."""
        self._beats.note()
        if not self._beats.passed_on:  # the first one shortens the pump's sleep from then on
            self._outbox.ring()

    def leave(self, timeout: float) -> bool:
        """Tell the server that the session is over; False if it did not answer in time."""
        self._leaving.set()
        self.wake()
        return self._left.wait(timeout)

    def stop(self) -> None:
        """End the thread and its sockets. Not to be called by the thread itself. Again: does nothing."""
        self._stopping.set()
        self.wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._context.term()
        self._bell.close()

    # The thread

    def _run(self) -> None:
        """A failure (a full disk, too many open files) ends a try, not the pump."""
        while not self._stopping.is_set():
            try:
                self._try()
            except Exception:
                log.exception("%s: the pump failed and tries again; changes stay here", self._session.namespace)
                self._ship_again_from(self._applied)
                self._stopping.wait(TRY_AGAIN)

    def _try(self) -> None:
        client = RequestClient(self._context, self._endpoint, self._keys)
        try:
            deltas = DeltaSocket(self._context, self._endpoint, self._keys)
            try:
                self._poller, self._is_refused = None, False
                self._look_again_at = time.monotonic() + TRY_AGAIN
                self._loop(client, deltas)
            finally:
                deltas.close()
        finally:
            client.abandon()

    def _loop(self, client: RequestClient, deltas: DeltaSocket) -> None:
        pause = QUICKEST
        while not self._stopping.is_set() and not self._needs_new_sockets(deltas):
            moved = self._ship(deltas)
            self._ask(client)
            if not moved and pause == IDLEST and self._durable == self._shipped and self._has_slept():
                pause = QUICKEST
                continue
            pause = QUICKEST if moved else min(pause * 1.5, IDLEST)
            moved = self._listen(client, deltas, pause) or moved
            if moved and self._durable < self._outbox.seq:
                pause = QUICKEST
            self._keep_house(moved)

    def _needs_new_sockets(self, deltas: DeltaSocket) -> bool:
        """After a refusal, and when the process came back in another place. In the same one ZeroMQ finds it itself."""
        now = time.monotonic()
        if now < self._look_again_at or self._is_refused:
            return now >= self._look_again_at
        if self._is_told:  # what kept us from connecting is over
            self._is_told = False
            self._session._note_durable(0)
        if deltas.takes():
            self._look_again_at = math.inf
            return False
        self._look_again_at, before = now + TRY_AGAIN, self._endpoint
        try:
            self._endpoint = self._find_endpoint() or before
        except OutliveError as error:
            self._tell(error)
        return self._endpoint != before

    def _tell(self, problem: OutliveError) -> None:
        """What keeps us from connecting."""
        self._is_told = True
        self._session._note_problem(problem)

    def _has_slept(self) -> bool:
        """Everything is durable, and has been for a while: sleep until something is recorded, or somebody calls.

        Not beyond the moment when the server's reply is due. False: nobody woke us.
        """
        until_due = self._answer_due - PATIENCE - time.monotonic()
        seconds = min(ASLEEP_BEATING if self._beats.passed_on else ASLEEP, until_due)
        if seconds <= 0:
            return False
        outbox, woken = self._outbox, True
        outbox.doorbell = self._sleep
        if outbox.seq == self._shipped and not self._stopping.is_set() and not self._leaving.is_set():
            woken = self._sleep.acquire(timeout=seconds)
        outbox.doorbell = None
        return woken

    def _ship(self, deltas: DeltaSocket) -> bool:
        """Hand what is there to the socket while there is room in the window. Whether anything was handed over.

        Each call of a socket gives the interpreter's lock away, and a busy bot keeps it for 5 ms: so there are few.
        """
        moved, upto = False, self._outbox.seq  # what comes meanwhile has its turn in the next round
        while self._shipped < upto and (self._bytes_in_flight < WINDOW_BYTES or not self._in_flight):
            if not deltas.takes():  # nobody there: what is not handed over is not shipped
                break
            try:
                run = self._outbox.unshipped(self._shipped, MESSAGE_BYTES)
            except LookupError:
                self._session._note_problem(self._gap())
                break
            if run is None:
                break
            base, last, parts = run
            delta = Delta(
                namespace=self._session.namespace, epoch=self._session.epoch, base=base, upto=last,
                identity=self._identity,
            )  # fmt: skip
            self._outbox.mark_shipped(last)  # before the socket has it: "shipped" may only ever err on that side
            if not deltas.send_delta([encode(delta), *parts]):
                break
            self._shipped = last
            size = sum(len(part) for part in parts)
            self._in_flight.append((last, size))
            self._bytes_in_flight += size
            moved = True
        return moved

    def _gap(self) -> StateWentBack:
        namespace = self._session.namespace
        return StateWentBack(
            f"the persistence process has {namespace!r} only up to change {self._applied}, but had acknowledged "
            f"more: older files were restored. This session holds the whole state: 'outlive accept {namespace}' "
            "sends it"
        )

    def _stranger(self, reply: Confirmed) -> StateWentBack:
        namespace = self._session.namespace
        return StateWentBack(
            f"the persistence process has {namespace!r} up to change {reply.applied}, and this session has made "
            f"{self._outbox.seq} only: somebody else writes it. Stop one of the two"
        )

    def _ask(self, client: RequestClient) -> None:
        """Keep one request outstanding."""
        now = time.monotonic()
        saying_goodbye = self._leaving.is_set() and not self._left.is_set()
        if client.waiting:
            if now < self._answer_due and (self._said_goodbye or not saying_goodbye):
                return
            if client.has_reply():  # it came while we slept
                return
            client.abandon()
        session = self._session
        self._applied_when_asked, self._durable_when_asked = self._applied, self._durable
        if saying_goodbye:
            wait = CONFIRM_WAIT  # so long it is held when something is missing
            self._said_goodbye = True
            seq = self._outbox.seq
            client.send(Close(namespace=session.namespace, epoch=session.epoch, upto=seq, identity=self._identity))
        else:
            wait = BUSY_WAIT if self._durable < self._outbox.seq else CONFIRM_WAIT
            request = Confirm(
                namespace=session.namespace, epoch=session.epoch, store_id=self._store_id,
                acked=self._durable, upto=self._durable + 1, wait=wait, identity=self._identity,
            )  # fmt: skip
            client.send(request)
        self._answer_due = now + wait + PATIENCE

    def _listen(self, client: RequestClient, deltas: DeltaSocket, pause: float) -> bool:
        """Wait for a reply or a wake-up, at most `pause` seconds. Whether there was one."""
        events = dict(self._poller_for(client, deltas).poll(round(pause * 1000)))
        if self._bell.ear in events:
            self._bell.heard()
        if client.waiting and client.socket in events:
            try:
                reply, _ = client.receive()
                self._take(reply)
            except MalformedMessage as error:
                log.error("%s: %s", self._session.namespace, error)
                client.abandon()
        if deltas.events in events:
            self._note_loss(deltas.next_event())
        return bool(events)

    def _note_loss(self, event: int) -> None:
        """The process that was asked is gone, or does not take us. Its last word may still be on its way."""
        now = time.monotonic()
        if event == REFUSED:
            self._tell(refused(self._endpoint.address))
            self._is_refused = True
        self._look_again_at = min(self._look_again_at, now + TRY_AGAIN)
        self._answer_due = min(self._answer_due, now + BUSY_WAIT)
        self._resend_at = 0.0

    def _poller_for(self, client: RequestClient, deltas: DeltaSocket) -> zmq.Poller:
        """The poller of what is awaited now; made anew when the client has another socket."""
        awaited = client.socket if client.waiting else None
        if self._poller is None or self._awaited is not awaited:
            self._poller, self._awaited = zmq.Poller(), awaited
            for source in (self._bell.ear, deltas.events, *([awaited] if awaited else [])):
                self._poller.register(source, zmq.POLLIN)
        return self._poller

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, Confirmed):
            self._confirmed(reply)
        elif isinstance(reply, Done):
            self._left.set()
        elif isinstance(reply, Refused):
            self._refused(reply)

    def _confirmed(self, reply: Confirmed) -> None:
        if reply.snapshot_wanted:
            self._send_whole_state(reply)
            return
        self._whole_state_sent = ("", 0, 0.0)
        if max(reply.applied, reply.durable) > self._outbox.seq:  # believed, it would acknowledge what nobody has
            self._session._note_problem(self._stranger(reply))
            return
        restarted = reply.instance != self._instance
        if restarted:
            log.info("%s: the persistence process was restarted; shipping again", self._session.namespace)
        nothing_moved = reply.applied == self._applied_when_asked and reply.durable <= self._durable_when_asked
        stuck = reply.applied < self._shipped and nothing_moved and self._is_time_to_resend(reply)
        behind = self._shipped < reply.applied  # it was stuck, and what was on its way has arrived all the same
        self._instance = reply.instance
        self._applied = reply.applied
        if restarted or reply.gap or stuck or behind:
            self._ship_again_from(reply.applied)
        while self._in_flight and self._in_flight[0][0] <= reply.applied:
            self._bytes_in_flight -= self._in_flight.popleft()[1]
        if reply.durable > self._durable:
            self._durable = reply.durable
            self._progress_at = time.monotonic()
            self._outbox.mark_acked(reply.durable)
        self._session._note_durable(reply.durable)

    def _is_time_to_resend(self, reply: Confirmed) -> bool:
        """At first at once, then twice as long after each time, until something moves."""
        now = time.monotonic()
        if reply.applied != self._applied_when_resent:
            self._applied_when_resent, self._resend_at, self._resend_patience = reply.applied, 0.0, BUSY_WAIT
        if now < self._resend_at:
            return False
        self._resend_at, self._resend_patience = now + self._resend_patience, 2 * self._resend_patience
        return True

    def _ship_again_from(self, applied: int) -> None:
        self._shipped = applied
        self._in_flight.clear()
        self._bytes_in_flight = 0

    def _send_whole_state(self, reply: Confirmed) -> None:
        """A person accepted our state over the server's older one: the whole of it becomes one record."""
        session, now = self._session, time.monotonic()
        instance, applied, sent = self._whole_state_sent
        if (instance, applied) == (reply.instance, reply.applied) and now < sent + WHOLE_STATE_PATIENCE:
            self._stopping.wait(BUSY_WAIT / 5)  # it is on its way
            return
        lock = session._recorder.lock
        if not lock.acquire(timeout=BUSY_WAIT):  # an open transaction: asked again soon, or told to stop from inside it
            return
        try:
            self._outbox.replace_all(reply.applied, encode_changes(session._whole_state()), reply.store_id)
        finally:
            lock.release()
        log.warning("%s: sending the whole state, as accepted", session.namespace)
        self._whole_state_sent = (reply.instance, reply.applied, now)
        self._store_id = reply.store_id or self._store_id
        session._note_durable(0)
        self._instance, self._applied, self._durable = reply.instance, reply.applied, reply.applied
        self._ship_again_from(reply.applied)

    def _refused(self, reply: Refused) -> None:
        if reply.code == RefusedCode.FENCED:
            self._session._end(Fenced(reply.message))
            self._stopping.set()
        elif reply.code in _PROBLEMS:
            self._session._note_problem(_PROBLEMS[reply.code](reply.message))
            self._stopping.wait(BUSY_WAIT)
        else:  # recovering, stopping: it will be there again
            self._stopping.wait(BUSY_WAIT / 5)

    def _keep_house(self, moved: bool) -> None:
        now = time.monotonic()
        if moved or now - self._kept_house >= HOUSEKEEPING:
            self._kept_house = now
            self._outbox.maintain(progress=now < self._progress_at + PROGRESS)
        self._beats.pass_on(now)
