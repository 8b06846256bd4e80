"""Peers that ask and never read: the others are served, and what is kept for the stuck ones is bounded."""

from __future__ import annotations

import contextlib

import zmq

from protocol.messages import Confirm, Status, encode
from tests.hostile.peers import frame, zeromq, zmtp
from tests.hostile.siege import MEGABYTE, GoodClient, Siege, check_kept
from tests.lab.effort import Effort
from tests.persistence_proc.raw_session import RawSession, insert, open_request
from tests.waiting import wait_until

REPLIES_HELD = 8  # SEND_HIGH_WATER of the server, for each peer
ROOM = 120 * MEGABYTE
PER_CONNECTION = 50_000  # bytes that libzmq has for one until what it sent has been read


def fill(data_dir: object, namespace: str, size: int) -> None:
    """A namespace whose state has `size` bytes."""
    with RawSession(str(data_dir), namespace) as session:
        session.open()
        for n in range(8):
            session.put(insert("m", n, b"v" * (size // 8)))
        session.flush()
        session.close()


def test_who_opens_a_big_map_again_and_again_and_never_reads_it_costs_a_few_replies(siege: Siege, lab: Effort) -> None:
    """Thousands of opens of some MB each: eight wait for their reader, the others are dropped."""
    size, peers = 8 * MEGABYTE, lab.pick(1, 3)
    fill(siege.data_dir, "big", size)
    siege.before = siege.rss()
    asked = 0
    with contextlib.ExitStack() as stuck, GoodClient(str(siege.data_dir)) as client:
        for peer in range(peers):
            greedy = stuck.enter_context(zeromq(siege.endpoint.requests, zmq.DEALER, rcvhwm=1, rcvbuf=4096))
            for attempt in range(lab.pick(40, 1500)):
                ask = open_request("big", identity=bytes([peer]) * 16, attempt=attempt + 1, last=8, takeover=True)
                greedy.send_multipart([b"", encode(ask)])
                asked += 1
                if attempt % lab.pick(1, 10) == 0:
                    client.go_on(1)  # so that each open is granted by itself, and not only the last
            client.go_on()
        siege.check_unharmed(ROOM // 2 + (REPLIES_HELD + 2) * size * peers)
    client.check()
    lab.count("opens never read", asked)
    check_kept(str(siege.data_dir), client)


def test_thousands_of_long_polls_left_hanging_hold_nobody_up(siege: Siege, lab: Effort) -> None:
    """Each peer has one confirm held for a second at most; whoever leaves is forgotten."""
    ask = encode(Confirm(namespace="slow", epoch=1, store_id=b"", acked=0, upto=99, wait=60.0))
    with RawSession(siege.data_dir, "slow") as slow, GoodClient(str(siege.data_dir)) as client:
        slow.open()
        for _ in range(lab.pick(1, 4)):
            with contextlib.ExitStack() as hanging:
                for _ in range(lab.pick(150, 1500)):
                    one = hanging.enter_context(zmtp(siege.endpoint.requests, "DEALER"))
                    for _ in range(20):
                        one.sendall(frame(b"", 1) + frame(ask))
                    lab.count("long polls left hanging", 20)
                client.go_on()
            client.go_on()
        assert slow.confirm(upto=99, wait=1e9), "how long a question is held is not the peer's to say"
        siege.check_unharmed(ROOM + lab.pick(150, 6000) * PER_CONNECTION)
    client.check()
    check_kept(str(siege.data_dir), client)


def test_a_peer_that_floods_with_questions_and_reads_late_gets_some_answers_and_delays_nobody(
    siege: Siege, lab: Effort
) -> None:
    with GoodClient(str(siege.data_dir)) as client, zeromq(siege.endpoint.requests, zmq.DEALER, rcvhwm=1) as flood:
        for n in range(lab.pick(3000, 100_000)):
            flood.send_multipart([b"", encode(Status())])
            if n % 1000 == 0:
                client.go_on(1)
            lab.count("questions never read")
        client.go_on()
        siege.check_unharmed(ROOM)
        assert flood.recv_multipart()[0] == b""
    client.check()


def test_a_stopped_client_is_not_waited_for(siege: Siege, lab: Effort) -> None:
    """A REQ client that asked, and whose process stands still while its reply is under way."""
    fill(siege.data_dir, "big", 2 * MEGABYTE)
    left = contextlib.ExitStack()
    with contextlib.ExitStack() as stopped, GoodClient(str(siege.data_dir)) as client:
        for n in range(lab.pick(10, 100)):
            one = stopped.enter_context(zmtp(siege.endpoint.requests, "REQ"))
            ask = encode(open_request("big", attempt=n + 1, last=8))
            one.sendall(frame(b"", 1) + frame(ask))
            lab.count("clients stopped")
        client.go_on()
        left.enter_context(stopped.pop_all())
    with left:
        assert siege.persistence.terminate() == 0, "who does not read keeps the server from leaving"
    siege.persistence.start()
    with RawSession(siege.data_dir, "big") as session:
        wait_until(lambda: session.open_state(takeover=True, last=8)[0].applied == 8)
