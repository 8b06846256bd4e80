"""What the demo starts and stops: the exchange, which nobody kills, and the supervisor with everything below it.

    demo-run/               0700, made anew for each run
    ├── outlive.toml        what the supervisor runs; `outlive status --config` works beside the demo
    ├── exchange/           the exchange's books: the outside world
    ├── state/              the data directory of the persistence process
    └── logs/               one log a process

Sockets live in a short directory under /tmp, because a socket path may have no more than 107 bytes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from demo.bot import STRATEGIES
from demo.client import SocketChannel, Venue
from demo.prices import load_days
from protocol.errors import OutliveError, PersistenceUnavailable
from supervisor.control import Command, RunDir, SupervisorStatus, ask

RUN_DIR = "demo-run"
_MARK = "OUTLIVE-DEMO"  # in a directory that we may delete
_ROOT = Path(__file__).resolve().parent.parent
_LONGEST_TEMPDIR = 70  # bytes; what is left of a socket path is for our part of it
_PATIENCE = 60.0  # seconds; for a start or a stop on a loaded machine

_CONFIG = """\
# Written by the demo. Nobody else kills programs every second, so nobody else needs these restart settings.
[persistence]
data_dir = "state"
runtime_dir = {runtime}

[supervisor]
log_dir = "logs"

[restart]
backoff_first = 0.05
backoff_max = 0.2
stable_after = 1.0
limit = 1000000
"""
_STRATEGY = """
[strategies.{name}]
command = [{python}, "-m", "demo.bot", "{name}"]
cwd = {root}
restart = "on-failure"      # the end of the replay is exit code 0: done
watchdog = 30.0
env = {{ DEMO_EXCHANGE = {exchange}, DEMO_START = "{start}", DEMO_SECONDS = "{seconds}" }}
"""


class Scene:
    """Directories and processes of one run. Use as a context manager; leaving it stops what is still running."""

    def __init__(self, folder: Path, keep: bool) -> None:
        self.folder = folder.resolve()
        self._keep = keep
        self._exchange: subprocess.Popen[bytes] | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._channel: SocketChannel | None = None

    def __enter__(self) -> Scene:
        self._claim = _make_fresh(self.folder)
        short = len(tempfile.gettempdir()) <= _LONGEST_TEMPDIR
        self.runtime = Path(tempfile.mkdtemp(prefix="outlive-", dir=None if short else "/tmp"))
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop_supervisor()
        if self._channel is not None:
            self._channel.close()
        if self._exchange is not None:
            self._exchange.terminate()
            self._exchange.wait(_PATIENCE)
        shutil.rmtree(self.runtime, ignore_errors=True)
        if not self._keep and exception[0] is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._claim.close()

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def venue(self, account: str) -> Venue:
        """The exchange, seen from outside of the bots."""
        if self._channel is None:
            self._channel = SocketChannel(self._exchange_address)
        return Venue(self._channel, account)

    def start_exchange(self) -> None:
        command = [sys.executable, "-m", "demo.exchange", "--dir", str(self.folder / "exchange")]
        self._exchange = self._start("exchange", [*command, "--address", self._exchange_address])
        self.venue("nobody").history(0, 1)  # answered as soon as it serves

    def start_supervisor(self, seconds: float) -> None:
        """Everything below it, paced so that the replay takes `seconds`."""
        config = self.folder / "outlive.toml"
        config.write_text(self._config(seconds))
        self._supervisor = self._start("supervisor", [sys.executable, "-m", "supervisor", "run", str(config)])
        deadline = time.monotonic() + _PATIENCE
        while (status := self.status()) is None or status.state == "starting":
            self.check_supervisor()
            if time.monotonic() > deadline:
                raise RuntimeError(f"not everything is up after {_PATIENCE:.0f} s; see {self.folder / 'logs'}")
            time.sleep(0.05)

    def check_supervisor(self) -> None:
        """Raises `RuntimeError` if it has left by itself."""
        if self._supervisor is not None and self._supervisor.poll() is not None:
            raise RuntimeError(f"the supervisor left with {self._supervisor.returncode}: {self.last_words()}")

    def status(self) -> SupervisorStatus | None:
        """How the supervisor and its programs are; None when it does not answer."""
        try:
            answer = ask(self._control, Command(verb="status"))
        except (PersistenceUnavailable, OutliveError):
            return None
        return answer if isinstance(answer, SupervisorStatus) else None

    def stop_supervisor(self) -> int | None:
        """Strategies first, then persistence, which writes everything. The supervisor's exit code."""
        if self._supervisor is None:
            return None
        if self._supervisor.poll() is None:
            self._supervisor.terminate()
        return self._supervisor.wait(_PATIENCE)

    @property
    def _control(self) -> RunDir:
        return RunDir(str(self.runtime / "supervisor.d"))

    @property
    def _exchange_address(self) -> str:
        return f"ipc://{self.runtime}/exchange"

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """In a session of its own, as the terminal's Ctrl-C is for the demo; but it does not outlive the demo."""
        launcher = [sys.executable, "-m", "supervisor.launcher", str(os.getpid()), "--"]
        logs = self.folder / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        with (logs / f"{name}.out").open("ab") as log:
            return subprocess.Popen(
                [*launcher, *command],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _config(self, seconds: float) -> str:
        tables = [_CONFIG.format(runtime=json.dumps(str(self.runtime)))]
        for name in STRATEGIES:
            tables.append(
                _STRATEGY.format(
                    name=name,
                    python=json.dumps(sys.executable),
                    root=json.dumps(str(_ROOT)),
                    exchange=json.dumps(self._exchange_address),
                    start=time.time(),
                    seconds=seconds,
                )
            )
        return "".join(tables)

    def last_words(self) -> str:
        """The supervisor's last line."""
        lines = (self.folder / "logs" / "supervisor.out").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


def progress(day: int) -> float:
    """Part of the replay that is behind `day`, 0 to 1."""
    return (day + 1) / len(load_days())


def _make_fresh(folder: Path) -> IO[str]:
    """An empty directory of ours, and what claims it until closed.

    Raises `RuntimeError` rather than delete what the demo has not made, or what another demo is working with.
    """
    if folder.exists():
        if not (folder / _MARK).exists():
            raise RuntimeError(f"{folder} exists and was not made by the demo; move it away, or name another by --dir")
        with (folder / _MARK).open("a") as mark:
            _claim(folder, mark)
            shutil.rmtree(folder)
    os.makedirs(folder, mode=0o700)
    mark = (folder / _MARK).open("w")
    mark.write("A run of the demo; deleted by the next one.\n")
    mark.flush()
    _claim(folder, mark)
    return mark


def _claim(folder: Path, mark: IO[str]) -> None:
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RuntimeError(f"another demo is running in {folder}; name another directory by --dir") from None
