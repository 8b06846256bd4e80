"""A moment of the model: bots, network, server, disks, a history that nothing can crash, and what may still fail."""

from __future__ import annotations

from typing import NamedTuple

from tests.model.bot_part import Bot
from tests.model.disk_part import StateDisk
from tests.model.network_part import Asked, Network
from tests.model.promises import History
from tests.model.serving_part import Server, Way


class Budget(NamedTuple):
    """How much of each may still happen."""

    changes: int = 0
    kills: int = 0
    cuts: int = 0
    breaks: int = 0
    saves: int = 0
    rotations: int = 0
    takeovers: int = 0
    folds: int = 0
    full: int = 0
    failures: int = 0
    damages: int = 0

    def less(self, **used: int) -> Budget:
        return self._replace(**{name: getattr(self, name) - number for name, number in used.items()})


class Setting(NamedTuple):
    """A configuration: what the bots do, what may go wrong, and how finely time is cut."""

    name: str
    program: tuple[str, ...]
    budget: Budget
    bots: tuple[tuple[str, int], ...] = (("bot", 0),)
    """(namespace, host) of each outbox; the server is on host 0."""
    kills: str = "bs"
    """Who may be killed: b a bot, s the server, t both at once."""
    slots: int = 4
    is_fine: bool = False
    """Each operation on a disk a step of its own, where else a group is one."""
    syncs: bool = False
    late_replies: bool = False
    retires: bool = False


class World(NamedTuple):
    bots: tuple[Bot, ...]
    network: Network
    server: Server
    disk: StateDisk
    histories: tuple[History, ...]
    budget: Budget

    def with_bot(self, number: int, bot: Bot, **changed: object) -> World:
        return self._replace(bots=(*self.bots[:number], bot, *self.bots[number + 1 :]), **changed)

    def history(self, namespace: str) -> History:
        return next(one for one in self.histories if one.namespace == namespace)

    def with_history(self, new: History) -> World:
        return self._replace(histories=tuple(new if h.namespace == new.namespace else h for h in self.histories))

    def spend(self, **used: int) -> World:
        return self._replace(budget=self.budget.less(**used))

    def with_power(self) -> World:
        """The same world for whoever knows that no power will be cut any more: what was synced counts no longer."""
        bots = tuple(bot if bot.folder.is_durable else bot.become(bot.folder.with_power()) for bot in self.bots)
        histories = tuple(one._replace(synced=0) if one.synced and not one.was_cut else one for one in self.histories)
        return (
            self if (bots, histories) == (self.bots, self.histories) else self._replace(bots=bots, histories=histories)
        )

    def without_bot(self, number: int) -> World:
        """The process is gone; what has a name in its outbox stays."""
        bot = self.bots[number]
        gone = bot._replace(process=None, folder=bot.folder.after_kill())
        return self.with_bot(number, gone, network=self.network.without_bot(number))

    def without_server(self, keeps: bool = False) -> World:
        """`keeps`: messages that it has not read are still with their senders."""
        return self._replace(server=None, network=self.network.without_server(keeps))


def is_of(bot: Bot, number: int, asked: Asked) -> bool:
    """Whether an open is the newest of this bot's process."""
    request = asked.request
    newest = bot.folder.life, bot.owner.attempt
    return asked.bot == number and (request.life, request.attempt) == newest


class Part:
    """What the parts of the model share: one configuration in one reading, a set of rules that are taken out."""

    def __init__(self, setting: Setting, readings: frozenset[str] = frozenset()) -> None:
        self.setting, self.readings = setting, readings
        self.way = Way(setting.is_fine, readings)

    def is_damaged(self, world: World) -> bool:
        return world.budget.damages < self.setting.budget.damages
