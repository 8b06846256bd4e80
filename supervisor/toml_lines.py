"""Where in a TOML file something stands: its readers keep no positions, and a person wants a line number."""

from __future__ import annotations

import re

_TABLE = re.compile(r"\s*\[\[?\s*([^\[\]#]+?)\s*\]\]?\s*(#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"' -]+?)\s*=")
_NAMED = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def line_of(text: str, message: str) -> int | None:
    """The line of which the message of a `ConfigError` speaks: of the key or table with which it begins, or, where
    the file is no TOML, of the place that it names."""
    if message.startswith("no TOML: "):
        return _syntax_line(text, message)
    found = _NAMED.match(message)
    lines = _lines(text)
    path = found[0].split(".") if found else []
    while path:
        if ".".join(path) in lines:
            return lines[".".join(path)]
        path.pop()
    return None


def _syntax_line(text: str, message: str) -> int | None:
    if found := re.search(r"at line (\d+)", message):
        return int(found[1])
    return text.rstrip().count("\n") + 1 if "end of document" in message else None


def _lines(text: str) -> dict[str, int]:
    """Dotted key or table -> its first line. Good enough to point at: what only looks like a key does no harm."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), 1):
        if match := _TABLE.fullmatch(line):
            table = _plain(match[1])
            for end in range(len(parts := table.split(".")), 0, -1):  # [a.b] begins a, too
                found.setdefault(".".join(parts[:end]), number)
        elif match := _KEY.match(line):
            found.setdefault(f"{table}.{_plain(match[1])}".lstrip("."), number)
    return found


def _plain(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))
