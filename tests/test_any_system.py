"""What the package is for, on any system: datagrams to a group come, on the loopback interface, as they were sent."""

from __future__ import annotations

import sys

import feeds
import pytest

# Windows numbers it 1, and has no name for it that is the same on each machine.
LOOPBACK = {"linux": "lo", "win32": 1}.get(sys.platform, "lo0")


@pytest.fixture
def pair(multicast, feed):
    with (
        multicast.open_receiver(*feed, interface=LOOPBACK, timeout=20) as receiver,
        multicast.open_sender(*feed, interface=LOOPBACK, ttl=0) as sender,
    ):
        yield receiver, sender


def received(receiver, count: int) -> list[memoryview]:
    views: list[memoryview] = []
    while len(views) < count:
        views += receiver.recv_batch()
    return views


def test_datagrams_come_in_order_and_as_they_were_sent(pair):
    receiver, sender = pair
    sent = [b"one", b"", bytes(1400), b"four"]
    for each in sent:
        sender.send(each)
    views = received(receiver, len(sent))
    assert [bytes(view) for view in views] == sent
    assert all(view.readonly for view in views)


def test_what_a_view_shows_stays(pair):
    receiver, sender = pair
    sender.send(b"kept")
    (kept,) = received(receiver, 1)
    for number in range(200):
        sender.send(b"%03d" % number)
        (view,) = received(receiver, 1)
        assert bytes(view) == b"%03d" % number
    assert bytes(kept) == b"kept"


def test_a_batch_is_sent_by_one_call(pair):
    receiver, sender = pair
    sent = [b"%d" % number for number in range(20)]
    assert sender.send_batch(sent) == len(sent)
    assert [bytes(view) for view in received(receiver, len(sent))] == sent


def test_where_nothing_comes_the_time_is_over(pair):
    receiver, _ = pair
    with pytest.raises(TimeoutError):
        receiver.recv_batch(timeout=0.01)
    with pytest.raises(BlockingIOError):
        receiver.recv_batch(timeout=0)


def test_a_receiver_hears_its_own_group_alone(multicast, pair, feed):
    receiver, sender = pair
    group, port = feed
    with multicast.open_sender(feeds.further(group), port, interface=LOOPBACK, ttl=0) as stranger:
        stranger.send(b"not meant for it")
    sender.send(b"meant for it")
    (view,) = received(receiver, 1)
    assert bytes(view) == b"meant for it"


def test_a_closed_receiver_says_so(multicast, feed):
    receiver = multicast.open_receiver(*feed, interface=LOOPBACK)
    receiver.close()
    with pytest.raises((OSError, ValueError)):
        receiver.recv_batch(timeout=0)
