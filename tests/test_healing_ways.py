"""However a receiver is waited on, it heals; and deadlines, closing and forks are what they are without that.

Owns receivers that wait in threads of their own while pacer.py sends without a pause, and some on the loopback
interface whose watch is made slow. Must not wait for what may come but with a deadline.
"""

from __future__ import annotations

import errno
import gc
import math
import os
import select
import statistics
import subprocess
import sys
import threading
import time
import weakref

import pytest
from links import FAR, IPV4, IPV6, OTHER, PACER, PORT, RX, WAYS
from net import open_descriptors, python_environment
from rig import DEADLINE

pytest_plugins = ["rig_fixtures", "healing_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink is Linux's")

GROUPS = {"IPv4": [IPV4[0], "239.195.7.2"], "IPv6": [IPV6[0], "ff15::195:7:2"]}
SENT = [IPV4, IPV6, FAR]
CLOSED = ["OSError", errno.EBADF, "[Errno 9] recv_batch: already closed"]
# How each ends when the receiver is closed by another thread; None: well, or by its own thread.
WAYS_ENDED = {
    "blocked": CLOSED,
    "timeout": CLOSED,
    "iteration": None,
    "spinning": CLOSED,
    "poller": None,
    "never_empty": None,
    "selector": None,
    "add_reader": None,
    "async_for": None,
}


@pytest.fixture
def process(hosts, agent):
    return agent(hosts.rx, script=WAYS)


@pytest.fixture
def open_way(process):
    """Open a receiver that is waited on in one of the ways."""

    def open_one(name: str, way: str, group: list[str], joins=(), **options) -> None:
        options = {"interface": "feed0", "spin": math.inf if way == "spinning" else None, **options}
        process.call("open", name=name, way=way, group=group, port=PORT, options=options, joins=joins)

    return open_one


@pytest.fixture
def pacer(hosts, agent):
    started = agent(hosts.tx, script=PACER)
    started.call("start", wanted=SENT, port=PORT, seconds=0.002)
    return started


# By real links ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pacer")
@pytest.mark.parametrize("way", WAYS_ENDED)
def test_however_it_is_waited_on_a_receiver_heals(process, open_way, link, way):
    """While the link is away nothing comes, and what the kernel tells wakes it; if it never waits, it looks anyway."""
    if way == "never_empty":
        wanted = {"IPv4": 0}
        open_way("IPv4", way, GROUPS["IPv4"], [[FAR[0], "feed1"]])
    else:
        wanted = {"IPv4": 0, "IPv6": 1}
        for name in wanted:
            open_way(name, way, GROUPS[name])
    for name, number in wanted.items():
        process.call("since", name=name, numbers=[number], stamp=0, seconds=DEADLINE / 2)
    for turn, index in enumerate([RX, OTHER, OTHER, RX], 1):
        began = link.again(index)
        for name, number in wanted.items():
            process.call("since", name=name, numbers=[number], stamp=began, seconds=DEADLINE / 2)
            state = process.call("state", name=name)
            assert (state["links_lost"], state["rejoins"], state["ended"]) == (turn, turn, None)
            assert {row["index"] for row in state["memberships"] if row["interface"] == "feed0"} == {index}
    for name in wanted:
        state = process.call("state", name=name)
        if way in ("selector", "add_reader"):
            # Woken by the kernel's messages, when there is nothing to receive; and by each but once, so nothing spins.
            assert 0 < state["spurious"] < 1000
            assert state["woken"] >= state["spurious"]
        assert process.call("close", name=name) == WAYS_ENDED[way]


def test_a_deadline_is_kept_while_links_flap(process, open_way, link, hosts):
    """Nothing is sent: each call ends by its timeout, however often the watch wakes it meanwhile."""
    open_way("IPv4", "timeout", GROUPS["IPv4"])
    for index in (RX, OTHER) * 4:
        link.again(index)
        hosts.rx.ip(*(f"link set lo alias turn{turn}" for turn in range(200)))
    while len((state := process.call("state", name="IPv4"))["late"]) < 20:
        hosts.rx.ip(*(f"link set lo alias turn{turn}" for turn in range(200)))
    assert min(state["late"]) >= 0
    assert statistics.median(state["late"]) < 0.05
    assert 1 <= state["rejoins"] <= 8  # on a busy machine it may see several at once


# Deadlines, with a watch that takes its time ------------------------------------------------------------------------


@pytest.fixture
def watched(multicast, monkeypatch):
    """Have the watch of the next receivers do this, too, when it is called; it is given how often it was."""

    def watched(meanwhile):
        class Slow(multicast.skt.Watch):
            turn = 0

            def handle(self, sock, delivered):
                super().handle(sock, delivered)
                self.turn += 1
                meanwhile(self.turn)

        monkeypatch.setattr(multicast.skt, "Watch", Slow)

    return watched


def test_what_came_while_the_watch_was_busy_came_in_time(opened, feed):
    """It takes longer than there is time: the deadline is over when it is done, and what is there is received."""
    tx = opened.sender(feed)

    def on_silence(_):
        tx.send(b"in time")
        time.sleep(0.3)

    rx = opened.receiver(feed, silence=0.02, on_silence=on_silence)
    assert bytes(rx.recv_batch(0.2)[0]) == b"in time"
    with pytest.raises(TimeoutError):  # before there is another silence
        rx.recv_batch(0.001)


def test_what_came_while_the_watch_was_busy_is_there_for_who_does_not_wait(opened, feed):
    tx = opened.sender(feed)
    rx = opened.receiver(feed, silence=0.05, on_silence=lambda _: tx.send(b"by the callback"))
    with pytest.raises(BlockingIOError):
        rx.recv_batch(0)
    assert select.select([rx], [], [], DEADLINE)[0]
    while not rx.stats().silences:
        select.select([rx], [], [], DEADLINE)
        try:
            batch = rx.recv_batch(0)
        except BlockingIOError:  # the timer looks more often
            continue
    assert bytes(batch[0]) == b"by the callback"


def test_the_time_that_the_watch_takes_counts(opened, feed, watched):
    """Also of a call that begins with it: it ends when the watch is done, and not as long again after that."""
    watched(lambda turn: time.sleep(0.2))
    late = []
    for _ in range(5):
        rx = opened.receiver(feed)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            rx.recv_batch(0.2)
        late.append(time.monotonic() - begin - 0.2)
        rx.close()
    assert min(late) >= 0
    assert statistics.median(late) < 0.1


def test_a_watch_that_is_always_ready_does_not_put_off_the_deadline(opened, feed, multicast, monkeypatch):
    class Busy(multicast.skt.Watch):
        def handle(self, sock, delivered):
            """Clear nothing."""

    monkeypatch.setattr(multicast.skt, "Watch", Busy)
    rx = opened.receiver(feed, silence=0.01)
    tx = opened.sender(feed)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            rx.recv_batch(0.05)
        with pytest.raises(BlockingIOError):
            rx.recv_batch(0)
    tx.send(b"x")
    assert bytes(rx.recv_batch(0)[0]) == b"x"


# Closing, forking, forgetting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterating", [False, True])
def test_close_while_the_watch_handles_returns_at_once_and_ends_the_receive(opened, feed, watched, iterating):
    inside, closed, ended = threading.Event(), threading.Event(), []

    def handle(_):
        inside.set()
        assert closed.wait(DEADLINE)

    watched(handle)
    before = open_descriptors()
    rx = opened.receiver(feed, timeout=None)

    def receive():
        try:
            ended.append(list(rx) if iterating else rx.recv_batch())
        except OSError as error:
            ended.append(error.errno)

    thread = threading.Thread(target=receive)
    thread.start()
    assert inside.wait(DEADLINE)
    rx.close()
    closed.set()
    thread.join(DEADLINE)
    assert ended == [[] if iterating else errno.EBADF]
    assert open_descriptors() == before


def test_the_watch_may_close(opened, feed, watched):
    """What it calls is the user's."""
    before = open_descriptors()
    rx = opened.receiver(feed, timeout=None, silence=0.02, on_silence=lambda _: rx.close())
    with pytest.raises(OSError, match="already closed") as caught:
        rx.recv_batch()
    assert caught.value.errno == errno.EBADF
    assert rx.fileno() == -1
    assert rx.stats().silences == 1
    assert open_descriptors() == before


def test_the_descriptor_that_is_shown_is_the_one_to_wait_on(opened, feed):
    rx = opened.receiver(feed)
    assert repr(rx).startswith(f"<multicast.Receiver fd={rx.fileno()} ")


class Interrupted(Exception):
    """What a signal's handler may raise."""


def test_what_interrupts_the_watch_as_it_closes_is_raised_and_all_is_let_go(opened, feed, multicast, monkeypatch):
    class Watch(multicast.skt.Watch):
        interrupted = False

        def close(self):
            if not self.interrupted:
                self.interrupted = True
                raise Interrupted
            super().close()

    monkeypatch.setattr(multicast.skt, "Watch", Watch)
    before = open_descriptors()
    rx = opened.receiver(feed, silence=1)
    with pytest.raises(Interrupted):
        rx.close()
    rx.close()
    assert rx.socket.fileno() == -1
    assert open_descriptors() == before


FORK = """
import errno, os, select, sys
import multicast

group, port = sys.argv[1], int(sys.argv[2])
told = []
rx = multicast.open_receiver(group, port, interface="lo", silence=0.05, on_silence=told.append)
tx = multicast.open_sender(group, port, interface="lo", ttl=0)
child = os.fork()
if child == 0:
    try:
        rx.recv_batch(0)
    except RuntimeError as error:
        assert "fork" in str(error), error
    else:
        os._exit(1)
    before = len(os.listdir("/proc/self/fd"))
    rx.close()
    assert before - len(os.listdir("/proc/self/fd")) == int(sys.argv[3])
    assert rx.fileno() == -1
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
while not told:
    assert select.select([rx.fileno()], [], [], 20)[0]
    try:
        rx.recv_batch(0)
    except BlockingIOError:
        pass
tx.send(b"x")
assert select.select([rx.fileno()], [], [], 20)[0]
assert bytes(rx.recv_batch(0)[0]) == b"x"
rx.close()
print("the child's close took nothing from the parent")
"""


def test_a_forked_child_is_refused_and_closes_its_own(multicast, feed):
    done = subprocess.run(
        [sys.executable, "-P", "-c", FORK, *map(str, feed), str(descriptors(multicast) + 5)],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = "the child's close took nothing from the parent\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def descriptors(multicast) -> int:
    """How many a receiver has that does not heal: two sockets, and what wakes it; on the twin, that has two ends."""
    return 3 if multicast.BACKEND == "native" else 4


def test_what_it_costs_in_descriptors(multicast, opened, feed):
    """Two epolls and netlink, to heal; a timer and /proc/net/igmp, to tell of silences."""
    before = open_descriptors().keys()
    for options, more in (({"self_healing": False}, 0), ({}, 3), ({"silence": 1}, 5)):
        rx = opened.receiver(feed, **options)
        assert len(open_descriptors().keys() - before) == descriptors(multicast) + more
        assert not any(os.get_inheritable(int(number)) for number in open_descriptors().keys() - before)
        rx.close()
        assert open_descriptors().keys() == before


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_forgotten_receiver_that_its_callback_knows_leaks_nothing(multicast, feed, no_leaked_descriptors):
    class Owner:
        def __init__(self):
            self.rx = multicast.open_receiver(*feed, interface="lo", silence=1, on_silence=self.on_silence)

        def on_silence(self, _):
            """Never called."""

    owner = Owner()
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


LEFT_OPEN = """
import sys
import multicast
rx = multicast.open_receiver(sys.argv[1], int(sys.argv[2]), interface="lo", silence=1)
"""


def test_a_receiver_that_is_open_when_the_process_ends_says_nothing(multicast, feed):
    done = subprocess.run(
        [sys.executable, "-P", "-c", LEFT_OPEN, *map(str, feed)],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
