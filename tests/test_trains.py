"""Trains of datagrams (UDP_GRO): what the kernel joined comes apart into what was sent."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UDP_GRO is a thing of Linux")

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104


def send_train(sender, segment: int, payload: bytes) -> list[bytes]:
    """Send a payload as datagrams of so many bytes, the last one shorter, in one go; return them."""
    sender.socket.sendmsg([payload], [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", segment))])
    return [payload[start : start + segment] for start in range(0, len(payload), segment)]


def received(receiver, count: int) -> list[bytes]:
    came: list[bytes] = []
    while len(came) < count:
        came += [bytes(view) for view in receiver.recv_batch()]
    return came


@pytest.mark.parametrize("segments", [1, 2, 3, 64])
@pytest.mark.parametrize("last", [1, 99, 100])
def test_a_train_comes_apart_into_the_datagrams_that_were_sent(opened, feed, segments, last):
    receiver, sender = opened.pair(feed, gro=True, batch_size=4)
    sent = send_train(sender, 100, os.urandom(100 * (segments - 1) + last))
    batch = receiver.recv_batch()
    assert [bytes(view) for view in batch] == sent
    assert batch.lengths.tolist() == batch.real_lengths.tolist() == [100] * (segments - 1) + [last]
    assert not any(batch.truncated)
    assert receiver.stats().datagrams == segments


def test_the_kernel_does_join_them(opened, feed):
    """Else the tests above would show nothing: one slot has all of a train."""
    receiver, sender = opened.pair(feed, gro=True, batch_size=1)
    sent = send_train(sender, 50, os.urandom(500))
    assert len(receiver.recv_batch()) == len(sent) == 10


def test_without_gro_the_kernel_takes_trains_apart(opened, feed):
    receiver, sender = opened.pair(feed, batch_size=1)
    send_train(sender, 50, os.urandom(500))
    assert len(receiver.recv_batch()) == 1


def test_trains_and_single_datagrams_mix(opened, feed):
    receiver, sender = opened.pair(feed, gro=True)
    sent = [b"single", b""]
    sender.send_batch(sent)
    sent += send_train(sender, 7, os.urandom(30))
    sender.send(b"")
    sent += [b"", *send_train(sender, 1000, os.urandom(10_500))]
    assert received(receiver, len(sent)) == sent
    assert receiver.stats().truncated == 0


def test_the_largest_datagram_and_the_longest_train_fit(opened, feed):
    receiver, sender = opened.pair(feed, gro=True, datagram_size=65_535)
    largest = os.urandom(65_507)
    sender.send(largest)
    assert received(receiver, 1) == [largest]
    sent = send_train(sender, 1023, os.urandom(64 * 1023))
    assert received(receiver, 64) == sent
    assert receiver.stats().truncated == 0


def test_more_datagrams_than_slots_get_the_room_they_need(opened, feed):
    """A slot has room for one datagram in the beginning; trains of 64 make it grow."""
    receiver, sender = opened.pair(feed, gro=True, batch_size=1, columns=("source", "ttl"))
    for _ in range(3):
        sent = send_train(sender, 10, os.urandom(640))
        batch = receiver.recv_batch()
        assert [bytes(view) for view in batch] == sent
        assert batch.ttls.tolist() == [0] * 64
        assert {batch.source(i) for i in range(64)} == {sender.socket.getsockname()}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_was_joined_comes_apart(opened, feed, data):
    receiver, sender = opened.pair(feed, gro=True, batch_size=data.draw(st.integers(1, 8)))
    sent = []
    for _ in range(data.draw(st.integers(1, 6))):
        segment = data.draw(st.integers(1, 1400))
        size = data.draw(st.integers(1, min(64 * segment, 20_000)))
        sent += send_train(sender, segment, os.urandom(size))
    assert received(receiver, len(sent)) == sent
    opened.close()


def test_datagrams_of_a_train_are_cut_each_for_itself(opened, feed):
    receiver, sender = opened.pair(feed, gro=True, datagram_size=60)
    sent = send_train(sender, 100, os.urandom(250))
    batch = receiver.recv_batch()
    assert [bytes(view) for view in batch] == [each[:60] for each in sent]
    assert batch.real_lengths.tolist() == [100, 100, 50]
    assert batch.truncated.tolist() == [True, True, False]
    stats = receiver.stats()
    assert (stats.truncated, stats.bytes) == (2, 170)


def test_a_train_is_kept_as_long_as_one_view_of_it(opened, feed):
    receiver, sender = opened.pair(feed, gro=True, batch_size=1, max_blocks=2)
    sent = send_train(sender, 100, os.urandom(1000))
    view = receiver.recv_batch()[4]
    for _ in range(10):
        send_train(sender, 100, os.urandom(1000))
        receiver.recv_batch()
    assert bytes(view) == sent[4]


def test_foreign_trains_are_counted_by_their_datagrams(opened, multicast, feed):
    group, port = feed
    receiver = opened.closing(
        multicast.open_receiver([group, "239.254.1.1"], port, interface="lo", gro=True, timeout=10)
    )
    sender = opened.sender(feed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unicast:
        unicast.connect(("127.0.0.1", port))
        unicast.sendmsg([bytes(1000)], [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", 100))])
        sent = send_train(sender, 10, os.urandom(55))
        unicast.sendmsg([bytes(95)], [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", 10))])
    assert received(receiver, 6) == sent
    with pytest.raises(BlockingIOError):
        receiver.recv_batch(0)
    assert receiver.stats().foreign == 20


def test_a_socket_with_gro_on_needs_a_receiver_with_gro(multicast, opened, feed):
    receiver = opened.receiver(feed)
    own = receiver.socket.dup()
    own.setsockopt(SOL_UDP, UDP_GRO, 1)
    with own, pytest.raises(ValueError, match="UDP_GRO on, which joins datagrams; switch it off, or say gro=True"):
        multicast.Receiver(own)
    opened.closing(multicast.Receiver(receiver.socket.dup(), gro=True))


def test_gro_needs_a_socket_that_has_it(opened):
    with pytest.raises(ValueError, match="AF_UNIX"):
        opened.pipe(gro=True)


def test_a_kernel_without_gro_says_so(multicast, opened, feed, monkeypatch):
    """Before Linux 5.0: there is no such option."""
    monkeypatch.setattr(multicast.skt._backend._columns, "UDP_GRO", 999)
    with pytest.raises(OSError, match="Receiver: asking the kernel for gro: ") as refused:
        opened.receiver(feed, gro=True)
    assert refused.value.errno == errno.ENOPROTOOPT
