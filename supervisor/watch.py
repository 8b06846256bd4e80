"""Every process in the loop's selector, from its start to its end.

The kernel says by pidfd that one is dead. Where it gives none, SIGCHLD ends the loop's wait and `find_the_dead` looks.
"""

from __future__ import annotations

import functools
import selectors
from collections.abc import Callable, Iterable

from supervisor.child import Child
from supervisor.follow import Follower
from supervisor.signals import Signals
from supervisor.unit import Unit


class Watch:
    """`ended(unit, child)` is called when one of a unit's processes is dead, once, and out of the selector."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        signals: Signals,
        follower: Follower,
        ended: Callable[[Unit, Child], None],
    ) -> None:
        self._selector, self._signals, self._follower, self._tell = selector, signals, follower, ended
        self._units: dict[Child, Unit] = {}

    def look_for_new(self, units: Iterable[Unit]) -> None:
        """Take in what was started since the last call."""
        for unit in units:
            for child in unit.children():
                if child not in self._units:
                    self._units[child] = unit
                    self._follower.watch(unit.output)
                    self._register(child, unit)

    def find_the_dead(self) -> None:
        """Where the kernel gives no pidfd."""
        for child in list(self._units):
            if child.pidfd is None and child.has_ended():
                self._ended(child)

    def _register(self, child: Child, unit: Unit) -> None:
        def read_until_closed() -> None:
            if not unit.listen(child):
                self._selector.unregister(child.notify_fd)

        self._selector.register(child.notify_fd, selectors.EVENT_READ, read_until_closed)
        if child.pidfd is not None:
            self._selector.register(child.pidfd, selectors.EVENT_READ, functools.partial(self._ended, child))
        else:
            self._signals.wake_on_death()

    def _ended(self, child: Child) -> None:
        for fd in child.descriptors():
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        self._tell(self._units.pop(child), child)
