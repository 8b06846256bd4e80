"""Data directories as real work leaves them, each with all that was ever true of it.

An image is a directory tree as a dict: path below the data directory -> contents, or None for a folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from persistence_proc.journal_format import encode_frame
from protocol.changes import CLEAR, DELETE, DROP, INSERT, REPLACE, Change, apply_change
from protocol.disk import Disk
from protocol.keys import decode_key, encode_key
from strategy_proc.state import State
from tests.damage.still_server import DIR, Bot, StillServer, small_world
from tests.lab.memory_disk import File, Folder, MemoryDisk

Image = dict[str, bytes | None]
Contents = dict[str, list[tuple[object, bytes]]]
"""Map -> its items in order: what a bot sees. Maps without items count as none."""


class Past(NamedTuple):
    """What was true of one namespace. `states[n]` is the state after change n."""

    states: list[Contents]
    durable: int
    """The last change that the journal has."""
    acked: int
    """The last change of which the outbox knows that."""
    synced: int
    """The last change that the outbox has synced."""

    @property
    def last(self) -> int:
        return len(self.states) - 1


class Shape(NamedTuple):
    """One data directory. `earlier`: images of it at former moments, oldest first."""

    name: str
    image: Image
    pasts: dict[str, Past]
    earlier: list[Image]


def contents(state: State) -> Contents:
    return {name: list(items.items()) for name, items in state.items() if items}


def image_of(disk: MemoryDisk) -> Image:
    disk.harvest()
    image: Image = {}

    def add(folder: Folder, prefix: str) -> None:
        for name, node in sorted(folder.names.items()):
            if isinstance(node, Folder):
                image[prefix + name] = None
                add(node, f"{prefix}{name}/")
            else:
                image[prefix + name] = bytes(node.written)

    add(disk._folder(DIR), "")
    return image


def disk_of(image: Image) -> MemoryDisk:
    """A disk that holds `image`, all of it durable."""
    root = Folder()
    folders = {"": Folder()}
    root.names[DIR.strip("/")] = folders[""]
    for path, data in sorted(image.items()):
        parent, _, name = path.rpartition("/")
        if data is None:
            folders[path] = folders[parent].names[name] = Folder()
        else:
            file = folders[parent].names[name] = File()
            file.written, file.durable = bytearray(data), data
    for folder in (root, *folders.values()):
        folder.durable = dict(folder.names)
    return MemoryDisk(root)


def write_image(image: Image, data_dir: str) -> None:
    """The same on the real disk."""
    for path, data in sorted(image.items()):
        full = os.path.join(data_dir, path)
        if data is None:
            os.mkdir(full, 0o700)
        else:
            Disk().write_file(full, data)


class Life:
    """A store being lived in, and the plain dicts beside it that say what it holds."""

    def __init__(self, elsewhere: bool) -> None:
        self._elsewhere = elsewhere
        self.disk = MemoryDisk()
        self.server = StillServer(self.disk)
        self.bots: dict[str, Bot] = {}
        self.states: dict[str, list[Contents]] = {}
        self._maps: dict[str, dict[str, dict[bytes, bytes]]] = {}
        self.earlier: list[Image] = []

    def connect(self, namespace: str) -> Bot:
        self.states.setdefault(namespace, [{}])
        bot = self.bots[namespace] = Bot(self.server, self.disk, namespace)
        assert contents(bot.state) == self.states[namespace][-1]
        return bot

    def do(self, namespace: str, *changes: Change) -> None:
        """One transaction, in the outbox only. Another store holds other values."""
        if self._elsewhere:
            changes = tuple((op, name, key, value[::-1]) for op, name, key, value in changes)
        self.bots[namespace].record(*changes)
        maps = self._maps.setdefault(namespace, {})
        for op, name, key, value in changes:
            apply_change(maps.setdefault(name, {}), op, key, value)
        state = {name: [(decode_key(key), value) for key, value in items.items()] for name, items in maps.items()}
        self.states[namespace].append({name: items for name, items in state.items() if items})

    def put(self, namespace: str, name: str, key: str, value: str, count: int = 1) -> None:
        for n in range(count):
            self.do(namespace, (INSERT, name, encode_key(f"{key}{n}"), value.encode()))

    def ship(self, namespace: str, acknowledge: bool = True) -> None:
        self.bots[namespace].ship(acknowledge)

    def save(self, namespace: str, *names: str) -> None:
        for name in names:
            self.server.save((namespace, name))

    def remember(self) -> None:
        self.earlier.append(image_of(self.disk))

    def restart_server(self) -> None:
        self.server.stop()
        self.server = StillServer(self.disk)

    def first_segment(self) -> int:
        return self.server._writer.journal.segments[0][0]

    def tear_journal(self) -> None:
        """A commit is being written when all ends: its head is there."""
        journal = self.server._writer.journal
        begun = encode_frame(journal._nonce, journal.last_lsn + 1, b"half a commit " * 12)[:100]
        self.disk.pwrite(journal._fd, begun, journal.used)

    def end(self, name: str) -> Shape:
        """Everything is killed where it stands."""
        pasts = {}
        for namespace, states in self.states.items():
            outbox = self.bots[namespace].outbox
            durable = self.server.store.namespaces[namespace].durable
            pasts[namespace] = Past(states, durable, outbox.acked, outbox.synced)
        for bot in self.bots.values():
            bot.kill()
        self.server.stop()
        image = image_of(self.disk)
        image["LOCK"] = b""
        image |= {f"{namespace}/outbox/LOCK": b"" for namespace in pasts}
        return Shape(name, image, pasts, self.earlier)


def replace(name: str, key: str, value: str) -> Change:
    return REPLACE, name, encode_key(key), value.encode()


def delete(name: str, key: str) -> Change:
    return DELETE, name, encode_key(key), b""


def young(life: Life) -> Shape:
    """A first session: one segment of the journal, no map file, the last changes only in the outbox."""
    life.connect("bot")
    life.put("bot", "a", "k", "one", 3)
    life.ship("bot")
    life.remember()
    life.put("bot", "a", "l", "two", 2)
    life.ship("bot", acknowledge=False)
    life.put("bot", "b", "m", "three", 2)
    return life.end("young")


def busy(life: Life) -> Shape:
    """Two namespaces at work: two generations, frames in no file yet, several segments, a map dropped and one that is
    idle and older than the journal, an outbox with leftovers in two segments, a journal with a torn tail.
    """
    life.connect("bot")
    life.connect("other")
    life.put("bot", "a", "k", "one", 3)
    life.put("bot", "gone", "k", "dropped", 1)
    life.put("bot", "idle", "k", "never changed again", 2)
    life.put("other", "a", "k", "of the other", 2)
    life.ship("bot")
    life.ship("other")
    life.save("bot", "a", "gone", "idle")
    life.save("other", "a")
    life.remember()
    life.do("bot", (DROP, "gone", b"", b""))
    life.do("bot", replace("a", "k0", "ONE"), replace("b", "x", "transaction"))
    life.ship("bot")
    life.disk.unlink(f"{DIR}/bot/gone.pkl")
    life.save("bot", "a", "idle", "b")
    life.put("other", "a", "l", "newer", 2)
    life.ship("other")
    life.save("other", "a", "a")
    life.save("bot", "a", "b")
    life.server.rotate()
    assert life.first_segment() > 1, "no map is older than the journal: the hardest case is missing"
    life.remember()
    life.do("bot", delete("a", "k1"), (CLEAR, "b", b"", b""))
    life.put("bot", "c", "k", "in no file", 2)
    life.ship("bot")
    life.save("bot", "a")
    life.server.rotate()
    life.tear_journal()
    life.restart_server()
    life.bots["bot"].kill()
    life.bots["other"].kill()
    life.connect("bot")
    life.connect("other")
    life.remember()
    life.put("bot", "a", "n", "after the restart", 2)
    life.ship("bot")
    life.do("other", replace("a", "l0", "again"))
    life.ship("other")
    life.remember()
    life.put("bot", "a", "o", "never acknowledged", 2)
    life.ship("bot", acknowledge=False)
    life.put("bot", "a", "p", "synced" * 20, 8)
    life.bots["bot"].outbox.sync()
    life.put("bot", "a", "q", "only in the outbox" * 5, 8)
    life.tear_journal()
    return life.end("busy")


def closed(life: Life) -> Shape:
    """Everybody has said good-bye, every map is saved twice, the journal is trimmed."""
    for round in ("first", "second"):
        for namespace in ("bot", "quiet"):
            life.connect(namespace)
            life.put(namespace, "a", round, namespace, 3)
            life.put(namespace, "b", round, namespace * 3, 2)
            life.bots[namespace].leave()
            life.save(namespace, "a", "b")
        life.remember()
        life.server.rotate()
    for namespace in ("bot", "quiet"):
        life.save(namespace, "a", "b")
    life.server.rotate()
    assert life.first_segment() > 1, "no map is older than the journal"
    return life.end("closed")


SHAPES: dict[str, Callable[[Life], Shape]] = {made.__name__: made for made in (young, busy, closed)}


def build(name: str, elsewhere: bool = False) -> Shape:
    with small_world():
        return SHAPES[name](Life(elsewhere))
