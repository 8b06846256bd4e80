"""Everything that disks and people do to the files of a data directory, one damage at a time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from persistence_proc.journal_format import HEADER_BYTES, encode_frame, frames_in, segment_name
from persistence_proc.pickle_file import TRAILER_BYTES
from protocol import frames
from protocol.outbox_files import IDENTITY_FILE, LOCK_FILE, SEGMENT_SUFFIX
from protocol.segments import ACKED_AT, RECORDS_AT
from tests.damage.stores import Image, Shape
from tests.lab.memory_disk import SECTOR


class Role(StrEnum):
    """What a file is for."""

    STORE = "STORE"
    JOURNAL = "journal segment"
    MAP = "map file"
    OUTBOX = "outbox segment"
    IDENTITY = "IDENTITY"
    LOCK = "LOCK"
    KEPT = "quarantined file"


class Damage(NamedTuple):
    """A damaged image. `paths` are the files that are not what they were; inside them, if `inside`."""

    kind: str
    paths: tuple[str, ...]
    image: Image
    inside: bool = False
    unreadable: str = ""
    """A file that the medium gives no more (EIO)."""

    def __str__(self) -> str:
        return f"{self.kind}: {', '.join(self.paths)}"


def role_of(path: str) -> Role:
    name = path.rpartition("/")[2]
    if path.startswith("quarantine/"):
        return Role.KEPT
    if path.startswith("journal/"):
        return Role.JOURNAL
    fixed = {"STORE": Role.STORE, LOCK_FILE: Role.LOCK, IDENTITY_FILE: Role.IDENTITY}
    return fixed.get(name) or (Role.OUTBOX if name.endswith(SEGMENT_SUFFIX) else Role.MAP)


def files_of(image: Image) -> dict[str, bytes]:
    return {path: data for path, data in sorted(image.items()) if data is not None}


def changed(image: Image, path: str, data: bytes | None, kind: str, inside: bool = False) -> Damage:
    return Damage(kind, (path,), {**image, path: data}, inside)


# Inside one file


def boundaries(path: str, data: bytes) -> list[int]:
    """Offsets at which something begins or ends."""
    view, role = memoryview(data), role_of(path)
    found = {0, len(data)}
    if role is Role.JOURNAL:
        for frame in frames_in(view):
            found |= {frame.offset + at for at in (0, 4, 8, 16, 24, HEADER_BYTES)} | {frame.end}
    elif role is Role.OUTBOX:
        found |= {16, 32, 48, 64, 72, 80, 88, 96, 160, 164, RECORDS_AT}
        found |= set(range(ACKED_AT, ACKED_AT + 49, 4))
        at = RECORDS_AT
        while (record := frames.record_at(view, at)) is not None:
            found |= {at + field for field in (0, 4, 8, 16, 20, frames.HEADER_BYTES)}
            at += frames.record_bytes(len(record.payload))
            found.add(at)
    elif role is Role.MAP and len(data) > TRAILER_BYTES:
        found |= {2, 10, 17, 18, 20, 21, 22}
        found |= {len(data) - TRAILER_BYTES + at for at in (0, 16, 32, 40, 48, 56, 64, 128, 192)}
    elif role is Role.STORE:
        found |= {16, 32, 36}
    elif role is Role.IDENTITY:
        found |= {4}
    return sorted(at for at in found if at <= len(data))


def newest_at(path: str, data: bytes) -> int:
    """Where the last frame or record that counts begins; 0 if the file has none."""
    view = memoryview(data)
    if role_of(path) is Role.JOURNAL:
        return max((frame.offset for frame in frames_in(view)), default=0)
    starts = [at for at in boundaries(path, data) if at >= RECORDS_AT and frames.record_at(view, at) is not None]
    return max(starts, default=0) if role_of(path) is Role.OUTBOX else 0


def spares_the_newest(shape: Shape, damage: Damage) -> bool:
    """Whether a whole frame or record stands behind the damage, so that nobody can take it for a torn tail."""
    if not damage.inside or len(damage.paths) > 1:
        return False
    old, new = shape.image[damage.paths[0]] or b"", damage.image[damage.paths[0]] or b""
    differing = [at for at in range(min(len(old), len(new))) if old[at] != new[at]]
    return len(new) >= len(old) and max(differing, default=0) < newest_at(damage.paths[0], old)


def headers(path: str, data: bytes) -> list[int]:
    """The offsets of all bytes that say something about others: fields up to the payload, trailers, marks."""
    role, view = role_of(path), memoryview(data)
    if role in (Role.STORE, Role.IDENTITY):
        return list(range(len(data)))
    if role is Role.JOURNAL:
        return [at for frame in frames_in(view) for at in range(frame.offset, frame.offset + HEADER_BYTES)]
    if role is Role.OUTBOX:
        starts = [at for at in boundaries(path, data) if at >= RECORDS_AT and frames.record_at(view, at) is not None]
        return [*range(164), *range(ACKED_AT, ACKED_AT + 48)] + [
            at for start in starts for at in range(start, start + frames.HEADER_BYTES)
        ]
    if role is Role.MAP:
        return [*range(min(22, len(data))), *range(max(0, len(data) - TRAILER_BYTES), len(data))]
    return []


def cuts(image: Image, path: str, data: bytes, lengths: Iterable[int]) -> Iterator[Damage]:
    for length in sorted({at for at in lengths if 0 <= at < len(data)}):
        yield changed(image, path, data[:length], f"cut at {length}", inside=True)


def flips(image: Image, path: str, data: bytes, bits: Iterable[tuple[int, int]]) -> Iterator[Damage]:
    for at, bit in sorted(set(bits)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        yield changed(image, path, bytes(flipped), f"bit {bit} of byte {at} flipped", inside=True)


def zeroed(image: Image, path: str, data: bytes) -> Iterator[Damage]:
    for at in range(0, len(data), SECTOR):
        block = data[at : at + SECTOR]
        if block.strip(b"\0"):
            blank = data[:at] + bytes(len(block)) + data[at + SECTOR :]
            yield changed(image, path, blank, f"{len(block)} bytes zeroed at {at}", inside=True)


def appended(image: Image, path: str, data: bytes, chance: random.Random) -> Iterator[Damage]:
    tails = {"a byte": b"\x01", "512 bytes": chance.randbytes(SECTOR), "512 zeros": bytes(SECTOR)}
    alien = encode_frame(chance.randbytes(8), 2**40, b"a commit of another segment")
    tails["a frame of another segment"] = alien
    tails["a record of another epoch"] = frames.encode_record(2**40, 77, 1, b"\x90")
    for what, tail in tails.items():
        yield changed(image, path, data + tail, f"{what} appended", inside=True)
    if role_of(path) in (Role.JOURNAL, Role.OUTBOX):
        used = boundaries(path, data)[-2]
        for what, tail in tails.items():
            joined = data[:used] + tail + data[used + len(tail) :]
            yield changed(image, path, joined, f"{what} right behind the last that counts", inside=True)


def inside(shape: Shape, path: str, chance: random.Random, far: bool) -> Iterator[Damage]:
    """All damages inside one file: far, at each of its bytes that say something, and at each bit of most headers
    (where another file or shape has them already, at one bit of each byte).
    """
    data = files_of(shape.image)[path]
    fields, bits = headers(path, data), range(8)
    again = shape.name == "closed" or (role_of(path) is Role.MAP and not path.endswith("/a.pkl"))
    some = chance.sample(range(len(data)), min(len(data), 8))
    used = range(len(data.rstrip(b"\0")) + 2)
    edges = sorted({at + by for at in boundaries(path, data) for by in (-1, 0, 1)})
    if far:
        cut_at = [*used, *some]
        flip_at = [(at, bit) for at in fields for bit in bits if not again]
        flip_at += [(at, chance.choice(bits)) for at in (*used[:-2], *some)]
    else:
        cut_at = [*chance.sample(edges, min(len(edges), 12)), *some[:2]]
        flip_at = [(at, chance.choice(bits)) for at in chance.sample(fields, min(len(fields), 12)) + some]
    yield from cuts(shape.image, path, data, cut_at)
    yield from flips(shape.image, path, data, flip_at)
    yield from zeroed(shape.image, path, data)
    yield from appended(shape.image, path, data, chance)


# Whole files


def whole_files(shape: Shape, foreign: Shape) -> Iterator[Damage]:
    """Each file deleted, in another's place, as it was before, unreadable, or a folder."""
    image = shape.image
    files = files_of(image)
    for path, data in files.items():
        yield Damage("deleted", (path,), {p: d for p, d in image.items() if p != path})
        yield changed(image, path, b"", "emptied")
        yield changed(image, path, None, "a folder in its place")
        yield Damage("unreadable", (path,), image, unreadable=path)
        for number, older in enumerate(_versions(shape.earlier, path, data)):
            yield changed(image, path, older, f"version {number} put back")
        for other, its in files.items():
            if other > path and its != data:
                yield Damage("swapped", (path, other), {**image, path: its, other: data})
            if other != path and role_of(other) is role_of(path):
                yield changed(image, path, its, f"overwritten by {other}")
        for other, its in files_of(foreign.image).items():
            if role_of(other) is role_of(path) and its != data:
                yield changed(image, path, its, f"overwritten by {other} of another store")
    yield from _numbered(image, files)


def _versions(earlier: list[Image], path: str, now: bytes) -> list[bytes]:
    found = [before.get(path) for before in earlier]
    return [data for data in dict.fromkeys(found) if data is not None and data != now]


def _numbered(image: Image, files: dict[str, bytes]) -> Iterator[Damage]:
    """Segments under another number, or under a name that only looks like one."""
    for path, data in files.items():
        folder = path.rpartition("/")[0]
        if role_of(path) is Role.JOURNAL:
            names = [segment_name(number) for number in (0, 1, 9, 12, 10**6)] + ["copy.log", "1.log"]
        elif role_of(path) is Role.OUTBOX:
            names = [f"{number:08d}.seg" for number in (0, 1, 9)] + ["copy.seg", "00000004 (copy).seg"]
        elif role_of(path) is Role.MAP:
            names = ["copy.pkl", "copy.prev.pkl", "of a.pkl"]
        else:
            continue
        for name in names:
            if (copy := f"{folder}/{name}") not in files:
                yield Damage("copied", (copy,), {**image, copy: data})
                renamed = {p: d for p, d in image.items() if p != path}
                yield Damage(f"renamed from {path}", (path, copy), {**renamed, copy: data})


# Whole folders


def folders(shape: Shape, foreign: Shape) -> Iterator[Damage]:
    """Folders deleted, renamed, exchanged, taken from another store, or from another time."""
    image = shape.image
    names = [path for path, data in image.items() if data is None]
    for name in names:
        below = [path for path in image if path == name or path.startswith(f"{name}/")]
        rest = {path: data for path, data in image.items() if path not in below}
        lost = tuple(path for path in below if image[path] is not None) or (name,)
        yield Damage("the folder deleted", lost, rest)
        yield Damage("the folder emptied", lost, {**rest, name: None})
        yield Damage("a file in the folder's place", lost, {**rest, name: b"a file"})
        moved = {"moved" + path[len(name) :] if "/" not in name else f"{name}-x{path[len(name):]}": image[path]
                 for path in below}  # fmt: skip
        yield Damage("the folder renamed", lost, {**rest, **moved})
        for kind, other in [("another store", foreign.image), *(("an earlier time", old) for old in shape.earlier)]:
            taken = {path: data for path, data in other.items() if path == name or path.startswith(f"{name}/")}
            if taken and taken != {path: image[path] for path in below}:
                yield Damage(f"the folder as of {kind}", lost, {**rest, **taken})
    yield from _state_without_outboxes(shape, foreign)
    yield from _journals_without_outboxes(shape)


def _journals_without_outboxes(shape: Shape) -> Iterator[Damage]:
    """The journal lacks its end, and no outbox is left to tell: the map files may be newer than it."""
    bare = {path: data for path, data in shape.image.items() if "/outbox" not in path}
    segments = [path for path in files_of(bare) if role_of(path) is Role.JOURNAL]
    rest = {path: data for path, data in bare.items() if path not in segments}
    gone = tuple(path for path in shape.image if "/outbox/" in path)
    for count in range(1, len(segments)):
        lost = tuple(segments[-count:])
        kept = {path: bare[path] for path in segments[:-count]}
        yield Damage(f"the newest {count} segments and the outboxes gone", lost + gone, {**rest, **kept})
    for number, older in enumerate(shape.earlier):
        journal = {path: data for path, data in files_of(older).items() if role_of(path) is Role.JOURNAL}
        yield Damage(f"the journal of moment {number} and the outboxes gone", (*segments, *gone), {**rest, **journal})


def _state_without_outboxes(shape: Shape, foreign: Shape) -> Iterator[Damage]:
    """All that the persistence process wrote is from a backup, or from another store, or gone; the outboxes are not."""
    own = {path: data for path, data in shape.image.items() if "/outbox" in path}
    parents = {path.partition("/")[0]: None for path in own}
    for kind, other in [("another store", foreign.image), *(("an older backup", old) for old in shape.earlier)]:
        restored = {path: data for path, data in other.items() if "/outbox" not in path}
        paths = tuple(path for path in files_of(shape.image) if "/outbox" not in path)
        yield Damage(f"the state as of {kind}", paths, {**parents, **restored, **own})
    paths = tuple(path for path in files_of(shape.image) if "/outbox" not in path)
    yield Damage("all but the outboxes deleted", paths, {**parents, **own})
