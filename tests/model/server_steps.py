"""What the server of the model does by itself: start, read opens and deltas, answer, write, save, trim."""

from __future__ import annotations

from collections.abc import Iterator

from protocol.errors import MalformedMessage
from protocol.messages import Opened, Refused, RefusedCode
from tests.model import promises, server_part, serving_part
from tests.model.bot_part import ASKING
from tests.model.changes import State
from tests.model.disk_part import StateDisk
from tests.model.explorer import Broken, Label, Step
from tests.model.network_part import Asked, Sent
from tests.model.recovery_part import recover
from tests.model.server_part import StoreMemory
from tests.model.serving_part import Recovering, Server, Serving
from tests.model.world import Part, World, is_of


class ServerSteps(Part):
    """See the module."""

    def server_progress(self, world: World, is_fair: bool) -> Iterator[Step]:
        server, disk, way = world.server, world.disk, self.way
        if server is None:
            yield self.start_server(world)
            return
        if isinstance(server, Recovering):
            acts: Iterator[serving_part.Act] = serving_part.recovering(server, disk, way)
        else:
            yield from self._serve(world, server)
            acts = self._keep(server, disk, is_fair)
        for label, following, left in acts:
            yield label, world._replace(server=following, disk=left)

    def _keep(self, server: Serving, disk: StateDisk, is_fair: bool) -> Iterator[serving_part.Act]:
        way = self.way
        yield from serving_part.writer_steps(server, disk, way)
        yield from serving_part.save_step(server, disk, way)
        if self.setting.budget.rotations:
            yield from serving_part.trim(server, disk, way)
        if is_fair and self.setting.budget.saves and not server.memory.pending and server.memory.in_flight is None:
            keys = set(serving_part.pinning(server, disk)) if "saves-only-what-changed" not in self.readings else set()
            for key, save in serving_part.saves_that_may_begin(server, way):
                yield ("save of {}", key), server._replace(save=save), disk
            for key in keys:
                one = next(m for m in server.memory.find(key[0]).maps if m.name == key[1])  # type: ignore[union-attr]
                file = serving_part.MapFile(one.incarnation, server.memory.last_lsn, one.items)
                save = serving_part.Save(key, file, serving_part.TEMPORARY)
                if server.save is None:
                    yield ("save of {}, which pins", key), server._replace(save=save), disk

    def start_server(self, world: World) -> Step:
        disk = world.disk
        if "recovery-syncs-nothing" not in self.readings:
            disk = disk.sync_frames().sync_journal_names().sync_names()
        recovered = recover(disk, self.is_damaged(world))
        promises.check_recovered(world.histories, recovered)
        instance = recovered.last_lsn  # differs from life to life: each adds a catalog
        server: Server = Recovering(instance, recovered)
        while isinstance(server, Recovering) and not self.setting.is_fine:
            _, server, disk = next(serving_part.recovering(server, disk, self.way))
        return ("the server starts",), world._replace(server=server, disk=disk)

    def _serve(self, world: World, server: Serving) -> Iterator[Step]:
        for asked in world.network.opens:
            yield self.read_open(world, server, asked)
        for asked in server.held:
            at_once = "open-answered-at-once" in self.readings
            reply = server_part.answer_open(server.memory, server.instance, asked, at_once)
            if reply is not None:
                yield self._answer(world, server, asked, reply)
        for pipe in range(len(world.bots) + 1):
            if (sent := world.network.first(pipe)) is not None:
                yield self._deliver(world, server, pipe, sent)

    def read_open(self, world: World, server: Serving, asked: Asked) -> Step:
        forgets = "open-is-not-idempotent" in self.readings
        memory, refusal = server_part.read_open(server.memory, asked.request, forgets)
        world = world._replace(network=world.network.read(asked))
        label: Label = ("the server reads the open of bot {}, life {}, attempt {}", asked.bot, asked.request.life,
                        asked.request.attempt)  # fmt: skip
        if refusal is not None:
            return label, self._refused_open(world, asked, refusal)
        bot = world.bots[asked.bot]
        history = world.history(bot.namespace)
        if history.owner != asked.bot:
            world = world.with_history(history._replace(was_overtaken=True))
        held = Asked(asked.bot, asked.request, memory.find(bot.namespace).entry[1])
        return label, world._replace(server=server._replace(memory=memory, held=(*server.held, held)))

    def _refused_open(self, world: World, asked: Asked, refusal: Refused) -> World:
        """`_Connecting._refused`: a life that the server has seen is skipped; the rest must not happen."""
        if refusal.code != RefusedCode.STALE_OPEN:
            raise Broken("P6", f"nothing went back, and open is refused: {refusal.message}")
        bot = world.bots[asked.bot]
        if bot.process is None or not is_of(bot, asked.bot, asked):
            return world
        folder = bot.folder._replace(life=max(bot.folder.life, refusal.number) + 1)
        return world.with_bot(asked.bot, bot._replace(folder=folder))

    def _answer(self, world: World, server: Serving, asked: Asked, reply: Opened | Refused) -> Step:
        server = server._replace(held=tuple(one for one in server.held if one is not asked))
        world = world._replace(server=server)
        bot, request = world.bots[asked.bot], asked.request
        label: Label = ("the server answers bot {}", asked.bot)
        process = bot.process
        awaited = (
            process
            and process.phase == ASKING
            and (bot.folder.life, process.attempt) == (request.life, request.attempt)
        )
        if not awaited:
            return label, world
        if isinstance(reply, Refused):
            return ("bot {} was overtaken, and leaves", asked.bot), world.without_bot(asked.bot)
        if "no-outbox-identity" in self.readings:
            reply = _without_since(reply)
        state = server_part.state_in(server.memory.find(bot.namespace))  # type: ignore[arg-type]
        opened = bot.opened(reply, state, "appends-behind-the-chain" in self.readings)
        history = world.history(bot.namespace)
        history = promises.check_let_in(history, asked.bot, opened.owner.seq, opened.owner.state)
        if not self.setting.is_fine:
            opened = opened.begin(syncs_names="begin-syncs-no-names" not in self.readings)
        return label, world.with_bot(asked.bot, opened).with_history(history)

    def _deliver(self, world: World, server: Serving, pipe: int, sent: Sent) -> Step:
        delta = sent.delta
        durable = None
        if "skips-against-durable" in self.readings:
            one = server.memory.find(delta.namespace)
            durable = promises.replay(world.history(delta.namespace).changes[: one.durable]) if one else ()
        if "applies-over-a-gap" in self.readings:
            memory = server_part.apply_over_gap(server.memory, sent)
        else:
            memory = _received(server.memory, sent, 9 if "any-epoch-is-taken" in self.readings else 0, durable)
        world = world._replace(network=world.network.pop(pipe))
        label: Label = ("the server reads the delta ({}, {}] of epoch {}", delta.base, delta.upto, delta.epoch)
        if memory is None or memory == server.memory:
            return label, world
        promises.check_serves_a_prefix(world.histories, memory)
        return label, world._replace(server=server._replace(memory=memory))


def _without_since(reply: Opened) -> Opened:
    fields = {name: getattr(reply, name) for name in reply.__struct_fields__}
    return Opened(**{**fields, "since": 0})


def _received(memory: StoreMemory, sent: Sent, old_epochs: int, durable: State | None) -> StoreMemory | None:
    try:
        return server_part.receive(memory, sent, old_epochs, durable)
    except MalformedMessage as error:
        raise Broken("liveness", f"the server can't read what a bot has sent: {error}") from None
