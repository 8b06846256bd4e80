"""Changes whose n-th state anybody can compute: the worker makes them, the oracle outside knows what must be there.

Each step depends on its number only, so the state after k steps is `model(k)`, dict order included. A recovered state
is right when it is `model(k)` for a k that is at least what had returned; a half transaction, a lost change, a deleted
key that came back or an order that changed is not the state after any k.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

Maps = tuple[dict[Any, Any], dict[Any, Any]]


def step(n: int, maps: Maps, transaction: Callable[[], AbstractContextManager[Any]], weight: int = 1) -> None:
    """The n-th step, at most one change: puts, updates, deletes, moves, and transactions over both maps.

    Values have up to 49 * `weight` characters.
    """
    left, right = maps
    kind = n % 7
    if kind < 3:
        left[f"k{n % 31}"] = {"n": n, "text": "x" * (n % 50 * weight)}
    elif kind == 3:
        if left.pop(f"k{(n * 5) % 31}", None) is None:
            left["counter"] = n
    elif kind == 4:
        with transaction():
            left["both"] = right["both"] = n
            right[n % 17] = n
    elif kind == 5:
        with transaction():
            moved = left.pop(f"k{n % 31}", n)
            right[n % 17] = moved
    elif n % 700 == 6:
        right.clear()
    elif n % 14 == 6:
        right[("order", n)] = n
    else:
        right.pop(("order", n - 7), None)


def model(k: int) -> Maps:
    """The two maps after steps 1 to k."""
    maps: Maps = ({}, {})
    for n in range(1, k + 1):
        step(n, maps, nullcontext)
    return maps


def steps_in(maps: Maps, returned: int) -> int | None:
    """The k after whose steps the maps are as they are, or None: no prefix that holds all that had returned.

    A worker says each step before it makes the next, so k is `returned`, or one more that it could not say.
    """
    expected = model(returned)
    for k in (returned, returned + 1):
        if k > returned:
            step(k, expected, nullcontext)
        if [list(m.items()) for m in expected] == [list(m.items()) for m in maps]:
            return k
    return None
