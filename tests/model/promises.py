"""What must hold of the model: P1 to P7 in terms of a history kept outside of everything that can crash.

A namespace's history is the changes that have returned, in order. `seq` n is its n-th change, always.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.model import server_part
from tests.model.bot_part import Bot
from tests.model.changes import State, replay, shown
from tests.model.disk_part import StateDisk
from tests.model.explorer import Broken
from tests.model.recovery_part import Recovered, recover
from tests.model.server_part import StoreMemory


class History(NamedTuple):
    namespace: str
    owner: int
    """The bot that was let in last."""
    changes: tuple[bytes, ...] = ()
    """Payloads of the owner's changes, and of those before it."""
    synced: int = 0
    """How many were there when the owner's `sync` returned."""
    acknowledged: int = 0
    """How many the owner was told are durable."""
    was_cut: bool = False
    """The owner's machine lost its power since."""
    was_overtaken: bool = False
    """Another outbox's open was read: what the owner had not shipped is given up, as the takeover says."""

    def floor(self, bot: int) -> int:
        """What must come back at least."""
        if self.was_overtaken or bot != self.owner:
            return self.acknowledged
        return max(self.synced, self.acknowledged) if self.was_cut else len(self.changes)

    def cut_power(self) -> History:
        return self._replace(was_cut=True)


def check_let_in(history: History, bot: int, seq: int, state: State) -> History:
    """P1, P2, P3 and P4, when a bot begins with `state` as after change `seq`."""
    promise = "P2" if history.was_cut else "P1"
    if seq > len(history.changes) or state != replay(history.changes[:seq]):
        raise Broken("P3", f"recovered {shown(state)} at change {seq}, which is no prefix of {_told(history)}")
    if seq < history.floor(bot):
        raise Broken(promise, f"recovered {seq} changes, {history.floor(bot)} were promised of {_told(history)}")
    return History(history.namespace, bot, history.changes[:seq], acknowledged=min(history.acknowledged, seq))


def check_serves_a_prefix(histories: tuple[History, ...], memory: StoreMemory) -> None:
    """P3, P4, P7: what the server holds is a prefix of what was done, and nothing of a fenced session."""
    for history in histories:
        one = memory.find(history.namespace)
        if one is not None and one.entry[1]:
            applied, state = one.entry[2], server_part.state_in(one)
            if applied > len(history.changes) or state != replay(history.changes[:applied]):
                told = f"the server holds {shown(state)} as change {applied} of {_told(history)}"
                raise Broken("P3/P7", told)


def check_recovered(histories: tuple[History, ...], recovered: Recovered) -> None:
    """P3, P4 and "acknowledged means synced", when the server comes back."""
    for history in histories:
        applied, state = recovered.applied(history.namespace), recovered.state(history.namespace)
        if applied > len(history.changes) or state != replay(history.changes[:applied]):
            raise Broken("P3/P4", f"the server recovers {shown(state)} as change {applied} of {_told(history)}")
        if applied < history.acknowledged:
            raise Broken("acknowledged", f"change {history.acknowledged} was acknowledged, {applied} came back")


def check_told_durable(
    history: History, bot: int, own: Bot, durable: int, disk: StateDisk, is_damaged: bool
) -> History:
    """What the bot is told is its own, and survives the least lucky power cut."""
    before = own.owner.acked
    mine = [r for r in own.records() if r.span == 1 and before < r.seq <= durable]
    if any(r.seq > len(history.changes) or history.changes[r.seq - 1] != r.payload for r in mine):
        raise Broken("acknowledged", f"bot {bot} is told that {durable} are durable; its change is nowhere")
    if bot != history.owner or durable <= history.acknowledged:
        return history
    left = recover(disk.surely(), is_damaged)
    if left.applied(history.namespace) < durable:
        raise Broken(
            "acknowledged", f"{durable} changes are acknowledged, the synced disk has {left.applied(history.namespace)}"
        )
    return history._replace(acknowledged=durable)


def check_fenced(bot: Bot, memory: StoreMemory) -> None:
    """P7: only a newer session fences."""
    one = memory.find(bot.namespace)
    assert one is not None
    identity, openers = one.entry[3], dict(one.entry[5])
    newest = openers.get(bot.folder.identity.hex(), (0, 0))[0]
    if identity == bot.folder.identity and newest <= bot.folder.life:
        raise Broken("P7", "the only live session is fenced by a late open of its own")


def _told(history: History) -> str:
    return " ".join(shown(replay(history.changes[:n])) for n in range(len(history.changes) + 1))
