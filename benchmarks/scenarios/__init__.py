"""The scenarios, by name, in the order in which they run."""

from __future__ import annotations

from benchmarks.scenarios import crowd, disk, disturbed, growth, idle, ingest, latency, power, recovery, restart
from benchmarks.scenarios.base import Bench, Scenario, meaning

__all__ = ["SCENARIOS", "Bench", "Scenario", "meaning"]

_MODULES = [latency, power, ingest, disk, recovery, restart, growth, crowd, disturbed, idle]

SCENARIOS: dict[str, Scenario] = {found.__name__: found for module in _MODULES for found in module.SCENARIOS}
"""Name -> scenario."""
