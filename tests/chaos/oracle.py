"""What must be true, known outside of the processes that are killed: what a bot has said, and what follows from it."""

from __future__ import annotations

import os
from contextlib import nullcontext
from hashlib import blake2b
from pathlib import Path

from tests.promises.workload import Maps, step

PIPES_VARIABLE = "CHAOS_PIPES"
SAYS, TOLD = ".says", ".told"


class Lost(AssertionError):
    """A promise is broken."""


def digest(maps: Maps) -> str:
    """Of both maps, order and types of all they hold included."""
    return blake2b(repr([list(one.items()) for one in maps]).encode(), digest_size=16).hexdigest()


class Model:
    """The maps after step `k`, which only goes forward."""

    def __init__(self, weight: int) -> None:
        self.weight, self.k = weight, 0
        self.maps: Maps = ({}, {})

    def go_to(self, k: int) -> None:
        while self.k < k:
            self.k += 1
            step(self.k, self.maps, nullcontext, self.weight)

    def copy(self) -> Model:
        other = Model(self.weight)
        other.k, other.maps = self.k, (dict(self.maps[0]), dict(self.maps[1]))
        return other


class Truth:
    """Of one namespace, over all lives of its bot."""

    def __init__(self, name: str, weight: int) -> None:
        self.name, self.weight = name, weight
        self.said = self.synced = self.flushed = 0
        """The last step that had returned; behind which `sync` had; behind which `flush` had."""
        self._top, self._floor = Model(weight), Model(weight)
        self._files = [Model(weight), Model(weight)]

    def recovered(self, what: str) -> int:
        """Check the digest of a recovered state; the step to go on with.

        A bot says each step before it makes the next, so k is `said`, or one more that it could not say.
        """
        for k in (self.said, self.said + 1):
            self._top.go_to(k)
            if digest(self._top.maps) == what:
                self.said = k
                return k + 1
        raise Lost(f"{self.name}: {self._explain(what)}")

    def _explain(self, what: str) -> str:
        said = f"{self.said} steps had returned ({self.synced} synced, {self.flushed} flushed)"
        other = Model(self.weight)
        for k in range(self.said + 1000):
            if digest(other.maps) == what:
                return f"{said}, and the state is that after step {k}"
            other.go_to(k + 1)
        return f"{said}, and the state is that after no step at all"

    def in_the_journal(self, maps: Maps) -> None:
        """Check what the journal and the files alone give: a prefix that holds at least what was flushed."""
        self._floor.go_to(self.flushed)
        model = self._floor.copy()
        while not _same(model.maps, maps):
            if model.k > self.said:
                raise Lost(
                    f"{self.name}: no prefix from step {self.flushed} (flushed) to {self.said} is in the journal"
                )
            model.go_to(model.k + 1)

    def in_the_file(self, side: int, items: dict[object, object]) -> None:
        """Check what a plain reader sees of one map: a prefix, never older than what was seen before."""
        model, first = self._files[side], self._files[side].k
        while list(model.maps[side].items()) != list(items.items()):
            if model.k > self.said:
                raise Lost(f"{self.name}: map {side} on disk is no prefix from step {first} to {self.said + 1}")
            model.go_to(model.k + 1)


def _same(one: Maps, other: Maps) -> bool:
    return all(list(a.items()) == list(b.items()) for a, b in zip(one, other, strict=True))


class Ear:
    """Our ends of a bot's two pipes, and what is known of its present life. `pid` is 0 until it has said it."""

    def __init__(self, path: Path, truth: Truth) -> None:
        self.truth, self.pipes = truth, str(path)
        for end in (SAYS, TOLD):
            os.mkfifo(self.pipes + end, 0o600)
        self._says = os.open(self.pipes + SAYS, os.O_RDWR | os.O_NONBLOCK)
        self._told = os.open(self.pipes + TOLD, os.O_RDWR | os.O_NONBLOCK)
        self.pid = self.lives = self.recoveries = 0
        self.up = False
        """Whether the present life has recovered, and that was right."""

    def fileno(self) -> int:
        return self._says

    def listen(self) -> None:
        """Take in all that was said. Raises `Lost`."""
        while True:
            try:
                chunk = os.read(self._says, 65536)
            except BlockingIOError:
                return
            while chunk[-1:] != b"\n":  # lines are written whole, but we may read up to the middle of one
                chunk += os.read(self._says, 64)
            for line in chunk.decode().splitlines():
                self._hear(line)

    def _hear(self, line: str) -> None:
        if line.isdigit():
            self.truth.said = int(line)
            return
        verb, number, *rest = line.split()
        match verb:
            case "life":
                self.pid, self.up = int(number), False
                self.lives += 1
            case "recovered":
                first = self.truth.recovered(rest[0])
                self.up = True
                self.recoveries += 1
                self.tell(str(first))
            case "synced":
                self.truth.synced = int(number)
            case "flushed":
                self.truth.flushed = int(number)

    def tell(self, word: str) -> None:
        """To the present life."""
        os.write(self._told, f"{self.pid} {word}\n".encode())

    def close(self) -> None:
        os.close(self._says)
        os.close(self._told)
