"""Every decoder of bytes that others wrote: how it is called, what it may raise, and what it is given when all is well.

The table serves the hypothesis tests, the storm of seeded mutations, and the coverage-guided fuzzer alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from persistence_proc.journal_format import (
    encode_payload,
)
from persistence_proc.paths import decode_store, encode_store
from persistence_proc.security import load_access
from protocol.changes import decode_changes, encode_changes
from protocol.endpoints import EndpointFile, read_endpoint_file
from protocol.errors import (
    ConfigError,
    Damaged,
    ForeignStore,
    MalformedMessage,
    ProtocolMismatch,
    SocketPathTooLong,
    UntrustedType,
    ValueUnreadable,
)
from protocol.frames import encode_record
from protocol.keys import decode_keys, encode_key, join_keys
from protocol.messages import (
    decode_delta,
    decode_reply,
    decode_request,
    encode,
    encode_items,
)
from protocol.outbox_files import Identity, decode_identity, encode_identity
from protocol.segments import decode_segment
from supervisor.config import parse_config
from supervisor.control import Command, Done, decode_answer, decode_command
from tests.hostile.inputs import (
    CATALOG,
    CHANGES,
    CLIENTS,
    CODEC,
    COMMIT,
    CONFIG,
    CUTS,
    ITEMS,
    KEYS,
    PAYLOAD,
    PICKLES,
    SEGMENT,
    in_file,
    key_files,
    map_file,
    mend_delta,
    run_client_keys,
    run_delta,
    run_endpoint,
    run_folding,
    run_global,
    run_items,
    run_journal,
    run_key,
    run_map_file,
    run_notifier,
    run_outbox,
    run_payload,
    run_records,
    run_server_key,
    run_shown,
    run_words,
    segment,
)
from tests.hostile.mutation import as_it_is, mend_end, mend_frames, mend_front, mend_records, mend_segment
from tests.protocol.test_messages import DELTA, REPLIES, REQUESTS

Errors = tuple[type[Exception], ...]


class Decoder(NamedTuple):
    """One decoder. `mend` puts right the checksums of mutated bytes; `unpickles`: Python's own reader is behind it."""

    run: Callable[[bytes], object]
    errors: Errors
    samples: tuple[bytes, ...]
    mend: Callable[[bytes], bytes] = as_it_is
    unpickles: bool = False

    def outcome(self, data: bytes) -> str:
        """ "read" or "refused". Whatever else the decoder raises goes through: that is the finding."""
        try:
            self.run(data)
        except self.errors:
            return "refused"
        return "read"


MALFORMED: Errors = (MalformedMessage,)
DAMAGED: Errors = (Damaged,)
BAD_CONFIG: Errors = (ConfigError,)
UNLOADABLE: Errors = (UntrustedType, ValueUnreadable)

DECODERS: dict[str, Decoder] = {
    "request": Decoder(decode_request, MALFORMED, tuple(map(encode, REQUESTS))),
    "reply": Decoder(decode_reply, MALFORMED, tuple(map(encode, REPLIES))),
    "delta-head": Decoder(decode_delta, MALFORMED, (encode(DELTA),)),
    "delta": Decoder(run_delta, MALFORMED, (encode(DELTA) + encode_record(3, 1, 1, PAYLOAD),), mend_delta),
    "items": Decoder(run_items, MALFORMED, (CUTS + b"".join(encode_items(ITEMS)),)),
    "records": Decoder(run_records, MALFORMED, (encode_record(1, 1, 1, PAYLOAD) * 2,), mend_records),
    "changes": Decoder(decode_changes, MALFORMED, (PAYLOAD,)),
    "folding": Decoder(run_folding, MALFORMED, (PAYLOAD, encode_changes(CHANGES[:3] * 3))),
    "key": Decoder(run_key, MALFORMED, tuple(map(encode_key, KEYS))),
    "keys": Decoder(decode_keys, MALFORMED, (join_keys(map(encode_key, KEYS)),), unpickles=True),
    "segment": Decoder(lambda data: decode_segment("/x.seg", data), DAMAGED, (segment(),), mend_segment),
    "outbox": Decoder(run_outbox, (Damaged, ForeignStore), (segment(), segment(1)), mend_segment),
    "identity": Decoder(
        lambda data: decode_identity("/IDENTITY", data), DAMAGED,
        (encode_identity(Identity("bot", b"i" * 16, 3, b"s" * 16)),), mend_front,
    ),
    "endpoint": Decoder(
        run_endpoint, (ConfigError, SocketPathTooLong), (b"ipc:///a/b", b"tcp://[::1]:5757", b"tcp://localhost:1")
    ),
    "endpoint-file": Decoder(
        in_file("ENDPOINT", read_endpoint_file), MALFORMED,
        (msgspec.json.encode(EndpointFile(address="ipc:///a", pid=1, instance="i")),),
    ),
    "notify-variable": Decoder(run_notifier, (), (b"70000", b"")),
    "value": Decoder(CODEC.load, UNLOADABLE, PICKLES, unpickles=True),
    "values": Decoder(lambda data: CODEC.load_many([PICKLES[0], data, data]), UNLOADABLE, PICKLES, unpickles=True),
    "shown": Decoder(run_shown, (), PICKLES, unpickles=True),
    "global": Decoder(run_global, UNLOADABLE, (b"protocol.records\nPosition", b"builtins\nset", b"os\nsystem")),
    "journal": Decoder(run_journal, DAMAGED, (SEGMENT,), mend_frames),
    "payload": Decoder(run_payload, DAMAGED, (encode_payload(CATALOG), encode_payload(COMMIT))),
    "map-file": Decoder(run_map_file, DAMAGED, (map_file(ITEMS),), mend_end),
    "store": Decoder(
        lambda data: decode_store("/STORE", data), (Damaged, ProtocolMismatch), (encode_store(b"s" * 16),), mend_end
    ),
    "client-list": Decoder(in_file("clients.toml", load_access), BAD_CONFIG, (CLIENTS, CLIENTS * 2)),
    "client-key": Decoder(in_file("client.key_secret", run_client_keys), BAD_CONFIG, key_files()[1:]),
    "server-key": Decoder(in_file("server.key_secret", run_server_key), BAD_CONFIG, key_files()[1:]),
    "config": Decoder(lambda data: parse_config(data, "/folder"), BAD_CONFIG, (CONFIG,)),
    "command": Decoder(decode_command, MALFORMED, (msgspec.json.encode(Command(verb="stop", name="bot")),)),
    "answer": Decoder(decode_answer, MALFORMED, (msgspec.json.encode(Done(message="m")),)),
    "words": Decoder(run_words, (), (b"ready\nbeat\nrecovering 40\n",)),
}  # fmt: skip
"""Name -> decoder."""
