"""What a power cut may leave of a folder tree: all of it, in order, or by chance.

First which names there are: any part of what was done to each folder since its sync. Then, of each file that still has
a name, its length and each of its sectors. Every combination is one state, and no state comes twice.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import Any

from tests.lab.medium import SECTOR, File, Folder, Node, Renaming

Unread = Callable[[str], bool]
"""Whether files of a name are never read: then their contents are left as written, and not varied."""
Layout = dict[int, dict[str, Node]]
"""id of a folder -> its names after the cut."""
Pick = Callable[[Sequence[Any]], Any]


def every(root: Folder, limit: int, unread: Unread) -> list[tuple[Layout, list[File]]] | None:
    """All states, names first: to be made by `made`. None if there are more than `limit`."""
    layouts = _layouts(root, limit)
    if layouts is None:
        return None
    found = [(layout, _files(root, layout, unread)) for layout in layouts]
    return found if count(found, limit) <= limit else None


def count(layouts: list[tuple[Layout, list[File]]], limit: int) -> int:
    """How many states there are; more than `limit` are not counted exactly."""
    total = 0
    for _, files in layouts:
        total += prod(_ways(file, limit) for file in files)
        if total > limit:
            break
    return total


def made(root: Folder, layouts: list[tuple[Layout, list[File]]]) -> Iterator[Folder]:
    """Each state of `layouts`."""
    for layout, files in layouts:
        for contents in itertools.product(*map(_contents, files)):
            yield _settled(root, layout, {id(f): c for f, c in zip(files, contents, strict=True)}, {})


def some(root: Folder, chance: random.Random, unread: Unread) -> Iterator[Folder]:
    """Nothing that was not synced; everything; the folders' changes up to each, without each, and each alone, each
    with all contents and with none; then one by chance after the other, for ever.
    """
    changes = _changes(root)
    firsts = [range(0), range(len(changes))]
    firsts += [range(n) for n in range(1, len(changes))]
    choices = [set(one) for one in firsts] + [{n} for n in range(len(changes))]
    choices += [set(range(len(changes))) - {n} for n in range(len(changes))]
    for kept in choices:
        layout = _layout(_folders(root), [changes[n] for n in sorted(kept)])
        for pick in (_newest, _durable):
            yield _picked(root, layout, pick, unread)
    while True:
        yield by_chance(root, chance, unread)


def by_chance(root: Folder, chance: random.Random, unread: Unread = lambda name: False) -> Folder:
    """One state."""
    layout = _layout(_folders(root), [one for one in _changes(root) if chance.random() < 0.5])
    return _picked(root, layout, chance.choice, unread)


def _newest(options: Sequence[Any]) -> Any:
    return options[-1]


def _durable(options: Sequence[Any]) -> Any:
    return options[0]


# Names

Change = tuple[Folder, Renaming]


def _folders(root: Folder) -> list[Folder]:
    """Every folder that has a name or may have one."""
    found: dict[int, Folder] = {}
    todo: list[Node] = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, Folder) and id(node) not in found:
            found[id(node)] = node
            todo += [*node.names.values(), *node.durable.values(), *(c.node for c in node.pending if c.node)]
    return list(found.values())


def _changes(root: Folder) -> list[Change]:
    return [(folder, one) for folder in _folders(root) for one in folder.pending]


def _layouts(root: Folder, limit: int) -> list[Layout] | None:
    """Every way in which the folders may be left, each once; None if there are certainly more than `limit`."""
    changes = _changes(root)
    if 2 ** len(changes) > 4 * limit:
        return None
    found: dict[tuple[object, ...], Layout] = {}
    folders = _folders(root)
    for kept in itertools.product((False, True), repeat=len(changes)):
        layout = _layout(folders, itertools.compress(changes, kept))
        found.setdefault(_shape(root, layout), layout)
    return list(found.values())


def _layout(folders: list[Folder], kept: Iterable[Change]) -> Layout:
    layout = {id(folder): dict(folder.durable) for folder in folders}
    for folder, change in kept:
        change.apply(layout[id(folder)])
    return layout


def _shape(folder: Folder, layout: Layout) -> tuple[object, ...]:
    names = layout[id(folder)]
    return tuple((n, id(x), _shape(x, layout) if isinstance(x, Folder) else ()) for n, x in sorted(names.items()))


def _files(root: Folder, layout: Layout, unread: Unread) -> list[File]:
    """The files that have a name in `layout` under which they are read, each once."""
    found: dict[int, File] = {}
    todo = [root]
    while todo:
        for name, node in sorted(layout[id(todo.pop())].items()):
            if isinstance(node, Folder):
                todo.append(node)
            elif not unread(name):
                found[id(node)] = node
    return list(found.values())


# Contents


def _ways(file: File, limit: int) -> int:
    """How many contents a file may have; more than `limit` are not counted exactly."""
    total = 0
    for length in set(file.possible_lengths()):
        ways = 1
        for number in file.changed(length):
            ways *= len(set(file.options(number, length)))
            if ways > limit:
                return limit + 1
        total += ways
    return total


def _contents(file: File) -> Iterator[bytes]:
    for length in dict.fromkeys(file.possible_lengths()):
        changed = file.changed(length)
        for sectors in itertools.product(*(dict.fromkeys(file.options(number, length)) for number in changed)):
            yield _content(file, length, dict(zip(changed, sectors, strict=True)))


def _content(file: File, length: int, sectors: dict[int, bytes]) -> bytes:
    content = bytearray(file.medium[:length].ljust(length, b"\0"))
    for number, data in sectors.items():
        content[number * SECTOR : number * SECTOR + len(data)] = data
    return bytes(content)


def _picked(root: Folder, layout: Layout, pick: Pick, unread: Unread) -> Folder:
    contents = {}
    for file in _files(root, layout, unread):
        length = pick(file.possible_lengths())
        contents[id(file)] = _content(file, length, {n: pick(file.options(n, length)) for n in file.changed(length)})
    return _settled(root, layout, contents, {})


def _settled(folder: Folder, layout: Layout, contents: dict[int, bytes], memo: dict[int, Node]) -> Folder:
    """A tree of its own, all of it durable."""
    names: dict[str, Node] = {}
    for name, node in layout[id(folder)].items():
        if id(node) not in memo:
            if isinstance(node, Folder):
                memo[id(node)] = _settled(node, layout, contents, memo)
            else:
                memo[id(node)] = File(contents.get(id(node), bytes(node.written)))
        names[name] = memo[id(node)]
    return Folder(names)
