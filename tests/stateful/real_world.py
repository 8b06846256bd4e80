"""The same changes and the same history, with everything real: pump threads, ZeroMQ, files, and a persistence process
that is killed, stopped and paused. Two folders stand for two hosts.

A session is killed in this process: its pump ends where it is, the mapping and the lock are let go, nothing is said.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from protocol.errors import Fenced
from strategy_proc import Session, connect
from tests.processes import PersistenceProcess
from tests.stateful.changes import MAPS, Block, Change, OpenSession, PlainSession, ordered, perform
from tests.stateful.history import History
from tests.stateful.world import NAMESPACES, assert_fenced
from tests.strategy_proc.records import Level
from tests.waiting import LONG, wait_until


class RealWorld:
    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ol-"))
        for name in ("store", "here", "there"):
            (self._folder / name).mkdir(mode=0o700)
        self.persistence = PersistenceProcess(self._folder / "store")
        self._is_up = self.paused = False
        self.histories = {name: History(name) for name in NAMESPACES}
        self.live: dict[str, tuple[Session, OpenSession]] = {}

    # The persistence process

    def serve(self) -> None:
        """Have it up and running."""
        if self.paused:
            self.persistence.cont()
            self.paused = False
        if not self._is_up:
            self.persistence.start()
            self._is_up = True

    def pause(self) -> None:
        self.serve()
        self.persistence.stop()
        self.paused = True

    def kill_persistence(self) -> None:
        if self._is_up:
            self.persistence.kill()
        self._is_up = self.paused = False

    def end_persistence(self) -> None:
        """As on SIGTERM."""
        self.serve()
        assert self.persistence.terminate() == 0
        self._is_up = False

    # Sessions

    def session(self, namespace: str) -> tuple[Session, OpenSession]:
        """The live one, or a new one."""
        if namespace not in self.live:
            self.connect(namespace, self.histories[namespace].owner or "here")
        return self.live[namespace]

    def connect(self, namespace: str, host: str) -> None:
        self.serve()
        history = self.histories[namespace]
        endpoint = f"ipc://{self.persistence.data_dir}/sockets"
        session = connect(
            namespace, data_dir=self._folder / host, endpoint=endpoint, timeout=LONG, trust=[Level], takeover=True
        )
        maps = OpenSession(session)
        self.live[namespace] = session, maps
        seq = session._outbox.seq
        applied = seq - session.recovered.from_outbox
        history.connected(host, session.epoch, seq, applied, maps.state(), session.recovered)

    def change(self, namespace: str, change: Change | Block) -> None:
        session, maps = self.session(namespace)
        history = self.histories[namespace]
        model = PlainSession(history.newest)
        expected, answer = perform(model, change), perform(maps, change)
        assert answer == expected, f"{change} gives {answer!r}, a dict {expected!r}"
        history.changed(model.state(), session._outbox.seq)
        assert ordered(maps.state()) == ordered(history.newest)

    def sync(self, namespace: str) -> None:
        self.session(namespace)[0].sync()

    def flush(self, namespace: str) -> None:
        self.serve()
        session, _ = self.session(namespace)
        session.flush(LONG)
        assert session.unsaved() == {}
        self.histories[namespace].acknowledged(self.histories[namespace].returned)

    def close(self, namespace: str) -> None:
        self.flush(namespace)
        session, _ = self.live.pop(namespace)
        pump: Any = session._pump
        session.close(LONG)
        self.histories[namespace].clean = "yes" if pump._left.is_set() else "perhaps"

    def kill(self, namespace: str) -> None:
        if namespace in self.live:
            abandon(self.live.pop(namespace)[0])

    def take_over(self, namespace: str, late: list[Change | Block]) -> None:
        """The other host gets the namespace; the former owner goes on, changes nothing, and is told."""
        zombie, maps = self.session(namespace)
        history = self.histories[namespace]
        former = history.owner
        del self.live[namespace]
        self.connect(namespace, "there" if former == "here" else "here")
        try:
            for change in late:
                perform(maps, change)
        except Fenced:
            pass
        history.zombie_wrote(former, zombie._outbox.seq)
        wait_until(lambda: isinstance(zombie._recorder.over, Fenced), what="the zombie is told")
        assert_fenced(zombie.sync)
        assert_fenced(lambda: maps.map(MAPS[0]).__setitem__("k", 1))
        zombie.close()

    def end(self) -> None:
        for namespace in list(self.live):
            self.kill(namespace)
        self.kill_persistence()
        self.persistence.__exit__(None, None, None)
        shutil.rmtree(self._folder, ignore_errors=True)


def abandon(session: Session) -> None:
    """As SIGKILL: the thread is gone, the kernel drops mapping and lock."""
    pump: Any = session._pump
    pump.stop()
    session._outbox.close()
    session._ownership.release()
