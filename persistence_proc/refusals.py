"""The refusals that a person has to understand: both numbers, and the command that settles it."""

from __future__ import annotations

from protocol.messages import Refused, RefusedCode


def refused(code: RefusedCode, message: str, number: int = 0) -> Refused:
    return Refused(code=code, message=message, number=number)


def foreign_store(namespace: str, theirs: bytes, ours: bytes) -> Refused:
    """The outbox belongs to another store."""
    text = (
        f"namespace {namespace!r}: this outbox belongs to store {theirs.hex()}, the data directory to store "
        f"{ours.hex()}. Point the strategy at its own store, or see 'outlive accept {namespace}'"
    )
    return refused(RefusedCode.FOREIGN_STORE, text)


def went_back(namespace: str, what: str, applied: int) -> Refused:
    """One side is older than what the other has seen. `what` says what the strategy's side knows."""
    text = (
        f"namespace {namespace!r}: {what}, but the state here ends at change {applied}. A directory was wiped or "
        f"restored; restore the newer one, or see 'outlive accept {namespace}'"
    )
    return refused(RefusedCode.STATE_WENT_BACK, text, applied)


def boot_conflict(namespace: str, heard_ago: float) -> Refused:
    """Another session is alive."""
    text = (
        f"namespace {namespace!r} is owned by another session, heard {heard_ago:.1f} s ago; it is free a few seconds "
        "after that one falls silent, or with takeover=True"
    )
    return refused(RefusedCode.SESSION_ALIVE, text)
