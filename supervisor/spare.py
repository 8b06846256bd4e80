"""A strategy's next process, started ahead: it has imported the libraries and waits for the word (`supervisor.entry`).

* It is never the strategy: no state of the lifecycle, no session, no lock; shown apart. The word makes it the strategy.
* One is started only while the strategy runs, and a moment after it was ready: it would take the processor from one
  that starts. A half-made one is dropped when the strategy has to be started without it.
* Whatever goes wrong with it, the strategy is started in the ordinary way; that is said once, and tried again slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from supervisor.child import Child
from supervisor.config import RestartSettings
from supervisor.entry import word
from supervisor.exit_codes import exit_text
from supervisor.lifecycle import State
from supervisor.programs import Program
from supervisor.restart_policy import RestartPolicy

SETTLE = 1.0
"""Seconds from a strategy's "ready" to the start of its spare."""
_PATIENCE = 120.0
"""Seconds for all imports together."""
_TRIES = RestartSettings(
    backoff_first=5.0, backoff_max=300.0, stable_after=60.0, limit=5, window=3600.0, fatal_retry=3600.0
)
"""A library that can't be imported will not be there a second later."""

_WANTED = frozenset({State.RUNNING})
_KEPT_WARMING = _WANTED | {State.RESTARTING, State.ABORTING, State.BACKOFF, State.FATAL}
_KEPT_READY = _KEPT_WARMING | {State.STARTING}


class SpareState(StrEnum):
    NONE = "none"
    WARMING = "warming"  # imports
    READY = "ready"  # waits for the word
    LEAVING = "leaving"  # killed, not reaped yet


class Spare:
    """What a unit has ahead. `child` is set except in NONE."""

    def __init__(
        self, clock: Callable[[], float], spawn: Callable[[], Child], report: Callable[[str, str], None]
    ) -> None:
        self._clock, self._spawn, self._report = clock, spawn, report
        self.state = SpareState.NONE
        self.child: Child | None = None
        self.deadline: float | None = None
        self._new_policy()

    def tend(self, program: Program, state: State, now: float) -> None:
        """What is due, for a strategy in this state."""
        kept = _KEPT_READY if self.state is SpareState.READY else _KEPT_WARMING
        if not program.spare or state not in kept:
            self.drop()
        elif self.state is SpareState.NONE and self.deadline is None and state in _WANTED:
            self.deadline = now + max(SETTLE, self._delay)
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            if self.state is SpareState.NONE and state in _WANTED:
                self._start()
            elif self.state is SpareState.WARMING and self.child:
                self.child.kill()  # reported when it has ended

    def take(self, program: Program) -> Child | None:
        """The process that is the strategy from now on; None when there is none that is ready."""
        child = self.child
        if self.state is not SpareState.READY or child is None:
            return None
        if not child.tell(word(program.cwd)):
            return None  # it is dead, which is noticed soon
        self.state, self.child = SpareState.NONE, None
        self._delay = 0.0
        return child

    def hear(self, word: str) -> None:
        if word == "warm" and self.state is SpareState.WARMING:
            self.state, self.deadline = SpareState.READY, None
            self._delay, self._complained = 0.0, False

    def ended(self, code: int) -> None:
        """Its process is dead and reaped."""
        before, self.state, self.child, self.deadline = self.state, SpareState.NONE, None, None
        if before is SpareState.LEAVING:
            return
        self._delay = self._policy.died().delay
        if not self._complained:
            self._complained = True
            self._report("spare failed", f"{exit_text(code)}; it is started in the ordinary way until one is ready")

    def drop(self) -> None:
        """Have none: neither this one nor one that is due."""
        self.deadline = None
        if self.child is not None and self.state is not SpareState.LEAVING:
            self.state = SpareState.LEAVING
            self.child.kill()

    def renew(self) -> None:
        """Have another: code may have changed, and what failed before may work now."""
        self.drop()
        self._new_policy()

    def _new_policy(self) -> None:
        self._policy = RestartPolicy(_TRIES, self._clock)
        self._delay = 0.0
        self._complained = False

    def _start(self) -> None:
        self._policy.started()
        try:
            self.child = self._spawn()
        except OSError:  # no process, no spare; the strategy's own start will say so
            self._delay = self._policy.died().delay
            return
        self.state, self.deadline = SpareState.WARMING, self._clock() + _PATIENCE
