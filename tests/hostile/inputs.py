"""What each decoder is given when all is well, and how those are called that take more than bytes."""

from __future__ import annotations

import functools
import os
import pickle
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import zmq
import zmq.auth

from persistence_proc.catalog import Books, Catalog, Commit, Generation, MapEntry, NamespaceEntry, Section
from persistence_proc.journal import read_journal
from persistence_proc.journal_format import (
    RawFrame,
    decode_frame,
    encode_frame,
    encode_payload,
    frames_in,
    scan_segment,
    segment_name,
)
from persistence_proc.namespaces import decode_run
from persistence_proc.pickle_file import Trailer, load_map, save_map
from persistence_proc.security import secure_socket
from persistence_proc.tools.foreign_values import show_value
from persistence_proc.tools.plain import plain
from protocol.changes import CLEAR, DELETE, DROP, INSERT, REPLACE, apply_change, decode_changes, encode_changes
from protocol.curve import CurveKeys
from protocol.disk import Disk
from protocol.endpoints import parse_endpoint
from protocol.folding import Fold, fold_changes
from protocol.frames import decode_records, encode_record
from protocol.keys import decode_key, encode_key, is_key
from protocol.messages import (
    decode_delta,
    decode_items,
    encode,
)
from protocol.notify import NOTIFY_VARIABLE, Notifier
from protocol.outbox_files import read_outbox, segment_path
from protocol.records import OrderStatus, Position, Side
from protocol.segments import ACKED_AT, SegmentHead, boot_mark, write_mark
from protocol.values import Trust, ValueCodec
from supervisor.child import Child
from tests.hostile.mutation import mend_records
from tests.protocol import shapes
from tests.protocol.test_messages import DELTA

PIPE = 30_000  # bytes that a pipe takes at once


class OneFile(Disk):
    """A disk that holds one file, in memory."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self.data = path, data

    def read_file(self, path: str) -> bytes:
        return self.data

    def exists(self, path: str) -> bool:
        return path in (self.path, os.path.dirname(self.path))

    def listdir(self, path: str) -> list[str]:
        return [os.path.basename(self.path)]


@functools.cache
def scratch() -> tempfile.TemporaryDirectory[str]:
    """A private folder for decoders that open files by themselves; it goes with the process."""
    return tempfile.TemporaryDirectory(prefix="ol-fuzz-")


def in_file(name: str, read: Callable[[str], object]) -> Callable[[bytes], object]:
    """Call `read(folder)` with the bytes in a file of that name."""

    def run(data: bytes) -> object:
        Path(scratch().name, name).write_bytes(data)
        return read(scratch().name)

    return run


# The protocol

CHANGES = [(INSERT, "m", encode_key("k"), b"v" * 5), (REPLACE, "m", encode_key(("a", 1, b"x")), b"w"),
           (DELETE, "m", encode_key(2**70), b""), (CLEAR, "n", b"", b""), (DROP, "o", b"", b"")]  # fmt: skip
PAYLOAD = encode_changes(CHANGES)
KEYS = ["k", 7, -1, 2**70, b"raw", ("a", 1, (b"x",)), "ü" * 200, ()]
ITEMS = {encode_key(key): b"v" * n for n, key in enumerate(KEYS[:6])}

CUTS = bytes([len(ITEMS), len(b"".join(ITEMS))])  # what `run_items` is told of them


def run_records(data: bytes) -> object:
    return list(decode_records(data))


def run_key(data: bytes) -> object:
    """A key comes back as the same bytes, whatever those were."""
    key = decode_key(data)
    assert encode_key(key) == data
    assert is_key(data)
    return key


def run_items(data: bytes) -> object:
    """Of two bytes how the rest is cut into three parts, and how many entries are claimed."""
    entries, cut, rest = data[0] if data else 0, data[1] if len(data) > 1 else 0, data[2:]
    at = len(rest) - 4 * entries - 4
    keys, values = decode_items((rest[:cut], rest[cut:at], rest[max(at, cut) :]), entries)
    return keys, list(values)


def run_delta(data: bytes) -> object:
    """A whole delta message: head and records."""
    head, part = data[: len(encode(DELTA))], data[len(encode(DELTA)) :]
    return decode_run(decode_delta(head), [part])


def mend_delta(data: bytes) -> bytes:
    return data[: len(encode(DELTA))] + mend_records(data[len(encode(DELTA)) :])


def run_folding(data: bytes) -> object:
    """What decodes also folds, and the folds do what the changes did."""
    changes = decode_changes(data)
    folds: dict[str, Fold] = {}
    fold_changes(folds, changes, False)
    folded = [change for name, fold in folds.items() for change in fold.changes(name)]
    decode_changes(encode_changes(folded))
    assert _applied(folded) == _applied(changes)
    return folded


def _applied(changes: Any) -> dict[str, dict[bytes, bytes]]:
    maps: dict[str, dict[bytes, bytes]] = {}
    for op, name, key, value in changes:
        apply_change(maps.setdefault(name, {}), op, key, value)
    return maps


def segment(payloads: int = 3) -> bytes:
    head = SegmentHead(bytes(16), b"i" * 16, boot_mark("boot"), 3, 7, 1024, "bot")
    records = b"".join(encode_record(10 + n, 7, 1, PAYLOAD) for n in range(1, payloads + 1))
    data = bytearray((head.encode() + records).ljust(1024, b"\0"))
    write_mark(memoryview(data), ACKED_AT, 10)
    return bytes(data)


def run_outbox(data: bytes) -> object:
    path = segment_path("/box", 1)
    return [read_outbox(OneFile(path, data), "/box", "bot", boot) for boot in ("boot", "later")]


def run_endpoint(data: bytes) -> object:
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = os.fsdecode(data)
    endpoint = parse_endpoint(text)
    return endpoint.is_loopback, endpoint.directory


def run_notifier(data: bytes) -> object:
    """Only numbers that are no descriptor of ours: it would set flags on them."""
    text = data.decode("latin-1")
    if text.isascii() and text.isdigit() and int(text[:9]) < 2**16:
        return None
    return Notifier({NOTIFY_VARIABLE: text}).listening


# Values

CODEC = ValueCodec(Trust([shapes]))
POSITION = Position(symbol="BTC/USDT", side=Side.LONG, quantity=Decimal("1.5"), entry_price=Decimal(9))
VALUES = (POSITION, {"a": [1, 2.5, Decimal("1.10")]}, shapes.Bar(1.0, ["x"]), OrderStatus.FILLED, shapes.Evil())
PICKLES = tuple(CODEC.dump(value) for value in VALUES[:-1]) + (pickle.dumps(VALUES[-1]),)


def run_shown(data: bytes) -> object:
    value = show_value(data)
    return repr(value), plain(value)


def run_global(data: bytes) -> object:
    """A pickle that names the global MODULE\\nNAME, with as many dots as it likes."""
    module, _, name = data.decode("utf-8", "replace").partition("\n")
    texts = [text.encode("utf-8", "surrogatepass") for text in (module, name)]
    return CODEC.load(b"\x80\x05" + b"".join(b"X%b%b" % (len(t).to_bytes(4, "little"), t) for t in texts) + b"\x93.")


# The persistence process's files

ENTRY = NamespaceEntry("bot", 3, 9, b"i" * 16, 1, {"69" * 16: (1, 1)}, False, 5, "boot")
CATALOG = Catalog(b"s" * 16, [ENTRY], [MapEntry("bot", "m", 3, 4, Generation(3, 77))], [("bot", "old", 1)])
COMMIT = Commit([Section(ENTRY, CHANGES)])
FRAMES = encode_frame(b"n" * 8, 1, encode_payload(CATALOG)) + encode_frame(b"n" * 8, 2, encode_payload(COMMIT))
SEGMENT = FRAMES + bytes(256)


def run_journal(data: bytes) -> object:
    path = "/journal/" + segment_name(1)
    scan_segment(path, memoryview(data))
    list(frames_in(memoryview(data)))
    contents = read_journal(OneFile(path, data), "/journal")
    assert contents is not None
    return list(contents.frames())


def run_payload(data: bytes) -> object:
    """What stands in a frame, and what the books make of it."""
    found = decode_frame("/journal/x.log", RawFrame(0, len(data), b"n" * 8, 1, memoryview(data)))
    books = Books(found if isinstance(found, Catalog) else None)
    if isinstance(found, Commit):
        books.apply(1, found)
    return books.catalog(b"s" * 16)


class Written(Disk):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        self.kept = bytearray()

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        return -1

    def write(self, fd: int, data: bytes | memoryview) -> None:
        self.kept += data

    def fsync(self, fd: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def fsync_dir(self, path: str) -> None: ...
    def replace(self, source: str, target: str) -> None: ...

    def exists(self, path: str) -> bool:
        return False


def map_file(items: dict[bytes, bytes]) -> bytes:
    disk = Written()
    trailer = Trailer(b"s" * 16, "bot", "m", 3, 7)
    save_map(disk, "/bot", "m", items.items(), len(items), trailer, before_rename=lambda: None)
    return bytes(disk.kept)


def run_map_file(data: bytes) -> object:
    return load_map(OneFile("/bot/m.pkl", data), "/bot/m.pkl")


# Keys of TCP, and the supervisor


@functools.cache
def key_files() -> tuple[bytes, bytes]:
    """(public, secret) of a pair, as files."""
    public, secret = zmq.auth.create_certificates(scratch().name, "sample")
    return Path(public).read_bytes(), Path(secret).read_bytes()


def run_client_keys(folder: str) -> object:
    Path(folder, "server.key").write_bytes(key_files()[0])
    with zmq.Context.instance().socket(zmq.REQ) as socket:
        CurveKeys(folder).use(socket)
    return None


def run_server_key(folder: str) -> object:
    with zmq.Context.instance().socket(zmq.PULL) as socket:
        secure_socket(socket, folder)
    return None


CLIENTS = b'[[client]]\nkey = "' + b"k" * 40 + b'"\nnamespaces = ["mine", "*"]\n'
CONFIG = b"""
[persistence]
data_dir = "state"
endpoint = "tcp://127.0.0.1:5757"
[restart]
limit = 3
window = 1e3
[services.exchange]
command = ["python", "-m", "demo"]
env = { A = "1" }
[strategies.momentum]
entry = "bots.momentum:main"
memory_limit = "512MiB"
watchdog = 30
"""


def run_words(data: bytes) -> object:
    """The supervisor's end of the pipe on which a child speaks, in two pieces."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    myself: Any = SimpleNamespace(pid=os.getpid())
    child = Child(myself, os.open(os.devnull, os.O_RDONLY), ours)
    heard: list[str] = []
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        os.write(theirs, piece[:PIPE])
        heard += child.read_words()[0]
    os.close(theirs)
    child.close()
    return heard
