"""One program's life: its state, its process if it has one, its deadlines.

* The state changes in `happens` only, by the table in `lifecycle`.
* `child` is set exactly while the state is one of `ALIVE` (between two calls from the loop).
* What it said is read before its silence is judged.
* Its spare, if it has one, is no part of its state; `children` are all processes that the loop has to watch.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

from supervisor.child import Child, spawn
from supervisor.control import ProgramStatus
from supervisor.exit_codes import OUT_OF_PROCESSES, exit_text
from supervisor.lifecycle import ALIVE, Action, Event, State, transition
from supervisor.memory import MemoryWatch
from supervisor.output import Output
from supervisor.programs import Program
from supervisor.restart_policy import RestartPolicy
from supervisor.spare import Spare

Spawn = Callable[..., Child]
"""`supervisor.child.spawn`, or what tests put in its place."""
_ABORT_PATIENCE = 3.0
"""Seconds for a hung process to write its stacks."""


class Unit:
    """A program under supervision. `report(unit, what, detail)` is told everything worth a line; `in_the_way(unit)` is
    another one that has to leave before this one may start."""

    def __init__(
        self,
        program: Program,
        policy: RestartPolicy,
        output: Output,
        clock: Callable[[], float],
        report: Callable[[Unit, str, str], None],
        spawn: Spawn = spawn,
        in_the_way: Callable[[Unit], Unit | None] = lambda unit: None,
    ) -> None:
        self.program, self.output = program, output
        self._policy, self._clock, self._report, self._spawn_process = policy, clock, report, spawn
        self._in_the_way = in_the_way
        self._waits_for: Unit | None = None
        """Who has its name or namespace still; it is started when that has left."""
        self.runs_as = program
        """What its last process was started as: `program` may have changed since."""
        self.spare = Spare(clock, self._spawn_spare, self._say)
        self._spare_log = 0
        self.state = State.STOPPED
        self.child: Child | None = None
        self.deadline: float | None = None
        self.starts = 0
        self.ever_ready = False
        self.last_exit: int | None = None
        self.recovering: int | None = None
        self.retired = False
        """No longer in the configuration: dropped when it has left."""
        self.last_reason = ""
        """Why its last process ended."""
        self._fault = ""
        """Why its process is made to leave, until it has."""
        self._memory = MemoryWatch()
        self._delay = 0.0
        self._started = 0.0
        self._heard = 0.0
        self._usage = (0, 0.0)

    @property
    def alive(self) -> bool:
        return self.state in ALIVE

    @property
    def has_process(self) -> bool:
        """Whether anything of it is there, a spare too."""
        return self.alive or self.spare.child is not None

    def children(self) -> Iterator[Child]:
        """All its processes, the spare too."""
        for child in (self.child, self.spare.child):
            if child is not None:
                yield child

    @property
    def lets_go_on(self) -> bool:
        """Whether what is started after it may start."""
        return not self.program.holds_up_start or self.ever_ready or self.state is State.DONE

    def happens(self, event: Event) -> None:
        """Take the step of the table."""
        before = self.state
        if event is Event.RESTART:  # whoever asks may have installed something
            self.spare.renew()
        self.state, action = transition(before, event)
        if self.state is not before or action is not Action.NOTHING:
            self._act(action, event)

    def listen(self, child: Child) -> bool:
        """Read what one of its processes says through its notify pipe; False when that pipe is closed."""
        words, open_ = child.read_words()
        for word in words:
            if child is self.spare.child:
                self.spare.hear(word)
            else:
                self._hear(word)
        return open_

    def ended(self, child: Child) -> None:
        """One of its processes is dead: take leave of it; see what the policy says if it was the program."""
        if child is self.child:
            self.listen(child)
        code = child.reap()
        child.close()
        if child is not self.child:
            self.spare.ended(code)
            return
        self.output.end()
        why = f"{exit_text(code)} after {self._clock() - self._started:.1f} s"
        self.last_exit = code
        self._say("ended", why)
        self.last_reason, self._fault = f"{self._fault}, {why}" if self._fault else why, ""
        self.child, self.recovering, self.deadline = None, None, None
        self._usage, self._memory = (0, 0.0), MemoryWatch()
        self.happens(self._judge(code))

    def look(self, now: float) -> None:
        """Deadlines, the watchdog, the spare. Call after `listen`."""
        if self._waits_for is not None and self.state is State.BACKOFF and self._in_the_way(self) is None:
            self.deadline = now
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self.happens(Event.TIMEOUT)
        limit = self._longest_silence()
        if limit is not None and now >= self._heard + limit:
            hung = self.state is State.RUNNING
            what = "no beat" if hung else "not ready, and not a word"
            self._blame(Event.HUNG if hung else Event.LATE, f"{what} for {now - self._heard:.1f} s")
        self.spare.tend(self.program, self.state, now)

    def weigh(self) -> None:
        """Measure memory and CPU."""
        if self.child is None:
            return
        self._usage = self.child.usage()
        if self.state not in (State.STARTING, State.RUNNING):
            return
        resident, limit = self._usage[0], self.program.memory_limit
        verdict = self._memory.judge(resident, limit)
        detail = f"{resident} bytes resident, the limit is {limit}"
        if verdict == "overweight":
            self._blame(Event.OVERWEIGHT, detail)
        elif verdict == "heavy":
            self._say("heavy", detail)

    def next_deadline(self) -> float | None:
        limit = self._longest_silence()
        silence = None if limit is None else self._heard + limit
        return min((at for at in (self.deadline, silence, self.spare.deadline) if at is not None), default=None)

    def forgive(self) -> None:
        self._policy.forgive()

    def status(self) -> ProgramStatus:
        now, child, program = self._clock(), self.child, self.program
        retry = self.deadline if self.state in (State.BACKOFF, State.FATAL) and self._waits_for is None else None
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
            last_reason=self.last_reason,
            heard_ago=now - self._heard if child and program.says_ready else None,
            rss=self._usage[0],
            cpu=self._usage[1],
            spare=str(self.spare.state) if program.spare else None,
            spare_pid=self.spare.child.pid if self.spare.child else None,
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
                self._say("killed", str(event))
                self.child.kill()
        elif action in (Action.WAIT, Action.WAIT_LOUDLY):
            self.deadline = self._clock() + self._delay
            self._report_wait(loudly=action is Action.WAIT_LOUDLY)
        elif self.state not in ALIVE:
            self.deadline = None  # a retry that nobody wants any more
            self._say(str(self.state), "")

    def _spawn(self) -> None:
        self._waits_for = self._in_the_way(self)
        if self._waits_for is not None:  # no death: the policy need not know
            self._delay = float("inf")
            self.happens(Event.FAILED)
            return
        self.starts += 1
        self.runs_as = self.program
        self._policy.started()
        self._started = self._heard = self._clock()
        output = self.output.begin()
        if self.output.log.opened != self._spare_log:
            self.spare.drop()  # it would print into a file that somebody has moved or deleted
        spare = self.spare.take(self.program)
        try:
            self.child = spare or self._spawn_process(self.program, output)
        except OSError as error:
            why = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
            self.last_exit, self.last_reason = OUT_OF_PROCESSES, f"not started: {why}"
            self._say("not started", why)
            self.happens(self._judge(OUT_OF_PROCESSES))
            return
        again = f"again after: {self.last_reason}" if self.last_reason else ""
        self._say("started", ", ".join(filter(None, ["from its spare" if spare else "", again])))
        if not self.program.says_ready:
            self._hear("ready")

    def _spawn_spare(self) -> Child:
        output, self._spare_log = self.output.log.ready(), self.output.log.opened
        return self._spawn_process(self.program, output, True)

    def _longest_silence(self) -> float | None:
        """Seconds without a word that its program is given in this state."""
        if self.state is State.RUNNING:
            return self.program.watchdog
        return self.program.start_timeout if self.state is State.STARTING else None

    def _blame(self, event: Event, detail: str) -> None:
        """It is made to leave for a fault of its own."""
        self._fault = f"{event} ({detail})"
        self._say(str(event), detail)
        self.happens(event)

    def _say(self, what: str, detail: str) -> None:
        self._report(self, what, detail)

    def _hear(self, word: str) -> None:
        self._heard = self._clock()
        verb, _, rest = word.partition(" ")
        if verb == "ready" and self.state is State.STARTING:
            self.ever_ready, self.recovering = True, None
            self._say("ready", "")
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
            self._say("FATAL", f"it died too often; next try in {self._delay:.0f} s{why}")
        elif self._waits_for is not None:
            self._say("waiting", f"until {self._waits_for.runs_as.name} has left, which has its place")
        elif self._delay > 0:
            self._say("waiting", f"next try in {self._delay:.1f} s")

    def _send(self, number: signal.Signals, detail: str) -> None:
        if self.child is None:
            return
        if detail:
            self._say(number.name, detail)
        self.child.signal(number)
