"""The model of the protocol: everything that may happen next, what happens when nothing fails, and the end of that.

`steps` is all that may happen, faults included, as far as the budget goes; `fair` goes on without faults. A reading is
the design with one of its rules taken out (`configurations.READINGS`).
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import promises, server_part, serving_part
from tests.model.bot_part import RUNNING, Bot
from tests.model.explorer import Broken, Label, Rules, Step
from tests.model.faults import Faults
from tests.model.network_part import empty_network
from tests.model.outbox_part import Folder
from tests.model.promises import History
from tests.model.recovery_part import first_disk, recover
from tests.model.serving_part import Serving
from tests.model.world import World


class Model(Faults):
    """One configuration in one reading."""

    def rules(self) -> Rules:
        return Rules(self.first(), self.steps, self.fair, self.check_end)

    def first(self) -> World:
        setting = self.setting
        bots = tuple(
            Bot(namespace, host, setting.slots, Folder(bytes([number + 1]) * 16))
            for number, (namespace, host) in enumerate(setting.bots)
        )
        namespaces = dict.fromkeys(namespace for namespace, _ in setting.bots)
        histories = tuple(History(name, [b.namespace for b in bots].index(name)) for name in namespaces)
        return World(bots, empty_network(len(bots)), None, first_disk(), histories, setting.budget)

    def steps(self, world: World) -> Iterator[Step]:
        for label, following in self._steps(world):
            is_over = not following.budget.cuts and following.bots is not world.bots
            yield label, following.with_power() if is_over else following

    def _steps(self, world: World) -> Iterator[Step]:
        yield from self.progress(world, is_fair=False)
        yield from self.choices(world)
        yield from self.faults(world)

    def fair(self, world: World) -> Step | None:
        world = world.with_power()
        found = next((step for step in self.progress(world, is_fair=True) if step[1] != world), None)
        return (found[0], found[1].with_power()) if found else None

    def progress(self, world: World, is_fair: bool) -> Iterator[Step]:
        yield from self.server_progress(world, is_fair)
        for number, bot in enumerate(world.bots):
            if bot.process is None:
                yield from self.start(world, number, is_fair)
            else:
                yield from self.bot_progress(world, number, bot)

    def choices(self, world: World) -> Iterator[Step]:
        for number, bot in enumerate(world.bots):
            if bot.process is not None and bot.process.phase == RUNNING:
                yield from self.bot_choices(world, number, bot)
        server, disk, way = world.server, world.disk, self.way
        if isinstance(server, Serving):
            if world.budget.saves:
                for key, save in serving_part.saves_that_may_begin(server, way):
                    label: Label = ("the server saves map {} as of LSN {}", "/".join(key), save.file.lsn)
                    yield label, world._replace(server=server._replace(save=save)).spend(saves=1)
            if world.budget.rotations and server.writer == serving_part.IDLE and disk.segments[-1].frames:
                label, following, left = serving_part.rotate(server, disk, way)
                yield label, world._replace(server=following, disk=left).spend(rotations=1)

    def check_end(self, world: World) -> None:
        """Nothing moves any more: everything that returned is durable, the same everywhere, and flush has ended."""
        server = world.server
        assert isinstance(server, Serving)
        for history in world.histories:
            bot, one = world.bots[history.owner], server.memory.find(history.namespace)
            if bot.process is None or bot.process.phase != RUNNING or one is None:
                raise Broken("liveness", "the owner does not run")
            if bot.process.acked < bot.process.seq or bot.process.seq != len(history.changes):
                told = f"{len(history.changes)} changes returned, {bot.process.acked} are durable, and nothing moves"
                raise Broken("liveness", told)
            state = promises.replay(history.changes)
            left = recover(world.disk.surely(), self.is_damaged(world)).state(history.namespace)
            if not bot.process.state == server_part.state_in(one) == left == state:
                raise Broken("P1", "all is durable, and bot, server and disk disagree")
        if self.setting.budget.rotations and len(world.disk.segments) > 2:
            raise Broken("liveness", f"{len(world.disk.segments)} journal segments stay for ever")
