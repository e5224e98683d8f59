"""Closing: it wakes who waits, at once; no call meets a stranger's socket; nothing leaks; what was received stays."""

import contextlib
import errno
import gc
import os
import socket
import sys
import threading
import time

import pytest
from net import open_descriptors


def rounds(multicast, native, stdlib):
    return native if multicast.BACKEND == "native" else stdlib


def test_close_wakes_a_blocked_receive(multicast, opened, feed, tell):
    """From another thread, 1,000 times; a hang fails. The delay is told, not judged."""
    delays = []
    for i in range(rounds(multicast, 1000, 300)):
        rx = opened.receiver(feed, timeout=None)
        about_to, ended = threading.Event(), []

        def consume(rx=rx, about_to=about_to, ended=ended):
            about_to.set()
            try:
                rx.recv_batch()
            except OSError as error:
                ended.append((error.errno, time.perf_counter()))

        thread = threading.Thread(target=consume)
        thread.start()
        about_to.wait(10)
        if i % 2:  # half of them deep in the wait, half around its beginning
            time.sleep(0.001)
        begin = time.perf_counter()
        rx.close()
        thread.join(10)
        assert not thread.is_alive(), "close() did not wake the receive"
        ((number, end),) = ended
        assert number == errno.EBADF
        delays.append(end - begin)
    delays.sort()
    p99 = delays[len(delays) * 99 // 100] * 1000
    tell(f"{multicast.BACKEND}: {len(delays)} closes wake, p99 {p99:.2f} ms, max {delays[-1] * 1000:.2f} ms")


def test_close_ends_an_iteration(opened, feed):
    rx = opened.receiver(feed, timeout=None)
    ended = []
    thread = threading.Thread(target=lambda: ended.append(list(rx)))
    thread.start()
    time.sleep(0.02)
    rx.close()
    thread.join(10)
    assert ended == [[]]


def test_close_within_an_iteration_ends_it(opened):
    rx, far = opened.pipe(batch_size=1)
    for i in range(3):
        far.send(bytes([i]))
    got = []
    for batch in rx:
        got.append(bytes(batch[0]))
        rx.close()
    assert got == [b"\0"]


def test_no_call_meets_a_strangers_socket(multicast, opened):
    """Close during a receive; at once another socket, full of poison, gets the descriptor's number."""
    for _ in range(rounds(multicast, 1000, 300)):
        rx, far = opened.pipe(timeout=None)
        number = rx.fileno()
        about_to, reused, got = threading.Event(), threading.Event(), []

        def consume(rx=rx, about_to=about_to, reused=reused, got=got):
            about_to.set()
            for call in range(5):
                if call == 1:
                    reused.wait(10)  # the rest come when a stranger has the number
                try:
                    got.extend(bytes(view) for view in rx.recv_batch(1))
                except OSError as error:
                    got.append(error.errno)

        thread = threading.Thread(target=consume)
        thread.start()
        about_to.wait(10)
        rx.close()
        strangers, deadline = [], time.monotonic() + 10
        while number not in [stranger.fileno() for stranger in strangers]:
            assert time.monotonic() < deadline, "the number was not handed out again"
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for one, other in (pair, pair[::-1]):
                one.send(b"poison")
                other.send(b"poison")
            strangers += pair
            time.sleep(0)  # let the call leave: until then the number is its own
        reused.set()
        thread.join(10)
        assert not thread.is_alive()
        assert got == [errno.EBADF] * 5
        for stranger in (*strangers, far):
            stranger.close()


def test_closing_the_socket_object_does_not_lead_astray(opened):
    """rx.socket is the user's to close; the receiver has a descriptor of its own and never reads another's."""
    rx, far = opened.pipe(timeout=None)
    got = []
    thread = threading.Thread(target=lambda: got.extend(bytes(view) for view in rx.recv_batch()))
    thread.start()
    number = rx.socket.fileno()
    rx.socket.close()
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    assert number in (one.fileno(), other.fileno())
    one.send(b"poison")
    other.send(b"poison")
    far.send(b"mine")
    thread.join(10)
    one.close()
    other.close()
    assert got == [b"mine"]


def test_closing_is_idempotent_and_says_so(opened):
    rx, far = opened.pipe()
    sock = rx.socket
    assert not rx.closed
    with rx:
        far.send(b"x")
        assert len(rx.recv_batch()) == 1
    assert rx.closed
    assert rx.fileno() == -1
    assert sock.fileno() == -1
    assert rx.close() is None
    assert "closed" in repr(rx)
    with pytest.raises(OSError, match="recv_batch: already closed") as caught:
        rx.recv_batch()
    assert caught.value.errno == errno.EBADF
    assert list(rx) == []


def test_batches_outlive_the_receiver(opened):
    rx, far = opened.pipe()
    far.send(b"still here")
    batch = rx.recv_batch()
    view = batch[0]
    rx.close()
    assert bytes(batch[0]) == b"still here"
    assert rx.stats().datagrams == 1
    assert rx.stats().blocks_in_use == 1
    opened.things.remove(rx)
    del rx
    gc.collect()
    assert view == b"still here"
    del batch
    assert view == b"still here"


def test_close_after_what_was_received_delivers_it(opened):
    """A datagram that came before the close is not lost to a receive that is under way."""
    for _ in range(50):
        rx, far = opened.pipe(timeout=None)
        got = []
        thread = threading.Thread(target=lambda rx=rx, got=got: got.extend(map(len, rx)))
        thread.start()
        far.send(b"x")
        deadline = time.monotonic() + 10
        while not rx.stats().datagrams:
            assert time.monotonic() < deadline
        rx.close()
        thread.join(10)
        assert got == [1]


def test_nothing_leaks(opened, feed, no_leaked_descriptors):
    for _ in range(300):
        rx, tx = opened.pair(feed)
        tx.send(b"x")
        rx.recv_batch()
        opened.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_forgotten_ones_leak_nothing(multicast, feed, no_leaked_descriptors):
    for _ in range(20):
        rx = multicast.open_receiver(*feed, interface="lo")
        tx = multicast.open_sender(*feed, interface="lo", ttl=0)
        tx.send(b"x")
        batch = rx.recv_batch(10)
        del rx, tx
        assert bytes(batch[0]) == b"x"
        del batch
    gc.collect()


def resident():
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def after_one_datagram(multicast):
    """Open a receiver, receive, and close: what a batch of that leaves."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with multicast.Receiver(near) as rx, far:
        far.send(b"x")
        return rx.recv_batch(10)


LEAK = 64 << 20  # bytes; allocators, and a sanitizer's quarantine, keep some of what was freed, but never so much


def test_memory_stays_flat_over_many_receivers(multicast):
    """Each has 256 KiB: were they to stay, 2,000 would be 500 MiB."""
    for _ in range(2000):
        after_one_datagram(multicast)
    before = resident()
    for _ in range(2000):
        after_one_datagram(multicast)
    assert resident() - before < LEAK


def test_the_memory_check_would_see_a_leak(native):
    """The canary for the test above: as many receivers keep half of their memory, not all of it new to the process."""
    before = resident()
    kept = [after_one_datagram(native) for _ in range(2000)]
    assert resident() - before > LEAK
    assert len(kept) == 2000


def test_stats_may_be_asked_while_another_thread_receives_and_closes(opened):
    for _ in range(30):
        rx, far = opened.pipe(timeout=None)
        thread = threading.Thread(target=lambda rx=rx: list(rx))
        thread.start()
        for i in range(20):
            if i < 15:
                far.send(b"x")
            else:
                rx.close()
            stats = rx.stats()
            assert 0 <= stats.datagrams <= i + 1
            assert stats.receive_buffer > 0
        thread.join(10)
        assert not thread.is_alive()


def test_every_descriptor_is_closed_on_exec(opened, feed):
    before = open_descriptors()
    opened.pair(feed)
    new = open_descriptors().keys() - before.keys()
    assert len(new) >= 4  # a receiver's and a sender's socket, and what each waits on
    assert not any(os.get_inheritable(int(number)) for number in new)


def test_close_while_others_come_and_go(multicast):
    """The last call to leave lets go of what close() still needs: whichever is last, the user's socket is closed."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(500):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            rx = multicast.Receiver(near)
            begun, ended = threading.Event(), threading.Event()

            def ask(rx=rx, begun=begun, ended=ended):
                while not ended.is_set():
                    rx.stats()
                    begun.set()

            thread = threading.Thread(target=ask)
            thread.start()
            begun.wait(10)
            try:
                rx.close()
                assert near.fileno() == -1
            finally:
                ended.set()
                thread.join(10)
                far.close()
                near.close()
    finally:
        sys.setswitchinterval(before)


def test_close_works_where_somebody_closed_the_descriptor_by_its_number(multicast):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with far:
        rx = multicast.Receiver(near)
        os.close(rx.fileno())
        rx.close()
        assert rx.closed
        assert near.fileno() == -1
        assert rx.stats().datagrams == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_goes_wrong_with_the_watch_leaves_no_descriptor(multicast, opened):
    """Such as what a signal's handler raises amid its end."""

    class Watch:
        closed = 0

        def fileno(self):
            return -1

        outer_fileno = fileno

        def close(self):
            self.closed += 1
            if self.closed == 1:
                raise KeyboardInterrupt

    rx, _ = opened.pipe()
    number = rx.fileno()
    rx._watch_over(lambda *_: Watch())
    with contextlib.suppress(KeyboardInterrupt):
        rx.close()
    rx.close()
    with pytest.raises(OSError) as caught:
        os.fstat(number)
    assert caught.value.errno == errno.EBADF


def test_it_shows_the_descriptor_to_wait_on_until_it_is_closed(opened, feed):
    rx, tx = opened.pair(feed)
    for each in (rx, tx):
        assert f" fd={each.fileno()}" in repr(each)
        each.close()
        assert " closed" in repr(each)
