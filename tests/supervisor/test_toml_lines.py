"""A mistake in outlive.toml is told with its line, where a line can be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.errors import ConfigError
from supervisor.config import load_config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[restart]\n\nlimit = 'x'", "line 3: restart.limit: Expected `int`, got `str`"),
        ("[restart]\nlimt = 3", "line 2: restart.limt: unknown key"),
        ("[strategies.a]\nentry = 'a:b'\n[strategies.'b']\nwatchdgo = 3", "line 4: strategies.b.watchdgo: unknown key"),
        ("restart.limit = 'x'", "line 1: restart.limit: Expected"),
        ("# \n[strategies.a]  # no command", "line 2: strategies.a: needs either a command"),
        ("[strategies.a]\nentry = 'a:b'\nenv = {OUTLIVE_X = '1'}", "line 3: strategies.a.env.OUTLIVE_X: OUTLIVE_"),
        ("[hooks]\non = [\n 'fatal',\n 'explode']", "line 2: hooks.on[1]: 'explode' is none of"),
        ("[restart]\nlimit = = 3", "line 2: no TOML: "),
        ("[restart]\nlimit = [\n\n", "line 2: no TOML: "),
        ("[strategy.a]\nentry = 'a:b'", "line 1: strategy: unknown key"),
        ("x = 1", "line 1: x: unknown key"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "outlive.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "outlive.toml")
    assert str(caught.value).startswith(f"{tmp_path / 'outlive.toml'}, {words}")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[restart]\nlimit = " + b"9" * 5000])
def test_what_has_no_line_is_told_without(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "outlive.toml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"outlive\.toml: no TOML: "):
        load_config(tmp_path / "outlive.toml")
