"""A bot's beats, passed on to the supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.notify import Notifier

if TYPE_CHECKING:
    from strategy_proc.outbox import Outbox
    from strategy_proc.recorder import Recorder

EVERY = 0.2  # seconds between two that are passed on


class Beats:
    """Any thread calls `note`, the pump `pass_on`."""

    def __init__(self, notifier: Notifier, outbox: Outbox, recorder: Recorder) -> None:
        self._notifier, self._outbox, self._recorder = notifier, outbox, recorder
        self._due = False
        self._seq = -1  # of the outbox, at the beat before
        self.passed_on = 0.0
        """When the last one was, in monotonic seconds; 0: this bot has never beaten."""

    def note(self) -> None:
        self._due = True

    def pass_on(self, now: float) -> None:
        """If there is one, and it does not come too soon, and says the truth."""
        if self._due and now - self.passed_on >= EVERY and self._changes_go_on():
            self._due, self.passed_on = False, now
            self._notifier.beat()

    def _changes_go_on(self) -> bool:
        """Whether a bot that beats could change its maps too: another thread may hold the lock for ever.

        Never waits, and takes the lock only when nothing has changed since the last beat.
        """
        before, self._seq = self._seq, self._outbox.seq
        if self._seq != before:
            return True
        lock = self._recorder.lock
        free = lock.acquire(blocking=False)
        if free:
            lock.release()
        return free
