"""What a bot imports: `connect` gives a session, a session gives dicts, and every change of them is kept.

    from strategy_proc import connect

Reading order: `persistent_map` (the dict), `recorder` and `transaction` (how it changes), `session` (what owns it),
`outbox` (how a change is kept before the assignment returns), `pump` (how it reaches the persistence process),
`connecting` (how all of it starts).
"""

from strategy_proc.connecting import connect
from strategy_proc.persistent_map import PersistentMap
from strategy_proc.recovered import Recovered, RecoveredStatus
from strategy_proc.session import Session

__all__ = ["PersistentMap", "Recovered", "RecoveredStatus", "Session", "connect"]
