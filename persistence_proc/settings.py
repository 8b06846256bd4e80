"""Settings of the persistence process, from its command line, checked before anything is touched."""

from __future__ import annotations

import os

import msgspec

from persistence_proc.paths import Paths
from persistence_proc.security import check_endpoint
from protocol.endpoints import Endpoint, parse_endpoint
from protocol.errors import ConfigError

LOG_LEVELS = ("debug", "info", "warning", "error")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one persistence process needs to know. Paths are absolute."""

    data_dir: str
    endpoint: Endpoint
    curve_dir: str | None
    log_level: str

    @property
    def socket_dir(self) -> str | None:
        """The folder that holds the sockets; None for tcp."""
        return self.endpoint.directory


def check_settings(
    data_dir: str,
    runtime_dir: str | None = None,
    endpoint: str | None = None,
    curve_dir: str | None = None,
    log_level: str = "info",
) -> Settings:
    """Raises `ConfigError`, or `SocketPathTooLong`, which names the way out."""
    if endpoint is not None and runtime_dir is not None:
        raise ConfigError("--runtime-dir is where ipc sockets lie; with --endpoint it means nothing: give one of them")
    if log_level not in LOG_LEVELS:
        raise ConfigError(f"--log-level {log_level!r}: one of {', '.join(LOG_LEVELS)}")
    data_dir = os.path.abspath(data_dir)
    if endpoint is None:
        folder = Paths(data_dir).sockets if runtime_dir is None else os.path.abspath(runtime_dir)
        endpoint = f"ipc://{folder}"
    address = parse_endpoint(endpoint)
    check_endpoint(address, curve_dir)
    if curve_dir is not None and address.directory is not None:
        raise ConfigError("--curve-dir is for tcp endpoints; ipc sockets are guarded by their directory's mode")
    return Settings(
        data_dir=data_dir,
        endpoint=address,
        curve_dir=os.path.abspath(curve_dir) if curve_dir is not None else None,
        log_level=log_level,
    )
