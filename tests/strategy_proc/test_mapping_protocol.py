"""The standard library's own mapping tests, on a PersistentMap.

Eight of the 22 need what the rules refuse; they pass on a subclass where those rules are open:

    test_eq, test_getitem, test_pop, test_setdefault     keys of odd classes (to see their __eq__ or __hash__ raise)
    test_repr, test_repr_deep                            values that can't be pickled, or contain themselves 1000 deep
    test_fromkeys                                        refused: a map belongs to a session
    test_copy                                            wants a copy of the same type; ours is a plain dict on purpose
"""

from __future__ import annotations

import itertools
import unittest
from collections.abc import Mapping
from typing import Any

import pytest

from strategy_proc.persistent_map import PersistentMap
from strategy_proc.testing import MemoryStore

mapping_tests = pytest.importorskip("test.mapping_tests", reason="this Python ships without its tests")

NEED_OPEN_RULES = {
    "test_eq", "test_getitem", "test_pop", "test_setdefault", "test_repr", "test_repr_deep",
    "test_copy", "test_fromkeys",
}  # fmt: skip


class OpenMap(PersistentMap[Any, Any]):
    """Any hashable key, and a copy of the same type."""

    __slots__ = ()

    @staticmethod
    def _encode_key(key: object) -> bytes:
        hash(key)
        return b"any"

    def copy(self) -> dict[Any, Any]:
        twin: OpenMap = OpenMap._make(self._recorder, next(_names), {}, {})
        twin.update(self)
        return twin

    @classmethod
    def fromkeys(cls, iterable: Any, value: Any = None) -> Any:
        return dict.fromkeys(iterable, value)


_names = (f"map{n}" for n in itertools.count())


class PersistentMapProtocol(mapping_tests.TestHashMappingProtocol):
    """Run by the tests below, one at a time."""

    __test__ = False
    type2test = dict

    def setUp(self) -> None:
        self._state = MemoryStore().connect("bot", verify=False)

    def tearDown(self) -> None:
        self._state.close()

    def _empty_mapping(self) -> Mapping[Any, Any]:
        return self._state.map(next(_names))

    def _full_mapping(self, data: Mapping[Any, Any]) -> Mapping[Any, Any]:
        made = self._empty_mapping()
        made.update(data)  # type: ignore[attr-defined]
        return made


class OpenMapProtocol(PersistentMapProtocol):
    """The same, with the rules open: any key, any value, a copy of the same type."""

    def setUp(self) -> None:
        super().setUp()
        self._state._recorder.dump = lambda value: b"any"

    def _empty_mapping(self) -> Mapping[Any, Any]:
        return OpenMap._make(self._state._recorder, next(_names), {}, {})


def names_of(kind: type[unittest.TestCase]) -> list[str]:
    return unittest.TestLoader().getTestCaseNames(kind)  # type: ignore[return-value]


def run(kind: type[unittest.TestCase], name: str) -> None:
    result = unittest.TestResult()
    kind(name).run(result)
    problems = result.failures + result.errors
    assert not problems, problems[0][1]
    assert result.testsRun == 1


@pytest.mark.parametrize("name", [n for n in names_of(PersistentMapProtocol) if n not in NEED_OPEN_RULES])
def test_a_persistent_map_passes(name: str) -> None:
    run(PersistentMapProtocol, name)


@pytest.mark.parametrize("name", names_of(OpenMapProtocol))
def test_with_the_rules_open_it_passes(name: str) -> None:
    run(OpenMapProtocol, name)


@pytest.mark.parametrize("name", sorted(NEED_OPEN_RULES & set(names_of(PersistentMapProtocol))))
def test_the_listed_ones_really_need_open_rules(name: str) -> None:
    result = unittest.TestResult()
    PersistentMapProtocol(name).run(result)
    assert result.failures or result.errors
