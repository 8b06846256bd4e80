"""The mutants that stand in the `.toml` files of this folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

GROUP = "@"
"""Before the name of a group of tests."""


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Replaces `old`, which stands exactly once in file `at`, by `new`."""

    name: str
    """What the broken code does."""
    promise: str
    at: str
    old: str
    new: str
    tests: list[str]
    """Test files, folders or tests that are run in this order, until one goes red."""


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    mutant: list[Mutant]
    groups: dict[str, list[str]] = {}


def read_tables(folder: Path) -> list[Mutant]:
    """All mutants, with the groups of tests that they name written out. Raises msgspec.MsgspecError."""
    found: list[Mutant] = []
    for path in sorted(folder.glob("*.toml")):
        table = msgspec.toml.decode(path.read_bytes(), type=_Table)
        for mutant in table.mutant:
            found.append(msgspec.structs.replace(mutant, tests=_written_out(mutant.tests, table.groups)))
    return found


def _written_out(tests: list[str], groups: dict[str, list[str]]) -> list[str]:
    out: list[str] = []
    for test in tests:
        out += groups[test.removeprefix(GROUP)] if test.startswith(GROUP) else [test]
    return list(dict.fromkeys(out))


ALL_MUTANTS = read_tables(Path(__file__).parent)
