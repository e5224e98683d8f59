"""A poller says which of several receivers are ready: those and no other, at once, also of a thousand.

Owns receivers on pairs of AF_UNIX sockets, so that nothing is lost but where a test is about that.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import math
import os
import select
import socket
import statistics
import sys
import threading
import time
import weakref

import pytest
from feeds import further
from net import open_descriptors
from refusals import refused
from waiting import DEADLINE, Polling, later, rounds

pytest_plugins = ["poller_fixtures"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink and epoll are Linux's")


# Who is ready -------------------------------------------------------------------------------------------------------


def test_the_ready_ones_are_returned_and_no_other(pipes, polled):
    made = pipes(5)
    poller = polled(*(rx for rx, _ in made))
    assert poller.poll(0) == []
    for number in (3, 1):
        made[number][1].send(b"x")
    assert set(poller.poll()) == {made[1][0], made[3][0]}
    assert set(poller.poll()) == {made[1][0], made[3][0]}  # they still are
    made[3][0].recv_batch()
    assert poller.poll() == [made[1][0]]
    made[1][0].recv_batch()
    assert poller.poll(0) == []


@pytest.mark.parametrize("spin", [None, math.inf, 0.002], ids=["asleep", "spinning", "first spinning"])
@pytest.mark.parametrize("seconds", [0.0005, 0.01, 0.1])
def test_a_timeout_ends_on_time_and_never_early_with_nothing(pipes, polled, seconds, spin):
    ((rx, _),) = pipes(1)
    poller = polled(rx, spin=spin)
    late = []
    for _ in range(5):
        begin = time.monotonic()
        assert poller.poll(seconds) == []
        late.append(time.monotonic() - begin - seconds)
    assert min(late) >= 0
    assert statistics.median(late) < 0.05


def test_the_pollers_own_timeout_is_used_when_none_is_given(pipes, polled):
    ((rx, far),) = pipes(1)
    for timeout, words in (
        (0.01, "Poller: nothing came within 0.01 s"),
        (0, "Poller: nothing is ready and timeout is"),
    ):
        poller = polled(rx, timeout=timeout)
        assert poller.poll() == []
        refused(errno.ETIMEDOUT if timeout else errno.EAGAIN, lambda: next(poller), words)  # noqa: B023
    far.send(b"x")
    assert poller.poll() == [rx]
    assert next(poller)[0] is rx


@pytest.mark.parametrize("spin", [None, math.inf, 0.002], ids=["asleep", "spinning", "first spinning"])
def test_without_a_timeout_it_waits_for_the_first_datagram(pipes, polled, spin):
    made = pipes(3)
    poller = polled(*(rx for rx, _ in made), timeout=None, spin=spin)
    for turn in range(10):
        rx, far = made[turn % 3]
        thread = later(0.001 * turn, far.send, b"late")
        assert poller.poll() == [rx]
        assert bytes(rx.recv_batch(0)[0]) == b"late"
        thread.join()


def test_iterating_gives_one_batch_of_each_in_turn(pipes, polled):
    made = pipes(4, batch_size=2)
    names = {rx: number for number, (rx, _) in enumerate(made)}
    for number, (_, far) in enumerate(made):
        for i in range(2 * (number + 1)):  # one batch for the first one, four for the last
            far.send(b"%d" % i)
    came = []
    with polled(*names) as poller:
        for rx, batch in poller:
            came.append((names[rx], [bytes(view) for view in batch]))
            if len(came) == 10:
                break
    begin = 0
    for turn, among in enumerate([{0, 1, 2, 3}, {1, 2, 3}, {2, 3}, {3}]):
        round_ = came[begin : begin + len(among)]
        assert {name for name, _ in round_} == among
        assert all(batch == [b"%d" % (2 * turn), b"%d" % (2 * turn + 1)] for _, batch in round_)
        begin += len(among)


def test_an_error_is_raised_and_the_others_have_their_turn(opened, polled, feed, pipes):
    broken = opened.receiver(feed)
    with contextlib.suppress(OSError):
        broken.socket.shutdown(socket.SHUT_RD)
    ((rx, far),) = pipes(1, batch_size=1)
    for i in range(3):
        far.send(bytes([i]))
    poller = polled(broken, rx)
    assert set(poller.poll()) == {broken, rx}
    came, errors = [], 0
    while len(came) < 3:
        try:
            came.append(bytes(next(poller)[1][0]))
        except OSError as error:
            assert error.errno == errno.ESHUTDOWN  # noqa: PT017 - either may come first
            errors += 1
    assert came == [b"\0", b"\1", b"\2"]
    assert 2 <= errors <= 4  # one in each round
    poller.unregister(broken)
    far.send(b"alone")
    assert bytes(next(poller)[1][0]) == b"alone"


def test_its_descriptor_is_ready_when_one_of_them_is(pipes, polled):
    made = pipes(3)
    poller = polled(*(rx for rx, _ in made))
    assert select.select([poller], [], [], 0) == ([], [], [])
    made[1][1].send(b"x")
    assert select.select([poller], [], [], DEADLINE)[0] == [poller]
    assert poller.poll(0) == [made[1][0]]
    made[1][0].recv_batch()
    assert select.select([poller], [], [], 0) == ([], [], [])
    poller.close()
    assert poller.fileno() == -1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no destination is told to check")
@pytest.mark.parametrize("spin", [None, math.inf], ids=["asleep", "spinning"])
def test_a_flood_of_foreign_datagrams_puts_off_no_deadline(opened, multicast, feed, polled, spin):
    rx = opened.closing(multicast.open_receiver([feed[0], "239.254.1.3"], feed[1], interface="lo"))
    over = threading.Event()

    def flood():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stray:
            while not over.is_set():
                stray.sendto(b"stray", ("127.0.0.1", feed[1]))

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        for _ in range(3):
            refused(errno.ETIMEDOUT, lambda: next(polled(rx, timeout=0.02, spin=spin)), "Poller: nothing came")
            refused(errno.EAGAIN, lambda: next(polled(rx, timeout=0, spin=spin)), "Poller: nothing is ready")
        poller = polled(rx, timeout=None, spin=spin)  # before the receiver may be closed, however slow this machine
        thread = later(0.02, rx.close)
        assert list(poller) == []
        thread.join()
    finally:
        over.set()
        flooding.join()
    assert rx.stats().foreign > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no destination is told to check")
def test_who_does_not_wait_goes_through_so_many_foreign_datagrams_and_no_more(opened, multicast, feed, polled):
    """However many there are: as a receiver does, and not again and again because it is ready still."""
    groups = [feed[0], "239.254.1.4"]
    rx = opened.closing(multicast.open_receiver(groups, feed[1], interface="lo", batch_size=1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stray:
        for _ in range(100):
            stray.sendto(b"stray", ("127.0.0.1", feed[1]))
    poller = polled(rx, timeout=0)
    for turn in range(1, 4):
        refused(errno.EAGAIN, lambda: next(poller), "Poller: nothing is ready")
        assert rx.stats().foreign == 16 * turn


# Who is registered --------------------------------------------------------------------------------------------------


def test_it_says_who_is_registered(pipes, polled):
    (a, _), (b, _) = pipes(2)
    poller = polled(a)
    assert len(poller) == 1
    assert a in poller
    assert not any(each in poller for each in (b, None, [], poller))
    assert poller.register(b) is None
    assert (len(poller), b in poller, repr(poller)) == (2, True, "<multicast.Poller of 2>")
    assert poller.unregister(a) is None
    assert (len(poller), a in poller, b in poller) == (1, False, True)
    assert not poller.closed
    poller.close()
    assert (poller.closed, len(poller), b in poller, repr(poller)) == (True, 0, False, "<multicast.Poller closed>")
    assert not b.closed


def test_what_is_unregistered_is_reported_no_more_nor_received(pipes, polled):
    made = pipes(3)
    poller = polled(*(rx for rx, _ in made), timeout=0.1)
    for _, far in made:
        far.send(b"x")
    first, _ = next(poller)
    for rx, _ in made:  # amid a round
        if rx is not first:
            poller.unregister(rx)
    refused(errno.ETIMEDOUT, lambda: next(poller), "Poller: ")
    assert poller.poll(0) == []
    others = [rx for rx, _ in made if rx is not first]
    assert [rx.stats().datagrams for rx in others] == [0, 0]
    for rx in others:
        poller.register(rx)
    assert set(poller.poll()) == set(others)


def test_one_is_registered_once_and_unregistered_once(pipes, polled):
    (a, far), (b, _) = pipes(2)
    poller = polled(a)
    refused(ValueError, lambda: poller.register(a), "register: this receiver is registered already")
    refused(ValueError, lambda: polled(b, a, b), "Poller: this receiver is registered already")
    refused(ValueError, lambda: poller.unregister(b), "unregister: this receiver is not registered")
    poller.unregister(a)
    refused(ValueError, lambda: poller.unregister(a), "unregister: this receiver is not registered")
    poller.register(a)
    far.send(b"x")
    assert poller.poll() == [a]


def test_a_receiver_may_have_several_pollers(pipes, polled):
    ((rx, far),) = pipes(1)
    pollers = [polled(rx) for _ in range(3)]
    far.send(b"x")
    assert [poller.poll() for poller in pollers] == [[rx]] * 3
    pollers[0].unregister(rx)
    assert [len(poller) for poller in pollers] == [0, 1, 1]
    waiting = [Polling(poller) for poller in pollers[1:]]
    assert [each.result() for each in waiting] == [[rx]] * 2
    rx.recv_batch()
    waiting = [Polling(poller) for poller in pollers[1:]]
    rx.close()
    for each in waiting:
        assert "no receiver is registered" in str(each.result())
    assert [len(poller) for poller in pollers] == [0] * 3


@pytest.mark.parametrize("iterating", [False, True])
@pytest.mark.parametrize("spin", [None, math.inf], ids=["asleep", "spinning"])
def test_another_thread_may_register_while_one_waits(pipes, polled, iterating, spin):
    (idle, _), (rx, far) = pipes(2)
    far.send(b"x")
    poller = polled(idle, timeout=None, spin=spin)
    waiting = Polling(poller, iterating=iterating)
    waiting.wait_until_inside()
    poller.register(rx)
    if iterating:
        while not rx.stats().datagrams:
            assert not waiting.ended
        poller.close()
    found = waiting.result()
    assert found == [rx] if not iterating else [each for each, _ in found] == [rx]


def test_a_receiver_is_kept_alive_while_it_is_registered(multicast, polled):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with far:
        poller = polled(multicast.Receiver(near))
        far.send(b"x")
        gone = weakref.ref(poller.poll()[0])
        gc.collect()
        assert gone() is not None
        gone().close()
        gc.collect()
        assert (gone(), len(poller)) == (None, 0)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_forgotten_poller_leaks_nothing(multicast, feed, no_leaked_descriptors):
    """Also one that its receiver knows by a callback."""

    class Owner:
        def __init__(self):
            self.rx = multicast.open_receiver(*feed, interface="lo", silence=1, on_silence=self.on_silence)
            self.poller = multicast.Poller([self.rx])

        def on_silence(self, _):
            """Never called."""

    owner = Owner()
    gone = weakref.ref(owner), weakref.ref(owner.rx), weakref.ref(owner.poller)
    del owner
    gc.collect()
    assert [each() for each in gone] == [None] * 3


# Healing and silence ------------------------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("spin", [None, math.inf], ids=["asleep", "spinning"])
@pytest.mark.parametrize("iterating", [False, True])
def test_silences_are_told_and_whoever_is_only_awake_for_that_is_not_ready(opened, feed, polled, iterating, spin):
    told = []
    tx = opened.sender(feed)

    def on_silence(silence):
        told.append((silence.seconds, threading.get_ident()))
        if len(told) == 5:
            tx.send(b"x")

    rx = opened.receiver(feed, silence=0.02, on_silence=on_silence)
    poller = polled(rx, timeout=None, spin=spin)
    if iterating:
        found, batch = next(poller)
        assert bytes(batch[0]) == b"x"
    else:
        (found,) = poller.poll()
    assert found is rx
    assert len(told) == 5
    assert {ident for _, ident in told} == {threading.get_ident()}
    if iterating:
        with pytest.raises(TimeoutError):
            next(polled(rx, timeout=0.03))
        assert len(told) > 5


@linux
def test_a_watch_is_looked_after_also_by_who_does_not_wait(opened, feed, polled):
    tx = opened.sender(feed)
    rx = opened.receiver(feed, silence=0.02, on_silence=lambda _: tx.send(b"by the callback"))
    poller = polled(rx)
    assert poller.poll(0) == []
    while not rx.stats().silences:
        assert select.select([poller], [], [], DEADLINE)[0]
        found = poller.poll(0)
    assert found == [rx]  # what came meanwhile came in time
    assert bytes(rx.recv_batch(0)[0]) == b"by the callback"


@linux
def test_what_the_callback_raises_is_raised_and_nothing_is_lost(opened, feed, polled, pipes):
    tx = opened.sender(feed)
    ((other, far),) = pipes(1)

    def on_silence(_):
        tx.send(b"mine")
        far.send(b"the other's")
        raise LookupError("the callback's")

    rx = opened.receiver(feed, silence=0.05, on_silence=on_silence)
    poller = polled(rx, other)
    with pytest.raises(LookupError, match="the callback's"):
        poller.poll()
    assert set(poller.poll()) == {rx, other}
    assert {bytes(next(poller)[1][0]) for _ in range(2)} == {b"mine", b"the other's"}


@linux
def test_what_the_callback_closes_is_not_reported(opened, feed, polled, pipes):
    """Though it was ready in the same moment, and the kernel had said so already."""
    tx = opened.sender(feed)
    ((other, far),) = pipes(1)

    def on_silence(_):
        other.close()
        tx.send(b"x")

    rx = opened.receiver(feed, silence=0.02, on_silence=on_silence)
    poller = polled(rx, other)
    time.sleep(0.05)  # the silence is due
    far.send(b"ready, too")
    assert poller.poll() == [rx]
    assert (len(poller), rx.stats().silences) == (1, 1)


@linux
def test_a_watch_that_is_always_ready_does_not_put_off_the_deadline(opened, multicast, feed, polled, monkeypatch):
    class Busy(multicast.skt.Watch):
        def handle(self, sock, delivered):
            """Clear nothing."""

    monkeypatch.setattr(multicast.skt, "Watch", Busy)
    rx = opened.receiver(feed, silence=0.01)
    for spin in (None, math.inf):
        poller = polled(rx, spin=spin)
        for _ in range(5):
            assert poller.poll(0.05) == []
            assert poller.poll(0) == []
    opened.sender(feed).send(b"x")
    assert poller.poll(0) == [rx]


@linux
@pytest.mark.parametrize("what", ["receiver", "poller", "both"])
def test_the_callback_may_close(opened, feed, polled, what):
    def on_silence(_):
        if what != "poller":
            rx.close()
        if what != "receiver":
            poller.close()

    rx = opened.receiver(feed, silence=0.02, on_silence=on_silence)
    poller = polled(rx)
    words = "no receiver is registered" if what == "receiver" else "already closed"
    with pytest.raises((ValueError, OSError), match=f"poll: {words}"):
        poller.poll()
    assert (len(poller), rx.closed, poller.closed) == (0, what != "poller", what != "receiver")


@linux
def test_a_callback_that_another_thread_is_in_keeps_nobody(opened, feed, polled, pipes):
    """The watch stays ready meanwhile; its receiver is not, a deadline holds, and others are received."""
    inside, over = threading.Event(), threading.Event()

    def on_silence(_):
        inside.set()
        assert over.wait(DEADLINE)

    rx = opened.receiver(feed, silence=0.02, on_silence=on_silence, timeout=None)
    thread = threading.Thread(target=lambda: list(rx))
    thread.start()
    try:
        assert inside.wait(DEADLINE)
        ((other, far),) = pipes(1)
        poller = polled(rx, other)
        began = time.thread_time()
        for _ in range(4):
            assert poller.poll(0.1) == []
            assert poller.poll(0) == []
        assert time.thread_time() - began < 0.1  # nor does it keep this one busy
        far.send(b"x")
        assert poller.poll() == [other]
    finally:
        over.set()
        rx.close()
        thread.join(DEADLINE)
    assert not thread.is_alive()


# Many ---------------------------------------------------------------------------------------------------------------


def test_a_thousand_idle_ones_and_a_busy_one(multicast, pipes, polled):
    made = pipes(1001, batch_size=4, datagram_size=64)
    poller = polled(*(rx for rx, _ in made))
    assert len(poller) == 1001
    assert poller.poll(0) == []
    busy, far = made[500]
    for i in range(rounds(multicast, 1000, 50)):
        far.send(b"%d" % i)
        rx, batch = next(poller)
        assert rx is busy
        assert [bytes(view) for view in batch] == [b"%d" % i]
    for _, each in made:
        each.send(b"all at once")
    assert set(poller.poll()) == {rx for rx, _ in made}
    for rx, _ in made[::2]:
        rx.close()
    assert len(poller) == 500
    assert set(poller.poll()) == {rx for rx, _ in made[1::2]}


@pytest.mark.alone  # as fast as it goes
def test_the_ledger_of_64_receivers_closes(multicast, opened, feed):
    """All by one thread: each datagram was received by its own receiver, in order, or is counted as dropped."""
    group, port = feed
    count = rounds(multicast, 2000, 200)
    groups = [group, *(further(group, i) for i in range(1, 64))]
    names = {opened.receiver((each, port), receive_buffer=8192): i for i, each in enumerate(groups)}
    senders = [opened.sender((each, port)) for each in groups]

    def send():
        for number in range(count):
            for i, tx in enumerate(senders):
                tx.send(b"%d %d" % (i, number))
        for _ in range(3):  # what follows the last one may be dropped, too: so there are several
            time.sleep(0.05)
            for tx in senders:
                tx.send(b"end")

    sending = threading.Thread(target=send)
    sending.start()
    last, came, missing, ended = [-1] * 64, [0] * 64, [0] * 64, set()
    with multicast.Poller(names, timeout=DEADLINE) as poller:
        for rx, batch in poller:
            i = names[rx]
            for view in batch:
                if view == b"end":
                    ended.add(i)
                    continue
                stream, number = map(int, bytes(view).split())
                assert stream == i
                assert number > last[i]
                missing[i] += number - last[i] - 1
                last[i], came[i] = number, came[i] + 1
            if len(ended) == 64:
                break
    sending.join()
    for rx, i in names.items():
        stats = rx.stats()
        sent = count + 3
        received = stats.datagrams + (stats.queued is not None and sum(map(len, drained(rx))))
        assert received + rx.stats().drops == sent
        assert came[i] + missing[i] + (count - 1 - last[i]) == count
    assert sum(came) > 0


def drained(rx):
    with contextlib.suppress(BlockingIOError):
        while True:
            yield rx.recv_batch(0)


@pytest.mark.alone  # no other thread of this process may allocate
def test_in_the_steady_state_nothing_is_allocated(native):
    """A receiver's batch for each, and the pair that it comes in."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(4)]
    receivers = [native.Receiver(near) for near, _ in pairs]
    with native.Poller(receivers, timeout=DEADLINE) as poller:

        def run(turns):
            for _ in range(turns):
                for _, far in pairs:
                    far.send(b"x")
                for _ in pairs:
                    next(poller)

        run(100)
        before = sys.getallocatedblocks()
        run(1000)
        assert abs(sys.getallocatedblocks() - before) < 20
    for rx, (_, far) in zip(receivers, pairs, strict=True):
        rx.close()
        far.close()


def test_every_descriptor_is_closed_on_exec(polled):
    before = open_descriptors()
    polled()
    new = open_descriptors().keys() - before.keys()
    assert len(new) >= 2
    assert not any(os.get_inheritable(int(number)) for number in new)
