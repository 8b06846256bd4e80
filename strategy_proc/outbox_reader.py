"""Find and take the bytes that the pump has to ship, while the caller goes on appending."""

from __future__ import annotations

from protocol.segments import RECORDS_AT
from strategy_proc.outbox_segment import OpenSegment

Run = tuple[OpenSegment, int, int]
"""A segment, the offset behind its last record, and the seq of that."""


class OutboxReader:
    """Remembers where the last read ended. Used by one thread."""

    def __init__(self) -> None:
        self._resume: tuple[OpenSegment | None, int, int] = (None, 0, 0)  # segment, seq, offset behind it

    def read(
        self, tail: Run, sealed: list[OpenSegment], from_seq: int, max_bytes: int
    ) -> tuple[int, int, list[bytes]] | None:
        """See `Outbox.unshipped`. `sealed` was copied after `tail` was read: it may be ahead, never behind."""
        active, _, seq = tail
        if from_seq >= seq:
            return None
        segment, resumed, offset = self._resume
        if segment is active and resumed == from_seq:
            return self._take([tail], from_seq, offset, max_bytes)
        older = [(s, s.end, s.last) for s in sealed if from_seq < s.last <= seq]
        runs = [*older, tail]
        if segment is runs[0][0] and resumed == from_seq:
            return self._take(runs, from_seq, offset, max_bytes)
        base, offset = _find(*runs[0], from_seq)
        return self._take(runs, base, offset, max_bytes)

    def forget(self) -> None:
        """The segments are others now."""
        self._resume = (None, 0, 0)

    def _take(self, runs: list[Run], base: int, offset: int, room: int) -> tuple[int, int, list[bytes]]:
        upto, parts = base, list[bytes]()
        for segment, end, last in runs:
            if end - offset <= room:
                stop, upto = end, last
            elif parts:
                break  # it comes whole, next time
            else:
                stop, upto = _cut(segment, offset, end, room)
            if stop > offset:
                parts.append(bytes(segment.view[offset:stop]))  # whole records: a part is decoded by itself
            self._resume = (segment, upto, stop)
            if stop < end:
                break
            room -= stop - offset
            offset = RECORDS_AT
        return base, upto, parts


def _find(segment: OpenSegment, end: int, last: int, from_seq: int) -> tuple[int, int]:
    """(base, offset) of the record that covers `from_seq` + 1."""
    if from_seq < segment.base:
        raise LookupError(f"changes {from_seq + 1} to {segment.base} are no longer in the outbox")
    offset = RECORDS_AT
    for behind, base, seq in segment.walk(RECORDS_AT, end):
        if seq > from_seq:
            return base, offset
        offset = behind
    raise LookupError(f"change {from_seq + 1} is not in {segment.path}, which ends at {last}")


def _cut(segment: OpenSegment, offset: int, end: int, room: int) -> tuple[int, int]:
    """(offset, seq) behind the last whole record that fits into `room` bytes, or behind the first."""
    stop = upto = 0
    for behind, _, seq in segment.walk(offset, end):
        if behind - offset > room and stop:
            break
        stop, upto = behind, seq
    return stop, upto
