"""A live server whose sockets are given everything but what they are for, while a good client goes on working."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable, Iterator

import zmq

from protocol.changes import encode_changes
from protocol.frames import encode_record
from protocol.messages import Delta, encode
from tests.hostile.mutation import mutate, random_steps
from tests.hostile.peers import RUDE, frame, garbage, is_dropped, raw, zeromq, zmtp
from tests.hostile.siege import MEGABYTE, GoodClient, Siege, check_kept, median
from tests.lab.effort import Effort
from tests.persistence_proc.raw_session import RawSession, insert
from tests.protocol.test_messages import REQUESTS
from tests.waiting import wait_until

LINGER = 5000  # ms
SLOWER = 30  # times the usual median: the attackers take the same two cores
VICTIM = "n"  # the namespace that mutated requests name; never the good client's
WRONG_KINDS = [zmq.REQ, zmq.DEALER, zmq.SUB, zmq.PAIR, zmq.PUSH, zmq.PUB, zmq.ROUTER, zmq.PULL]

Attack = Callable[[Siege, random.Random, int], int]
"""(siege, chance, how much) -> how many messages or connections."""


@contextlib.contextmanager
def pushing(siege: Siege) -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """A socket for deltas and one for requests, each of the right kind; what they sent arrives."""
    with zeromq(siege.endpoint.deltas, zmq.PUSH, LINGER) as deltas:
        with zeromq(siege.endpoint.requests, zmq.DEALER, LINGER) as requests:
            yield deltas, requests


def send_garbage(siege: Siege, chance: random.Random, amount: int) -> int:
    with pushing(siege) as (deltas, requests):
        for _ in range(amount):
            deltas.send_multipart(garbage(chance))
            requests.send_multipart([b"", *garbage(chance)] if chance.random() < 0.5 else garbage(chance))
    return 2 * amount


def send_mutations(siege: Siege, chance: random.Random, amount: int) -> int:
    """Requests and deltas that are nearly right, of a namespace of their own."""
    samples = [encode(request) for request in REQUESTS]
    record = encode_record(1, 1, 1, encode_changes([insert("m", "k")]))
    head = encode(Delta(namespace=VICTIM, epoch=1, base=0, upto=1))
    with pushing(siege) as (deltas, requests):
        for _ in range(amount):
            whole = chance.choice(samples)
            requests.send_multipart([b"", mutate(whole, random_steps(chance), chance.choice(samples))])
            parts = [mutate(part, random_steps(chance), whole) for part in (head, record)]
            deltas.send_multipart([head, parts[1]] if chance.random() < 0.7 else parts)
    return 2 * amount


def send_many_parts(siege: Siege, chance: random.Random, amount: int) -> int:
    with pushing(siege) as (deltas, requests):
        for one in (deltas, requests):
            one.send_multipart([b"part"] * (500 * amount))
            one.send_multipart([b""] * (500 * amount))
    return 4


def connect_as_the_wrong_kind(siege: Siege, chance: random.Random, amount: int) -> int:
    for address in (siege.endpoint.requests, siege.endpoint.deltas):
        for kind in WRONG_KINDS:
            with zeromq(address, kind) as one, contextlib.suppress(zmq.ZMQError):
                one.send_multipart(garbage(chance), zmq.NOBLOCK)
    return 2 * len(WRONG_KINDS)


def be_rude(siege: Siege, chance: random.Random, amount: int) -> int:
    """Raw bytes, whole and cut; some leave at once, some stay for the others."""
    stay = []
    for n in range(amount):
        said = RUDE[n] if n < len(RUDE) else mutate(chance.choice(RUDE), random_steps(chance), chance.choice(RUDE))
        for address in (siege.endpoint.requests, siege.endpoint.deltas):
            one = raw(address)
            with contextlib.suppress(OSError):
                one.sendall(said)
            stay.append(one)
            if chance.random() < 0.7:
                stay.pop().close()
    for one in stay:
        one.close()
    return 2 * amount


def flood_with_connections(siege: Siege, chance: random.Random, amount: int) -> int:
    """Half of them never say a word, the others shake hands and then are silent."""
    with contextlib.ExitStack() as open_:
        for n in range(amount):
            address = chance.choice((siege.endpoint.requests, siege.endpoint.deltas))
            kind = "PUSH" if address == siege.endpoint.deltas else "DEALER"
            open_.enter_context(zmtp(address, kind) if n % 2 else raw(address))
    return amount


ATTACKS: dict[Attack, tuple[int, int]] = {
    send_garbage: (150, 20_000),
    send_mutations: (150, 20_000),
    send_many_parts: (20, 400),
    connect_as_the_wrong_kind: (1, 1),
    be_rude: (len(RUDE), 1500),
    flood_with_connections: (60, 2000),
}
"""Attack -> how much of it, near and far."""


def test_a_good_client_is_served_through_every_attack(siege_of_each: Siege, lab: Effort) -> None:
    """Its flushes keep coming, the server's memory stays bounded, and nothing that was confirmed is lost."""
    siege = siege_of_each
    with GoodClient(str(siege.data_dir)) as client:
        client.go_on(lab.pick(3, 200))
        quiet, began = median(client.flushes), len(client.flushes)
        for _ in range(lab.pick(1, 2)):
            for attack, amounts in ATTACKS.items():
                lab.count("hostile messages and connections", attack(siege, lab.chance(attack), lab.pick(*amounts)))
                client.go_on()
                siege.check_unharmed()
    client.check()
    lab.count("flushes under attack", len(client.flushes) - began)
    if lab.far:
        ratio = median(client.flushes[began:]) / quiet
        assert ratio < SLOWER, f"a flush took {ratio:.0f} times as long as usual"
    check_kept(str(siege.data_dir), client)
    with RawSession(siege.data_dir) as session:
        assert session.status().malformed > lab.pick(100, 10_000), "malformed messages are not counted"
    logged = re.findall("malformed message from (\\w+)", siege.persistence.errors())
    assert set(logged) == {"deltas", "requests"}
    assert len(logged) <= 2 * lab.pick(1, 10), f"{len(logged)} lines: each peer once a minute is enough"
    siege.persistence.restart()
    check_kept(str(siege.data_dir), client)


def test_a_frame_over_the_limit_ends_its_connection_and_costs_no_memory(siege_of_each: Siege, lab: Effort) -> None:
    """MAXMSGSIZE: the length alone is enough to be dropped; a part of just the limit is waited for, not paid for."""
    siege = siege_of_each
    for address, kind in ((siege.endpoint.deltas, "PUSH"), (siege.endpoint.requests, "DEALER")):
        for length in (2**30 + 1, 2**32, 2**62, 2**63, 2**64 - 1):
            with zmtp(address, kind) as one:
                one.sendall(b"\x02" + length.to_bytes(8, "big") + b"x" * 1000)
                assert is_dropped(one), f"a frame of {length} bytes is waited for"
                lab.count("frames over the limit")
    with contextlib.ExitStack() as open_:
        for _ in range(lab.pick(3, 30)):
            one = open_.enter_context(zmtp(siege.endpoint.deltas, "PUSH"))
            one.sendall(b"\x02" + (2**30).to_bytes(8, "big") + b"x" * 1000)
        with GoodClient(str(siege.data_dir)) as client:
            client.go_on()
        siege.check_unharmed(50 * MEGABYTE)


def test_a_peer_that_dies_in_the_middle_of_a_message_changes_nothing(siege_of_each: Siege, lab: Effort) -> None:
    """A delta whose last part never came is no delta."""
    siege = siege_of_each
    head = encode(Delta(namespace="good", epoch=1, base=0, upto=1))
    record = encode_record(1, 1, 1, encode_changes([insert("m", "k")]))
    with RawSession(siege.data_dir, "good") as session:
        session.open()
        whole = frame(head, 1) + frame(record)
        for cut in range(1, len(whole), 1 if lab.far else 9):
            with zmtp(siege.endpoint.deltas, "PUSH") as one:
                one.sendall(whole[:cut])
            lab.count("messages cut short")
        with zmtp(siege.endpoint.deltas, "PUSH") as one:
            one.sendall(frame(head, 1) * 3 + frame(b""))  # parts of another message in its place
        wait_until(lambda: session.status().malformed == 1)
        assert session.status().namespaces[0].applied == 0, "half a message was applied"
        session.put(insert("m", "k"))
        assert session.flush().durable == 1
