"""The records a trading bot keeps, and `Record`, the base for your own.

Prices, quantities and money are `Decimal`, in the units of the venue: quantity in base currency (or contracts),
prices in quote currency per unit, money in quote currency. Times are integer nanoseconds since 1970 UTC and are
named `ts_*` (or `*_until`); 0 or None means "not yet". Names follow ccxt's unified structures in snake case.

A stored record names its fields, so old data loads after a field with a default was added, and defaults may change:
every field is stored, also one that has its default. Don't rename or remove fields; add new ones.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar, dataclass_transform

import msgspec

from protocol.errors import ValueRefused
from protocol.field_types import field_types
from protocol.sameness import same

_R = TypeVar("_R", bound="Record")

_encode = msgspec.msgpack.Encoder().encode
_decoders: dict[type, Callable[[bytes], Any]] = {}


# For type checkers: subclasses are frozen and by keyword like the base.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of records: immutable, by keyword, compared by value, small and fast to pickle.

    A subclass lists annotated fields, as with a dataclass, and lives in a module of its own (not `__main__`);
    with `kw_only=True` a required field may follow one with a default. Change a stored one with
    `map.modify(key, field=value)` or `record.replace(field=value)`. Building one checks no types (that is msgspec's
    rule); storing it does, and names the field that would not come back as it is.
    """

    def replace(self: _R, **changes: Any) -> _R:
        """A copy with these fields replaced. Raises AttributeError for a field that is not there."""
        unknown = changes.keys() - set(self.__struct_fields__)
        if unknown:
            raise AttributeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        return msgspec.structs.replace(self, **changes)

    def __reduce__(self) -> tuple[Any, ...]:
        return restore_record, (type(self), _encode(self))


def restore_record(kind: type[Record], data: bytes) -> Record:
    """What a pickled record calls to come back. Raises `msgspec.ValidationError` for data that does not fit."""
    decode = _decoders.get(kind)
    if decode is None:
        if not (isinstance(kind, type) and issubclass(kind, Record)):
            raise TypeError(f"{kind!r} is not a Record")
        decode = _decoders[kind] = msgspec.msgpack.Decoder(kind).decode
    record: Record = decode(data)
    return record


def encode_record(record: Record) -> bytes:
    """A record's fields as msgpack. Raises `ValueRefused` where reading back would give another value.

    Building a record checks no types, so each is checked here, when it is written: by a look at them where that says
    enough (`protocol.field_types`), else by reading the record back.
    """
    kind = type(record)
    try:
        data = _encode(record)
        if field_types(kind).vouch(record):
            return data
        back = restore_record(kind, data)
    except Exception as error:
        raise ValueRefused(f"a {kind.__qualname__} can't be stored: {error}") from None
    if back != record or _encode(back) != data:
        _check_fields(record, back)
    return data


def _check_fields(record: Record, back: Record) -> None:
    for name in record.__struct_fields__:
        a, b = getattr(record, name), getattr(back, name)
        if isinstance(a, Record) and type(a) is type(b):
            _check_fields(a, b)
        elif not _survives(a, b):
            raise ValueRefused(
                f"{type(record).__qualname__}.{name} is {a!r} ({type(a).__qualname__}) "
                f"and would be read back as {b!r} ({type(b).__qualname__})"
            )


def _survives(a: Any, b: Any) -> bool:
    """Whether `b`, read back, may stand for `a`: an int for a float may, a Decimal for a float calculates unlike it."""
    return same(a, b) or (a == b and not (isinstance(a, float) and isinstance(b, Decimal)))


class Side(StrEnum):
    """Direction of a position."""

    LONG = "LONG"
    SHORT = "SHORT"


class OrderSide(StrEnum):
    """Direction of an order."""

    BUY = "BUY"
    SELL = "SELL"


class OrderType(StrEnum):
    """How an order is executed. STOP_* wait for `trigger_price`."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP_MARKET = "STOP_MARKET"
    STOP_LIMIT = "STOP_LIMIT"
    TAKE_PROFIT_MARKET = "TAKE_PROFIT_MARKET"
    TAKE_PROFIT_LIMIT = "TAKE_PROFIT_LIMIT"


class TimeInForce(StrEnum):
    """How long an order stays."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    DAY = "DAY"


class OrderStatus(StrEnum):
    """Where an order is in its life.

    INITIALIZED is the intent, stored durably and not yet sent; after a restart it may or may not have reached the
    venue, so it is looked up there by its client order id, like every status that is not settled.
    """

    INITIALIZED = "INITIALIZED"
    SUBMITTED = "SUBMITTED"
    ACCEPTED = "ACCEPTED"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    PENDING_CANCEL = "PENDING_CANCEL"
    UNKNOWN = "UNKNOWN"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"

    @property
    def is_settled(self) -> bool:
        """Whether nothing can happen to the order any more."""
        return self in _SETTLED


_SETTLED = frozenset({OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.REJECTED})


class TradingState(StrEnum):
    """What the risk rules allow: everything, only reducing exposure, nothing."""

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


class TrailingStop(Record, kw_only=True):
    """A stop that follows the price at a distance."""

    offset: Decimal
    """Distance from the watermark, in price units."""
    activation_price: Decimal | None = None
    """Price at which it begins to follow; None: at once."""
    watermark: Decimal | None = None
    """Best price since it is active: highest for a long position, lowest for a short one."""
    active: bool = False


class Position(Record, kw_only=True):
    """An open position of one symbol."""

    symbol: str
    side: Side
    quantity: Decimal
    """Always positive; `side` has the sign."""
    entry_price: Decimal
    """Average, in quote currency."""
    stop_loss_price: Decimal | None = None
    take_profit_price: Decimal | None = None
    trailing_stop: TrailingStop | None = None
    realized_pnl: Decimal = Decimal(0)
    """Quote currency, of the part already closed, fees included."""
    leverage: Decimal = Decimal(1)
    opening_order_ids: tuple[str, ...] = ()
    """Client order ids."""
    protective_order_ids: tuple[str, ...] = ()
    """Client order ids of the stops and targets that rest at the venue."""
    trade_ids: tuple[str, ...] = ()
    """Trades already applied, so that the same fill told twice counts once."""
    ts_opened: int = 0
    ts_last: int = 0
    """When it last changed."""


class PendingOrder(Record, kw_only=True):
    """An order that is meant, on its way, or at the venue."""

    client_order_id: str
    """Chosen before sending; the name under which the venue is asked after a restart."""
    symbol: str
    side: OrderSide
    type: OrderType
    quantity: Decimal
    exchange_order_id: str | None = None
    filled_quantity: Decimal = Decimal(0)
    price: Decimal | None = None
    """Limit price."""
    trigger_price: Decimal | None = None
    average_price: Decimal | None = None
    """Of what is filled."""
    time_in_force: TimeInForce = TimeInForce.GTC
    reduce_only: bool = False
    post_only: bool = False
    status: OrderStatus = OrderStatus.INITIALIZED
    signal_key: str | None = None
    """Names the signal behind it: one entry per signal, also over restarts."""
    ts_created: int = 0
    ts_last: int = 0


class RiskLock(Record, kw_only=True):
    """A reason why a symbol may not be traded for a while."""

    reason: str
    locked_by: str
    ts_until: int | None = None
    """None: until a person lifts it."""


class SymbolControl(Record, kw_only=True):
    """What is allowed with one symbol."""

    symbol: str
    buying_enabled: bool = True
    selling_enabled: bool = True
    disable_reasons: tuple[str, ...] = ()
    risk_locks: tuple[RiskLock, ...] = ()
    ts_cooldown_until: int = 0
    """No new entry before this time."""
    ts_last: int = 0


class RiskLimits(Record, kw_only=True):
    """Limits of a scope; None: no limit. Money in quote currency, drawdown as a fraction of the peak."""

    max_daily_loss: Decimal | None = None
    max_drawdown: Decimal | None = None
    max_consecutive_losses: int | None = None
    max_open_positions: int | None = None


class RiskState(Record, kw_only=True):
    """The risk state of a scope (an account, a strategy, a symbol)."""

    scope: str
    trading_state: TradingState = TradingState.ACTIVE
    kill_switch: bool = False
    """Latched: set by a rule, lifted by a person only."""
    kill_switch_reason: str | None = None
    trading_day: str | None = None
    """ISO date to which the day's figures belong."""
    day_start_equity: Decimal = Decimal(0)
    peak_equity: Decimal = Decimal(0)
    realized_pnl_day: Decimal = Decimal(0)
    consecutive_losses: int = 0
    limits: RiskLimits = RiskLimits()
    ts_last: int = 0
