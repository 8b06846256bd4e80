"""The worked examples in docs/file-formats.md are what the code reads."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import msgspec
import pytest

from persistence_proc.catalog import Catalog, Commit, Generation, MapEntry, NamespaceEntry
from persistence_proc.journal_format import decode_frame, encode_frame, encode_payload, frames_in
from persistence_proc.paths import decode_store
from persistence_proc.pickle_file import Trailer, load_map
from protocol.changes import INSERT, decode_changes
from protocol.disk import Disk
from protocol.frames import record_at
from protocol.keys import encode_key
from protocol.segments import RECORDS_AT, decode_segment

PAGE = (Path(__file__).parents[2] / "docs" / "file-formats.md").read_text()
STORE = bytes(range(16))
KEY, VALUE = encode_key("BTC"), pickle.dumps(1, 5)


def example(name: str) -> bytes:
    """The bytes of a hexdump block; `*` repeats the line before it, as hexdump does."""
    block = re.search(rf"```hexdump {name}\n(.*?)```", PAGE, re.DOTALL)
    assert block
    data = bytearray()
    repeat = b""
    starred = False
    for line in block[1].splitlines():
        if line == "*":
            starred = True
            continue
        offset, line_bytes = int(line[:8], 16), bytes.fromhex(line[10:58])
        while starred and len(data) < offset:
            data += repeat
        starred, repeat = False, line_bytes
        data[offset:] = line_bytes
    return bytes(data)


def test_the_example_of_a_store_file() -> None:
    assert decode_store("STORE", example("store")) == STORE


def test_the_example_of_a_journal() -> None:
    catalog, commit = [decode_frame("log", frame) for frame in frames_in(memoryview(example("journal")))]
    assert catalog == Catalog(STORE, [], [], [])
    assert isinstance(commit, Commit)
    assert commit.sections[0].changes == [(INSERT, "m", KEY, VALUE)]


def test_the_example_of_a_journal_is_what_is_written_today() -> None:
    data = example("journal")
    frames = list(frames_in(memoryview(data)))
    again = [encode_frame(f.nonce, f.lsn, encode_payload(decode_frame("log", f))) for f in frames]
    assert b"".join(again) == data


@pytest.mark.parametrize(
    ("name", "kind"), [("Namespace", NamespaceEntry), ("Map", MapEntry), ("Generation", Generation)]
)
def test_the_page_names_every_field(name: str, kind: type[msgspec.Struct]) -> None:
    named = re.search(rf"^{name} *= {{(.*?)}}(?:  |$)", PAGE, re.DOTALL | re.MULTILINE)
    assert named
    assert tuple(re.findall(r'"(\w+)"', named[1])) == kind.__struct_fields__


def test_the_example_of_a_map_file(tmp_path: Path) -> None:
    data = example("pickle")
    assert pickle.loads(data) == {"BTC": 1}
    (tmp_path / "m.pkl").write_bytes(data)
    loaded = load_map(Disk(), str(tmp_path / "m.pkl"))
    assert (loaded.trailer, loaded.items) == (Trailer(STORE, "bot", "m", 2, 2), {KEY: VALUE})


def test_the_example_of_an_outbox_segment() -> None:
    data = example("outbox")
    record = record_at(memoryview(data), RECORDS_AT)
    assert record is not None
    assert decode_changes(record.payload) == [(INSERT, "m", KEY, VALUE)]
    segment = decode_segment("1.seg", data.ljust(2**20, b"\0"))
    assert (segment.head.namespace, segment.head.store_id, segment.records) == ("bot", STORE, [record])


@pytest.mark.parametrize("name", ["store", "journal", "pickle", "outbox"])
def test_there_is_an_example(name: str) -> None:
    assert len(example(name)) >= 40
