"""What is on its way: open requests, which may overtake each other, and one ordered pipe of deltas for each bot."""

from __future__ import annotations

from typing import NamedTuple

from protocol.frames import Record
from protocol.messages import Confirmed, Delta, Open

PIPE = 2
"""Messages of one bot on their way at once; more would only be later."""


class Sent(NamedTuple):
    """A delta and its records."""

    delta: Delta
    records: tuple[Record, ...]


class Asked(NamedTuple):
    """An `Open` of bot `bot`, on its way or held by the server until it may be answered."""

    bot: int
    request: Open
    epoch: int = 0
    """Handed out for it, once it was read."""


class Network(NamedTuple):
    pipes: tuple[tuple[Sent, ...], ...]
    late: tuple[Sent, ...] = ()
    """Sent by bots that are dead: their kernel delivers it all the same."""
    opens: tuple[Asked, ...] = ()
    replies: tuple[Confirmed | None, ...] = ()
    """To each bot: a `Confirmed` that it has not read yet."""

    def push(self, bot: int, sent: Sent) -> Network:
        return self._with_pipe(bot, (*self.pipes[bot], sent))

    def pop(self, bot: int) -> Network:
        if bot == len(self.pipes):
            return self._replace(late=self.late[1:])
        return self._with_pipe(bot, self.pipes[bot][1:])

    def first(self, bot: int) -> Sent | None:
        pipe = self.late if bot == len(self.pipes) else self.pipes[bot]
        return pipe[0] if pipe else None

    def broken(self, bot: int, kept: int) -> Network:
        """The connection of `bot` breaks; the first `kept` messages had arrived."""
        return self._with_pipe(bot, ())._replace(late=self.late + self.pipes[bot][:kept])

    def ask(self, asked: Asked) -> Network:
        return self._replace(opens=(*self.opens, asked))

    def read(self, asked: Asked) -> Network:
        return self._replace(opens=tuple(one for one in self.opens if one is not asked))

    def reply(self, bot: int, reply: Confirmed | None) -> Network:
        return self._replace(replies=(*self.replies[:bot], reply, *self.replies[bot + 1 :]))

    def without_bot(self, bot: int) -> Network:
        """The bot is killed: what it has sent arrives, what it has not read is lost."""
        return self.broken(bot, len(self.pipes[bot])).reply(bot, None)

    def without_server(self, keeps: bool) -> Network:
        """The server is killed; what is still with the senders is delivered to its successor, or lost on the way."""
        pipes = self.pipes if keeps else ((),) * len(self.pipes)
        return self._replace(pipes=pipes, late=(), opens=())

    def _with_pipe(self, bot: int, pipe: tuple[Sent, ...]) -> Network:
        return self._replace(pipes=(*self.pipes[:bot], pipe, *self.pipes[bot + 1 :]))


def empty_network(bots: int) -> Network:
    return Network(((),) * bots, replies=(None,) * bots)
