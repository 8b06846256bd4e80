"""What is explored, and the readings: the design with one of its rules taken out, and the promise that this breaks.

`NEAR` and `FAR` are the design as it is built. A reading has a configuration of its own, as small as shows the break.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.model.world import Budget, Setting

HOSTS = (("bot", 0), ("bot", 1))
NAMESPACES = (("bot", 0), ("other", 0))


def _setting(name: str, program: str, budget: Budget, kills: str = "bs", **more: object) -> Setting:
    return Setting(name, tuple(program.split()), budget, kills=kills, **more)  # type: ignore[arg-type]


NEAR = (
    _setting("outbox", "a+", Budget(changes=1, cuts=1), syncs=True),
    _setting("fold", "a+ a- b+", Budget(changes=3, folds=1), slots=1),
    _setting("failed sync of an outbox", "a+", Budget(changes=1, cuts=1, failures=1), slots=1, syncs=True),
    _setting("journal", "a+b+", Budget(changes=1, cuts=1), is_fine=True),
    _setting("disk faults of the server", "a+b+", Budget(changes=1, kills=1, full=1, failures=1), "s", is_fine=True),
    _setting("net", "a+ b+", Budget(changes=2, breaks=1), late_replies=True),
    _setting("group commit", "a+ b+", Budget(changes=2), is_fine=True),
    _setting("open", "a+", Budget(changes=1, kills=1, breaks=1), "b"),
    _setting("two namespaces", "a+", Budget(changes=1), bots=NAMESPACES),
    _setting("two hosts", "a+", Budget(changes=1, kills=1, takeovers=1), "b", bots=HOSTS),
    _setting("saves", "a+ a+", Budget(changes=2, kills=1, saves=1), "s"),
    _setting("trim", "a+", Budget(changes=1, saves=1, rotations=1)),
)

FAR = (
    _setting("outbox, three changes", "a+ b+ a+b+", Budget(changes=3, cuts=1), syncs=True),
    _setting("outbox, four changes", "a+ b+ a+b+ a-", Budget(changes=4, kills=1), "b"),
    _setting("outbox, killed and cut", "a+", Budget(changes=1, kills=1, cuts=1), "b", is_fine=True, syncs=True),
    _setting("outbox, each step", "a+ b+", Budget(changes=2, cuts=1), slots=2, is_fine=True, syncs=True),
    _setting("segments of one record", "a+ b+", Budget(changes=2, cuts=1), slots=1, syncs=True, retires=True),
    _setting("segments, three changes", "a+ b+ a+", Budget(changes=3, kills=1), "s", slots=1, retires=True),
    _setting("fold", "a+ a- b+", Budget(changes=3, cuts=1, folds=1), slots=1),
    _setting("fold, synced", "a+ a- b+", Budget(changes=3, cuts=1, folds=1), slots=1, syncs=True),
    _setting("fold, killed", "a+ a- b+", Budget(changes=3, kills=1, folds=1), "b", slots=1),
    _setting("failed sync of an outbox", "a+ a-", Budget(changes=2, cuts=1, failures=1), slots=1, syncs=True),
    _setting("journal and saves", "a+ a+b+", Budget(changes=2, cuts=1, saves=1), is_fine=True),
    _setting("journal, killed and cut", "a+b+", Budget(changes=1, kills=1, cuts=1), "s", is_fine=True),
    _setting("disk faults of the server", "a+ a+b+", Budget(changes=2, cuts=1, failures=1), is_fine=True),
    _setting("disk full", "a+ a+b+", Budget(changes=2, kills=1, full=1), "s", is_fine=True),
    _setting("net", "a+ a+b+ a-", Budget(changes=3, breaks=1), late_replies=True),
    _setting("net, killed", "a+ a+b+", Budget(changes=2, kills=1, breaks=1), "s", late_replies=True),
    _setting("four changes", "a+ a- a+b+ b-", Budget(changes=4), is_fine=True),
    _setting("three changes, killed", "a+ a- b+", Budget(changes=3, kills=1), "s", is_fine=True),
    _setting("open", "a+", Budget(changes=1, kills=1, breaks=1), "bst"),
    _setting("two hosts", "a+ b+", Budget(changes=2, kills=1, takeovers=1), "b", bots=HOSTS),
    _setting("two hosts, server killed", "a+", Budget(changes=1, kills=1, takeovers=1), "s", bots=HOSTS),
    _setting("two hosts, power", "a+", Budget(changes=1, cuts=1, takeovers=1), bots=HOSTS),
    _setting("two namespaces", "a+ b+", Budget(changes=2), bots=NAMESPACES),
    _setting("two namespaces, killed", "a+", Budget(changes=1, kills=1), "s", bots=NAMESPACES),
    _setting("trim", "a+ a+", Budget(changes=2, kills=1, saves=1, rotations=1), "s"),
    _setting("trim, power", "a+", Budget(changes=1, cuts=1, saves=2, rotations=2), is_fine=True),
    _setting("damage", "a+", Budget(changes=1, kills=1, saves=2, rotations=1, damages=1), "s"),
    _setting("journal, two changes, killed and cut", "a+ a+b+", Budget(changes=2, kills=1, cuts=1), "s", is_fine=True),
    _setting("net, three changes, killed", "a+ a+b+ a-", Budget(changes=3, kills=1, breaks=1), "s", late_replies=True),
    _setting("open, two changes", "a+ a+b+", Budget(changes=2, kills=1, breaks=1), "bst"),
    _setting("open, killed twice", "a+", Budget(changes=1, kills=2, breaks=1), "bs"),
    _setting("damage, two changes", "a+ a+", Budget(changes=2, kills=1, saves=2, rotations=1, damages=1), "s"),
    _setting("recovery killed", "a+b+", Budget(changes=1, kills=2, cuts=1), "s", is_fine=True),
)


class Reading(NamedTuple):
    """`names` are the rules taken out; `breaks` is how the promise that no longer holds begins."""

    names: str
    breaks: str
    setting: Setting
    is_quick: bool = True

    def __str__(self) -> str:
        return self.names.replace(" ", "+")


_OUTBOX = _setting("outbox", "a+ b+", Budget(changes=2, kills=1, cuts=1), "b", syncs=True)
_AHEAD = _setting("server ahead", "a+ b+ a+", Budget(changes=3, kills=1, cuts=1), "b", slots=3)
_STEPS = _setting("outbox, each step", "a+", Budget(changes=1, kills=1, cuts=1), "b", is_fine=True, syncs=True)
_SEGMENTS = _setting("segments", "a+ b+", Budget(changes=2, kills=1, cuts=1), "s", slots=1, syncs=True, retires=True)
_RETIRED = _setting("segments", "a+ b+", Budget(changes=2, kills=1), "s", slots=1, retires=True)
_FOLD = _setting("fold", "a+ a- b+", Budget(changes=3, kills=1, cuts=1, folds=1), "b", slots=1, syncs=True)
_FAILED = _setting("failed sync of an outbox", "a+ b+", Budget(changes=2, cuts=1, failures=1), slots=1, syncs=True)
_RECOVERY = _setting("recovery", "a+b+", Budget(changes=1, kills=1, cuts=1), "s", is_fine=True)
_SAVES = _setting("saves", "a+ a+b+", Budget(changes=2, cuts=1, saves=1), is_fine=True)
_FAULTS = _setting("disk faults", "a+", Budget(changes=1, cuts=1, failures=1), is_fine=True)
_NET = _setting("net", "a+ a+b+ a-", Budget(changes=3, kills=1, breaks=1), "s", late_replies=True)
_FOLDING = _setting("folding", "a+ a-", Budget(changes=2, kills=1), "s", is_fine=True)
_OPEN = _setting("open", "a+", Budget(changes=1, kills=1, breaks=1), "bst")
_HOSTS = _setting("two hosts", "a+ b+", Budget(changes=2, kills=1, takeovers=1), "b", bots=HOSTS)
_PINNED = _setting("pinned", "a+ a+", Budget(changes=2, saves=2, rotations=2))
_TRIM = _setting("trim", "a+", Budget(changes=1, kills=1, saves=2, rotations=1), "s")
_TRIM_POWER = _setting("trim, power", "a+", Budget(changes=1, cuts=1, saves=2, rotations=2), is_fine=True)
_DAMAGE = _setting("damage", "a+ a+", Budget(changes=2, kills=1, saves=2, rotations=1, damages=1), "s")

READINGS = (
    Reading("appends-behind-the-chain", "P6", _AHEAD, is_quick=False),
    Reading("start-syncs-no-folder", "P2", _OUTBOX),
    Reading("begin-syncs-no-names", "P2", _STEPS),
    Reading("retires-what-is-applied", "liveness", _RETIRED),
    Reading("spare-syncs-no-names", "P", _SEGMENTS, is_quick=False),
    Reading("fold-ignores-what-was-shipped", "P3", _FOLD),
    Reading("ships-without-a-mark", "P3", _FOLD),
    Reading("fold-syncs-no-names", "P6", _FOLD, is_quick=False),
    Reading("fold-is-not-synced", "P6", _FOLD, is_quick=False),
    Reading("sync-shares-no-lock", "P6", _FOLD, is_quick=False),
    Reading("sync-trusts-names", "P6", _FAILED),
    Reading("syncs-the-same-file-again", "P2", _FAILED),
    Reading("recovery-syncs-nothing", "P", _RECOVERY, is_quick=False),
    Reading("acknowledges-before-the-sync", "acknowledged", _SAVES),
    Reading("saves-what-is-pending", "P", _SAVES, is_quick=False),
    Reading("saves-ahead", "P", _SAVES, is_quick=False),
    Reading("renames-before-the-batch-is-durable", "P", _SAVES, is_quick=False),
    Reading("save-syncs-no-file", "P6", _SAVES, is_quick=False),
    Reading("save-syncs-no-directory", "P6", _TRIM_POWER, is_quick=False),
    Reading("retries-the-failed-sync", "P6", _FAULTS),
    Reading("resends-only-on-a-gap", "liveness", _NET),
    Reading("applies-over-a-gap", "P3", _NET),
    Reading("skips-against-durable", "P3", _FOLDING),
    Reading("open-is-not-idempotent", "P7", _OPEN),
    Reading("open-answered-at-once", "P6", _OPEN),
    Reading("no-outbox-identity", "P3", _HOSTS, is_quick=False),
    Reading("fenced-reply-says-durable", "acknowledged", _HOSTS, is_quick=False),
    Reading("any-epoch-is-taken", "P3", _HOSTS),
    Reading("saves-only-what-changed", "liveness", _PINNED, is_quick=False),
    Reading("catalog-without-namespaces", "P6", _TRIM),
    Reading("catalog-without-maps", "P", _TRIM),
    Reading("trims-behind-the-current-generation", "P6", _DAMAGE, is_quick=False),
    Reading("no-previous-generation", "P6", _DAMAGE, is_quick=False),
)
