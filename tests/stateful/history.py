"""What the world knows of one namespace: its state after each change, and how far that is safe from what.

`states[seq]` is the state after change `seq`. A change that was being made when its process died may be there or not:
it stands in `states`, above `returned`.
"""

from __future__ import annotations

from typing import Any

from strategy_proc.recovered import Recovered, RecoveredStatus
from tests.stateful.changes import State, ordered


class History:
    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.states: list[State] = [{}]
        self.returned = 0
        """Its call had returned: survives every kill."""
        self.synced = 0
        """Survives a power cut of its host: `sync`, a durable block, or what `connect` gave."""
        self.durable = 0
        """Said to be durable by the persistence process: survives everything."""
        self.lost_power = False
        """The owner's host, since its session began."""
        self.clean = "yes"
        """Whether the newest session has left by `close`: yes, no, perhaps."""
        self.epoch = 0
        self.owner = ""
        """Name of the host whose outbox this history goes on in."""
        self.foreign: dict[str, tuple[int, int] | None] = {}
        """Host that was the owner's -> (where the other host's history begins, last seq recorded here); None: a kill or
        a power cut made it unknown."""

    @property
    def newest(self) -> State:
        return self.states[-1]

    @property
    def top(self) -> int:
        return len(self.states) - 1

    # What happened

    def changed(self, after: State, seq: int) -> None:
        """A change has returned, and the outbox is at `seq`."""
        assert seq - self.top in (0, 1), f"one change became {seq - self.top} records"
        if seq == self.top:
            assert ordered(after) == ordered(self.newest), "a change was not recorded"
        else:
            self.states.append(after)
        self.returned = seq

    def perhaps(self, after: State) -> None:
        """The process died in this change."""
        self.states.append(after)

    def acknowledged(self, seq: int) -> None:
        assert seq <= self.top, f"{self.namespace}: change {seq} is acknowledged, and there are {self.top}"
        self.durable = max(self.durable, seq)

    def zombie_wrote(self, host: str, seq: int | None) -> None:
        """The former owner's outbox is at `seq`; None: it died in a change."""
        fork = self.foreign.get(host)
        if fork is not None:
            self.foreign[host] = None if seq is None else (fork[0], seq)

    # What came back

    def check_server(self, applied: int, state: State) -> None:
        """The persistence process has recovered a prefix with everything it ever acknowledged."""
        assert applied >= self.durable, f"{self.namespace}: acknowledged {self.durable}, recovered {applied}"
        assert applied <= self.top, f"{self.namespace}: recovered {applied}, changes there were {self.top}"
        self._check_state(applied, state)

    def connected(self, host: str, epoch: int, seq: int, applied: int, state: State, recovered: Recovered) -> None:
        """A new session owns the namespace: from here on its state is the truth, if it may be."""
        assert epoch > self.epoch, f"epoch {epoch} after {self.epoch}: (epoch, seq) would not name one change"
        moved = host != self.owner and self.owner != ""
        if moved:
            assert seq == applied, "a session of another host owns changes that are not from there"
            least = self.durable
        else:
            least = max(self.synced, self.durable) if self.lost_power else self.returned
        assert least <= seq <= self.top, f"{self.namespace}: change {seq} came back; {least} to {self.top} may"
        self._check_state(seq, state)
        self._check_recovered(seq, applied, recovered, host)
        if moved:
            self.foreign[self.owner] = None if self.lost_power else (seq, self.returned)
        self.foreign.pop(host, None)
        del self.states[seq + 1 :]
        self.returned = self.synced = seq
        self.durable = max(self.durable, applied)
        self.lost_power, self.clean, self.epoch, self.owner = False, "no", epoch, host

    def _check_state(self, seq: int, state: State) -> None:
        expected: dict[str, list[tuple[Any, Any]]] = ordered(self.states[seq])
        assert ordered(state) == expected, f"{self.namespace}: not the state after change {seq}"

    def _check_recovered(self, seq: int, applied: int, recovered: Recovered, host: str) -> None:
        assert recovered.entries == {name: len(items) for name, items in self.states[seq].items() if items}
        assert recovered.from_outbox == seq - applied
        assert not recovered.previous_used
        if not self.lost_power or host in self.foreign:
            fork = self.foreign.get(host, (0, 0))
            if fork is not None:
                assert recovered.set_aside >= fork[1] - fork[0], "changes vanished without a word"
                assert recovered.set_aside <= fork[1], "more is set aside than there was"
        if seq == 0:
            assert recovered.status is RecoveredStatus.NEW
        elif self.clean == "yes":
            assert recovered.status is RecoveredStatus.CLEAN, "the session before had said good-bye"
        elif self.clean == "no":
            assert recovered.status is RecoveredStatus.CRASHED, "the session before had not said good-bye"
