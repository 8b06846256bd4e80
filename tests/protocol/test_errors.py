from __future__ import annotations

import copy
import inspect
import pickle
import re

from protocol import errors
from protocol.errors import Damaged, MalformedMessage, OutliveError


def test_every_error_is_in_the_tree_at_the_top_of_the_module() -> None:
    assert errors.__doc__ is not None
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        assert issubclass(kind, OutliveError)
        assert re.search(rf"\b{name}\b", errors.__doc__), name
        assert kind.__doc__, name


def test_errors_with_fields_survive_a_pickle_and_a_copy() -> None:
    for error in (Damaged("/a", 5, "torn", "Do this."), MalformedMessage("no", b"x" * 100)):
        for back in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert str(back) == str(error)
            assert vars(back) == vars(error)


def test_damage_names_file_offset_and_remedy_in_one_line() -> None:
    text = str(Damaged("/data/x.pkl", 77, "the checksum fails", "Do this."))
    assert text == "/data/x.pkl: the checksum fails at byte 77. Do this."
