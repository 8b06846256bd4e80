"""What a put costs while the persistence process stands still.

    python -m benchmarks.outage [--seconds 30] [--rate 20000] [--keys 1000]

Three phases of the same paced load on one session: the process up, stopped (SIGSTOP), and up again; for each the
distribution of a put's time in microseconds, the largest size of the outbox and of the bot's memory. The machine's own
noise is in every figure, so the phases are to be compared with one another, not with another run. In a further phase
nothing is called at all: it shows how long the machine alone keeps a busy thread from running.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from array import array

import psutil

from benchmarks.server import start_server
from strategy_proc import PersistentMap, Session, connect

MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the outage")
    parser.add_argument("--rate", type=int, default=20_000, help="puts per second")
    parser.add_argument("--keys", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ol-") as folder:
        server = start_server(folder)
        try:
            with connect("bench", data_dir=folder) as state:
                run(state, server, folder, options)
        finally:
            server.send_signal(signal.SIGCONT)
            server.terminate()
            server.wait()
    return 0


def run(state: Session, server: subprocess.Popen[bytes], folder: str, options: argparse.Namespace) -> None:
    puts = state.map("m")
    calm = options.seconds / 3
    print(f"{options.rate} puts/s on {options.keys} keys; microseconds a put, MiB")
    print(f"{'phase':<14}{'p50':>8}{'p99':>8}{'p99.9':>9}{'max':>10}{'outbox':>9}{'memory':>9}")
    phase("nothing", None, folder, calm, options)
    phase("up", puts, folder, calm, options)
    server.send_signal(signal.SIGSTOP)
    phase("stopped", puts, folder, options.seconds, options)
    server.send_signal(signal.SIGCONT)
    state.flush(60)
    phase("up again", puts, folder, calm, options)


def phase(
    name: str, puts: PersistentMap[str, object] | None, folder: str, seconds: float, options: argparse.Namespace
) -> None:
    """Run the paced load for `seconds` and print its line."""
    times = array("d")
    outbox = memory = 0
    interval, began = 1 / options.rate, time.perf_counter()
    due, looked, n = began, began, 0
    while (now := time.perf_counter()) < began + seconds:
        if now < due:
            continue
        due = max(due + interval, now - 0.01)  # after a stall: catch up a little, not all
        value = {"n": n, "price": 61250.5, "text": "x" * 100}
        start = time.perf_counter()
        if puts is not None:
            puts[f"k{n % options.keys}"] = value
        times.append(time.perf_counter() - start)
        n += 1
        if now - looked > 0.25:
            looked = now
            outbox = max(outbox, folder_bytes(f"{folder}/bench/outbox"))
            memory = max(memory, psutil.Process().memory_info().rss)
    ordered = sorted(times)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1e6 for q in (0.5, 0.99, 0.999, 1)]
    print(f"{name:<14}{at[0]:>8.1f}{at[1]:>8.1f}{at[2]:>9.1f}{at[3]:>10.0f}{outbox / MIB:>9.1f}{memory / MIB:>9.1f}")


def folder_bytes(folder: str) -> int:
    total = 0
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            total += os.stat(f"{folder}/{name}").st_size
    return total


if __name__ == "__main__":
    sys.exit(main())
