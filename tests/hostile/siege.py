"""A server under attack, and a client that only wants to work."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

import psutil

from protocol.endpoints import Endpoint, parse_endpoint, read_endpoint_file
from tests.persistence_proc.raw_session import RawSession, insert, replace
from tests.processes import PersistenceProcess
from tests.waiting import wait_until

MEGABYTE = 2**20


class GoodClient:
    """Puts and flushes in its own thread for as long as the block lasts. `flushes`: seconds that each took."""

    def __init__(self, data_dir: str, namespace: str = "good") -> None:
        self.data_dir, self.namespace = data_dir, namespace
        self.flushes: list[float] = []
        self.problem: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="good client")

    def __enter__(self) -> GoodClient:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def go_on(self, flushes: int = 3) -> None:
        """Wait until it has been served so many times more."""
        self.check()
        wanted = len(self.flushes) + flushes
        wait_until(lambda: self.problem or len(self.flushes) >= wanted, what="the good client being served")
        self.check()

    def check(self) -> None:
        if self.problem is not None:
            raise AssertionError(f"the good client was not served: {self.problem!r}")

    def _work(self) -> None:
        try:
            with RawSession(self.data_dir, self.namespace) as session:
                session.open()
                while not self._over.is_set():
                    number = len(self.flushes)
                    began = time.perf_counter()
                    session.put((insert if not number else replace)("m", "count", b"%d" % number))
                    if session.flush().durable != number + 1:
                        raise AssertionError("a flush that confirms something else")
                    self.flushes.append(time.perf_counter() - began)
                session.close()
        except BaseException as error:
            self.problem = error


class Siege:
    """The server's addresses, and what it looked like before."""

    def __init__(self, persistence: PersistenceProcess) -> None:
        self.persistence, self.data_dir = persistence, Path(persistence.data_dir)
        self.pid = persistence.pid
        self.before = self.rss()

    @property
    def endpoint(self) -> Endpoint:
        file = read_endpoint_file(str(self.data_dir))
        assert file is not None
        return parse_endpoint(file.address)

    def rss(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    def check_unharmed(self, room: int = 150 * MEGABYTE) -> None:
        """The same process, no fatter, and without a traceback."""
        assert self.persistence.alive, f"the server died:\n{self.persistence.errors()}"
        assert "Traceback" not in self.persistence.errors()
        grown = self.rss() - self.before
        assert grown < room, f"the server has grown by {grown // MEGABYTE} MB"


def check_kept(data_dir: str, client: GoodClient) -> None:
    """What the good client had confirmed is what is there."""
    with RawSession(data_dir, client.namespace) as session:
        state = session.open_state(takeover=True)[1]
    assert state == {"m": {"count": b"%d" % (len(client.flushes) - 1)}}, "a confirmed change is lost"


def median(times: list[float]) -> float:
    return statistics.median(times) if times else 0.0
