"""Names of parametrized tests."""

from __future__ import annotations

import re


def shown(value: object) -> str:
    """`repr` without addresses, so that each process that collects the tests gives them the same names."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
