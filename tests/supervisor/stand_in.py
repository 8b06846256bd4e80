"""A program for tests of the supervisor:  python stand_in.py VERB [ARGUMENT]

    serve          ready, then waits for SIGTERM; appends "NAME left" to the file LEFT, if that is set
    deaf           ready, and ignores SIGTERM
    hang           ready, one beat, and no more
    exit CODE      leaves at once
    helper         starts a process of its own in another session and prints its pid; then as `serve`
    family         the same, in this session, but in a process group of its own
    only FILE      ready, if it gets the lock on FILE; else somebody is there twice: a line in FILE.twice
    refuse         as the persistence process does: one line, exit code 2
    grow BYTES     ready, and holds so many bytes; at SIGUSR1 as many again
    mute           never ready
    numb           ready, and ignores SIGABRT
    flood          ready, and prints without end
    chatter        ready, and says without end what nobody understands
    count LINES    ready; at SIGUSR1 prints so many numbered lines of 100 bytes
    silent         closes its output and its notify pipe when it is ready
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from typing import NoReturn


def say(word: str) -> None:
    os.write(int(os.environ["OUTLIVE_NOTIFY_FD"]), word.encode() + b"\n")


def leave(*_: object) -> NoReturn:
    if "LEFT" in os.environ:
        with open(os.environ["LEFT"], "a") as file:
            file.write(os.environ.get("NAME", "persistence") + "\n")
    os._exit(0)


def own(path: str) -> None:
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with open(f"{path}.twice", "a") as file:
            print(os.getpid(), file=file)


def main(verb: str, arguments: list[str]) -> None:
    held = b""
    if verb == "exit":
        sys.exit(int(arguments[0]))
    if verb == "refuse":
        print("no, I do not want this data")
        sys.exit(2)
    if verb in ("helper", "family"):
        command = [sys.executable, "-c", "import signal; signal.pause()"]
        apart: dict[str, int] = {"start_new_session": True} if verb == "helper" else {"process_group": 0}
        helper = subprocess.Popen(command, stdout=subprocess.DEVNULL, **apart)  # type: ignore[call-overload]
        print(f"helper {helper.pid}", flush=True)
    if verb == "only":
        own(arguments[0])
    if verb == "grow":
        held = b"x" * int(arguments[0])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    signal.signal(signal.SIGTERM, signal.SIG_IGN if verb == "deaf" else leave)
    if verb == "numb":
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
    print(f"{verb} in {os.getcwd()}", flush=True)
    print("environment " + " ".join(sorted(os.environ)), flush=True)
    if verb != "mute":
        say("ready")
    if verb == "hang":
        say("beat")
    if verb == "count":
        signal.sigwait({signal.SIGUSR1})
        for number in range(int(arguments[0])):
            print(f"{number:099}")
    if verb == "grow":
        signal.sigwait({signal.SIGUSR1})
        held *= 2
    while verb == "flood":
        os.write(1, b"x" * 99 + b"\n")
    while verb == "chatter":
        os.write(int(os.environ["OUTLIVE_NOTIFY_FD"]), b"\xffrecovering 99999999999999999999" * 100)
    if verb == "silent":
        for fd in (1, 2, int(os.environ["OUTLIVE_NOTIFY_FD"])):
            os.close(fd)
    while held is not None:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
