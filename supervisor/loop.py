"""The supervisor: one loop, one selector, all programs.

* The loop waits for everything at once: ends of processes (pidfd), what they say and print, the control socket,
  signals, the nearest deadline. Nothing polls; what may wait for a terminal or a disk has a thread of its own.
* Stages start in order (persistence, services, strategies), each when the one before lets it, and stop in reverse.
  What dies in between is restarted alone: strategies keep running while persistence comes back.
* The main thread only: it owns the signals, and children die with the thread that started them.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Literal

import psutil

from protocol.errors import ConfigError, OutliveError
from supervisor import elsewhere
from supervisor.child import Child
from supervisor.chronicle import Chronicle, log_path
from supervisor.config import PERSISTENCE, Config
from supervisor.console import Console
from supervisor.control import (
    AlreadyRunning,
    Answer,
    Command,
    ControlServer,
    Done,
    Refused,
    RunDir,
    SupervisorStatus,
    make_private,
)
from supervisor.descriptors import raise_limit
from supervisor.exit_codes import shell_code
from supervisor.follow import Follower
from supervisor.health import Health
from supervisor.hooks import Hooks
from supervisor.lifecycle import Event, State
from supervisor.log_files import ProgramLog
from supervisor.orders import order
from supervisor.output import Output
from supervisor.programs import Program, base_environment, stages
from supervisor.reload import drop_retired, in_the_way, take_over, what_can_change
from supervisor.restart_policy import RestartPolicy
from supervisor.rotation import Rotation
from supervisor.service_manager import ServiceManager, summary
from supervisor.signals import Signals
from supervisor.sweep import sweep
from supervisor.unit import Unit
from supervisor.watch import Watch

_WEIGH_EVERY = 1.0
"""Seconds between measurements of memory and CPU."""
_REFUSAL = 2
"""Exit code by which the persistence process says that it refuses: trying again would not help."""


class Supervisor:
    """Runs a configuration until it is told to stop.

    `console` None: quiet, log files only. `reload` gives the configuration anew on SIGHUP; without it SIGHUP stops.
    `config_path` is the file that it comes from: two supervisors of one file are refused.
    """

    def __init__(
        self,
        config: Config,
        *,
        console: IO[str] | None = sys.stdout,
        reload: Callable[[], Config] | None = None,
        config_path: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config_path = "" if config_path is None else os.path.abspath(config_path)
        self._config, self._reload, self._clock = config, reload, clock
        self._console = Console(console)
        self._rotation, self._manager = Rotation(), ServiceManager()
        self._run_dir = RunDir(config.run_dir)
        self._stages: list[list[Unit]] = []
        self._stages_started = 0
        self._stopping = False
        self._failure: int | None = None
        self._began = clock()
        self._weighed = clock()
        self._signals: Signals
        self._selector: selectors.BaseSelector
        self._control: ControlServer
        self._watch: Watch
        self._chronicle: Chronicle
        self._hooks: Hooks
        self._health = Health(config.persistence)

    def run(self) -> int:
        """Start everything, wait, stop everything; the exit code. Raises `OutliveError` before anything is started."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Supervisor.run belongs to the main thread")
        with contextlib.ExitStack() as undo:
            self._prepare(undo)
            while not self._is_over():
                self._start_or_stop_next()
                self._look_after_all()
                drop_retired(self._stages)
                self._watch.look_for_new(self._units())
                self._wait()
        return self._exit_code()

    def stop(self) -> None:
        """Begin to stop in order; a second call no longer waits for anybody."""
        if self._stopping:
            for unit in self._units():
                if unit.state is State.STOPPING:
                    unit.happens(Event.KILL)
        self._stopping = True

    # Before and after

    def _prepare(self, undo: contextlib.ExitStack) -> None:
        raise_limit()
        _ = self._run_dir.address  # raises for a path that is too long before anything is made there
        self._check_that_it_runs_nowhere_else()
        make_private(self._config.persistence.data_dir)
        if self._config.persistence.runtime_dir is not None:
            make_private(self._config.persistence.runtime_dir)
        self._run_dir.lock(self._config_path)
        undo.callback(self._run_dir.unlock)
        undo.callback(self._console.close)
        programs = stages(self._config, self._run_dir.mark)
        os.makedirs(self._config.log_dir, mode=0o700, exist_ok=True)
        if not os.access(self._config.log_dir, os.W_OK | os.X_OK):
            raise ConfigError(f"supervisor.log_dir: {self._config.log_dir} can't be written to")
        self._hooks = Hooks(self._config.hooks, base_environment(self._run_dir.mark))
        self._chronicle = Chronicle(self._config, self._console, self._hooks.offer)
        undo.callback(self._chronicle.close)
        undo.callback(self._close_hooks)
        self._stages = [[self._unit(program) for program in stage] for stage in programs]
        undo.callback(self._close_logs)
        undo.callback(self._end_rotation)
        follower = Follower()
        undo.callback(follower.close)
        self._selector = undo.enter_context(selectors.DefaultSelector())
        self._signals = undo.enter_context(Signals())
        self._selector.register(self._signals, selectors.EVENT_READ, self._on_signals)
        if self._console.listening and follower.fileno() >= 0:
            self._selector.register(follower, selectors.EVENT_READ, follower.read)
        self._watch = Watch(self._selector, self._signals, follower, self._ended)
        self._control = ControlServer(self._run_dir, self._answer)
        undo.callback(self._control.close)
        self._selector.register(self._control.fileno(), selectors.EVENT_READ, lambda: None)
        for pid, name in sweep(self._run_dir.mark):
            self._chronicle.note("swept", f"ended {name} (pid {pid}), left behind by an earlier run")
        self._chronicle.note("supervisor-start", f"pid {os.getpid()}: {self._config.persistence.data_dir}")
        self._health.start()
        undo.callback(self._health.close)

    def _check_that_it_runs_nowhere_else(self) -> None:
        """That it runs here is found by the lock."""
        other = elsewhere.running(self._config_path) if self._config_path else None
        if other is not None and not other.is_same(self._run_dir):
            raise AlreadyRunning(
                f"a supervisor (pid {other.holder}) runs {self._config_path} already, in {other.path}: it was started "
                "before the data directory was changed there; stop it first (outlive stop)"
            )

    def _unit(self, program: Program) -> Unit:
        settings = self._config.supervisor
        log = ProgramLog(log_path(self._config, program.name), settings.log_bytes, settings.log_files)
        output = Output(program.name, log, self._console)
        policy = RestartPolicy(self._config.restart, self._clock)
        return Unit(
            program,
            policy,
            output,
            self._clock,
            self._chronicle.report,
            in_the_way=lambda unit: in_the_way(unit, self._units()),
        )

    def _end_rotation(self) -> None:
        """A last look: nobody prints any more, and the next start may be far."""
        for unit in self._units():
            self._rotation.look(unit.output)
        self._rotation.close()

    def _close_logs(self) -> None:
        for unit in self._units():
            unit.output.log.close()

    def _close_hooks(self) -> None:
        self._chronicle.note("supervisor-stop", "everything has left")
        self._hooks.close()
        self._tell_of_others()

    def _tell_of_others(self) -> None:
        """What threads have learned since: the loop alone writes the books."""
        for problem in self._hooks.problems():
            self._chronicle.note("hook-failed", problem)
        for finding in self._health.findings():
            self._chronicle.note(finding.event, finding.line, finding.name, finding.kind)

    def _exit_code(self) -> int:
        if self._failure is not None:
            return self._failure
        codes = [unit.last_exit for unit in self._strategies() if unit.state is State.DONE and unit.last_exit]
        return shell_code(codes[0]) if codes else 0

    # One turn of the loop

    def _on_signals(self) -> None:
        for number in self._signals.arrived():
            if number == signal.SIGHUP and self._reload is not None:
                self._reload_config(self._reload, "SIGHUP")
            elif number != signal.SIGCHLD:
                self._chronicle.note("supervisor-stopping", f"{number.name}: stopping")
                self.stop()

    def _reload_config(self, reload: Callable[[], Config], who: str) -> Answer:
        self._manager.reloading()
        try:
            config, later = what_can_change(self._config, reload())
            programs = stages(config, self._run_dir.mark)
        except OutliveError as error:
            self._chronicle.note("reload-refused", f"{who}: nothing is changed: {error}")
            return Refused(message=f"nothing is changed: {error}")
        if self._stopping:
            return Refused(message="everything is being stopped")
        notes = [*later, *take_over(self._stages, programs, self._unit, self._stages_started)]
        for note in notes:
            self._chronicle.note("reload", f"{who}: {note}")
        self._hooks.change(config.hooks)
        return Done(message="\n".join(notes))

    def _wait(self) -> None:
        now = self._clock()
        deadlines = [deadline for unit in self._units() if (deadline := unit.next_deadline()) is not None]
        nearest = min([self._weighed + _WEIGH_EVERY, self._tell_manager(now), *deadlines])
        for key, _ in self._selector.select(max(0.0, nearest - now)):
            if key.fd in self._selector.get_map():  # an earlier one of this turn may have ended it
                key.data()
        self._control.serve()
        self._watch.find_the_dead()

    def _look_after_all(self) -> None:
        """After the stages were looked at: what this turn has ended is not started once more when all are to stop."""
        now = self._clock()
        for unit in self._units():
            unit.look(now)
        if now - self._weighed >= _WEIGH_EVERY:
            self._weighed = now
            for unit in self._units():
                unit.weigh()
                unit.output.follow()
                self._rotation.look(unit.output)
            self._tell_of_others()

    def _tell_manager(self, now: float) -> float:
        """Keep systemd informed; when it wants to hear again at the latest."""
        if not self._manager.listening:
            return float("inf")
        phase, persistence = self._phase, self._stages[0][0]
        recovering = phase == "starting" and persistence.alive and not persistence.ever_ready
        programs = [(unit.program.name, str(unit.state)) for unit in self._units()]
        self._manager.turn(now, phase, phase == "stopping" or recovering, summary(programs))
        return self._manager.deadline or float("inf")

    def _ended(self, unit: Unit, child: Child) -> None:
        unit.ended(child)
        if unit.program.name == PERSISTENCE and unit.last_exit == _REFUSAL and not unit.ever_ready:
            self._give_up(unit)

    def _give_up(self, persistence: Unit) -> None:
        reason = persistence.output.last_line or f"see {persistence.output.log.path}"
        self._chronicle.note("persistence-refused", f"the persistence process refuses to start: {reason}")
        self._failure, self._stopping = _REFUSAL, True

    # Stages

    def _start_or_stop_next(self) -> None:
        if self._config.supervisor.exit_when_done and self._all_done():
            self._stopping = True
        if self._stopping:
            self._stop_next()
        else:
            self._start_next()

    def _start_next(self) -> None:
        while self._stages_started < len(self._stages):
            if not all(unit.lets_go_on for stage in self._stages[: self._stages_started] for unit in stage):
                return
            self._stages_started += 1
            for unit in self._stages[self._stages_started - 1]:
                unit.happens(Event.START)

    def _stop_next(self) -> None:
        for stage in reversed(self._stages):
            for unit in stage:
                if unit.state not in (State.STOPPED, State.STOPPING, State.DONE):
                    unit.happens(Event.STOP)
            if any(unit.alive for unit in stage):
                return

    def _is_over(self) -> bool:
        return self._stopping and not any(unit.has_process for unit in self._units())

    def _all_done(self) -> bool:
        strategies = self._strategies()
        return bool(strategies) and all(unit.state is State.DONE for unit in strategies)

    def _strategies(self) -> list[Unit]:
        return [unit for unit in self._units() if unit.program.kind == "strategy"]

    def _units(self) -> list[Unit]:
        return [unit for stage in self._stages for unit in stage]

    # The control socket

    def _answer(self, command: Command) -> Answer:
        if command.verb == "status":
            return self._status()
        if command.verb == "stop" and not command.name:
            self._chronicle.note("supervisor-stopping", "asked to stop")
            self.stop()
            return Done(message="stopping")
        if command.verb == "reload":
            if self._reload is None:
                return Refused(message="a single command has no configuration to read again")
            return self._reload_config(self._reload, "asked")
        named = [unit for unit in self._units() if unit.program.name == command.name]
        if not named:
            known = ", ".join(unit.program.name for unit in self._units())
            return Refused(message=f"there is no program {command.name!r}; there are {known}")
        named.sort(key=lambda unit: not unit.alive if command.verb == "kill" else unit.retired)
        return order(named[0], command.verb, self._stopping)

    @property
    def _phase(self) -> Literal["starting", "up", "stopping"]:
        if self._stopping:
            return "stopping"
        up = all(unit.lets_go_on for unit in self._units()) and self._stages_started == len(self._stages)
        return "up" if up else "starting"

    def _status(self) -> SupervisorStatus:
        persistence = self._config.persistence
        return SupervisorStatus(
            pid=os.getpid(),
            created=psutil.Process().create_time(),
            state=self._phase,
            uptime=self._clock() - self._began,
            run_dir=self._run_dir.path,
            data_dir=persistence.data_dir,
            endpoint=persistence.endpoint,
            curve_dir=persistence.curve_dir,
            programs=[unit.status() for unit in self._units()],
            happenings=list(self._chronicle.happenings),
        )
