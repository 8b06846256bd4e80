"""Every error that Outlive raises.

    OutliveError
    ├── ConfigError                     a setting is unknown, mistyped or impossible
    ├── BadName                         a namespace or map name outside the rules
    │   when starting
    ├── PersistenceUnavailable          the persistence process did not answer in time
    ├── NamespaceInUse                  another live process owns the namespace
    ├── StoreInUse                      another persistence process owns the data directory
    ├── InsecureDirectory               a directory of somebody else, or open to others
    ├── SocketPathTooLong               an ipc path that the kernel would cut
    ├── NotAllowed                      this key may not write that namespace
    ├── ProtocolMismatch                the two sides speak different versions
    │   what is on disk
    ├── StateRefused                    state is damaged, missing, foreign or older than known
    │   ├── Damaged                     bytes that fail their check: file, offset, what to do
    │   ├── ForeignStore                files of another store
    │   ├── StateWentBack               one side is older than what the other has already seen
    │   └── NamespaceDamaged            the persistence process could not recover this namespace
    │   when changing a map
    ├── KeyRefused          (TypeError) a key that is not str, int, bytes or a tuple of these
    ├── ValueRefused        (TypeError) a value that can't be stored so that it is read back equal
    │   └── UntrustedType               a value of a type that the reader would not load
    ├── ValueUnreadable                 a stored value that this program can't load
    ├── ChangeTooLarge     (ValueError) a change over the size limit
    ├── OutboxFull                      no segment could be prepared: the disk is full
    ├── TransactionInProgress           a change from outside an open transaction block
    ├── ReentrantChange                 a change made while another one of this thread is half done
    │   when the session is over
    ├── SessionOver
    │   ├── Fenced                      a newer session owns the namespace
    │   ├── SessionClosed               use after close()
    │   └── SessionForked               use in a child made by fork()
    │   when making durable
    ├── SyncFailed                      the kernel refused an fdatasync
    ├── FlushTimeout     (TimeoutError) not durable in the persistence process in time
    │   on the wire
    └── MalformedMessage                bytes that are no message of ours; carries them
"""

from __future__ import annotations


class OutliveError(Exception):
    """Base of all errors of Outlive."""


class ConfigError(OutliveError):
    """Raised when a setting is unknown, mistyped or impossible; the message names the key."""


class BadName(OutliveError, ValueError):
    """Raised when a namespace or map name breaks the rules of `protocol.names`."""


# When starting


class PersistenceUnavailable(OutliveError, ConnectionError):
    """Raised by `connect` when the persistence process did not answer within the time-out."""


class NamespaceInUse(OutliveError):
    """Raised by `connect` when another live process owns the namespace; the message lists the holders."""


class StoreInUse(OutliveError):
    """Raised when a second persistence process is started on the same data directory."""


class InsecureDirectory(OutliveError, PermissionError):
    """Raised when a directory belongs to another user or is open to others; the message names the mode."""


class SocketPathTooLong(OutliveError, ValueError):
    """Raised when an ipc socket path exceeds what the kernel accepts (107 bytes)."""


class NotAllowed(OutliveError, PermissionError):
    """Raised when the server's list does not let this client key use the namespace."""


class ProtocolMismatch(OutliveError):
    """Raised when the two processes speak different versions of the protocol."""


# What is on disk


class StateRefused(OutliveError):
    """Base of all refusals to start on state that can't be trusted."""


class Damaged(StateRefused):
    """Raised when bytes on disk fail their check and something acknowledged may depend on them.

    `path` and `offset` (bytes from the start of the file) say where.
    """

    def __init__(self, path: str, offset: int, what: str, remedy: str) -> None:
        self.path, self.offset, self.what, self.remedy = path, offset, what, remedy
        super().__init__(f"{path}: {what} at byte {offset}. {remedy}")

    def __reduce__(self) -> tuple[type[Damaged], tuple[str, int, str, str]]:
        return type(self), (self.path, self.offset, self.what, self.remedy)


class ForeignStore(StateRefused):
    """Raised when the outbox or a file belongs to another store than the persistence process serves."""


class StateWentBack(StateRefused):
    """Raised when one side is older than what the other has seen: a wiped or restored directory."""


class NamespaceDamaged(StateRefused):
    """Raised by `connect` when the persistence process refused this namespace in its recovery."""


# When changing a map


class KeyRefused(OutliveError, TypeError):
    """Raised for a key that is not a str, int, bytes or a tuple of these, of exactly these types."""


class ValueRefused(OutliveError, TypeError):
    """Raised for a value that can't be pickled, or that would not be read back equal."""


class UntrustedType(ValueRefused):
    """Raised for a value of a type that no reader would load; the message says how to trust it."""


class ValueUnreadable(OutliveError):
    """Raised by `state.map` when a stored value can't be loaded here; its bytes stay as they are."""


class ChangeTooLarge(OutliveError, ValueError):
    """Raised for a key, a value or a transaction over the limits in `protocol.limits`."""


class OutboxFull(OutliveError, OSError):
    """Raised when no outbox segment could be prepared, so that a change can't be recorded; by `connect`, too."""


class TransactionInProgress(OutliveError):
    """Raised for a change by another asyncio task (or a nested block) inside an open transaction."""


class ReentrantChange(OutliveError):
    """Raised for a change made by a signal handler or destructor in the middle of another change."""


# When the session is over


class SessionOver(OutliveError):
    """Base of the reasons for which a session takes no more changes."""


class Fenced(SessionOver):
    """Raised when a newer session has taken over the namespace: nothing of this one is kept any more."""


class SessionClosed(SessionOver):
    """Raised on use after `close()`."""


class SessionForked(SessionOver):
    """Raised on use in a forked child: the session belongs to the parent."""


# When making durable


class SyncFailed(OutliveError, OSError):
    """Raised when the kernel refused an fdatasync: recorded and in memory, but not safe from a power cut."""


class FlushTimeout(OutliveError, TimeoutError):
    """Raised by `flush` when the persistence process has not confirmed everything in time."""


# On the wire


class MalformedMessage(OutliveError, ValueError):
    """Raised for bytes that are no message of ours; `data` carries them."""

    def __init__(self, why: str, data: bytes) -> None:
        self.why, self.data = why, data
        super().__init__(f"{why} ({len(data)} bytes: {data[:32]!r}{'...' if len(data) > 32 else ''})")

    def __reduce__(self) -> tuple[type[MalformedMessage], tuple[str, bytes]]:
        return type(self), (self.why, self.data)
