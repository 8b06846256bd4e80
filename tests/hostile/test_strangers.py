"""Who may come in: CURVE over TCP, keys and namespaces, directories of others, sessions that are over."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
import zmq.auth

from persistence_proc.security import load_access, make_private_directory
from protocol.disk import Disk
from protocol.errors import InsecureDirectory, NotAllowed, PersistenceUnavailable
from protocol.messages import Accept, Close, Confirm, Forget, Opened, Refused, RefusedCode, Status, StatusReport
from strategy_proc import connect
from supervisor.control import make_private
from tests.hostile.peers import RUDE, raw
from tests.hostile.siege import MEGABYTE, Siege
from tests.lab.effort import Effort
from tests.persistence_proc.raw_session import RawSession, insert, open_request, replace
from tests.persistence_proc.test_security import Client, keys_of
from tests.persistence_proc.test_server import assert_one_line, start_and_fail
from tests.ports import two_free_ports
from tests.processes import PersistenceProcess
from tests.waiting import wait_until

NOBODY = 65534

# Keys


@pytest.fixture
def curve_dir(data_dir: Path) -> Path:
    """Key pairs: "mine" and "other" for a namespace each, "admin" for all, "stranger" in no list."""
    folder = data_dir / "keys"
    folder.mkdir(0o700)
    lines = []
    for name, namespaces in (("mine", '["mine"]'), ("other", '["other"]'), ("admin", '["*"]'), ("stranger", "")):
        zmq.auth.create_certificates(folder, name)
        public, _ = zmq.auth.load_certificate(folder / f"{name}.key")
        if namespaces:
            lines.append(f'[[client]]\nkey = "{public.decode()}"\nnamespaces = {namespaces}\n')
    (folder / "clients.toml").write_text("\n".join(lines))
    return folder


@pytest.fixture
def fortress(data_dir: Path, curve_dir: Path) -> Iterator[Siege]:
    """A server that wants keys."""
    address = f"tcp://127.0.0.1:{two_free_ports()}"
    with PersistenceProcess(data_dir / "state", "--endpoint", address, "--curve-dir", str(curve_dir)) as persistence:
        yield Siege(persistence)


def report_of(admin: Client) -> StatusReport:
    report = admin.ask(Status())
    assert isinstance(report, StatusReport)
    return report


def test_a_key_has_its_namespace_and_no_other_for_reading_writing_or_deciding(
    fortress: Siege, curve_dir: Path, lab: Effort
) -> None:
    """P8: every request about another's namespace is refused by name, and every delta counted; nothing changes."""
    address = fortress.endpoint.address
    with Client(address, curve_dir, "mine") as mine, Client(address, curve_dir, "admin") as admin:
        with Client(address, curve_dir, "other") as other:
            assert isinstance(other.ask(open_request("other")), Opened)
            other.send("other")
            wait_until(lambda: report_of(admin).namespaces[0].applied == 1)
        strange = [
            open_request("other"), open_request("other", takeover=True, identity=b"x" * 16), Accept(namespace="other"),
            Forget(namespace="other"), Close(namespace="other", epoch=1, upto=1), Accept(namespace="new"),
            Confirm(namespace="other", epoch=1, store_id=b"", acked=0, upto=1, wait=0.0), Forget(namespace="nobody"),
        ]  # fmt: skip
        for request in strange:
            reply = mine.ask(request)
            assert isinstance(reply, Refused), f"{request} was answered"
            assert reply.code == RefusedCode.NOT_ALLOWED, "the refusal tells whether it exists"
            lab.count("requests of the wrong key")
        tries = lab.pick(50, 2000)
        for _ in range(tries):
            mine.send("other")
        wait_until(lambda: report_of(admin).stale_refused == tries)
        report = report_of(admin)
        assert [(one.name, one.epoch, one.applied) for one in report.namespaces] == [("other", 1, 1)]
        lab.count("deltas of the wrong key", tries)


WRONG_KEYS = {"an unlisted key": "stranger", "no key": None, "another server's key": "mine"}


def test_who_has_no_key_of_ours_gets_no_word_and_holds_nobody_up(
    fortress: Siege, curve_dir: Path, data_dir: Path, lab: Effort
) -> None:
    wrong = data_dir / "wrong"
    shutil.copytree(curve_dir, wrong)
    shutil.copy(curve_dir / "stranger.key", wrong / "server.key")
    say_what_is_rude(fortress, lab)
    with Client(fortress.endpoint.address, curve_dir, "admin") as admin:
        for what, name in WRONG_KEYS.items():
            folder = wrong if name == "mine" else curve_dir
            for _ in range(lab.pick(1, 20)):
                with Client(fortress.endpoint.address, folder, name) as client:
                    with contextlib.suppress(zmq.Again):  # who is not let in may have no connection to send on
                        client.deltas.send_multipart([b"delta", b"records"], zmq.NOBLOCK)
                    assert client.ask(open_request("mine"), seconds=0.2) is None, f"{what}: a stranger is answered"
                    report = report_of(admin)
                    assert report.namespaces == [], f"{what}: a stranger changed something"
                    assert report.malformed == 0, f"{what}: a stranger's bytes reached the decoders"
                    lab.count("hostile connections")
    fortress.check_unharmed(100 * MEGABYTE)


def say_what_is_rude(fortress: Siege, lab: Effort) -> None:
    for said in RUDE:
        for place in (fortress.endpoint.requests, fortress.endpoint.deltas):
            with raw(place) as one:
                one.sendall(said)
            lab.count("hostile connections")


def test_a_bot_is_told_which_of_its_keys_is_wrong(
    fortress: Siege, curve_dir: Path, data_dir: Path, lab: Effort
) -> None:
    """By the server, or by its own library: to a stranger the server says not a word."""
    address, local = fortress.endpoint.address, data_dir / "local"
    with pytest.raises(NotAllowed, match="other"):
        connect("other", data_dir=local, endpoint=address, curve_dir=str(keys_of(curve_dir, "mine")))
    with pytest.raises(NotAllowed, match="refuses our CURVE key"):
        connect("mine", data_dir=local, endpoint=address, curve_dir=str(keys_of(curve_dir, "stranger")))
    with pytest.raises(PersistenceUnavailable, match="does it want keys"):
        connect("mine", data_dir=local, endpoint=address, timeout=0.5)
    lab.count("hostile connections", 3)


# Directories


def somebody_elses(path: Path) -> Path:
    """A directory of another user: ours given away where we may, else one that never was ours."""
    if os.geteuid() != 0:
        return Path("/")
    os.chown(path, NOBODY, NOBODY)
    return path


CHECKS: dict[str, Callable[[Path], object]] = {
    "the data directory": lambda path: make_private_directory(Disk(), str(path)),
    "the keys": lambda path: load_access(str(path)),
    "the supervisor's": lambda path: make_private(str(path)),
    "a bot's": lambda path: connect("bot", data_dir=path, timeout=0.0),
    "a bot's, far away": lambda path: connect("bot", data_dir=path, endpoint="tcp://127.0.0.1:1", timeout=0.0),
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_a_directory_that_others_can_enter_is_refused_with_its_mode(
    data_dir: Path, check: Callable[[Path], object], lab: Effort
) -> None:
    for bit in range(6):
        data_dir.chmod(0o700 | 1 << bit)
        with pytest.raises(InsecureDirectory, match=f"{0o700 | 1 << bit:04o}"):
            check(data_dir)
        lab.count("insecure directories")
    data_dir.chmod(0o700)
    with pytest.raises(InsecureDirectory, match="belongs to user"):
        check(somebody_elses(data_dir))
    lab.count("insecure directories")


@pytest.mark.parametrize("folder", ["bot", "bot/outbox"])
def test_a_bots_own_folders_are_checked_too(siege: Siege, folder: str, lab: Effort) -> None:
    with connect("bot", data_dir=siege.data_dir) as state:
        state.map("m")["k"] = 1
    path = siege.data_dir / folder
    path.chmod(0o770)
    with pytest.raises(InsecureDirectory, match=r"0770.*chmod 700"):
        connect("bot", data_dir=siege.data_dir)
    path.chmod(0o700)
    with connect("bot", data_dir=siege.data_dir) as state:
        assert state.map("m") == {"k": 1}
    lab.count("insecure directories")


def test_a_server_does_not_serve_from_a_directory_of_another(data_dir: Path, lab: Effort) -> None:
    """One line that names the owner or the mode; nothing is made in it."""
    for name, spoil, word in (
        ("given", somebody_elses, "belongs to user"),
        ("open", lambda path: path.chmod(0o750) or path, "0750"),
    ):
        folder = data_dir / name
        folder.mkdir(0o700)
        folder = spoil(folder)
        before = sorted(os.listdir(folder))
        served, sockets = ["--data-dir", str(folder)], ["--data-dir", str(data_dir / "d"), "--runtime-dir", str(folder)]
        for arguments in lab.pick([served] if name == "open" else [sockets], [served, sockets]):
            code, errors = start_and_fail(*arguments)
            assert code == 2
            assert_one_line(errors, word, str(folder))
            assert sorted(os.listdir(folder)) == before
            lab.count("insecure directories")


# Sessions that are over


def test_replayed_doubled_and_old_deltas_of_a_fenced_session_change_nothing(siege: Siege, lab: Effort) -> None:
    """P7: in any order, as often as it likes, with its own epoch or parts of its successor's numbers."""
    chance = lab.chance()
    with RawSession(siege.data_dir) as zombie, RawSession(siege.data_dir) as owner:
        zombie.open()
        history = [[replace("m", n % 3, b"old%d" % n)] for n in range(10)]
        zombie.send(0, history)
        zombie.seq = len(history)
        zombie.flush()
        owner.open(takeover=True)
        owner.put(replace("m", 0, b"new"), insert("mine", "k", b"new"))
        owner.flush()
        state = owner.open_state()[1]
        for _ in range(lab.pick(100, 5000)):
            base, upto = sorted(chance.sample(range(20), 2))
            zombie.send(
                base, [[replace("m", chance.randrange(3), b"zombie")]] * (upto - base), epoch=chance.choice((1, 2))
            )
            lab.count("deltas of a fenced session")
        refused = lab.pick(100, 5000)
        wait_until(lambda: owner.status().stale_refused == refused, what="every delta of the zombie being refused")
        for epoch in (1, 2):
            reply = zombie.confirm(epoch=epoch, upto=20)
            assert isinstance(reply, Refused)
            assert reply.code == RefusedCode.FENCED, "a zombie learns something of what is durable"
        assert owner.open_state()[1] == state, "a zombie changed something"
        siege.persistence.restart()
        owner.connect()
        assert owner.open_state()[1] == state, "a zombie's change came back in recovery"


def test_a_session_that_sends_everything_twice_and_backwards_keeps_its_own_order(siege: Siege, lab: Effort) -> None:
    """P3: replays of a live session's own deltas are harmless, whatever their order."""
    chance = lab.chance()
    with RawSession(siege.data_dir) as session:
        session.open()
        history = [[replace("m", n % 5, b"%d" % n)] for n in range(40)]
        runs = [(base, chance.randrange(base + 1, 41)) for base in range(40)] * lab.pick(3, 100)
        chance.shuffle(runs)
        for base, upto in [*runs, (0, 40), *runs]:
            session.send(base, history[base:upto])
            lab.count("replayed deltas")
        session.seq = 40
        session.flush()
        assert session.open_state()[1] == {"m": {n: b"%d" % (35 + n) for n in range(5)}}
