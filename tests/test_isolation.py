"""Isolation on one host: what a receiver did not join is left out and counted, also when there is a flood of it.

tests/test_namespaces.py has what several hosts and interfaces add.
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import contextmanager

import pytest
from feeds import further
from net import repeating

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no destination is told to check")


@pytest.fixture
def several(opened, multicast, feed):
    """A receiver of two groups, so bound to any address, and the groups' senders."""
    group, port = feed
    other = further(group)
    receiver = opened.closing(multicast.open_receiver([group, other], port, interface="lo", timeout=10, batch_size=8))
    return receiver, opened.sender((group, port)), opened.sender((other, port))


class Unicast(socket.socket):
    """Sends to a port of this host; not connected, so that it does not learn whether somebody listens there."""

    def __init__(self, port):
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.port = port

    def send(self, data):
        return self.sendto(data, ("127.0.0.1", self.port))


def test_unicast_is_left_out_and_counted(several, feed):
    receiver, first, second = several
    with Unicast(feed[1]) as stray:
        for round_ in range(20):  # more than one batch, at every place in it
            stray.send(b"stray")
            first.send(b"first %d" % round_)
            stray.send(b"s")
            second.send(b"second %d" % round_ + bytes(round_))
    came = []
    while len(came) < 40:
        batch = receiver.recv_batch()
        whole = memoryview(batch)
        came += [bytes(view) for view in batch]
        assert [bytes(whole[at : at + n]) for at, n in zip(batch.offsets, batch.lengths, strict=True)] == came[
            -len(batch) :
        ]
        assert len(whole) == len(batch) * 2048  # one slot each, also where one was left out
    assert came == [text for i in range(20) for text in (b"first %d" % i, b"second %d" % i + bytes(i))]
    stats = receiver.stats()
    assert (stats.datagrams, stats.foreign, stats.bytes) == (40, 40, sum(map(len, came)))


def test_columns_are_those_of_the_datagrams_that_are_left(opened, multicast, feed):
    group, port = feed
    receiver = opened.closing(
        multicast.open_receiver(
            [group, "239.254.1.1"], port, interface="lo", timeout=10, columns=multicast.COLUMNS, timestamps="software"
        )
    )
    sender = opened.sender(feed)
    with Unicast(port) as stray:
        for i in range(4):
            stray.send(b"stray")
            sender.socket.setsockopt(0, 1, 4 * i)  # IP_TOS
            sender.send(b"%d" % i)
    batch = receiver.recv_batch()
    assert [bytes(view) for view in batch] == [b"0", b"1", b"2", b"3"]
    assert batch.tos.tolist() == [0, 4, 8, 12]
    assert [batch.destination(i) for i in range(4)] == [group] * 4
    assert [batch.source(i) for i in range(4)] == [sender.socket.getsockname()] * 4
    assert batch.timestamps.tolist() == sorted(batch.timestamps)


def test_switched_off_it_lets_everything_through(opened, multicast, feed):
    group, port = feed
    receiver = opened.closing(multicast.open_receiver(group, port, interface="lo", timeout=10, isolation=False))
    others = opened.receiver(("239.254.1.1", port))
    with Unicast(port) as stray:
        stray.send(b"stray")
    opened.sender(("239.254.1.1", port)).send(b"other group")
    assert [bytes(view) for view in receiver.recv_batch()] == [b"stray", b"other group"]
    assert [bytes(view) for view in others.recv_batch()] == [b"other group"]
    assert receiver.stats().foreign == 0


@contextmanager
def flood(port):
    """Unicast without end, to a receiver that should get none of it."""
    with Unicast(port) as stray, repeating(lambda: stray.send(b"stray"), pause=0):
        yield


def test_a_flood_of_foreign_datagrams_does_not_put_off_a_timeout(several, feed):
    receiver, *_ = several
    with flood(feed[1]):
        for _ in range(5):
            with pytest.raises(TimeoutError):
                receiver.recv_batch(0.02)
            with pytest.raises(BlockingIOError):
                receiver.recv_batch(0)
    assert receiver.stats().foreign > 0


def test_a_flood_of_foreign_datagrams_does_not_keep_a_receiver_from_closing(several, feed):
    receiver, *_ = several
    raised = []

    def receive():
        try:
            receiver.recv_batch(None)
        except OSError as error:
            raised.append(error)

    with flood(feed[1]):
        thread = threading.Thread(target=receive)
        thread.start()
        while receiver.stats().foreign == 0:
            pass
        receiver.close()
        thread.join(10)
    assert str(raised[0]).endswith("recv_batch: already closed")


class Watch:
    """Stands in for the one that heals: never ready by itself, and done when it is handled for the third time."""

    links_lost = rejoins = silences = 0

    def __init__(self, near):
        self.near = near

    def fileno(self):
        return self.near.fileno()

    outer_fileno = fileno

    def handle(self, *_):
        self.silences += 1
        if self.silences == 3:
            raise Looked

    def close(self):
        pass


class Looked(Exception):
    """Enough."""


def test_a_flood_of_foreign_datagrams_does_not_keep_a_receiver_from_looking_at_its_interfaces(opened, multicast, feed):
    near, far = socket.socketpair()
    opened.closing(near)
    opened.closing(far)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", feed[1]))
    receiver = opened.closing(multicast.Receiver(sock, isolation=True, timeout=None))
    receiver._watch_over(lambda *_: Watch(near))
    ending = threading.Timer(20, receiver.close)
    ending.start()
    try:
        with flood(feed[1]), pytest.raises(Looked):
            receiver.recv_batch()
    finally:
        ending.cancel()


def test_one_group_is_isolated_by_the_kernel_alone(opened, feed):
    """No control messages, so no cost: the socket is bound to the group, and IP_MULTICAST_ALL is off."""
    receiver = opened.receiver(feed)
    assert receiver.socket.getsockname() == feed
    assert receiver.socket.getsockopt(0, 49) == 0
    assert receiver.socket.getsockopt(0, 8) == 0  # IP_PKTINFO
