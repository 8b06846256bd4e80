"""Ctrl-C wherever Python runs signal handlers in a change: dict and record stay in step, the lock is free."""

from __future__ import annotations

import contextlib
import dis
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

import pytest

import strategy_proc
from strategy_proc import Session
from strategy_proc.testing import MemoryStore

HANDLERS_RUN_BEHIND = {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"}
WATCHED = (strategy_proc.__path__[0], contextlib.__file__)


class Striker:
    """A trace function that raises KeyboardInterrupt at the n-th such place."""

    def __init__(self, n: int) -> None:
        self.left = n
        self._places: dict[CodeType, set[int]] = {}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(WATCHED):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in self._places_of(frame.f_code):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self

    def _places_of(self, code: CodeType) -> set[int]:
        if code not in self._places:
            instructions = list(dis.get_instructions(code))
            # A call whose result is returned is followed by SWAP: what is raised there belongs to the call, not to us.
            self._places[code] = {
                b.offset for a, b in pairwise(instructions) if a.opname in HANDLERS_RUN_BEHIND and b.opname != "SWAP"
            }
        return self._places[code]


def transaction(state: Session, m: Any) -> None:
    with state.transaction():
        m["a"] = 9
        del m["b"]
        m["z"] = 1
        m.clear()
        m["k"] = 1


def transaction_that_goes_on(state: Session, m: Any) -> None:
    with state.transaction():
        m["q"] = 1
        with contextlib.suppress(KeyboardInterrupt):
            del m["b"]
            m["a"] = 5
            m.clear()


def transaction_that_fails(state: Session, m: Any) -> None:
    with contextlib.suppress(ZeroDivisionError), state.transaction():
        m["a"] = 9
        del m["b"]
        m["z"] = 1
        m.clear()
        m["k"] = 1
        raise ZeroDivisionError


def durable_transaction(state: Session, m: Any) -> None:
    with state.transaction(durable=True):
        m["a"] = 9


CHANGES: dict[str, Callable[[Session, Any], object]] = {
    "replace": lambda state, m: m.__setitem__("a", 2),
    "insert": lambda state, m: m.__setitem__("n", 2),
    "delete": lambda state, m: m.__delitem__("a"),
    "pop": lambda state, m: m.pop("a"),
    "popitem": lambda state, m: m.popitem(),
    "clear": lambda state, m: m.clear(),
    "setdefault": lambda state, m: m.setdefault("n", 3),
    "update": lambda state, m: m.update(a=5, n=6),
    "drop_map": lambda state, m: state.drop_map("m"),
    "transaction": transaction,
    "transaction_that_goes_on": transaction_that_goes_on,
    "transaction_that_fails": transaction_that_fails,
    "durable_transaction": durable_transaction,
    "sync": lambda state, m: state.sync(),
    "flush": lambda state, m: state.flush(),
}


def strike(change: Callable[[Session, Any], object], n: int) -> bool:
    """Whether there was an n-th place."""
    store = MemoryStore()
    state = store.connect("bot", verify=False)
    m = state.map("m")
    m.update(a=1, b=2, c=3)
    striker, before = Striker(n), sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks once, in settrace, whether any frame wants them
    sys.settrace(striker)
    try:
        change(state, m)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    m["after"] = 1
    assert list(store.contents("bot")["m"].items()) == list(m.items())
    assert state.unsaved() == {}
    other = threading.Thread(target=m.update, args=({"thread": 1},), daemon=True)
    other.start()
    other.join(20)
    assert not other.is_alive(), "the lock is held"
    state.sync()
    state.flush()
    state.close()
    return striker.left <= 0


@pytest.mark.parametrize("name", CHANGES)
def test_ctrl_c_anywhere_leaves_dict_and_record_in_step(name: str) -> None:
    n = 1
    while strike(CHANGES[name], n):
        n += 1
    assert n > 10
