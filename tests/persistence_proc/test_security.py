"""TCP with CURVE: who may connect, and which namespace each key may write."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.auth
from zmq.utils.monitor import recv_monitor_message

from persistence_proc.security import load_access, secure_socket, take_lock
from protocol.changes import encode_changes
from protocol.curve import CurveKeys
from protocol.disk import Disk
from protocol.endpoints import parse_endpoint
from protocol.errors import ConfigError, InsecureDirectory, NotAllowed, PersistenceUnavailable, StoreInUse
from protocol.frames import encode_record
from protocol.messages import Delta, Opened, Refused, RefusedCode, Reply, Status, StatusReport, decode_reply, encode
from protocol.requests import RequestClient
from strategy_proc import Session, connect
from tests.persistence_proc.commands import run
from tests.persistence_proc.raw_session import insert, open_request
from tests.persistence_proc.test_server import assert_one_line, start_and_fail
from tests.ports import two_free_ports
from tests.processes import PersistenceProcess
from tests.waiting import LONG, wait_until


@pytest.fixture
def curve_dir(data_dir: Path) -> Path:
    folder = data_dir / "keys"
    folder.mkdir(0o700)
    lines = []
    for name, namespaces in (("mine", '["mine"]'), ("admin", '["*"]'), ("stranger", None)):
        zmq.auth.create_certificates(folder, name)
        if namespaces:
            public, _ = zmq.auth.load_certificate(folder / f"{name}.key")
            lines.append(f'[[client]]\nkey = "{public.decode()}"\nnamespaces = {namespaces}\n')
    (folder / "clients.toml").write_text("\n".join(lines))
    return folder


@pytest.fixture
def address(data_dir: Path, curve_dir: Path) -> Iterator[str]:
    """Endpoint of a process that wants keys."""
    address = f"tcp://127.0.0.1:{two_free_ports()}"
    with PersistenceProcess(data_dir / "state", "--endpoint", address, "--curve-dir", str(curve_dir)):
        yield address


class Client:
    """Sockets with the key pair `name`, or none."""

    def __init__(self, address: str, curve_dir: Path, name: str | None) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        endpoint = parse_endpoint(address)
        self.requests, self.deltas = self.context.socket(zmq.REQ), self.context.socket(zmq.PUSH)
        for one, target in ((self.requests, endpoint.requests), (self.deltas, endpoint.deltas)):
            if name is not None:
                public, secret = zmq.auth.load_certificate(curve_dir / f"{name}.key_secret")
                one.curve_publickey, one.curve_secretkey = public, secret
                one.curve_serverkey = zmq.auth.load_certificate(curve_dir / "server.key")[0]
            one.connect(target)

    def ask(self, request: object, seconds: float = LONG) -> Reply | None:
        try:
            self.requests.send(encode(request), zmq.NOBLOCK)
        except zmq.Again:  # a refused connection takes no message, from the moment when it learns of it
            return None
        if not self.requests.poll(round(seconds * 1000)):
            return None
        return decode_reply(self.requests.recv_multipart()[0])

    def send(self, namespace: str) -> None:
        head = Delta(namespace=namespace, epoch=1, base=0, upto=1)
        self.deltas.send_multipart([encode(head), encode_record(1, 1, 1, encode_changes([insert("a", "x")]))])

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.destroy(0)


def test_a_listed_key_opens_its_namespace_and_no_other(address: str, curve_dir: Path) -> None:
    with Client(address, curve_dir, "mine") as client:
        assert isinstance(client.ask(open_request("mine")), Opened)
        other = client.ask(open_request("other"))
        assert isinstance(other, Refused)
        assert other.code == RefusedCode.NOT_ALLOWED


def test_changes_of_a_namespace_that_the_key_may_not_write_are_refused(address: str, curve_dir: Path) -> None:
    with Client(address, curve_dir, "admin") as admin, Client(address, curve_dir, "mine") as mine:
        assert isinstance(admin.ask(open_request("other")), Opened)
        mine.send("other")

        def refused() -> bool:
            report = admin.ask(Status())
            assert isinstance(report, StatusReport)
            return report.stale_refused == 1 and report.namespaces[0].applied == 0

        wait_until(refused)
        admin.send("other")
        wait_until(lambda: admin.ask(Status()).namespaces[0].applied == 1)  # type: ignore[union-attr]


def keys_of(curve_dir: Path, name: str) -> Path:
    """The folder that a client is given: its key pair, and the server's public half."""
    folder = curve_dir.parent / f"keys-of-{name}"
    folder.mkdir(0o700)
    shutil.copy(curve_dir / f"{name}.key_secret", folder / "client.key_secret")
    shutil.copy(curve_dir / "server.key", folder)
    return folder


def test_a_bot_with_a_key_keeps_its_state_and_a_person_with_one_settles_it(
    address: str, curve_dir: Path, data_dir: Path
) -> None:
    keys, local = str(keys_of(curve_dir, "mine")), data_dir / "local"
    for found in ({}, {"a": 1}):
        with connect("mine", data_dir=local, endpoint=address, curve_dir=keys) as state:
            assert state.map("m") == found
            state.map("m")["a"] = 1
    outbox = ["--outbox-dir", str(local / "mine" / "outbox")]
    done = run("admin", data_dir / "state", "forget", "mine", "--yes", *outbox, "--curve-dir", keys)
    assert done.returncode == 0, done.stderr
    with connect("mine", data_dir=local, endpoint=address, curve_dir=keys) as state:
        assert state.map("m") == {}


def test_a_key_that_is_not_listed_is_told_so_at_once(address: str, curve_dir: Path, data_dir: Path) -> None:
    keys = str(keys_of(curve_dir, "stranger"))
    with pytest.raises(NotAllowed, match=f"{address} refuses our CURVE key"):
        connect("mine", data_dir=data_dir / "local", endpoint=address, curve_dir=keys, timeout=LONG)
    done = run("admin", data_dir / "state", "forget", "mine", "--yes", "--curve-dir", keys)
    assert done.returncode == 1
    assert_one_line(done.stderr, "refuses our CURVE key")


def test_a_request_that_comes_behind_the_refusal_does_not_wait_for_ever(address: str, curve_dir: Path) -> None:
    keys = CurveKeys(str(keys_of(curve_dir, "stranger")))
    with zmq.Context() as context:
        client = RequestClient(context, parse_endpoint(address), keys)
        wait_until(lambda: not client.socket.poll(0, zmq.POLLOUT))
        with pytest.raises(NotAllowed):
            client.ask(Status(), LONG)
        client.abandon()


@pytest.mark.parametrize("moves", [False, True], ids=["in the same place", "in another place"])
def test_a_bot_whose_key_was_taken_off_the_list_goes_on_when_it_is_back(
    curve_dir: Path, data_dir: Path, moves: bool
) -> None:
    address, listed = f"tcp://127.0.0.1:{two_free_ports()}", (curve_dir / "clients.toml").read_text()
    arguments = ("--endpoint", address, "--curve-dir", str(curve_dir))
    with PersistenceProcess(data_dir / "state", *arguments):
        keys = str(keys_of(curve_dir, "mine"))
        state = connect("mine", data_dir=data_dir / "state", curve_dir=keys)
    (curve_dir / "clients.toml").write_text("client = []")
    with PersistenceProcess(data_dir / "state", *arguments):
        state.map("m")["a"] = 1
        with pytest.raises(NotAllowed, match="does not list it"):
            state.flush(LONG)
    (curve_dir / "clients.toml").write_text(listed)
    elsewhere = ("--endpoint", f"tcp://127.0.0.1:{two_free_ports()}", "--curve-dir", str(curve_dir))
    with PersistenceProcess(data_dir / "state", *(elsewhere if moves else arguments)):
        wait_until(lambda: is_flushed(state), what="the bot is connected again")
        state.close()


def is_flushed(state: Session) -> bool:
    try:
        state.flush(LONG)
    except NotAllowed:
        return False
    return True


@pytest.mark.parametrize(("name", "hint"), [("admin", "is server.key its present key"), (None, "does it want keys")])
def test_a_server_that_takes_no_such_keys_is_asked_for_the_right_ones(
    address: str, curve_dir: Path, data_dir: Path, name: str | None, hint: str
) -> None:
    keys = None
    if name is not None:
        (curve_dir / "server.key").write_text((curve_dir / "stranger.key").read_text())
        keys = str(keys_of(curve_dir, name))
    with pytest.raises(PersistenceUnavailable, match=hint):
        connect("mine", data_dir=data_dir / "local", endpoint=address, curve_dir=keys, timeout=0.3)


def test_keys_that_can_not_be_used_are_named_in_one_line(address: str, data_dir: Path) -> None:
    with pytest.raises(ConfigError, match="no usable CURVE keys in"):
        connect("mine", data_dir=data_dir / "local", endpoint=address, curve_dir=str(data_dir))
    done = run("admin", data_dir / "state", "forget", "mine", "--yes", "--curve-dir", str(data_dir))
    assert done.returncode == 1
    assert "no usable CURVE keys in" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["", 'public-key = "short"\nsecret-key = "short"', "public-key", "\udcff"])
def test_a_server_key_that_can_not_be_used_is_named_in_one_line(data_dir: Path, text: str) -> None:
    (data_dir / "clients.toml").write_text("client = []")
    (data_dir / "server.key_secret").write_bytes(os.fsencode(text))
    arguments = ["--endpoint", "tcp://127.0.0.1:1", "--curve-dir", str(data_dir)]
    code, errors = start_and_fail("--data-dir", str(data_dir / "state"), *arguments)
    assert code == 2
    assert_one_line(errors, "no usable CURVE keys in", "server.key_secret")


def test_a_key_that_is_not_there_is_told_so(data_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"client\.key_secret: .*No such file"):
        CurveKeys(str(data_dir))


NO_KEYS = ['public-key = "short"\nsecret-key = "short"', f'public-key = "{"~" * 40}"', f'public-key = "{"#" * 40}"',
           f'public-key = "{"a" * 40}"\nsecret-key = ""']  # fmt: skip


@pytest.mark.parametrize("text", NO_KEYS)
def test_a_clients_key_that_zeromq_would_refuse_is_named(data_dir: Path, text: str) -> None:
    for name in ("client.key_secret", "server.key"):
        (data_dir / name).write_text(text)
    with pytest.raises(ConfigError, match=r"no usable CURVE keys in .*client\.key_secret"):
        CurveKeys(str(data_dir))


def test_tcp_without_keys_says_that_everybody_here_may_connect(data_dir: Path) -> None:
    with PersistenceProcess(data_dir, "--endpoint", f"tcp://127.0.0.1:{two_free_ports()}") as persistence:
        assert "open to every user of this machine" in persistence.errors()


@pytest.mark.parametrize("name", ["stranger", None])
def test_who_is_not_listed_gets_no_answer(address: str, curve_dir: Path, name: str | None) -> None:
    with Client(address, curve_dir, name) as client, Client(address, curve_dir, "admin") as admin:
        assert admin.ask(Status()) is not None
        assert client.ask(Status(), seconds=0.5) is None


def test_nobody_gets_in_while_nobody_looks_at_the_list(curve_dir: Path) -> None:
    """As when the process stops: its sockets outlive its authenticator for a moment."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.REQ) as stranger:
        secure_socket(router, str(curve_dir))
        port = router.bind_to_random_port("tcp://127.0.0.1")
        stranger.linger = 0
        CurveKeys(str(keys_of(curve_dir, "stranger"))).use(stranger)
        monitor = stranger.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        stranger.connect(f"tcp://127.0.0.1:{port}")
        event = recv_monitor_message(monitor)["event"]
        stranger.disable_monitor()
        monitor.close()
    assert event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("client = 3", "clients.toml"),
        ('[[client]]\nkey = "short"\nnamespaces = []', "40"),
        ('[[client]]\nkey = "x"\nnamespaces = []\nextra = 1', "extra"),
        (f'[[client]]\nkey = "{"k" * 40}"\nnamespaces = []\n' * 2, "listed twice"),
        ("client = " + "[" * 5000, "clients.toml"),
        ("client = " + "9" * 5000, "clients.toml"),
        ("client = '\udcff'", "clients.toml"),
    ],
)
def test_a_bad_list_of_clients_names_what_is_wrong(data_dir: Path, text: str, word: str) -> None:
    (data_dir / "clients.toml").write_bytes(os.fsencode(text))
    with pytest.raises(ConfigError, match=word):
        load_access(str(data_dir))


def test_a_missing_list_and_a_readable_folder_are_refused(data_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"clients\.toml"):
        load_access(str(data_dir))
    os.chmod(data_dir, 0o755)
    with pytest.raises(InsecureDirectory, match="0755"):
        load_access(str(data_dir))


def test_a_tool_that_only_asks_whether_the_lock_is_held_does_not_keep_a_process_from_starting(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(data_dir / "LOCK")
    asking = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(asking, fcntl.LOCK_EX)
    monkeypatch.setattr("persistence_proc.security.time.sleep", lambda _: os.close(asking))
    os.close(take_lock(Disk(), path, "a store"))


def test_an_owner_keeps_a_second_process_out(data_dir: Path) -> None:
    fd = take_lock(Disk(), str(data_dir / "LOCK"), "a store")
    with pytest.raises(StoreInUse, match=f"a store is in use .*{os.getpid()}"):
        take_lock(Disk(), str(data_dir / "LOCK"), "a store")
    os.close(fd)


# Sockets that somebody else could have made


def made_public(folder: Path) -> None:
    folder.chmod(0o755)


def given_away(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(folder, 65534, -1)


@pytest.mark.parametrize("change", [made_public, given_away])
@pytest.mark.parametrize("named", ["by ENDPOINT", "by the bot"])
def test_a_bot_says_nothing_to_sockets_in_a_directory_that_is_not_ours_alone(
    data_dir: Path, change: Callable[[Path], None], named: str
) -> None:
    store, sockets = data_dir / "store", data_dir / "sockets"
    with PersistenceProcess(store, "--runtime-dir", str(sockets)):
        change(sockets)
        with pytest.raises(InsecureDirectory, match=str(sockets)):
            connect("bot", data_dir=store, endpoint=f"ipc://{sockets}" if named == "by the bot" else None)
        assert not (store / "bot").exists(), "refused before anything is begun"


def test_an_address_whose_directory_is_not_there_yet_is_waited_for(data_dir: Path) -> None:
    store, sockets = data_dir / "store", data_dir / "sockets"
    with PersistenceProcess(store, "--runtime-dir", str(sockets)) as persistence:
        persistence.terminate()
        shutil.rmtree(sockets)
        sockets.touch()
        with pytest.raises(InsecureDirectory, match="is not a directory"):
            connect("bot", data_dir=store)
        with pytest.raises(PersistenceUnavailable, match="is it running"):
            connect("bot", data_dir=store, endpoint=f"ipc://{sockets}/below", timeout=0.1)
        sockets.unlink()
        with pytest.raises(PersistenceUnavailable, match="is it running"):
            connect("bot", data_dir=store, timeout=0.1)
        with ThreadPoolExecutor(1) as bot:
            connecting = bot.submit(connect, "bot", data_dir=store, timeout=LONG)
            persistence.start()
            connecting.result().close()


def test_a_tool_says_nothing_to_sockets_in_a_directory_that_is_not_ours_alone(data_dir: Path) -> None:
    store, sockets = data_dir / "store", data_dir / "sockets"
    with PersistenceProcess(store, "--runtime-dir", str(sockets)):
        made_public(sockets)
        done = run("admin", store, "forget", "bot", "--yes")
        assert done.returncode == 1
        assert_one_line(done.stderr, f"chmod 700 {sockets}")
