"""Ports of this machine for tests on TCP."""

from __future__ import annotations

import random
import socket

_BELOW_WHAT_IS_GIVEN_AWAY = range(10_000, 32_000)
"""From 32768 on Linux hands ports to whoever connects: one of those is free now and taken a moment later."""


def two_free_ports() -> int:
    """A port that is free, as is the one behind it. By chance, since other test processes look for some too."""
    chance = random.SystemRandom()
    while True:
        port = chance.choice(_BELOW_WHAT_IS_GIVEN_AWAY)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
