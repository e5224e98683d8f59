"""Spinning: a receive that asks again and again sees, meanwhile, all that one would that sleeps.

Owns what ends each spin: a datagram, a close, a signal, a deadline, an error. None is waited for that may not come.
"""

from __future__ import annotations

import contextlib
import errno
import math
import resource
import select
import signal
import socket
import statistics
import sys
import threading
import time

import pytest
from refusals import GROUP, HUGE, PORT, refused, shown
from waiting import Receiving, interrupted, later, rounds

SPINS = pytest.mark.parametrize("spin", [math.inf, 1000, 0.002], ids=["without end", "long", "for a while"])


# Arguments -----------------------------------------------------------------------------------------------------------

CALLS = {
    "Receiver": lambda m, sock, value: m.Receiver(sock, spin=value),
    "Receiver, handed on": lambda m, sock, value: m.open_receiver(GROUP, PORT, interface="lo", spin=value),
    "Poller": lambda m, sock, value: m.Poller(spin=value),
}


@pytest.mark.usefixtures("no_leaked_descriptors")
@pytest.mark.parametrize("value", ["1", "inf", b"1", [1], (), {}, 1j, object(), int, ..., True, False], ids=shown)
@pytest.mark.parametrize("operation", CALLS)
def test_what_is_no_time_is_a_type_error(multicast, operation, value):
    with multicast.genSocket() as sock:
        call = lambda: CALLS[operation](multicast, sock, value)  # noqa: E731
        refused(TypeError, call, f"{operation.partition(',')[0]}: spin is a number of seconds or None, not ")


@pytest.mark.usefixtures("no_leaked_descriptors")
@pytest.mark.parametrize("value", [-1, -5e-324, math.nan, -math.inf, 1e9 + 1, 10**10, 1e300, 10**400, HUGE], ids=shown)
@pytest.mark.parametrize("operation", CALLS)
def test_a_time_out_of_range_is_a_value_error(multicast, operation, value):
    words = f"{operation.partition(',')[0]}: spin is None, math.inf or from 0 to 1000000000 seconds, not "
    with multicast.genSocket() as sock:
        refused(ValueError, lambda: CALLS[operation](multicast, sock, value), words)


@pytest.mark.parametrize("value", [None, 0, 0.0, 5e-324, 1, 1e9, math.inf], ids=shown)
def test_what_is_a_time_is_taken(multicast, opened, value):
    rx, far = opened.pipe(spin=value)
    poller = opened.closing(multicast.Poller([rx], spin=value))
    far.send(b"x")
    assert poller.poll() == [rx]
    assert bytes(rx.recv_batch()[0]) == b"x"


# What ends it -------------------------------------------------------------------------------------------------------


def waited(rx, timeout):
    """Wait in vain: how much CPU that took, in seconds, and how often this thread slept."""
    slept = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    began = time.thread_time()
    with pytest.raises(TimeoutError):
        rx.recv_batch(timeout)
    return time.thread_time() - began, resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - slept


@pytest.mark.skipif(sys.platform != "linux", reason="RUSAGE_THREAD is Linux's")
def test_it_is_awake_for_as_long_as_it_was_told_and_then_sleeps(opened):
    """By the CPU's time, and however little of that a busy machine gives."""
    used = {}
    for spin in (None, 0.02, math.inf):
        rx, _ = opened.pipe(spin=spin)
        used[spin], slept = waited(rx, 0.2)
        if spin is not math.inf:
            assert slept
    assert used[None] < used[0.02] < used[math.inf]
    assert used[0.02] < 0.1  # a receive began to sleep that would have spun on


@SPINS
def test_a_datagram_that_comes_meanwhile_is_received(opened, spin):
    rx, far = opened.pipe(spin=spin, timeout=None)
    for i in range(20):
        thread = later(0.001 * (i % 5), far.send, bytes([i]))
        assert bytes((rx.recv_batch() if i % 2 else next(rx))[0]) == bytes([i])
        thread.join()
    assert rx.stats().datagrams == 20


def test_timeout_zero_never_spins(opened):
    rx, far = opened.pipe(spin=math.inf)
    refused(errno.EAGAIN, lambda: rx.recv_batch(0), "recv_batch: ", "timeout is 0")
    far.send(b"x")
    assert bytes(rx.recv_batch(0)[0]) == b"x"


@SPINS
@pytest.mark.parametrize("seconds", [0.001, 0.012, 0.1])
def test_a_timeout_ends_on_time_and_never_early(opened, spin, seconds):
    """Also within a turn of spinning, and after several."""
    rx, _ = opened.pipe(spin=spin)
    late = []
    for _ in range(5):
        begin = time.monotonic()
        refused(errno.ETIMEDOUT, lambda: rx.recv_batch(seconds), f"recv_batch: nothing came within {seconds:g} s")
        late.append(time.monotonic() - begin - seconds)
    assert min(late) >= 0
    assert statistics.median(late) < 0.05


def test_close_from_another_thread_ends_it(multicast, opened, tell):
    """Hundreds of times; a hang fails. The delay is told, not judged."""
    delays = []
    for i in range(rounds(multicast, 1000, 300)):
        rx, far = opened.pipe(spin=math.inf, timeout=None)
        about_to, ended = threading.Event(), []

        def consume(rx=rx, about_to=about_to, ended=ended, iterating=i % 2):
            about_to.set()
            try:
                ended.append(list(rx) if iterating else rx.recv_batch())
            except OSError as error:
                ended.append(error.errno)
            delays.append(time.perf_counter())

        thread = threading.Thread(target=consume)
        thread.start()
        about_to.wait(10)
        begin = time.perf_counter()
        rx.close()
        thread.join(10)
        assert not thread.is_alive(), "close() did not end the spin"
        assert ended == [[] if i % 2 else errno.EBADF]
        delays[-1] -= begin
        far.close()
    p99 = sorted(delays)[len(delays) * 99 // 100] * 1000
    tell(f"{multicast.BACKEND}: {len(delays)} closes end a spin, p99 {p99:.2f} ms")


def test_ctrl_c_ends_it_and_leaves_the_receiver_as_it_was(opened):
    rx, far = opened.pipe(spin=math.inf, timeout=None)
    for i in range(20):
        interrupted(rx.recv_batch, 0.008)
        far.send(bytes([i]))
        assert bytes(rx.recv_batch()[0]) == bytes([i])


def test_ctrl_c_ends_it_while_another_thread_computes(opened):
    """Which has the interpreter all the time but when this one asks for it."""
    rx, _ = opened.pipe(spin=math.inf, timeout=None)
    over, turns = threading.Event(), [0]

    def compute():
        while not over.is_set():
            turns[0] += 1

    computing = threading.Thread(target=compute)
    computing.start()
    try:
        for _ in range(3):
            before = turns[0]
            interrupted(rx.recv_batch, 0.03)
            assert turns[0] > before
    finally:
        over.set()
        computing.join()


def test_a_signal_with_a_handler_does_not_shorten_it(opened):
    rx, _ = opened.pipe(spin=math.inf)
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        thread = later(0.02, signal.pthread_kill, threading.main_thread().ident, signal.SIGUSR1)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            rx.recv_batch(0.1)
        assert time.monotonic() - begin >= 0.1
        assert seen == [1]
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_shut_down_socket_ends_it(opened, feed):
    for _ in range(5):
        rx = opened.receiver(feed, spin=math.inf, timeout=None)

        def shut(sock=rx.socket):
            with contextlib.suppress(OSError):  # ENOTCONN, and yet it has shut it down
                sock.shutdown(socket.SHUT_RD)

        thread = later(0.003, shut)
        refused(errno.ESHUTDOWN, rx.recv_batch, "recv_batch: the socket was shut down")
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="the error queue is Linux's")
def test_an_error_that_only_poll_shows_ends_it(multicast):
    """A message on the error queue: no receive tells of it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    nobody = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    nobody.bind(("127.0.0.1", 0))
    port = nobody.getsockname()
    nobody.close()
    with multicast.Receiver(sock, spin=math.inf, timeout=None) as rx:
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        thread = later(0.02, sock.sendto, b"x", port)
        with pytest.raises(ConnectionRefusedError, match="recv_batch"):  # the pending error, which a receive tells
            rx.recv_batch()
        thread.join()
        refused(errno.ENOMSG, rx.recv_batch, "recv_batch: the socket's error queue holds messages")


# What goes on meanwhile ---------------------------------------------------------------------------------------------

linux = pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink is Linux's")


@linux
def test_a_silence_is_told_meanwhile(opened, feed):
    tx, told = opened.sender(feed), []

    def on_silence(silence):
        told.append(silence.seconds)
        if len(told) == 3:
            tx.send(b"x")

    rx = opened.receiver(feed, spin=math.inf, timeout=None, silence=0.02, on_silence=on_silence)
    assert bytes(rx.recv_batch()[0]) == b"x"
    assert len(told) == 3


@linux
def test_what_came_while_the_watch_was_busy_came_in_time(opened, feed):
    tx = opened.sender(feed)

    def on_silence(_):
        tx.send(b"in time")
        time.sleep(0.1)

    rx = opened.receiver(feed, spin=math.inf, silence=0.02, on_silence=on_silence)
    assert bytes(rx.recv_batch(0.08)[0]) == b"in time"


class Watch:
    """Stands in for the one that heals: never ready by itself."""

    links_lost = rejoins = silences = 0

    def __init__(self, near, then):
        self.near, self.then = near, then

    def fileno(self):
        return self.near.fileno()

    outer_fileno = fileno

    def handle(self, *_):
        self.silences += 1
        self.then(self.silences)

    def close(self):
        """It has nothing of its own."""


def test_what_changes_slowly_is_looked_at_meanwhile(opened):
    """Though nothing tells of it: how often that was, counted until it is enough."""
    near, far = socket.socketpair()
    opened.closing(near)
    opened.closing(far)
    rx, feeding = opened.pipe(spin=math.inf, timeout=None)
    rx._watch_over(lambda *_: Watch(near, lambda turn: turn == 4 and feeding.send(b"enough")))
    assert bytes(rx.recv_batch()[0]) == b"enough"
    assert rx.stats().silences == 4


def test_a_watch_that_is_always_ready_does_not_put_off_the_deadline(opened):
    near, far = socket.socketpair()
    opened.closing(near)
    opened.closing(far).send(b"ready, from now on")
    rx, _ = opened.pipe(spin=math.inf)
    rx._watch_over(lambda *_: Watch(near, lambda turn: None))
    for _ in range(5):
        with pytest.raises(TimeoutError):
            rx.recv_batch(0.02)
    assert rx.stats().silences >= 5


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no destination is told to check")
def test_foreign_datagrams_neither_break_it_nor_put_off_its_end(opened, multicast, feed):
    groups = [feed[0], "239.254.1.2"]
    rx = opened.closing(multicast.open_receiver(groups, feed[1], interface="lo", spin=math.inf, timeout=None))
    tx = opened.sender(feed)
    over, wanted = threading.Event(), threading.Event()

    def flood():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stray:
            while not over.is_set():
                stray.sendto(b"stray", ("127.0.0.1", feed[1]))
                if wanted.is_set():  # again and again: amid a flood, some find the queue full
                    tx.send(b"wanted")

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                rx.recv_batch(0.02)
        wanted.set()
        assert bytes(rx.recv_batch()[0]) == b"wanted"
        wanted.clear()
        thread = later(0.01, rx.close)
        with pytest.raises(OSError, match="recv_batch: already closed"):
            while True:
                rx.recv_batch()
        thread.join()
    finally:
        over.set()
        flooding.join()
    assert rx.stats().foreign > 0


def test_the_interpreter_is_free_for_other_threads(opened):
    rx, far = opened.pipe(spin=math.inf, timeout=None)
    got = []
    thread = threading.Thread(target=lambda: got.extend(bytes(view) for view in rx.recv_batch()))
    thread.start()
    begin, turns = time.monotonic(), 0
    while time.monotonic() - begin < 0.05:
        turns += 1
    far.send(b"x")
    thread.join(10)
    assert got == [b"x"]
    assert turns > 100


def test_a_second_consumer_is_refused(opened):
    rx, far = opened.pipe(spin=math.inf, timeout=None)
    first = Receiving(rx)
    assert "another thread" in first.wait_until_inside()
    far.send(b"for the first")
    assert bytes(first.result()[0]) == b"for the first"


def test_the_descriptor_to_wait_on_is_what_it_is_without(opened):
    rx, far = opened.pipe(spin=math.inf)
    assert select.select([rx], [], [], 0) == ([], [], [])
    far.send(b"x")
    assert select.select([rx], [], [], 5)[0] == [rx]
