"""P6: whatever happens to a file, the state comes back whole, or an error says which file, where, and what to do.

Each damage is one start: the persistence process recovers, then each bot connects, by the real entry points. Then
`outlive show` looks at the same damage. The few losses that nothing can prove are the table `UNPROVABLE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain

import pytest

from tests.damage.damages import Damage, Role, files_of, folders, inside, role_of, whole_files
from tests.damage.oracle import UNPROVABLE, judge, judge_shown
from tests.damage.still_server import BOOT, NEXT_BOOT
from tests.damage.stores import SHAPES, Shape, build
from tests.lab.effort import Effort


@cache
def shape_of(name: str) -> Shape:
    return build(name)


@cache
def another_store() -> Shape:
    return build("busy", elsewhere=True)


def sweep(lab: Effort, shape: Shape, damages: Iterable[Damage]) -> None:
    """Start on each, and look at it. Some of the outboxes outlive a boot; far, each third damage is looked at."""
    chance = lab.chance("boots and looks")
    for damage in damages:
        boots = [BOOT] + [NEXT_BOOT] * (role_of(damage.paths[0]) is Role.OUTBOX and chance.random() < 0.3)
        for boot in boots:
            try:
                outcome = judge(shape, damage, boot)
            except Exception as error:
                raise AssertionError(f"{shape.name}, {damage}, in {boot}: {error!r}") from error
            lab.count("damaged stores started")
            lab.count(f"stores {outcome}")
        if not lab.far or chance.random() < 0.3:
            try:
                judge_shown(shape, damage)
            except Exception as error:
                raise AssertionError(f"{shape.name}, {damage}, looked at: {error!r}") from error
            lab.count("damaged stores shown")


def test_without_damage_everything_is_there_in_every_shape() -> None:
    for name in SHAPES:
        shape = shape_of(name)
        assert judge(shape, Damage("none", (), shape.image)) == "whole", name


def test_the_shapes_hold_what_makes_recovery_hard() -> None:
    busy = shape_of("busy")
    assert sum(role_of(path) is Role.JOURNAL for path in files_of(busy.image)) >= 3
    assert busy.pasts["bot"].acked < busy.pasts["bot"].durable < busy.pasts["bot"].synced < busy.pasts["bot"].last
    assert sum(path.startswith("bot/outbox/0") for path in busy.image) == 2
    assert any(role_of(path) is Role.KEPT for path in files_of(busy.image))
    assert len(busy.earlier) >= 4


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("name", SHAPES)
def test_damage_inside_a_file_is_made_good_or_named(lab: Effort, name: str, role: Role) -> None:
    shape = shape_of(name)
    for path in files_of(shape.image):
        if role_of(path) is role:
            sweep(lab, shape, inside(shape, path, lab.chance(path), lab.far))


@pytest.mark.parametrize("name", SHAPES)
def test_files_deleted_swapped_old_or_unreadable_are_made_good_or_named(lab: Effort, name: str) -> None:
    shape = shape_of(name)
    sweep(lab, shape, some(lab, whole_files(shape, another_store()), 80))


@pytest.mark.parametrize("name", SHAPES)
def test_folders_deleted_renamed_or_restored_are_made_good_or_named(lab: Effort, name: str) -> None:
    shape = shape_of(name)
    sweep(lab, shape, some(lab, folders(shape, another_store()), 40))


@pytest.mark.parametrize("name", SHAPES)
def test_two_damages_at_once_are_made_good_or_named(lab: Effort, name: str) -> None:
    shape = shape_of(name)
    sweep(lab, shape, two_at_once(lab, shape, lab.pick(30, 1500)))


def some(lab: Effort, damages: Iterator[Damage], near: int) -> list[Damage]:
    """All of them, or in the short run one of each sort, and others by chance up to `near`."""
    found = list(damages)
    if lab.far:
        return found
    lab.chance("some").shuffle(found)
    of_each = {_sort(damage): damage for damage in found}
    return [*of_each.values(), *found[: max(0, near - len(of_each))]]


def _sort(damage: Damage) -> tuple[Role, str, bool, bool]:
    first, *_ = damage.paths
    return role_of(first), damage.kind.split()[0], "another store" in damage.kind, first in damage.kind


def two_at_once(lab: Effort, shape: Shape, count: int) -> Iterator[Damage]:
    """Damage inside two files of different roles: what stands in for the one may be the other."""
    chance = lab.chance("two")
    paths = [path for path in files_of(shape.image) if role_of(path) not in (Role.LOCK, Role.KEPT, Role.OUTBOX)]
    single = {path: list(inside(shape, path, chance, far=False)) for path in paths}
    for _ in range(count):
        one, other = (chance.choice(single[path]) for path in chance.sample(paths, 2))
        both = {**one.image, other.paths[0]: other.image[other.paths[0]]}
        yield Damage(f"{one.kind} and {other.kind}", one.paths + other.paths, both, inside=True)


def test_the_losses_that_nothing_can_prove_are_not_of_what_was_acknowledged_while_an_outbox_is_there() -> None:
    witnessed = [row for row in UNPROVABLE if "outboxes gone" not in row.kinds.pattern]
    assert {role for row in witnessed for role in row.roles} == {Role.OUTBOX}
    for name, past in chain.from_iterable(shape_of(name).pasts.items() for name in SHAPES):
        assert all(row.kept(past) >= past.durable >= past.acked for row in witnessed), name
