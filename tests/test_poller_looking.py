"""Who sees to a receiver's watch, interfaces and silence, keeps nobody from receiving."""

from __future__ import annotations

import sys
import threading
import time

import pytest
from waiting import DEADLINE, Polling

pytest_plugins = ["poller_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink is Linux's")


@pytest.fixture
def held(opened, feed):
    """A receiver, and when a callback of its silence has begun and is to end: one, the others end at once."""
    begun, to_end = threading.Event(), threading.Event()

    def on_silence(_):
        if not begun.is_set():
            begun.set()
            assert to_end.wait(DEADLINE)

    yield opened.receiver(feed, silence=0.02, on_silence=on_silence), begun, to_end
    to_end.set()


@pytest.mark.parametrize("by", ["a poller", "a receive that is not this one's"])
def test_a_receive_goes_on_while_a_poller_looks(held, opened, feed, polled, by):
    rx, begun, to_end = held
    tx = opened.sender(feed)
    waiting = Polling(polled(rx))
    assert begun.wait(DEADLINE)
    with pytest.raises(BlockingIOError):
        rx.recv_batch(timeout=0)
    if by == "a poller":
        assert polled(rx).poll(0) == []
    tx.send(b"meanwhile")
    assert bytes(rx.recv_batch(timeout=DEADLINE)[0]) == b"meanwhile"
    began = time.thread_time()
    with pytest.raises(TimeoutError):
        rx.recv_batch(timeout=0.5)
    assert time.thread_time() - began < 0.25  # the watch is ready all the time, and this does not spin on it
    to_end.set()
    tx.send(b"for the poller")
    assert waiting.result() == [rx]
    assert bytes(rx.recv_batch(timeout=0)[0]) == b"for the poller"


def test_a_poller_goes_on_while_a_receive_looks(held, opened, feed, polled, pipes):
    rx, begun, to_end = held
    thread = threading.Thread(target=lambda: rx.recv_batch(timeout=DEADLINE))
    thread.start()
    assert begun.wait(DEADLINE)
    ((other, far),) = pipes(1)
    poller = polled(rx, other)
    assert poller.poll(0) == []
    far.send(b"x")
    assert poller.poll() == [other]
    to_end.set()
    opened.sender(feed).send(b"ends it")
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_who_looks_may_close_what_another_thread_receives_from(opened, feed, polled):
    rx = opened.receiver(feed, silence=0.02, on_silence=lambda _: rx.close())
    other = opened.receiver(feed)
    poller = polled(rx, other, timeout=0.5)
    ended = []
    thread = threading.Thread(target=lambda: ended.extend(rx))
    thread.start()
    assert poller.poll() == []
    thread.join(DEADLINE)
    assert (ended, rx.closed, len(poller)) == ([], True, 1)
