"""One program's life: its state, its process if it has one, its deadlines.

* The state changes in `happens` only, by the table in `lifecycle`.
* `child` is set exactly while the state is one of `ALIVE` (between two calls from the loop).
* What it said is read before its silence is judged.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from supervisor.child import Child, spawn
from supervisor.control import ProgramStatus
from supervisor.lifecycle import ALIVE, Action, Event, State, transition
from supervisor.output import Output
from supervisor.programs import Program
from supervisor.restart_policy import RestartPolicy

_ABORT_PATIENCE = 3.0
"""Seconds for a hung process to write its stacks."""
_OUT_OF_PROCESSES = 71
"""Reported as exit code when no process could be made (EX_OSERR)."""


class Unit:
    """A program under supervision. `report(unit, what, detail)` is told everything worth a line."""

    def __init__(
        self,
        program: Program,
        policy: RestartPolicy,
        output: Output,
        clock: Callable[[], float],
        report: Callable[[Unit, str, str], None],
    ) -> None:
        self.program, self.output = program, output
        self._policy, self._clock, self._report = policy, clock, report
        self.state = State.STOPPED
        self.child: Child | None = None
        self.deadline: float | None = None
        self.starts = 0
        self.ever_ready = False
        self.last_exit: int | None = None
        self.recovering: int | None = None
        self.retired = False
        """No longer in the configuration: dropped when it has left."""
        self._delay = 0.0
        self._started = 0.0
        self._heard = 0.0
        self._usage = (0, 0.0)

    @property
    def alive(self) -> bool:
        return self.state in ALIVE

    @property
    def lets_go_on(self) -> bool:
        """Whether what is started after it may start."""
        return not self.program.holds_up_start or self.ever_ready or self.state is State.DONE

    def happens(self, event: Event) -> None:
        """Take the step of the table."""
        before = self.state
        self.state, action = transition(before, event)
        if self.state is not before or action is not Action.NOTHING:
            self._act(action, event)

    def listen(self) -> bool:
        """Read what the process says through its notify pipe; False when that pipe is closed."""
        if self.child is None:
            return False
        words, open_ = self.child.read_words()
        for word in words:
            self._hear(word)
        return open_

    def ended(self) -> None:
        """Its process is dead: take leave of it and see what the policy says."""
        child = self.child
        assert child is not None
        self._drain(child)
        code = child.reap()
        child.close()
        self._report(self, "ended", f"{exit_text(code)} after {self._clock() - self._started:.1f} s")
        self.child, self.last_exit, self.recovering, self.deadline = None, code, None, None
        self._usage = (0, 0.0)
        self.happens(self._judge(code))

    def look(self, now: float) -> None:
        """Deadlines and the watchdog. Call after `listen`."""
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self.happens(Event.TIMEOUT)
        limit = self.program.watchdog
        if limit is not None and self.state is State.RUNNING and now - self._heard > limit:
            self._report(self, "hung", f"no beat for {now - self._heard:.1f} s")
            self.happens(Event.HUNG)

    def weigh(self) -> None:
        """Measure memory and CPU."""
        if self.child is None:
            return
        self._usage = self.child.usage()
        limit = self.program.memory_limit
        if limit is not None and self._usage[0] > limit and self.state in (State.STARTING, State.RUNNING):
            self._report(self, "overweight", f"{self._usage[0]} bytes resident, the limit is {limit}")
            self.happens(Event.OVERWEIGHT)

    def next_deadline(self) -> float | None:
        if self.program.watchdog is not None and self.state is State.RUNNING:
            return self._heard + self.program.watchdog
        return self.deadline

    def forgive(self) -> None:
        self._policy.forgive()

    def status(self) -> ProgramStatus:
        now, child, program = self._clock(), self.child, self.program
        retry = self.deadline if self.state in (State.BACKOFF, State.FATAL) else None
        if child is not None and not self._usage[0]:  # so young that it was not weighed yet
            self._usage = child.usage()
        return ProgramStatus(
            name=program.name,
            kind=program.kind,
            namespace=program.namespace,
            state=str(self.state),
            pid=child.pid if child else None,
            created=child.created if child else None,
            uptime=now - self._started if child else None,
            starts=self.starts,
            restarts=max(0, self.starts - 1),
            last_exit=self.last_exit,
            rss=self._usage[0],
            cpu=self._usage[1],
            recovering=self.recovering,
            retry_in=max(0.0, retry - now) if retry is not None else None,
            log=self.output.log.path,
        )

    def _act(self, action: Action, event: Event) -> None:
        if action is Action.SPAWN:
            self.deadline = None
            self._spawn()
        elif action is Action.TERM:
            self.deadline = self._clock() + self.program.stop_timeout
            self._send(signal.SIGTERM, f"asked to leave ({event})")
            self._send(signal.SIGCONT, "")  # a stopped process could not hear it
        elif action is Action.ABORT:
            self.deadline = self._clock() + _ABORT_PATIENCE
            self._send(signal.SIGABRT, "its stacks are in its log")
        elif action is Action.KILL:
            self.deadline = None
            if self.child:
                self._report(self, "killed", str(event))
                self.child.kill()
        elif action in (Action.WAIT, Action.WAIT_LOUDLY):
            self.deadline = self._clock() + self._delay
            self._report_wait(loudly=action is Action.WAIT_LOUDLY)
        elif self.state not in ALIVE:
            self.deadline = None  # a retry that nobody wants any more
            self._report(self, str(self.state), "")

    def _spawn(self) -> None:
        self.starts += 1
        self._policy.started()
        self._started = self._heard = self._clock()
        try:
            self.child = spawn(self.program, self.output.begin())
        except OSError as error:
            self.last_exit = _OUT_OF_PROCESSES
            self._report(self, "not started", f"{error.strerror or error}")
            self.happens(self._judge(_OUT_OF_PROCESSES))
            return
        self._report(self, "started", "")
        if not self.program.says_ready:
            self._hear("ready")

    def _hear(self, word: str) -> None:
        self._heard = self._clock()
        verb, _, rest = word.partition(" ")
        if verb == "ready" and self.state is State.STARTING:
            self.ever_ready, self.recovering = True, None
            self._report(self, "ready", "")
            self.happens(Event.READY)
        elif verb == "recovering" and rest.isascii() and rest.isdigit():
            self.recovering = min(int(rest[:4]), 100)

    def _judge(self, code: int) -> Event:
        if self.state in (State.STOPPING, State.RESTARTING):
            return Event.FINISHED
        made_to_leave = self.state is State.ABORTING and self.program.restart != "never"
        if self.program.is_done(code) and not made_to_leave:  # a hung bot may still answer a signal with exit code 0
            return Event.FINISHED
        verdict = self._policy.died()
        self._delay = verdict.delay
        return Event.FAILED_TOO_OFTEN if verdict.fatal else Event.FAILED

    def _report_wait(self, *, loudly: bool) -> None:
        if loudly:
            why = f"; its last line: {self.output.last_line}" if self.output.last_line else ""
            self._report(self, "FATAL", f"it died too often; next try in {self._delay:.0f} s{why}")
        elif self._delay > 0:
            self._report(self, "waiting", f"next try in {self._delay:.1f} s")

    def _send(self, number: signal.Signals, detail: str) -> None:
        if self.child is None:
            return
        if detail:
            self._report(self, number.name, detail)
        self.child.signal(number)

    def _drain(self, child: Child) -> None:
        self.listen()
        child.kill_helpers()  # first, so that nobody writes on
        self.output.end()


def exit_text(code: int) -> str:
    """7 -> "exit code 7"; -9 -> "SIGKILL"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def shell_code(code: int) -> int:
    """The exit code by which a shell tells of a signal: -9 -> 137."""
    return code if code >= 0 else 128 - code
