"""Everything at once: two hosts, the persistence process on the first, strategies on both, a network between them.

One thread moves it all; nothing happens but what a method here makes happen. Each checks what it can see.
"""

from __future__ import annotations

import itertools
import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any

from persistence_proc.paths import Paths
from protocol.errors import Fenced, FlushTimeout, NamespaceInUse, PersistenceUnavailable, SessionClosed
from protocol.messages import Confirmed, Reply, Request
from protocol.values import Trust, ValueCodec
from tests.stateful.changes import MAPS, Block, Change, OpenSession, PlainSession, State, ordered, perform
from tests.stateful.history import History
from tests.stateful.hosts import DATA, Clock, Host, Killed
from tests.stateful.network import Network, namespace_of
from tests.stateful.server import Persistence
from tests.stateful.strategy import Worker
from tests.strategy_proc.records import Level

NAMESPACES = ("bot", "other")
ROUNDS = 60  # of everybody's work; far more than a flush takes when nothing is lost any more
load = ValueCodec(Trust([Level])).load


class World:
    def __init__(self, clock: Clock) -> None:
        self.clock, self.network = clock, Network()
        self.hosts = {name: Host(name) for name in ("here", "there")}
        self.histories = {name: History(name) for name in NAMESPACES}
        self.live: dict[str, Worker] = {}
        self.zombies: list[Worker] = []
        self.persistence: Persistence | None = None
        self.counted = dict.fromkeys(("changes", "kills", "power cuts", "recoveries", "zombies"), 0)
        self._instances = itertools.count(1)
        self._troubles: list[str] = []

    # The persistence process

    def start_persistence(self, calls: int | None = None) -> None:
        """Start, recover, and look at what came back. After `calls` of the disk it is killed."""
        name, disk = f"instance {next(self._instances)}", self.hosts["here"].disk()
        disk.calls_left = calls
        try:
            self.persistence = Persistence(disk, self.clock, self.network, name, self._heard)
        except Killed:
            self.counted["kills"] += 1
            return
        recovered = self.persistence.recovered
        assert not recovered.refused, recovered.refused
        assert not any(one.previous_used for one in recovered.maps.values()), recovered.notes
        for name, history in self.histories.items():
            entry = recovered.namespaces.get(name)
            history.check_server(entry.applied if entry else 0, self.server_state(name))
        self.network.up = True
        self.counted["recoveries"] += 1

    def server_state(self, namespace: str) -> State:
        assert self.persistence is not None
        maps = self.persistence.maps(namespace)
        return {name: {key: load(data) for key, data in items.items()} for name, items in maps}

    def at_server(self, work: Callable[[Persistence], None]) -> None:
        """Let the persistence process do something, if it is there; it may die of it."""
        if self.persistence is None:
            return
        try:
            work(self.persistence)
        except Killed:
            self.kill_persistence()

    def kill_persistence(self) -> None:
        assert self.persistence is not None
        self.persistence.abandon()
        self.persistence = None
        self.network.server_gone()
        self.counted["kills"] += 1

    def stop_persistence(self) -> None:
        """A clean end; then every map is a plain pickle file."""
        states = {name: self.server_state(name) for name in NAMESPACES}
        late = bool(self.network.deltas or self.network.requests)
        self.at_server(lambda one: one.stop())
        if self.persistence is None:
            return
        self.persistence = None
        self.network.server_gone()
        if not late:
            for name, state in states.items():
                assert ordered(self._files_of(name)) == ordered(state), "the files are not what memory was"

    def _files_of(self, namespace: str) -> State:
        disk, paths = self.hosts["here"].disk(), Paths(DATA)
        files = ((name, paths.current(namespace, name)) for name in MAPS)
        return {name: pickle.loads(disk.read_file(path)) for name, path in files if disk.exists(path)}

    def _heard(self, address: bytes, reply: Reply) -> None:
        """Everything that the persistence process says is taken at its word from here on."""
        if isinstance(reply, Confirmed):
            self.histories[namespace_of(address)].acknowledged(reply.durable)

    # Strategies

    def connect(
        self, namespace: str, host: str, takeover: bool = False, troubles: Sequence[str] = (), calls: int | None = None
    ) -> None:
        """A new process connects. `troubles` befall its questions, one each; after `calls` of its disk it is killed."""
        history = self.histories[namespace]
        self._troubles = list(troubles)
        if len(troubles) > 1 and history.clean == "yes":
            history.clean = "perhaps"  # an answer lost and the process killed: "the session before" is this one's try
        worker = Worker(self.hosts[host], namespace, self.network)
        worker.disk.calls_left = calls
        try:
            session = worker.connect(self.clock, self._ask, self._drive, takeover)
        except (Killed, PersistenceUnavailable):
            if not worker.disk.dead and self.persistence is not None:
                raise
            worker.die()
            history.clean = "perhaps" if history.clean == "yes" else history.clean
            return
        assert worker.opened is not None
        worker.maps = OpenSession(session)
        seq, applied = session._outbox.seq, worker.opened.applied
        history.connected(host, session.epoch, seq, applied, worker.maps.state(), session.recovered)
        self.live[namespace] = worker

    def refuse_second(self, namespace: str) -> None:
        """On one host the lock decides."""
        second = Worker(self.live[namespace].host, namespace, self.network)
        try:
            second.connect(self.clock, self._ask, self._drive, takeover=True)
        except NamespaceInUse:
            second.disk.die()
            return
        raise AssertionError("two sessions of one namespace")

    def take_over(self, namespace: str, troubles: list[str]) -> None:
        """A process on the other host gets the namespace; the one that had it is stopped, and knows nothing."""
        assert self.persistence is not None
        self.persistence.disk.calls_left = None  # whether an `open` that nobody survived counts, nobody could say
        zombie = self.live.pop(namespace)
        self.zombies.append(zombie)
        other = "there" if zombie.host.name == "here" else "here"
        self.connect(namespace, other, takeover=True, troubles=troubles)
        self.counted["zombies"] += 1

    def _ask(self, worker: Worker, request: Request) -> tuple[Reply, list[bytes]] | None:
        """A question of `connect`, with whatever befalls it."""
        trouble = self._troubles.pop(0) if self._troubles else ""
        wire, requests = worker.wire, self.network.requests
        wire.send(request)
        if trouble == "lost" and requests:
            requests.pop()
        elif trouble == "late" and requests:
            self.network.late_requests.append(requests.pop())
        elif trouble == "killed":
            self.at_server(Persistence.deliver)
            self.at_server(Persistence.turn)
        else:
            self.at_server(Persistence.settle)
        answer = wire.take_reply()
        wire.abandon()
        if trouble == "killed":  # an answer that had left before says what is durable
            self.restart_persistence()
        return None if trouble == "reply lost" else answer

    def restart_persistence(self) -> None:
        if self.persistence is not None:
            self.kill_persistence()
        self.start_persistence()

    def change(self, namespace: str, change: Change | Block) -> bool:
        """The same to a session and to its model. False: the process died of it."""
        worker, history = self.live[namespace], self.histories[namespace]
        session: Any = worker.session
        model = PlainSession(history.newest)
        expected = perform(model, change)
        try:
            answer = perform(worker.maps, change)
        except Killed:
            history.perhaps(model.state())
            self.kill_worker(namespace)
            return False
        assert answer == expected, f"{change} gives {answer!r}, a dict {expected!r}"
        history.changed(model.state(), session._outbox.seq)
        if isinstance(change, Block) and change.durable and isinstance(answer, list):
            history.synced = history.returned
        self.counted["changes"] += 1
        return True

    def sync(self, namespace: str) -> None:
        worker, history = self.live[namespace], self.histories[namespace]
        if self.at_worker(namespace, lambda: worker.session.sync()):  # type: ignore[union-attr]
            history.synced = history.returned

    def flush(self, namespace: str) -> None:
        """With a persistence process that lives it must return; then both have the same."""
        worker, history = self.live[namespace], self.histories[namespace]
        session = worker.session
        assert session is not None
        try:
            if not self.at_worker(namespace, lambda: session.flush(0)):
                return
        except FlushTimeout:
            assert self.persistence is None, "a flush that never returns"
            return
        assert history.durable >= history.returned, "flushed, and not said to be durable"
        assert session.unsaved() == {}
        if self.persistence is not None:
            assert ordered(self.server_state(namespace)) == ordered(history.newest)

    def close(self, namespace: str) -> None:
        worker, history = self.live[namespace], self.histories[namespace]
        session, pump = worker.session, worker.pump
        assert session is not None
        assert pump is not None
        assert session.unsaved() == {}
        try:
            if not self.at_worker(namespace, lambda: session.close(0)):
                history.clean = "perhaps"
                return
        except FlushTimeout:
            assert self.persistence is None, "a close that never returns"
        asked = "perhaps" if pump._said_goodbye else "no"
        history.clean = "yes" if pump._left.is_set() else asked
        assert isinstance(session._recorder.over, SessionClosed)
        worker.die()
        del self.live[namespace]

    def kill_worker(self, namespace: str) -> None:
        self.live.pop(namespace).die()
        self.counted["kills"] += 1

    def at_worker(self, namespace: str, work: Callable[[], None]) -> bool:
        """False: the process died of it."""
        try:
            work()
        except Killed:
            self.kill_worker(namespace)
            return False
        return True

    def step(self, namespace: str) -> None:
        """One turn of a pump."""
        worker = self.live[namespace]
        assert worker.pump is not None
        assert worker.session is not None
        if self.at_worker(namespace, worker.pump.step):
            assert worker.session._problem is None, worker.session._problem
            assert worker.session._recorder.over is None, worker.session._recorder.over

    def _drive(self, worker: Worker) -> None:
        """Somebody waits for this pump: it works, and the persistence process does, and time passes."""
        session, pump = worker.session, worker.pump
        if session is None or pump is None or pump._stopping.is_set():
            return
        for _ in range(ROUNDS if self.persistence is not None else 3):
            done = pump._left.is_set() if pump._leaving.is_set() else session._durable >= session._outbox.seq
            if done:
                return
            pump.step()
            self.at_server(Persistence.settle)
            pump.step()
            self.clock.sleep(0.1)

    # Zombies

    def wake_zombie(self, index: int, changes: list[Change | Block]) -> None:
        """It goes on where it was stopped: whatever it does changes nothing, and soon it is told so."""
        zombie = self.zombies[index % len(self.zombies)]
        session, pump = zombie.session, zombie.pump
        assert session is not None
        assert pump is not None
        try:
            for change in changes:
                perform(zombie.maps, change)
            pump.step()
        except (Killed, Fenced):
            pass
        seq = None if zombie.disk.dead else session._outbox.seq
        self.histories[zombie.namespace].zombie_wrote(zombie.host.name, seq)
        if self.persistence is None:
            return
        self._tell(zombie)
        if self.persistence is not None and not zombie.disk.dead:
            for call in (session.sync, lambda: session.flush(0), lambda: session.drop_map("a")):
                assert_fenced(call)
            self.bury(zombie)

    def _tell(self, zombie: Worker) -> None:
        recorder = zombie.session._recorder  # type: ignore[union-attr]
        try:
            for _ in range(ROUNDS):
                if recorder.over is not None or self.persistence is None:
                    return
                zombie.pump.step()  # type: ignore[union-attr]
                self.at_server(Persistence.settle)
                self.clock.sleep(0.1)
        except Killed:
            self.bury(zombie)

    def bury(self, zombie: Worker) -> None:
        zombie.die()
        self.zombies.remove(zombie)

    # Power

    def cut_power(self, name: str, chance: random.Random) -> None:
        host = self.hosts[name]
        if name == "here" and self.persistence is not None:
            self.kill_persistence()
        for worker in [*self.live.values(), *self.zombies]:
            if worker.host is host:
                worker.die()
        for history in self.histories.values():
            history.lost_power |= history.owner == name
            if name in history.foreign:
                history.foreign[name] = None
        self.live = {key: one for key, one in self.live.items() if one.host is not host}
        self.zombies = [one for one in self.zombies if one.host is not host]
        host.cut_power(chance)
        self.counted["power cuts"] += 1

    def check(self) -> None:
        """At every moment."""
        for namespace, worker in self.live.items():
            assert worker.maps is not None
            found, expected = ordered(worker.maps.state()), ordered(self.histories[namespace].newest)
            assert found == expected, f"{namespace} shows {found}, its model {expected}"

    def end(self) -> None:
        for worker in [*self.live.values(), *self.zombies]:
            worker.die()
        if self.persistence is not None:
            self.persistence.abandon()


def assert_fenced(call: Callable[[], object]) -> None:
    try:
        call()
    except Fenced:
        return
    raise AssertionError("a zombie was not told")
