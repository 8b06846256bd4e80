"""What may go wrong: kills, power cuts, connections that break, full disks, syncs that fail, files that are damaged."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import serving_part
from tests.model.bot_part import ASKING, RUNNING
from tests.model.bot_steps import BotSteps
from tests.model.disk_part import Named, StateDisk
from tests.model.explorer import Step
from tests.model.serving_part import Serving
from tests.model.world import World, is_of


class Faults(BotSteps):
    """See the module."""

    def faults(self, world: World) -> Iterator[Step]:
        budget = world.budget
        if budget.kills:
            yield from self._kills(world.spend(kills=1))
        if budget.cuts:
            for host in dict.fromkeys(bot.host for bot in world.bots):
                yield from self._cuts(world.spend(cuts=1), host)
        if budget.breaks:
            yield from self._breaks(world.spend(breaks=1))
        if budget.full or budget.failures:
            yield from self._disk_faults(world)
        if budget.damages and world.server is None:
            for named in world.disk.files:
                damaged = named._replace(file=named.file._replace(is_damaged=True))
                disk = _with_file(world.disk, damaged)
                yield (
                    ("the {} file of {} IS DAMAGED", named.kind, named.key),
                    world._replace(disk=disk).spend(damages=1),
                )

    def _kills(self, world: World) -> Iterator[Step]:
        kills = self.setting.kills
        for number, bot in enumerate(world.bots):
            if bot.process is not None and "b" in kills:
                yield ("SIGKILL bot {}", number), world.without_bot(number)
        if world.server is not None and "s" in kills:
            for keeps in (False, True):
                if not keeps or any(world.network.pipes):
                    yield (
                        ("SIGKILL the server{}", ", messages kept" if keeps else ""),
                        world.without_server(keeps),
                    )
        if world.server is not None and "t" in kills and world.bots[0].process is not None:
            yield ("SIGKILL bot 0 and the server",), world.without_bot(0).without_server()

    def _cuts(self, world: World, host: int) -> Iterator[Step]:
        """The power of one host goes, and what each of its disks keeps is anybody's guess."""
        worlds = [world]
        for number, bot in enumerate(world.bots):
            if bot.host == host:
                worlds = [partly for one in worlds for partly in self._cut_bot(one, number)]
        for one in worlds:
            if host:
                yield ("POWER CUT of host {}: {}", host, _told(one, host)), one
                continue
            down = one.without_server()
            for disk in dict.fromkeys(down.disk.after_power_cuts()):
                yield (
                    ("POWER CUT: {}; journal {}, files {}", _told(one, 0), *_told_disk(disk)),
                    down._replace(disk=disk),
                )

    def _cut_bot(self, world: World, number: int) -> Iterator[World]:
        bot = world.bots[number]
        network = world.network.without_bot(number)
        history = world.history(bot.namespace)
        if history.owner == number:
            world = world.with_history(history.cut_power())
        for folder in dict.fromkeys(bot.folder.after_power_cuts()):
            yield world.with_bot(number, bot._replace(folder=folder, process=None), network=network)

    def _breaks(self, world: World) -> Iterator[Step]:
        for number, bot in enumerate(world.bots):
            for kept in range(len(world.network.pipes[number])):
                broken = world._replace(network=world.network.broken(number, kept))
                yield ("the connection of bot {} breaks, {} messages arrive", number, kept), broken
            if world.network.replies[number] is not None:
                yield ("a reply to bot {} is lost", number), world._replace(network=world.network.reply(number, None))
            if bot.process is None or bot.process.phase != ASKING:
                continue
            if any(is_of(bot, number, one) for one in world.network.opens):
                yield self.ask(world, number, bot)

    def _disk_faults(self, world: World) -> Iterator[Step]:
        server, disk = world.server, world.disk
        if isinstance(server, Serving):
            found = [(serving_part.fail_append, {"full": 1}), (serving_part.fail_sync, {"failures": 1})]
            for fail, cost in found:
                act = fail(server, disk) if getattr(world.budget, next(iter(cost))) else None
                if act is not None:
                    failed = world._replace(server=act[1], disk=act[2])
                    yield act[0], (failed if act[1] else failed.without_server()).spend(**cost)
            if server.save is not None and server.save.stage == serving_part.TEMPORARY and world.budget.failures:
                given_up = server._replace(save=None)
                yield ("THE SYNC OF A MAP FILE FAILS",), world._replace(server=given_up).spend(failures=1)
        for number, bot in enumerate(world.bots if world.budget.failures and world.budget.cuts else ()):
            if bot.process is None or bot.process.phase != RUNNING:
                continue
            if bot.process.synced < bot.process.seq and not bot.process.is_folding:
                yield ("bot {}: SYNC FAILS", number), world.with_bot(number, bot.fail_sync()).spend(failures=1)
            if bot.process.is_folding:
                left = bot.become(is_folding=False)
                yield (
                    ("bot {}: THE FOLD'S DIRECTORY SYNC FAILS", number),
                    world.with_bot(number, left).spend(failures=1),
                )


def _with_file(disk: StateDisk, named: Named) -> StateDisk:
    files = tuple(named if (one.key, one.kind) == (named.key, named.kind) else one for one in disk.files)
    return disk._replace(files=files, durable=files, pending=())


def _told(world: World, host: int) -> str:
    kept = [
        f"{number}: " + ",".join(str(slot.seq) if slot else "-" for slot in bot.folder.file(fid).slots)
        for bot in world.bots if bot.host == host for number, fid in bot.folder.names
    ]  # fmt: skip
    return f"outbox [{'; '.join(kept)}]"


def _told_disk(disk: StateDisk) -> tuple[list[int], list[str]]:
    lsns = [frame.lsn for segment in disk.segments for frame in segment.frames]
    return lsns, [f"{one.key[1]} {one.kind} {one.file.lsn}" for one in disk.files]
