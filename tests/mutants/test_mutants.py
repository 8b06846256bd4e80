"""The table of mutants keeps up with the code; `make prove` runs them."""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import ROOT, broken
from tests.mutants.tables import ALL_MUTANTS, Mutant


@pytest.mark.parametrize("mutant", ALL_MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_still_finds_its_place_and_its_tests(mutant: Mutant) -> None:
    text = (ROOT / mutant.at).read_text()
    compile(broken(text, mutant), mutant.at, "exec")
    for test in mutant.tests:
        assert (ROOT / test.partition("::")[0]).exists(), test


def test_names_say_which_mutant_is_meant() -> None:
    names = [mutant.name for mutant in ALL_MUTANTS]
    assert len(set(names)) == len(names)
