"""A session that is left while the interpreter ends: no thread runs any more, and nobody may wait for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from strategy_proc import connect
from tests.processes import PersistenceProcess, WorkerProcess

GENERATOR = """
from strategy_proc import connect
def session():
    with connect(timeout=20) as state:
        yield state
generator = session()
state = next(generator)
state.map("m")["a"] = 1
"""

DESTRUCTOR = """
from strategy_proc import connect
class Bot:
    def __init__(self):
        self.state = connect(timeout=20)
    def __del__(self):
        self.state.close()
bot = Bot()
bot.state.map("m")["a"] = 1
"""

STUCK_THREAD = """
import threading
with state.transaction():
    inside.set()
    threading.Event().wait()
"""

BESIDE_A_THREAD_THAT_HOLDS_THE_LOCK = f"""{DESTRUCTOR}
import threading
inside = threading.Event()
threading.Thread(target=exec, args=({STUCK_THREAD!r}, dict(state=bot.state, inside=inside)), daemon=True).start()
inside.wait()
"""

EVENT_LOOP = """
import asyncio, signal, sys
from strategy_proc import connect
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
async def main():
    with connect(timeout=20) as state:
        state.map("m")["a"] = 1
        print("running", flush=True)
        await asyncio.Event().wait()
loop = asyncio.new_event_loop()
task = loop.create_task(main())
loop.run_forever()
"""


@pytest.fixture
def persistence(data_dir: Path) -> Iterator[PersistenceProcess]:
    with PersistenceProcess(data_dir) as process:
        yield process


def is_kept(data_dir: Path) -> bool:
    with connect("bot", data_dir=data_dir) as state:
        return state.map("m") == {"a": 1}


@pytest.mark.parametrize("bot", [GENERATOR, DESTRUCTOR, BESIDE_A_THREAD_THAT_HOLDS_THE_LOCK])
def test_a_session_that_is_closed_by_the_end_of_the_interpreter_does_not_hold_it_up(
    persistence: PersistenceProcess, data_dir: Path, bot: str
) -> None:
    with WorkerProcess(bot, env=persistence.env("bot")) as worker:
        assert worker.wait() == 0, worker.errors()
        assert worker.errors() == ""
    assert is_kept(data_dir)


def test_a_bot_that_leaves_its_event_loop_by_sys_exit_ends(persistence: PersistenceProcess, data_dir: Path) -> None:
    with WorkerProcess(EVENT_LOOP, env=persistence.env("bot")) as worker:
        assert worker.read_line() == "running"
        assert worker.terminate() == 0, worker.errors()
    assert is_kept(data_dir)
