"""What a start on a damaged data directory must come to, and the few losses that nothing on the disk can prove."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from persistence_proc.paths import PREVIOUS_SUFFIX
from persistence_proc.tools.reading import ShownStore, read_store
from protocol.errors import Damaged, ForeignStore, NamespaceDamaged, OutliveError, StateRefused, StateWentBack
from protocol.keys import decode_key
from protocol.outbox_files import decode_identity, encode_identity
from tests.damage.damages import Damage, Role, files_of, role_of, spares_the_newest
from tests.damage.still_server import BOOT, DIR, Bot, StillServer, small_world
from tests.damage.stores import Contents, Image, Past, Shape, contents, disk_of, image_of
from tests.lab.memory_disk import MemoryDisk

ADVICE = re.compile(r"[Rr]estore|[Pp]ut (the file|it) back|Move the file|outlive accept|docs/recovery\.md")
AT_BYTE = re.compile(r"at byte \d+")


class Unprovable(NamedTuple):
    """A loss that looks like something that happens without any. Never of what was acknowledged."""

    what: str
    roles: frozenset[Role]
    kinds: re.Pattern[str]
    kept: Callable[[Past], int]
    """The change up to which everything has to be there all the same."""


def _durable(past: Past) -> int:
    return past.durable


def _synced(past: Past) -> int:
    return max(past.durable, past.synced)


def _nothing(past: Past) -> int:
    return 0


UNPROVABLE = (
    Unprovable(
        "the newest records of an outbox, not synced: they look like an append that a kill has interrupted",
        frozenset({Role.OUTBOX}), re.compile(r"flipped|zeroed"), _synced,
    ),
    Unprovable(
        "an outbox segment, or all of them, away from their folder: nothing is left that knows of them",
        frozenset({Role.OUTBOX}), re.compile(r"deleted|renamed|put back|overwritten by|the folder"), _durable,
    ),
    Unprovable(
        "the end of the journal together with every outbox, where no map file is newer: as if it had never been",
        frozenset({Role.JOURNAL}), re.compile(r"and the outboxes gone"), _nothing,
    ),
)  # fmt: skip


class Result(NamedTuple):
    """How a start ended: `refused` if the persistence process did not, else what each bot got."""

    refused: Exception | None
    bots: dict[str, Contents | Exception]
    notes: list[str]

    @property
    def errors(self) -> list[Exception]:
        found = [one for one in self.bots.values() if isinstance(one, Exception)]
        return [self.refused] if self.refused else found


class Wrong(AssertionError):
    """A promise is broken."""


def start(disk: MemoryDisk, namespaces: list[str], boot: str) -> Result:
    """The persistence process starts, then the bots, each by the real entry point."""
    with small_world(boot):
        try:
            server = StillServer(disk)
        except (OutliveError, OSError) as error:
            return Result(error, {}, [])
        bots: dict[str, Contents | Exception] = {}
        try:
            for name in namespaces:
                try:
                    bot = Bot(server, disk, name)
                except (OutliveError, OSError) as error:
                    bots[name] = error
                else:
                    bots[name] = contents(bot.state)
                    bot.kill()
        finally:
            server.stop()
        return Result(None, bots, server.recovered.notes)


def damaged_disk(damage: Damage) -> MemoryDisk:
    disk = disk_of(damage.image)
    if damage.unreadable:
        bad = os.path.join(DIR, damage.unreadable)

        def fail(name: str, path: str) -> None:
            if name == "read_file" and path == bad:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        disk.on_call = fail
    return disk


def judge(shape: Shape, damage: Damage, boot: str = BOOT) -> str:
    """ "whole", "degraded", "refused" or "lost": how it went. Raises `Wrong`, and whatever should not be raised."""
    disk = damaged_disk(damage)
    result = start(disk, list(shape.pasts), boot)
    for error in result.errors:
        check_error(damage, error)
    if result.refused is not None:
        after = image_of(disk)
        if isinstance(result.refused, StateRefused):
            touched = _difference(_trimmed(damage.image), _trimmed(after))
            _must(not touched, f"a refused start has changed {touched}")
        return "refused"
    _check_kept(damage, disk, result)
    proven = spares_the_newest(shape, damage) and boot == BOOT
    by_outbox = [error for error in result.errors if not _names_a_path(str(error), damage)]
    _must(not (proven and by_outbox), f"the damage is proven by what follows, yet only an outbox noticed: {by_outbox}")
    lost = [_check_state(shape.pasts[name], damage, got) for name, got in result.bots.items()
            if not isinstance(got, Exception)]  # fmt: skip
    if result.errors:
        return "refused"
    if any(lost):
        _must(not proven, "the newest changes are lost though the damage is proven by what follows it")
        return "lost"
    return "degraded" if any("quarantine" in note or "degraded" in note for note in result.notes) else "whole"


def _must(true: bool, what: str) -> None:
    if not true:
        raise Wrong(what)


def _trimmed(image: Image) -> Image:
    """Without the zeros that a journal segment has in store: its newest may be written anew without them."""
    segments = {path: data for path, data in image.items() if data and role_of(path) is Role.JOURNAL}
    return {**image, **{path: data.rstrip(b"\0") for path, data in segments.items()}}


def _difference(before: dict[str, bytes | None], after: dict[str, bytes | None]) -> list[str]:
    return sorted(path for path in {*before, *after} if before.get(path, 0) != after.get(path, 0))


# The state


def _check_state(past: Past, damage: Damage, got: Contents) -> bool:
    """Whether something is lost that may be. The state is always one that was once true."""
    _must(got in past.states, f"a state that never was: {got}")
    at = max(n for n, state in enumerate(past.states) if state == got)
    if at == past.last:
        return False
    rows = [row for row in UNPROVABLE if _fits(row, damage)]
    kept = min((row.kept(past) for row in rows), default=past.last)
    _must(at >= kept, f"silently back at change {at} of {past.last} (durable {past.durable}, synced {past.synced})")
    return True


def _fits(row: Unprovable, damage: Damage) -> bool:
    return row.kinds.search(damage.kind) is not None and any(role_of(path) in row.roles for path in damage.paths)


# The words


def check_error(damage: Damage, error: Exception) -> None:
    """It has a name, and says where and what to do."""
    text = str(error)
    if not isinstance(error, StateRefused):
        _must(isinstance(error, OSError), f"not a refusal of ours: {error!r}")
        one_map = len(damage.paths) == 1 and role_of(damage.paths[0]) is Role.MAP  # the medium's word, as good as a CRC
        by_medium = (damage.unreadable or "folder" in damage.kind) and not one_map
        _must(bool(by_medium), f"an error of the disk where the disk has none: {error!r}")
        _must(_names_a_path(text, damage), f"an error of the disk that names no file: {error!r}")
        return
    _must("\n" not in text, f"more than a line: {text!r}")
    _must(bool(ADVICE.search(text)), f"it does not say what to do: {text}")
    compared = isinstance(error, StateWentBack | ForeignStore) and "outlive accept" in text
    _must(compared or _names_a_path(text, damage), f"it does not name the file: {text}")
    if damage.inside and isinstance(error, Damaged | NamespaceDamaged):
        _must(bool(AT_BYTE.search(text)), f"it names no offset: {text}")
    if isinstance(error, Damaged):
        _must(error.offset >= 0, f"an offset before the file: {text}")


def _names_a_path(text: str, damage: Damage) -> bool:
    """One of the damaged files, or where nothing is left of them, their folder, or a file that tells of it."""
    named = [path for path in {*files_of(damage.image), *damage.paths} if os.path.join(DIR, path) in text]
    folders = {os.path.dirname(path) for path in damage.paths}
    if damage.inside or damage.unreadable:
        return any(path in named for path in damage.paths)
    return bool(named) or any(os.path.join(DIR, folder) in text for folder in folders)


# What is left


def _check_kept(damage: Damage, disk: MemoryDisk, result: Result) -> None:
    """Nothing that is damaged was deleted or written over; an outbox that was read whole lives on in new segments."""
    left = image_of(disk)
    everything = set(left.values())
    for path in damage.paths:
        role, data = role_of(path), damage.image.get(path)
        if data is None or role in (Role.LOCK, Role.KEPT):
            continue
        namespace = path.partition("/")[0]
        served = not isinstance(result.bots.get(namespace), Exception)
        if role in (Role.OUTBOX, Role.IDENTITY) and served:
            continue
        if role is Role.IDENTITY and not damage.inside:
            data = _without_life(data)
            everything |= {_without_life(one) for one in left.values() if one}
        superseded = re.search("earlier time|backup|put back|state as of", damage.kind)
        if superseded and path.endswith(PREVIOUS_SUFFIX):
            continue  # whole, and older than what has now been saved twice
        if role is Role.JOURNAL:  # the newest may be written anew, without the zeros behind it
            data = data.rstrip(b"\0")
            everything |= {one.rstrip(b"\0") for one in left.values() if one}
        _must(data in everything, f"the bytes of {path} are no longer on the disk")


def _without_life(data: bytes) -> bytes:
    """Of an IDENTITY: each `connect` counts its life, also one that is refused."""
    try:
        return encode_identity(msgspec.structs.replace(decode_identity("", data), life=0))
    except Damaged:
        return data


# What `outlive show` makes of it


def judge_shown(shape: Shape, damage: Damage, boot: str = BOOT) -> None:
    """The state, or a part of it and a word about the rest; nothing written, nothing that never was."""
    disk = damaged_disk(damage)
    before = image_of(disk)
    with small_world(boot):
        shown = read_store(disk, DIR)
    _must(image_of(disk) == before, "looking has changed something")
    words = " ".join([*shown.problems, *(one.problem for one in shown.namespaces.values())])
    _must("\n" not in words, f"a problem of more than one line: {words!r}")
    for name, past in shape.pasts.items():
        got = _shown(shown, name)
        for map_name, items in got.items() if "the state as of" not in damage.kind else ():
            _must(any(state.get(map_name) == items for state in past.states), f"shown, and never was: {map_name}")
        if got != past.states[-1] and not words:
            _must(any(_fits(row, damage) for row in UNPROVABLE), f"{name} is shown as {got}, without a word")


def _shown(shown: ShownStore, name: str) -> Contents:
    if name not in shown.namespaces:
        return {}
    maps = shown.namespaces[name].maps
    return {key: [(decode_key(k), v) for k, v in one.items.items()] for key, one in maps.items() if one.items}
