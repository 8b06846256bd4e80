"""A program's life without processes and without time: both are handed to the `Unit` by the test."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any, cast

from supervisor.child import Child
from supervisor.config import RestartSettings
from supervisor.lifecycle import ALIVE, Event
from supervisor.programs import Program
from supervisor.restart_policy import RestartPolicy
from supervisor.unit import Unit

SETTINGS = RestartSettings(
    backoff_first=1.0, backoff_max=8.0, stable_after=10.0, limit=3, window=100.0, fatal_retry=300.0
)


class FakeChild:
    """A process that does what the test says; `signals` is what it was sent."""

    def __init__(self, pid: int, spare: bool) -> None:
        self.pid, self.created, self.is_spare = pid, float(pid), spare
        self.signals: list[int] = []
        self.told: list[bytes] = []
        self.resident = 0
        self.code: int | None = None
        self.closed = False
        self.words: list[str] = []

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def kill(self) -> None:
        self.signals.append(signal.SIGKILL)

    def tell(self, word: bytes) -> bool:
        self.told.append(word)
        return self.code is None

    def read_words(self) -> tuple[list[str], bool]:
        words, self.words = self.words, []
        return words, True

    def reap(self) -> int:
        assert self.code is not None, "reaped alive"
        return self.code

    def close(self) -> None:
        self.closed = True

    def usage(self) -> tuple[int, float]:
        return self.resident, 0.0


class Story:
    """A unit, its clock, and all processes it ever had. Each step checks what must always hold."""

    def __init__(self, settings: RestartSettings = SETTINGS, **program: Any) -> None:
        self.now = 0.0
        self.told: list[str] = []
        self.children: list[FakeChild] = []
        self.no_more_processes = False
        self.in_the_way: Unit | None = None
        described = Program(
            **{"name": "bot", "kind": "strategy", "argv": ["bot"], "env": {}, "cwd": None, "stop_timeout": 5.0}
            | {"says_ready": True, "holds_up_start": False}
            | program
        )
        self.log = SimpleNamespace(path="bot.log", ready=lambda: -1, opened=1)
        output = SimpleNamespace(begin=lambda: -1, end=lambda: None, last_line="", log=self.log)
        policy = RestartPolicy(settings, lambda: self.now, lambda low, high: high)
        self.unit = Unit(
            described,
            policy,
            cast(Any, output),
            lambda: self.now,
            self._hear,
            cast(Any, self._spawn),
            lambda unit: self.in_the_way,
        )

    @property
    def child(self) -> FakeChild:
        """The process that is the program."""
        return cast(FakeChild, self.unit.child)

    @property
    def spare(self) -> FakeChild | None:
        return cast("FakeChild | None", self.unit.spare.child)

    @property
    def state(self) -> str:
        return str(self.unit.state)

    def happens(self, event: Event) -> None:
        self.unit.happens(event)
        self._check()

    def says(self, *words: str, child: FakeChild | None = None) -> None:
        speaker = child or self.child
        speaker.words += words
        self.unit.listen(cast(Child, speaker))
        self.passes(0.0)

    def passes(self, seconds: float) -> None:
        """Time, and one look of the loop."""
        self.now += seconds
        self.unit.look(self.now)
        self._check()

    def weighs(self, resident: int) -> None:
        self.child.resident = resident
        self.unit.weigh()
        self._check()

    def dies(self, code: int = 1, child: FakeChild | None = None) -> None:
        dead = child or self.child
        dead.code = code
        self.unit.ended(cast(Child, dead))
        assert dead.closed
        self.passes(0.0)

    def goes(self, road: list[tuple[str, object]]) -> None:
        """Several steps: (method, argument)."""
        for step, argument in road:
            getattr(self, step)(argument)

    def starts_and_is_ready(self) -> None:
        self.happens(Event.START)
        self.says("ready")

    def warms_a_spare(self) -> FakeChild:
        """Of a running program."""
        self.passes(2.0)
        spare = self.spare
        assert spare is not None
        self.says("warm", child=spare)
        return spare

    def _spawn(self, program: Program, output: int, spare: bool = False) -> FakeChild:
        if self.no_more_processes:
            raise OSError(11, "Resource temporarily unavailable")
        self.children.append(FakeChild(len(self.children) + 1, spare))
        return self.children[-1]

    def _hear(self, unit: Unit, what: str, detail: str) -> None:
        self.told.append(f"{what}: {detail}" if detail else what)

    def _check(self) -> None:
        unit = self.unit
        assert (unit.child is not None) == (unit.state in ALIVE), unit.state
        living = [child for child in self.children if child.code is None and not child.closed]
        assert living == [child for child in self.children if child in (unit.child, unit.spare.child)]
        assert unit.child is None or unit.child is not unit.spare.child
        assert unit.deadline is None or unit.next_deadline() is not None
