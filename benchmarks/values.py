"""The values that everyone stores: the same objects, and the same pickle of them, for Outlive and for every peer.

Each kind comes as a list of different values, made before anything is timed, and is used again from its beginning.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from protocol.records import Position, Side

PROTOCOL = 5
DIFFERENT = 512  # values of a kind, so that none is put twice in a row

Item = tuple[str, Any]
"""A key and its value."""


def dump(value: Any) -> bytes:
    """The pickle that every peer stores."""
    return pickle.dumps(value, PROTOCOL)


load = pickle.loads


def order_dict(n: int) -> dict[str, Any]:
    """A dict of eight fields: an order as a bot would keep it."""
    return {
        "id": f"momentum-{n:08d}", "symbol": "BTC/USDT", "side": "BUY", "price": 61250.5 + n, "quantity": 0.5,
        "filled": n % 7, "status": "ACCEPTED", "ts": 1_700_000_000_000_000_000 + n,
    }  # fmt: skip


def position(n: int) -> Position:
    """A `Position` with four Decimals."""
    return Position(
        symbol="BTC/USDT", side=Side.LONG, quantity=Decimal(n + 1) / 1000, entry_price=Decimal(61250 + n),
        realized_pnl=Decimal(n) / 100, leverage=Decimal(3),
    )  # fmt: skip


def blob(size: int) -> Callable[[int], bytes]:
    """Makes values of `size` bytes that don't compress."""
    noise = random.Random(0).randbytes(size)
    return lambda n: n.to_bytes(8, "little") + noise[8:]


KINDS: dict[str, Callable[[int], Any]] = {"dict": order_dict, "position": position, "10 kB": blob(10_000)}
"""What is put, by the name it has in the tables."""

SIZES = {"100 B": 100, "1 kB": 1_000, "10 kB": 10_000, "100 kB": 100_000, "1 MB": 1_000_000}
"""Values of growing size."""


def key_names(count: int) -> list[str]:
    return [f"key-{n:07d}" for n in range(count)]


def items(make: Callable[[int], Any], count: int, keys: int = 1_000, different: int = DIFFERENT) -> list[Item]:
    """`count` puts over `keys` keys."""
    names = key_names(min(count, keys))
    values = [make(n) for n in range(min(count, different))]
    return [(names[n % len(names)], values[n % len(values)]) for n in range(count)]


def records(kind: str, count: int) -> dict[str, Any]:
    """A map of `count` different values, for what is recovered."""
    make = KINDS[kind]
    return {name: make(n) for n, name in enumerate(key_names(count))}


def batches(puts: Sequence[Item], size: int) -> list[list[Item]]:
    """The same puts, `size` of them together."""
    return [list(puts[at : at + size]) for at in range(0, len(puts) - size + 1, size)]
