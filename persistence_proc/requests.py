"""Answer requests: some at once, the others when the state they ask about is durable.

* A held request is answered exactly once, or its peer has gone; a REQ client asks again on a fresh socket.
* A peer has one request held at most: REQ can't send a second, and who can anyway loses the first.
* `open` fences its predecessor when it is read, and is answered when everything of the namespace is durable.
* `confirm` and `close` are long polls, bounded by `CONFIRM_WAIT`.
"""

from __future__ import annotations

from collections.abc import Callable

from persistence_proc.catalog import NamespaceEntry
from persistence_proc.held_requests import NO_DEADLINE, Held, HeldRequests
from persistence_proc.namespaces import Namespace
from persistence_proc.refusals import refused
from persistence_proc.security import Access
from persistence_proc.store import Store
from protocol.limits import CONFIRM_WAIT
from protocol.messages import (
    Accept,
    Close,
    Confirm,
    Confirmed,
    Done,
    Forget,
    Open,
    Opened,
    OpenedMap,
    Refused,
    RefusedCode,
    Reply,
    Request,
    Status,
    encode,
    encode_items,
)
from protocol.names import is_namespace

_ID_BYTES = 16
_MAX_NUMBER = 2**62  # a hostile seq must not overflow the journal's integers
_MAX_EPOCH = 2**31  # nor an epoch the 32 bits that a record has for it
_MAX_BOOT_ID = 64  # characters; it stands in every frame of its namespace


class Requests:
    """Requests of a store that is served, on the server's thread. `send(address, parts)` answers."""

    def __init__(self, store: Store, instance: str, access: Access, send: Callable[[bytes, list[bytes]], None]) -> None:
        self._store, self._instance, self._access = store, instance, access
        self._send = send
        self._held = HeldRequests()

    def handle(self, address: bytes, user: str, request: Request, now: float) -> None:
        """Answer a request (not `Status`), or hold it. What it changes is changed now."""
        assert not isinstance(request, Status)
        reply: Reply | None = _check_form(request)
        if reply is None and not self._access.allows(user, request.namespace):
            reply = refused(RefusedCode.NOT_ALLOWED, f"this key may not use namespace {request.namespace!r}")
        if reply is None:
            reply = self._begin(address, request, now)
            self._store.stirred.add(request.namespace)
        if reply is not None:
            self._send(address, [encode(reply)])

    def wait(self, now: float) -> float | None:
        """Seconds until a held request has waited long enough; None if none is held with a deadline."""
        return self._held.wait(now)

    def answer(self, now: float, last_word: bool = False) -> None:
        """Answer those whose time has come; with `last_word`, everybody."""
        gaps: list[Namespace] = []
        stirred, self._store.stirred = self._store.stirred, set()
        for held in self._held.all() if last_word else self._held.due(stirred, now):
            parts = self._try(held, now, last_word, gaps)
            if parts is not None:
                self._held.remove(held)
                self._send(held.address, parts)
        for namespace in gaps:
            namespace.gap = False

    # Reading

    def _begin(self, address: bytes, request: Request, now: float) -> Reply | None:
        namespace = self._store.namespaces.get(request.namespace)  # type: ignore[union-attr]
        if isinstance(request, Open):
            return self._begin_open(address, request, namespace, now)
        if isinstance(request, Accept):
            return self._accept(request, namespace, now)
        known = namespace or Namespace(NamespaceEntry(name=request.namespace))  # type: ignore[union-attr]
        if isinstance(request, Forget):
            return self._begin_forget(address, request, namespace, now)
        if isinstance(request, Confirm):
            return self._begin_confirm(address, request, known, now)
        assert isinstance(request, Close)
        refusal = known.check_session(request.epoch, request.identity)
        if refusal is None:
            known.heard = now
            self._hold(address, request, known, now + CONFIRM_WAIT)
        return refusal

    def _begin_open(self, address: bytes, request: Open, known: Namespace | None, now: float) -> Reply | None:
        namespace = known or Namespace(NamespaceEntry(name=request.namespace))
        refusal = namespace.check_open(request, self._store.store_id, now)
        if refusal is not None:
            return refusal
        if known is None:
            self._store.add(namespace)
        namespace.open(request, now)
        self._store.pending.touch(namespace.name, now)
        self._hold(address, request, namespace, NO_DEADLINE)
        return None

    def _begin_confirm(self, address: bytes, request: Confirm, namespace: Namespace, now: float) -> Reply | None:
        if namespace.refused:
            return refused(RefusedCode.NAMESPACE_DAMAGED, namespace.refused)
        refusal = namespace.check_confirm(request, self._store.store_id)
        if refusal is not None and (refusal.code == RefusedCode.FENCED or not namespace.accepted):
            return refusal
        if refusal is not None:
            namespace.adopt(request)
            self._store.pending.touch(namespace.name, now)
        else:
            namespace.note_fit(now)
        namespace.heard = now
        if refusal is not None and not namespace.snapshot_told:
            namespace.snapshot_told = True  # once at once, then after each wait: it may be on its way
            return self._confirmed(namespace)
        wait = min(request.wait, CONFIRM_WAIT) if request.wait > 0 else 0.0
        self._hold(address, request, namespace, now + wait)
        return None

    def _accept(self, request: Accept, namespace: Namespace | None, now: float) -> Reply:
        if namespace is None:
            namespace = Namespace(NamespaceEntry(name=request.namespace))
            self._store.add(namespace)
        if namespace.refused:
            return refused(RefusedCode.NAMESPACE_DAMAGED, namespace.refused)
        if namespace.fits(now):
            text = f"the live session of namespace {namespace.name!r} fits the state here (change {namespace.applied})"
            return refused(RefusedCode.SESSION_ALIVE, f"nothing to settle: {text}, and its changes are being taken")
        namespace.accepted = True
        return Done(message="its whole state will be taken from it, unless it turns out to fit when it is next heard")

    def _begin_forget(self, address: bytes, request: Forget, namespace: Namespace | None, now: float) -> Reply | None:
        if namespace is None:
            return refused(RefusedCode.UNKNOWN_NAMESPACE, f"there is no namespace {request.namespace!r}")
        if namespace.is_live(now):
            text = f"namespace {namespace.name!r} has a live session: stop the strategy first"
            return refused(RefusedCode.SESSION_ALIVE, text)
        self._store.forget(namespace, now)
        self._hold(address, request, namespace, NO_DEADLINE)
        return None

    def _hold(
        self, address: bytes, request: Open | Confirm | Close | Forget, namespace: Namespace, deadline: float
    ) -> None:
        self._held.add(Held(address, request, namespace, namespace.epoch, deadline))

    # Answering

    def _try(self, held: Held, now: float, last_word: bool, gaps: list[Namespace]) -> list[bytes] | None:
        """The answer as message parts, or None: not yet."""
        namespace, request = held.namespace, held.request
        expired = last_word or now >= held.deadline
        if isinstance(request, Open):
            return self._try_open(held, last_word)
        if isinstance(request, Forget):
            done = self._store.is_settled(namespace.name) and not self._store.removing[namespace.name]
            if done or last_word:
                return [encode(Done() if done else _stopping())]
            return None
        fenced = namespace.check_session(held.epoch, request.identity)
        if fenced is not None:
            return [encode(fenced)]
        if namespace.gap and not namespace.snapshot_wanted:
            gaps.append(namespace)
            return [encode(self._confirmed(namespace))]
        if isinstance(request, Close):
            return self._try_close(held, now, expired)
        if (namespace.durable >= request.upto and self._store.epoch_is_durable(namespace)) or expired:
            return [encode(self._confirmed(namespace))]
        return None

    def _try_open(self, held: Held, last_word: bool) -> list[bytes] | None:
        namespace = held.namespace
        if namespace.epoch != held.epoch:
            return [encode(refused(RefusedCode.STALE_OPEN, "a newer open was read meanwhile"))]
        if self._store.is_settled(namespace.name):
            return self._opened(namespace)
        return [encode(_stopping())] if last_word else None

    def _try_close(self, held: Held, now: float, expired: bool) -> list[bytes] | None:
        """Done when durable; a close whose changes never arrived ends as `Confirmed`: ship again, and ask again."""
        namespace = held.namespace
        if namespace.applied >= held.request.upto and not namespace.closed:  # type: ignore[union-attr]
            namespace.closed = True
            self._store.pending.touch(namespace.name, now)
        if namespace.closed and self._store.is_settled(namespace.name):
            return [encode(Done())]
        return [encode(self._confirmed(namespace))] if expired else None

    def _confirmed(self, namespace: Namespace) -> Confirmed:
        return Confirmed(
            instance=self._instance,
            applied=namespace.applied,
            durable=namespace.durable,
            gap=namespace.gap,
            snapshot_wanted=namespace.snapshot_wanted,
            store_id=self._store.store_id if namespace.snapshot_wanted else b"",
        )

    def _opened(self, namespace: Namespace) -> list[bytes]:
        parts: list[bytes] = []
        maps: list[OpenedMap] = []
        for name, state in namespace.maps.items():
            maps.append(OpenedMap(name=name, entries=len(state), previous_used=state.previous_used))
            parts.extend(encode_items(state.as_dict()))
        opened = Opened(
            store_id=self._store.store_id,
            instance=self._instance,
            epoch=namespace.epoch,
            since=namespace.since,
            applied=namespace.applied,
            new=namespace.ts_last == 0 and not maps,
            closed=namespace.was_closed,
            ts_last=namespace.ts_last,
            maps=maps,
        )
        return [encode(opened), *parts]


def _stopping() -> Refused:
    return refused(RefusedCode.STOPPING, "the persistence process is stopping; ask its successor")


def _check_form(request: Request) -> Refused | None:
    """Refused if the request's values are impossible, whatever the state."""
    assert not isinstance(request, Status)
    if not is_namespace(request.namespace):
        return refused(RefusedCode.MALFORMED, f"{request.namespace!r} is no namespace")
    numbers: list[int] = []
    if isinstance(request, Open):
        numbers = [request.life, request.attempt, request.acked, request.last]
        if len(request.identity) != _ID_BYTES or len(request.store_id) not in (0, _ID_BYTES):
            return refused(RefusedCode.MALFORMED, f"an identity or a store id that has not {_ID_BYTES} bytes")
        if len(request.boot_id) > _MAX_BOOT_ID:
            return refused(RefusedCode.MALFORMED, f"a boot id of {len(request.boot_id)} characters")
    elif isinstance(request, Confirm):
        numbers = [request.acked, request.upto]
    elif isinstance(request, Close):
        numbers = [request.upto]
    if isinstance(request, Confirm | Close) and len(request.identity) not in (0, _ID_BYTES):
        return refused(RefusedCode.MALFORMED, f"an identity that has not {_ID_BYTES} bytes")
    if any(not 0 <= number < _MAX_NUMBER for number in numbers) or not _is_epoch(request):
        return refused(RefusedCode.MALFORMED, "a number that no session can have")
    return None


def _is_epoch(request: Request) -> bool:
    """Sessions have epochs from 1 on; an outbox that opens for the first time has 0."""
    first = 0 if isinstance(request, Open) else 1
    return not isinstance(request, Open | Confirm | Close) or first <= request.epoch <= _MAX_EPOCH
