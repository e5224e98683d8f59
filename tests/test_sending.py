"""Sending: one and many, how many went, and what stops it."""

import errno
import socket
import sys
import threading
import time

import numpy as np
import pytest


@pytest.fixture
def outlet(opened):
    """A sender, and the socket at its other end."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far.settimeout(10)
    opened.closing(far)
    return opened.closing(opened.package.Sender(near)), far


def test_send_takes_any_contiguous_buffer(outlet):
    tx, far = outlet
    array = np.arange(4, dtype=">u2")
    for data in (b"bytes", bytearray(b"bytearray"), memoryview(b"view")[1:], array, b""):
        assert tx.send(data) == memoryview(data).nbytes
        assert far.recv(100) == bytes(data)


def test_send_batch_sends_each_in_order(opened, feed):
    rx, tx = opened.pair(feed, receive_buffer=4 << 20)
    sent = [i.to_bytes(4, "big") * (i % 5) for i in range(1500)]
    assert tx.send_batch(sent) == 1500
    assert tx.send_batch(iter(sent[:3])) == 3
    assert tx.send_batch([]) == 0
    got = []
    while len(got) < 1503:
        got += [bytes(view) for view in rx.recv_batch()]
    assert got == sent + sent[:3]


def test_a_batch_can_be_sent_on_as_it_is(opened, outlet):
    tx, far = outlet
    rx, source = opened.pipe()
    for i in range(5):
        source.send(bytes([i]))
    assert tx.send_batch(rx.recv_batch()) == 5
    assert [far.recv(10) for _ in range(5)] == [bytes([i]) for i in range(5)]


def test_fewer_than_given_means_that_the_rest_raises(opened, feed):
    rx, tx = opened.pair(feed)
    buffers = [b"a", b"b", bytes(70_000), b"c"]
    assert tx.send_batch(buffers) == 2
    with pytest.raises(OSError, match="send_batch") as caught:
        tx.send_batch(buffers[2:])
    assert caught.value.errno == errno.EMSGSIZE
    with pytest.raises(OSError, match="send: ") as caught:
        tx.send(bytes(70_000))
    assert caught.value.errno == errno.EMSGSIZE
    assert tx.send_batch(buffers[3:]) == 1
    got = []
    while len(got) < 3:
        got += [bytes(view) for view in rx.recv_batch()]
    assert got == [b"a", b"b", b"c"]


def test_what_is_no_contiguous_buffer_is_refused(outlet):
    tx, far = outlet
    for bad, kind in (
        (memoryview(b"abcdef")[::2], BufferError),
        ("text", TypeError),
        (None, TypeError),
        (1, TypeError),
    ):
        with pytest.raises(kind):
            tx.send(bad)
        with pytest.raises(kind):
            tx.send_batch([bad])
    with pytest.raises(TypeError):
        tx.send_batch(5)
    buffers = [b"x"] * 64 + ["text"]
    sent = tx.send_batch(buffers)
    assert 0 < sent <= 64
    with pytest.raises(TypeError):
        tx.send_batch(buffers[64:])
    assert [far.recv(10) for _ in range(sent)] == [b"x"] * sent


def test_buffers_are_let_go(outlet):
    tx, _ = outlet
    data = bytearray(b"mine")
    tx.send(data)
    tx.send_batch([data] * 10)
    with pytest.raises(TypeError):
        tx.send_batch([data, "text"])
    data += b"resized"  # BufferError if anything still held it


def test_where_there_is_room_nothing_is_waited_for(outlet):
    tx, _ = outlet
    assert tx.send_batch([b"x"] * 5) == 5
    assert (tx.waits, tx.waited_ns) == (0, 0)
    with pytest.raises(AttributeError):
        tx.waits = 1


def test_a_full_queue_is_waited_for_and_nothing_is_lost(outlet):
    tx, far = outlet
    count, got = 5000, []

    def drain():
        while len(got) < count:
            got.append(far.recv(10))

    thread = threading.Thread(target=drain)
    thread.start()
    sent = [i.to_bytes(4, "big") for i in range(count)]
    left = sent
    while left:
        left = left[tx.send_batch(left) :]
    thread.join(30)
    assert got == sent
    assert tx.waits > 0  # of 5,000, far more than the queue holds
    assert tx.waited_ns > 0


def test_close_wakes_a_blocked_send(outlet):
    tx, _ = outlet
    ended = []

    def fill():
        try:
            while True:
                tx.send(b"x" * 1000)
        except OSError as error:
            ended.append(error.errno)

    thread = threading.Thread(target=fill)
    thread.start()
    time.sleep(0.05)
    with pytest.raises(RuntimeError, match="send: another thread"):
        tx.send(b"me, too")
    tx.close()
    thread.join(10)
    assert ended == [errno.EBADF]
    assert tx.waits == 1  # also one that an error ended; and it is told after the end
    assert tx.waited_ns > 0


def test_a_closed_sender_says_so(outlet):
    tx, _ = outlet
    with tx:
        assert tx.fileno() >= 0
    assert tx.closed
    assert tx.fileno() == -1
    assert "closed" in repr(tx)
    for call in (lambda: tx.send(b"x"), lambda: tx.send_batch([b"x"])):
        with pytest.raises(OSError, match="already closed") as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_a_sender_needs_a_connected_socket(multicast, no_leaked_descriptors):
    with multicast.genSocket() as sock, pytest.raises(ValueError, match="Sender: the socket is not connected"):
        multicast.Sender(sock)


def test_an_own_address_as_interface_is_the_source(opened, multicast, feed):
    with multicast.open_sender(*feed, interface="127.0.0.1", ttl=0) as tx:
        assert tx.socket.getsockname()[0] == "127.0.0.1"
        assert tx.socket.getpeername() == feed


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before PEP 688 no class of Python's own exports a buffer")
def test_what_an_exporter_raises_does_not_lose_the_count_of_what_went(opened, feed):
    class Exporter:
        def __buffer__(self, flags):
            raise RuntimeError("not now")

    receiver, sender = opened.pair(feed)
    assert sender.send_batch([*[b"x"] * 64, Exporter()]) == 64
    assert len(receiver.recv_batch()) == 64
    with pytest.raises(RuntimeError, match="not now"):
        sender.send_batch([Exporter()])
