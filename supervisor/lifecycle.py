"""The life of a program, as a table: (state, event) -> (state, action).

                 START                READY
    STOPPED ───────────▶ STARTING ───────────▶ RUNNING      STOP from anywhere: SIGTERM, then SIGKILL -> STOPPED
                            ▲  │ FAILED           │ FAILED
                            │  ▼                  ▼
                  TIMEOUT └─ BACKOFF or FATAL (too often)   FINISHED -> DONE

* A pair that is not in the table can't happen or means nothing: the state stays, nothing is done.
* One process at a time: SPAWN stands only where the program has none.
* Who asked for a death pays no backoff: RESTARTING comes back at once.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """`ALIVE` of these have a process."""

    STOPPED = "stopped"  # nobody wants it to run
    STARTING = "starting"  # has a process, not ready yet
    RUNNING = "running"
    RESTARTING = "restarting"  # its process is asked to leave; another follows
    ABORTING = "aborting"  # made to leave for a fault of its own: hung (its stacks go to the log), late, overweight
    STOPPING = "stopping"  # its process is asked to leave for good
    BACKOFF = "backoff"  # dead, tried again soon
    FATAL = "fatal"  # died too often, tried again slowly
    DONE = "done"  # left by itself, on purpose


class Event(StrEnum):
    """What happens to a program."""

    START = "start"  # the supervisor's order
    READY = "ready"  # it says so
    FINISHED = "finished"  # its process ended, and that is as it should be
    FAILED = "failed"  # its process ended, or could not be started
    FAILED_TOO_OFTEN = "failed too often"
    STOP = "stop"  # asked for
    RESTART = "restart"  # asked for
    KILL = "kill"  # asked for
    HUNG = "hung"  # no beat for too long
    LATE = "late"  # never said that it is ready
    OVERWEIGHT = "overweight"  # over its memory limit
    TIMEOUT = "timeout"  # the deadline that an action set has passed


class Action(StrEnum):
    """What the supervisor does about it."""

    NOTHING = "nothing"
    SPAWN = "spawn"
    TERM = "term"  # SIGTERM; TIMEOUT follows after stop_timeout
    ABORT = "abort"  # SIGABRT; TIMEOUT follows
    KILL = "kill"  # SIGKILL to its whole session
    WAIT = "wait"  # TIMEOUT follows after the policy's delay
    WAIT_LOUDLY = "wait loudly"  # the same, and an error in the log


ALIVE = frozenset({State.STARTING, State.RUNNING, State.RESTARTING, State.ABORTING, State.STOPPING})

_S, _E, _A = State, Event, Action

_DEATHS = {
    _E.FINISHED: (_S.DONE, _A.NOTHING),
    _E.FAILED: (_S.BACKOFF, _A.WAIT),
    _E.FAILED_TOO_OFTEN: (_S.FATAL, _A.WAIT_LOUDLY),
}
_WORKING = {
    **_DEATHS,
    _E.STOP: (_S.STOPPING, _A.TERM),
    _E.RESTART: (_S.RESTARTING, _A.TERM),
    _E.KILL: (_S.RESTARTING, _A.KILL),
    _E.HUNG: (_S.ABORTING, _A.ABORT),
    _E.OVERWEIGHT: (_S.ABORTING, _A.TERM),
}
_DEAD = {
    _E.STOP: (_S.STOPPED, _A.NOTHING),
    _E.START: (_S.STARTING, _A.SPAWN),
    _E.RESTART: (_S.STARTING, _A.SPAWN),
}
_RETRY = {**_DEAD, _E.TIMEOUT: (_S.STARTING, _A.SPAWN)}

TABLE: dict[State, dict[Event, tuple[State, Action]]] = {
    _S.STOPPED: _DEAD,
    _S.STARTING: {**_WORKING, _E.READY: (_S.RUNNING, _A.NOTHING), _E.LATE: (_S.ABORTING, _A.TERM)},
    _S.RUNNING: _WORKING,
    _S.RESTARTING: {
        _E.FINISHED: (_S.STARTING, _A.SPAWN),
        _E.STOP: (_S.STOPPING, _A.TERM),
        _E.KILL: (_S.RESTARTING, _A.KILL),
        _E.TIMEOUT: (_S.RESTARTING, _A.KILL),
    },
    _S.ABORTING: {
        **_DEATHS,
        _E.STOP: (_S.STOPPING, _A.TERM),
        _E.RESTART: (_S.RESTARTING, _A.KILL),
        _E.KILL: (_S.RESTARTING, _A.KILL),
        _E.TIMEOUT: (_S.ABORTING, _A.KILL),
    },
    _S.STOPPING: {
        _E.FINISHED: (_S.STOPPED, _A.NOTHING),
        _E.START: (_S.RESTARTING, _A.NOTHING),
        _E.RESTART: (_S.RESTARTING, _A.NOTHING),
        _E.KILL: (_S.STOPPING, _A.KILL),
        _E.TIMEOUT: (_S.STOPPING, _A.KILL),
    },
    _S.BACKOFF: _RETRY,
    _S.FATAL: _RETRY,
    _S.DONE: _DEAD,
}


def transition(state: State, event: Event) -> tuple[State, Action]:
    """What follows."""
    return TABLE[state].get(event, (state, Action.NOTHING))
