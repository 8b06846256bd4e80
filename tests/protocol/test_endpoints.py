from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import zmq

from protocol.endpoints import ENDPOINT_FILE, EndpointFile, connect_socket, parse_endpoint, read_endpoint_file
from protocol.errors import ConfigError, MalformedMessage, SocketPathTooLong


def test_an_ipc_address_names_a_directory_with_two_sockets() -> None:
    endpoint = parse_endpoint("ipc:///run/outlive")
    assert endpoint.requests == "ipc:///run/outlive/requests"
    assert endpoint.deltas == "ipc:///run/outlive/deltas"
    assert endpoint.directory == "/run/outlive"
    assert endpoint.is_loopback


def test_a_tcp_address_names_a_port_and_the_next() -> None:
    endpoint = parse_endpoint("tcp://127.0.0.1:5757")
    assert endpoint.requests == "tcp://127.0.0.1:5757"
    assert endpoint.deltas == "tcp://127.0.0.1:5758"
    assert endpoint.directory is None


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("tcp://127.0.0.1:1", True), ("tcp://127.8.0.1:1", True), ("tcp://localhost:1", True), ("tcp://[::1]:1", True),
     ("tcp://0.0.0.0:1", False), ("tcp://*:1", False), ("tcp://10.0.0.1:1", False), ("tcp://[::]:1", False),
     ("tcp://example.org:1", False), ("tcp://localhost.evil.org:1", False)],
)  # fmt: skip
def test_loopback_is_only_what_this_machine_alone_can_reach(address: str, loopback: bool) -> None:
    assert parse_endpoint(address).is_loopback is loopback


@pytest.mark.parametrize(
    "address",
    ["", "ipc://", "ipc://relative/dir", "tcp://", "tcp://host", "tcp://host:", "tcp://:5", "tcp://host:0",
     "tcp://host:65535", "tcp://host:x", "tcp://host:-1", "tcp://host:٥", "udp://host:5", "/path", "inproc://x",
     "tcp://host:" + "9" * 5000, "ipc:///a\0b", "ipc:///\ud800"],
)  # fmt: skip
def test_another_form_of_address_is_a_config_error(address: str) -> None:
    with pytest.raises(ConfigError, match="no endpoint"):
        parse_endpoint(address)


def test_a_socket_path_over_107_bytes_is_refused_and_one_of_107_is_not() -> None:
    room = 107 - len("/requests")
    assert parse_endpoint("ipc:///" + "x" * (room - 1)).directory is not None
    with pytest.raises(SocketPathTooLong, match="108 bytes"):
        parse_endpoint("ipc:///" + "x" * room)
    with pytest.raises(SocketPathTooLong):
        parse_endpoint("ipc:///" + "ä" * 60)  # bytes count, not letters


def test_the_endpoint_file_comes_back(data_dir: Path) -> None:
    assert read_endpoint_file(str(data_dir)) is None
    written = EndpointFile(address="ipc:///x", pid=5, instance="i")
    (data_dir / ENDPOINT_FILE).write_bytes(msgspec.json.encode(written))
    assert read_endpoint_file(str(data_dir)) == written


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"address": 5}',
        b'{"address":"ipx:///a","pid":1,"instance":""}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"address":"\xff"}',
        b'{"x":' + b"[" * 9999,
    ],
)
def test_a_broken_endpoint_file_is_malformed(data_dir: Path, data: bytes) -> None:
    (data_dir / ENDPOINT_FILE).write_bytes(data)
    with pytest.raises(MalformedMessage, match=ENDPOINT_FILE):
        read_endpoint_file(str(data_dir))


def test_a_host_that_can_be_none_is_a_setting_to_correct() -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        with pytest.raises(ConfigError, match="tcp://a b:5757"):
            connect_socket(socket, parse_endpoint("tcp://a b:5757").requests)
