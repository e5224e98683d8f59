"""Waiting: without end, not at all, and for just so long; Ctrl-C, signals, and one consumer at a time."""

import errno
import select
import signal
import socket
import statistics
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from net import python_environment
from waiting import Receiving, interrupted


def test_without_a_timeout_it_waits_for_the_first_datagram(opened):
    rx, far = opened.pipe(timeout=None)
    waiting = threading.Event()

    def send():
        waiting.wait(10)
        time.sleep(0.05)  # so that the receiver waits
        far.send(b"late")

    thread = threading.Thread(target=send)
    thread.start()
    waiting.set()
    assert bytes(rx.recv_batch()[0]) == b"late"
    thread.join()


def test_timeout_zero_never_waits(opened):
    rx, far = opened.pipe()
    with pytest.raises(BlockingIOError, match="recv_batch") as caught:
        rx.recv_batch(0)
    assert caught.value.errno == errno.EAGAIN
    far.send(b"x")
    assert len(rx.recv_batch(0)) == 1


@pytest.mark.parametrize("seconds", [0.001, 0.01, 0.1])
def test_a_timeout_ends_on_time_and_never_early(opened, seconds):
    rx, _ = opened.pipe()
    late = []
    for _ in range(20):
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match="recv_batch") as caught:
            rx.recv_batch(seconds)
        took = time.monotonic() - begin
        assert caught.value.errno == errno.ETIMEDOUT
        assert took >= seconds
        late.append(took - seconds)
    assert statistics.median(late) < 0.05


def test_the_receivers_own_timeout_is_used_when_none_is_given(opened):
    rx, _ = opened.pipe(timeout=0.01)
    with pytest.raises(TimeoutError):
        rx.recv_batch()
    with pytest.raises(TimeoutError):
        next(iter(rx))
    nonblocking, _ = opened.pipe(timeout=0)
    with pytest.raises(BlockingIOError):
        nonblocking.recv_batch()


def test_a_batch_that_is_not_full_does_not_wait_for_the_rest(opened):
    """recvmmsg's own timeout is checked only after a datagram: with 63 of 64 there it would wait for the last."""
    rx, far = opened.pipe(batch_size=64)
    for _ in range(63):
        far.send(b"x")
    begin = time.monotonic()
    assert len(rx.recv_batch(5)) == 63
    assert time.monotonic() - begin < 2


def test_fileno_is_ready_when_a_datagram_is(opened):
    rx, far = opened.pipe()
    assert select.select([rx], [], [], 0) == ([], [], [])
    far.send(b"x")
    assert select.select([rx], [], [], 5)[0] == [rx]
    assert len(rx.recv_batch(0)) == 1


def test_ctrl_c_ends_a_wait_and_leaves_the_receiver_as_it_was(opened):
    rx, far = opened.pipe(timeout=None)
    for i in range(20):
        interrupted(rx.recv_batch, 0.005)
        far.send(bytes([i]))
        assert bytes(rx.recv_batch()[0]) == bytes([i])
    assert rx.stats().datagrams == 20


def test_a_signal_with_a_handler_does_not_shorten_the_wait(opened):
    rx, _ = opened.pipe()
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        thread = threading.Timer(0.02, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
        thread.start()
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            rx.recv_batch(0.1)
        assert time.monotonic() - begin >= 0.1
        assert seen == [1]
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


STORM = """
import signal, socket, threading
import multicast

near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
rx, tx = multicast.Receiver(near, timeout=30), multicast.Sender(far)
COUNT, hits = 200_000, 0

def hit(*_):
    global hits
    hits += 1

def send():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    for first in range(0, COUNT, 50):
        buffers = [(first + i).to_bytes(8, "big") for i in range(50)]
        while buffers:
            buffers = buffers[tx.send_batch(buffers):]

signal.signal(signal.SIGALRM, hit)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
threading.Thread(target=send).start()
expected = 0
for batch in rx:
    for view in batch:
        assert int.from_bytes(view, "big") == expected, (bytes(view), expected)
        expected += 1
    if expected == COUNT:
        break
signal.setitimer(signal.ITIMER_REAL, 0)
assert hits > 20, hits
print("all there")
"""


def test_a_signal_storm_loses_nothing(multicast):
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(STORM)],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "all there\n", "")


def test_a_second_consumer_is_refused(opened):
    rx, far = opened.pipe(timeout=None)
    first = Receiving(rx)
    assert "another thread" in first.wait_until_inside()
    far.send(b"for the first")
    assert bytes(first.result()[0]) == b"for the first"


def test_a_late_error_is_raised_once_and_costs_no_datagram(multicast):
    """A connected receiver, the peer's port closed and opened again: ICMP's error comes between datagrams."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    port = peer.getsockname()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    sock.connect(port)
    with multicast.Receiver(sock, timeout=10) as rx, peer:
        peer.sendto(b"before", sock.getsockname())
        address = sock.getsockname()
        peer.close()
        sock.send(b"to nobody")
        with pytest.raises(ConnectionRefusedError) as caught:
            rx.recv_batch()
        assert caught.value.errno == errno.ECONNREFUSED
        assert [bytes(view) for view in rx.recv_batch()] == [b"before"]
        again = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with again:
            again.bind(port)
            again.sendto(b"after", address)
            assert [bytes(view) for view in rx.recv_batch()] == [b"after"]
        assert rx.stats().datagrams == 2


def test_a_message_on_the_error_queue_is_an_error_and_no_endless_loop(multicast):
    """poll(2) reports POLLERR for it for ever, and no receive explains it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    nobody = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    nobody.bind(("127.0.0.1", 0))
    port = nobody.getsockname()
    nobody.close()
    with multicast.Receiver(sock) as rx:
        sock.sendto(b"x", port)
        with pytest.raises(ConnectionRefusedError, match="recv_batch"):  # the pending error first
            rx.recv_batch(5)
        for timeout in (5, 0):
            with pytest.raises(OSError, match="error queue") as caught:  # then the message that stays
                rx.recv_batch(timeout)
            assert caught.value.errno == errno.ENOMSG


def test_a_shut_down_socket_is_an_error_and_no_datagram(opened, feed):
    """Woken by shutdown, a receive may report a datagram of length 0 that nobody sent."""
    for _ in range(100):
        rx = opened.receiver(feed, timeout=None)
        shut = threading.Timer(0.001, shutdown, (rx.socket,))
        shut.start()
        with pytest.raises(OSError, match="recv_batch: the socket was shut down") as caught:
            rx.recv_batch()
        shut.join()
        assert caught.value.errno == errno.ESHUTDOWN
        with pytest.raises(OSError, match="recv_batch: the socket was shut down"):
            rx.recv_batch(0)  # an event loop would be told "ready" for ever
        assert rx.stats().datagrams == 0
        rx.close()


def shutdown(sock):
    try:
        sock.shutdown(socket.SHUT_RD)
    except OSError as error:
        assert error.errno == errno.ENOTCONN  # noqa: PT017 - and yet it has shut it down
