"""What bots do: start, open, change, ship, ask how far they are, keep house; and what `sync` and folding do."""

from __future__ import annotations

from collections.abc import Iterator

from protocol.messages import Confirm, Confirmed, Refused, RefusedCode
from tests.model import promises, server_part
from tests.model.bot_part import ASKING, BEGINNING, Bot
from tests.model.changes import payload_of
from tests.model.explorer import Broken, Step
from tests.model.network_part import PIPE, Asked
from tests.model.server_steps import ServerSteps
from tests.model.serving_part import Serving
from tests.model.world import World, is_of


class BotSteps(ServerSteps):
    """See the module."""

    def start(self, world: World, number: int, is_fair: bool) -> Iterator[Step]:
        bot = world.bots[number]
        others = [one for one in world.bots if one.namespace == bot.namespace and one is not bot]
        is_free = world.history(bot.namespace).owner == number and not any(one.process for one in others)
        if not is_free and (is_fair or world.budget.takeovers < 1):
            return  # while another session is alive, only a takeover is let in
        world = world if is_free else world.spend(takeovers=1)
        started = bot.start(syncs_folder="start-syncs-no-folder" not in self.readings)
        yield ("bot {} starts", number), world.with_bot(number, started)

    def bot_progress(self, world: World, number: int, bot: Bot) -> Iterator[Step]:
        process, server = bot.owner, world.server
        if process.phase == ASKING:
            known = (*world.network.opens, *(server.held if isinstance(server, Serving) else ()))
            if isinstance(server, Serving) and not any(is_of(bot, number, one) for one in known):
                yield self.ask(world, number, bot)
            return
        if process.phase == BEGINNING:
            begun = bot.begin("begin-syncs-no-names" not in self.readings)
            yield ("bot {} begins: its first segment's name is durable", number), world.with_bot(number, begun)
            return
        yield from self._keep_house(world, number, bot)
        if isinstance(server, Serving):
            yield from self._pump(world, number, bot, server)

    def ask(self, world: World, number: int, bot: Bot) -> Step:
        asking = bot.become(attempt=bot.owner.attempt + 1)
        request = asking.request()
        network = world.network.ask(Asked(number, request))
        if not self.setting.budget.breaks and isinstance(world.server, Serving):  # nothing can come in between
            world = world.with_bot(number, asking, network=network)
            return self.read_open(world, world.server, network.opens[-1])
        return ("bot {} asks to open, attempt {}", number, request.attempt), world.with_bot(
            number, asking, network=network
        )

    def _pump(self, world: World, number: int, bot: Bot, server: Serving) -> Iterator[Step]:
        sent = bot.next_delta() if len(world.network.pipes[number]) < PIPE else None
        if sent is not None:
            shipped = bot.ship(sent.delta.upto, marks="ships-without-a-mark" not in self.readings)
            yield (
                ("bot {} ships ({}, {}]", number, sent.delta.base, sent.delta.upto),
                world.with_bot(number, shipped, network=world.network.push(number, sent)),
            )
        waiting = world.network.replies[number]
        if waiting is not None:
            taken = self._take(world._replace(network=world.network.reply(number, None)), number, waiting)
            yield ("bot {} reads: applied {}, durable {}", number, waiting.applied, waiting.durable), taken
            return
        yield from self._confirm(world, number, bot, server)

    def _confirm(self, world: World, number: int, bot: Bot, server: Serving) -> Iterator[Step]:
        process = bot.owner
        pump = process.pump
        request = Confirm(
            namespace=bot.namespace, epoch=process.epoch, store_id=b"", acked=pump.durable, upto=pump.durable + 1,
            wait=0.0,
        )  # fmt: skip
        memory, reply = server_part.confirm(server.memory, server.instance, request)
        if isinstance(reply, Refused):
            yield from self._refused(world, number, bot, server, reply)
            return
        world = world._replace(server=server._replace(memory=memory))
        if self.setting.late_replies:
            if (reply.applied, reply.durable, reply.instance) != (
                pump.applied,
                pump.durable,
                pump.instance,
            ) or reply.gap:
                network = world.network.reply(number, reply)
                yield ("the server answers bot {}: applied {}", number, reply.applied), world._replace(network=network)
            elif reply.applied < pump.shipped and not world.network.pipes[number]:
                yield ("bot {} is stuck and ships again", number), self._take(world, number, reply)
            return
        taken = self._take(world, number, reply)
        yield ("bot {} is told: applied {}, durable {}", number, reply.applied, reply.durable), taken

    def _refused(self, world: World, number: int, bot: Bot, server: Serving, refusal: Refused) -> Iterator[Step]:
        if refusal.code != RefusedCode.FENCED:
            raise Broken("P6", f"nothing went back, and confirm is refused: {refusal.message}")
        promises.check_fenced(bot, server.memory)
        if "fenced-reply-says-durable" in self.readings:
            one = server.memory.find(bot.namespace)
            said = Confirmed(instance=bot.owner.pump.instance, applied=one.entry[2], durable=one.durable)
            self._take(world, number, said)
        yield ("bot {} is fenced, and leaves", number), world.without_bot(number)

    def _take(self, world: World, number: int, reply: Confirmed) -> World:
        bot = world.bots[number]
        history = world.history(bot.namespace)
        damaged = self.is_damaged(world)
        history = promises.check_told_durable(history, number, bot, reply.durable, world.disk, damaged)
        taken = bot.take(reply, resends_when_stuck="resends-only-on-a-gap" not in self.readings)
        return world.with_bot(number, taken).with_history(history)

    def _keep_house(self, world: World, number: int, bot: Bot) -> Iterator[Step]:
        process, readings = bot.owner, self.readings
        if process.is_folding:
            done = bot.sync_names() if "fold-syncs-no-names" not in readings else bot
            yield (
                ("bot {}: the fold's name is durable, what it stands for goes", number),
                world.with_bot(number, done.unlink_obsolete()),
            )
            return
        if self.setting.retires:
            if process.used >= self.setting.slots and not process.spare:
                spare = bot.prepare_spare("spare-syncs-no-names" not in readings, "reuses-at-once" in readings)
                yield ("bot {} prepares a spare", number), world.with_bot(number, spare)
            bound = process.pump.applied if "retires-what-is-applied" in readings else process.acked_durably
            if "retires-without-saying-so" in readings:
                bound = process.acked
            if any(one.last <= bound for one in process.sealed):
                yield ("bot {} retires segments up to {}", number, bound), world.with_bot(number, bot.retire(bound))
            if sum(process.acked_durably < one.last <= process.acked for one in process.sealed) > 1:
                yield (
                    ("bot {} says durably what is acknowledged", number),
                    world.with_bot(number, bot.say_acked_durably()),
                )

    def bot_choices(self, world: World, number: int, bot: Bot) -> Iterator[Step]:
        process, budget = bot.owner, world.budget
        if budget.changes:
            text = self.setting.program[-budget.changes]
            payload = payload_of(text, len(self.setting.program) - budget.changes + 1, process.state)
            if payload:
                history = world.history(bot.namespace)
                if history.owner == number:
                    history = history._replace(changes=(*history.changes, payload))
                put = world.with_bot(number, bot.put(payload)).with_history(history).spend(changes=1)
                yield ("bot {} changes {} (change {})", number, text, process.seq + 1), put
        is_locked = process.is_folding and "sync-shares-no-lock" not in self.readings
        if self.setting.syncs and budget.cuts and process.synced < process.seq and not is_locked:
            yield self._sync(world, number, bot)
        if budget.folds and not process.is_folding and len(bot.foldable()) > 1:
            fold = bot.fold("fold-ignores-what-was-shipped" in self.readings, "fold-is-not-synced" not in self.readings)
            yield ("bot {} folds", number), world.with_bot(number, fold).spend(folds=1)

    def _sync(self, world: World, number: int, bot: Bot) -> Step:
        synced = bot.sync(trusts_names="sync-trusts-names" in self.readings or bot.owner.is_folding)
        if "syncs-the-same-file-again" in self.readings:
            folder = bot.folder
            for fid in [*(s.fid for s in bot.owner.sealed), bot.owner.tail]:
                folder = folder.put(fid, folder.file(fid).sync())
            synced = bot.become(folder, synced=bot.owner.seq)
        history = world.history(bot.namespace)
        if history.owner == number:
            history = history._replace(synced=len(history.changes))
        return ("bot {}: sync() returns", number), world.with_bot(number, synced).with_history(history)
