"""Names of namespaces and maps. They become directory and file names, so the rules are strict."""

from __future__ import annotations

import re

from protocol.errors import BadName

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")
RESERVED_NAMESPACES = frozenset({"journal", "quarantine", "sockets", "STORE", "LOCK", "ENDPOINT"})


def check_namespace(name: object) -> str:
    """Return `name` if it may name a namespace, else raise `BadName`."""
    if not is_namespace(name):
        raise BadName(_sentence("namespace", name) + f"; reserved: {', '.join(sorted(RESERVED_NAMESPACES))}")
    return str(name)


def check_map_name(name: object) -> str:
    """Return `name` if it may name a map, else raise `BadName`."""
    if not is_map_name(name):
        raise BadName(_sentence("map name", name))
    return str(name)


def is_namespace(name: object) -> bool:
    return is_map_name(name) and name not in RESERVED_NAMESPACES


def is_map_name(name: object) -> bool:
    return type(name) is str and _NAME.fullmatch(name) is not None


def _sentence(kind: str, name: object) -> str:
    return f"{name!r} is no {kind}: 1 to 63 letters, digits, '_' or '-', not starting with '-'"
