from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import BadName
from protocol.names import RESERVED_NAMESPACES, check_map_name, check_namespace

GOOD = ["a", "momentum", "BTC_USDT-1", "_x", "0", "a" * 63]
BAD = ["", "-a", "a" * 64, "a.b", "a/b", "..", ".", "a b", "ä", "a\n", "\n", "a\0", "é", None, 5, b"a", ["a"]]


@pytest.mark.parametrize("name", GOOD)
def test_good_names_are_returned(name: str) -> None:
    assert check_namespace(name) == name
    assert check_map_name(name) == name


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_names_that_could_leave_their_directory_or_confuse_are_refused(name: Any) -> None:
    with pytest.raises(BadName, match="1 to 63"):
        check_namespace(name)
    with pytest.raises(BadName, match="1 to 63"):
        check_map_name(name)


@pytest.mark.parametrize("name", sorted(RESERVED_NAMESPACES))
def test_names_of_our_own_files_are_no_namespaces(name: str) -> None:
    with pytest.raises(BadName, match="reserved"):
        check_namespace(name)


@pytest.mark.parametrize("name", ["outbox", "Outbox"])
def test_a_map_may_not_take_the_place_of_the_outbox(name: str) -> None:
    assert f"{check_map_name(name)}.pkl" != name  # a map's file has a suffix, so the folder stays free
