"""Where everything of a data directory lies, and the small file STORE that says whose it is.

    STORE                          store id and format version (`encode_store`)
    LOCK, ENDPOINT, sockets/       of the running process
    journal/<first LSN>.log        `persistence_proc.journal_format`
    <namespace>/<map>.pkl          `persistence_proc.pickle_file`, and <map>.prev.pkl, the generation before
    <namespace>/outbox/            the strategy's own (`protocol.segments`)
    quarantine/                    whatever was damaged, kept

STORE, 40 bytes, little endian: magic 16, store id 16, format version u32, CRC-32 of the above u32.
"""

from __future__ import annotations

import os
from struct import Struct

from protocol.crc import crc32
from protocol.disk import Disk
from protocol.endpoints import ENDPOINT_FILE
from protocol.errors import Damaged, ProtocolMismatch
from protocol.names import is_namespace

STORE_MAGIC = b"outlive-store\0\0\0"
STORE_ID_BYTES = 16
FORMAT_VERSION = 1
PICKLE_SUFFIX, PREVIOUS_SUFFIX, TEMPORARY_SUFFIX = ".pkl", ".prev.pkl", ".tmp"

_STORE = Struct("<16s16sI")
_CRC = Struct("<I")


class Paths:
    """The paths of one data directory."""

    def __init__(self, data_dir: str) -> None:
        self.data_dir = data_dir
        self.store = os.path.join(data_dir, "STORE")
        self.lock = os.path.join(data_dir, "LOCK")
        self.endpoint = os.path.join(data_dir, ENDPOINT_FILE)
        self.sockets = os.path.join(data_dir, "sockets")
        self.journal = os.path.join(data_dir, "journal")
        self.quarantine = os.path.join(data_dir, "quarantine")

    def namespace(self, name: str) -> str:
        return os.path.join(self.data_dir, name)

    def outbox(self, namespace: str) -> str:
        return os.path.join(self.data_dir, namespace, "outbox")

    def current(self, namespace: str, map_name: str) -> str:
        return current_path(self.namespace(namespace), map_name)

    def previous(self, namespace: str, map_name: str) -> str:
        return previous_path(self.namespace(namespace), map_name)

    def namespaces(self, disk: Disk) -> list[str]:
        """Names of the directories that can be namespaces."""
        if not disk.exists(self.data_dir):
            return []
        names = [name for name in disk.listdir(self.data_dir) if is_namespace(name)]
        return [name for name in names if disk.is_dir(self.namespace(name))]


def current_path(folder: str, map_name: str) -> str:
    return os.path.join(folder, map_name + PICKLE_SUFFIX)


def previous_path(folder: str, map_name: str) -> str:
    return os.path.join(folder, map_name + PREVIOUS_SUFFIX)


def map_name_of(file_name: str) -> str | None:
    """The map whose current or previous generation a file name says it is; None for other files."""
    for suffix in (PREVIOUS_SUFFIX, PICKLE_SUFFIX):
        if file_name.endswith(suffix):
            return file_name[: -len(suffix)]
    return None


def encode_store(store_id: bytes) -> bytes:
    body = _STORE.pack(STORE_MAGIC, store_id, FORMAT_VERSION)
    return body + _CRC.pack(crc32(body))


def decode_store(path: str, data: bytes) -> bytes:
    """The store id. Raises `Damaged`, or `ProtocolMismatch` for the format of another version."""
    whole = len(data) == _STORE.size + _CRC.size and data[-_CRC.size :] == _CRC.pack(crc32(data[: _STORE.size]))
    magic, store_id, version = _STORE.unpack_from(data) if whole else (b"", b"", 0)
    if magic != STORE_MAGIC:
        remedy = "Move the file aside: the journal knows the store's id, and it is written anew at the next start."
        raise Damaged(path, 0, "the store's id fails its check", remedy)
    if version != FORMAT_VERSION:
        raise ProtocolMismatch(f"{path}: format {version}; this program reads format {FORMAT_VERSION}")
    return bytes(store_id)
