"""A poller, and a receiver in one, that another thread closes, a fork, a signal: nobody hangs, no stranger is met.

Owns threads that wait in a poller. Each says how it ended; one that does not fails the test.
"""

from __future__ import annotations

import contextlib
import errno
import math
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from net import open_descriptors, python_environment
from refusals import refused
from waiting import DEADLINE, Polling, interrupted, later, rounds

pytest_plugins = ["poller_fixtures"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink and epoll are Linux's")


# One that is closed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spin", [None, math.inf], ids=["asleep", "spinning"])
@pytest.mark.parametrize("iterating", [False, True])
def test_closing_the_poller_from_another_thread_wakes_it(multicast, pipes, iterating, spin):
    """1,000 times; a hang fails."""
    ((rx, _),) = pipes(1)
    for i in range(rounds(multicast, 1000, 300)):
        poller = multicast.Poller([rx], spin=spin)
        waiting = Polling(poller, iterating=iterating)
        if i % 2:
            waiting.wait_until_inside()
        poller.close()
        ended = waiting.result()
        assert ended == [] if iterating else str(ended) == "[Errno 9] poll: already closed"
    assert not rx.closed


@pytest.mark.parametrize("iterating", [False, True])
def test_closing_the_last_receiver_from_another_thread_wakes_it(multicast, opened, iterating):
    """1,000 times; a hang fails."""
    for i in range(rounds(multicast, 1000, 300)):
        rx, far = opened.pipe()
        poller = opened.closing(multicast.Poller([rx]))
        waiting = Polling(poller, iterating=iterating)
        if i % 2:
            waiting.wait_until_inside()
        rx.close()
        ended = waiting.result()
        assert ended == [] if iterating else "poll: no receiver is registered" in str(ended)
        far.close()
        poller.close()


def test_it_goes_on_with_the_others(pipes, polled):
    made = pipes(3)
    poller = polled(*(rx for rx, _ in made))
    waiting = Polling(poller)
    waiting.wait_until_inside()
    made[0][0].close()
    assert (len(poller), made[0][0] in poller, waiting.ended) == (2, False, [])
    made[1][1].send(b"x")
    assert waiting.result() == [made[1][0]]


def test_closing_within_the_loop_ends_it(pipes, polled):
    made = pipes(3)
    for _, far in made:
        far.send(b"x")
    came = []
    for rx, _ in polled(*(rx for rx, _ in made)):
        came.append(rx)
        rx.close()
    assert set(came) == {rx for rx, _ in made}
    made = pipes(3)
    for _, far in made:
        far.send(b"x")
    poller, came = polled(*(rx for rx, _ in made)), []
    for rx, _ in poller:
        came.append(rx)
        poller.close()
    assert len(came) == 1


def test_with_none_registered_there_is_nothing_to_wait_for(polled, pipes):
    poller = polled(timeout=None)
    for timeout in (..., None, 0, 1):
        refused(ValueError, lambda: poller.poll(timeout), "poll: no receiver is registered")  # noqa: B023
    assert list(poller) == []
    ((rx, far),) = pipes(1)
    poller.register(rx)
    far.send(b"x")
    assert poller.poll() == [rx]
    rx.recv_batch()
    waiting = Polling(poller)
    waiting.wait_until_inside()
    poller.unregister(rx)
    assert "poll: no receiver is registered" in str(waiting.result())


@linux
@pytest.mark.parametrize("closing", [True, False], ids=["closed", "unregistered"])
def test_its_descriptor_tells_once_that_the_last_receiver_has_gone(pipes, polled, closing):
    """Else an event loop that is told, and polls, would be told again at once, for ever."""
    (rx, _), (other, far) = pipes(2)
    poller = polled(rx)
    rx.close() if closing else poller.unregister(rx)
    assert select.select([poller], [], [], 0)[0] == [poller]
    refused(ValueError, lambda: poller.poll(0), "poll: no receiver is registered")
    assert select.select([poller], [], [], 0)[0] == []
    poller.register(other)
    assert poller.poll(0) == []
    far.send(b"x")
    assert select.select([poller], [], [], 0)[0] == [poller]
    assert poller.poll() == [other]


def test_a_closed_poller_says_so(pipes, polled):
    ((rx, _),) = pipes(1)
    with polled(rx) as poller:
        pass
    assert poller.close() is None
    for operation, call in (
        ("poll", poller.poll),
        ("register", lambda: poller.register(rx)),
        ("unregister", lambda: poller.unregister(rx)),
    ):
        refused(errno.EBADF, call, f"{operation}: already closed")
    assert list(poller) == []
    assert not rx.closed


def test_a_closed_receiver_can_t_be_registered_and_needs_not_be_unregistered(pipes, polled):
    (rx, _), (other, _) = pipes(2)
    poller = polled(rx, other)
    rx.close()
    assert poller.unregister(rx) is None
    refused(errno.EBADF, lambda: poller.register(rx), "register: the receiver is closed")
    refused(errno.EBADF, lambda: polled(other, rx), "Poller: the receiver is closed")
    assert len(poller) == 1


def test_one_that_is_closed_just_as_it_is_unregistered_needs_not_be(both, monkeypatch):
    """Of the twin, where the close can be put between two steps; the native backend's take no Python code between."""
    stdlib = both[1]
    drop = stdlib.Poller._drop

    def overtaken(poller, receiver):
        monkeypatch.undo()
        receiver.close()
        return drop(poller, receiver)

    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with far, stdlib.Receiver(near) as rx, stdlib.Poller([rx]) as poller:
        monkeypatch.setattr(stdlib.Poller, "_drop", overtaken)
        assert poller.unregister(rx) is None
        assert (rx.closed, len(poller)) == (True, 0)


def test_its_descriptors_go_when_it_is_closed_though_nobody_polls(opened, multicast, feed, polled):
    rx = opened.receiver(feed)
    poller = polled(rx)
    rx.close()
    assert len(poller) == 0
    opened.closing(multicast.open_receiver(*feed, interface="lo", exclusive=True))  # else: EADDRINUSE


def test_nothing_is_told_of_one_that_is_closed_though_a_duplicate_is_open(pipes, polled):
    """epoll goes on as long as any duplicate is open, and under the old number."""
    (rx, far), (other, _) = pipes(2)
    poller = polled(rx, other)
    with rx.socket.dup():
        rx.close()
        far.send(b"x")
        assert poller.poll(0.01) == []
        assert select.select([poller], [], [], 0) == ([], [], [])


def test_nothing_is_told_of_a_stranger_that_has_the_number(multicast, opened, polled):
    """While one thread waits, a receiver closes; at once other sockets, full of poison, get its numbers."""
    stays, feeding = opened.pipe()
    poller = polled(stays)
    for turn in range(rounds(multicast, 300, 100)):
        before = set(open_descriptors())
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        rx = multicast.Receiver(near)
        numbers = {int(each) for each in set(open_descriptors()) - before if int(each) != far.fileno()}
        poller.register(rx)
        waiting = Polling(poller)
        if turn % 2:
            waiting.wait_until_inside()
        rx.close()
        strangers = []
        deadline = time.monotonic() + DEADLINE
        while numbers - {each.fileno() for each in strangers}:
            assert time.monotonic() < deadline, "a number was not handed out again"
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for one, other in (pair, pair[::-1]):
                one.send(b"poison")
                other.send(b"poison")
            strangers += pair
        assert not waiting.ended
        feeding.send(b"x")
        assert waiting.result() == [stays]
        assert stays.recv_batch(0)[0] == b"x"
        assert poller.poll(0) == []
        for stranger in strangers:
            assert stranger.recv(10) == b"poison"
        for each in (*strangers, far):
            each.close()


def test_register_close_and_unregister_at_once_from_several_threads(multicast, opened, polled):
    """Whoever comes first: in the end nobody is registered, nothing is open, and nobody hangs."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    stays, _ = opened.pipe()
    poller = polled(stays)
    waiting = Polling(poller)
    try:
        for _ in range(rounds(multicast, 500, 200)):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            rx, begin = multicast.Receiver(near), threading.Barrier(3)

            def register(rx=rx, begin=begin):
                begin.wait(DEADLINE)
                with contextlib.suppress(OSError):
                    poller.register(rx)

            def unregister(rx=rx, begin=begin):
                begin.wait(DEADLINE)
                with contextlib.suppress(ValueError):
                    poller.unregister(rx)

            threads = [threading.Thread(target=each) for each in (register, unregister)]
            for each in threads:
                each.start()
            begin.wait(DEADLINE)
            rx.close()
            for each in threads:
                each.join(DEADLINE)
            assert (rx in poller, len(poller), near.fileno()) == (False, 1, -1)
            far.close()
    finally:
        sys.setswitchinterval(before)
    assert not waiting.ended
    poller.close()
    assert "already closed" in str(waiting.result())


def test_however_often_the_last_one_goes_unnoticed_nothing_blocks(pipes, polled):
    """Each time whoever waits has to be woken; nobody waits, and at some number there is no room to note that."""
    ((rx, far),) = pipes(1)
    poller = polled(rx)
    for _ in range(2000):
        poller.unregister(rx)
        poller.register(rx)
    assert poller.poll(0.001) == []
    assert select.select([poller], [], [], 0) == ([], [], [])
    for _ in range(2000):
        poller.unregister(rx)
        poller.register(rx)
    far.send(b"x")
    assert poller.poll() == [rx]
    poller.close()


# One at a time, forks, signals --------------------------------------------------------------------------------------


def test_one_thread_waits_at_a_time(pipes, polled):
    ((rx, far),) = pipes(1)
    poller = polled(rx)
    waiting = Polling(poller)
    waiting.wait_until_inside()
    refused(RuntimeError, poller.poll, "poll: another thread or task is in this call")
    refused(RuntimeError, lambda: next(poller), "Poller: another thread or task is in this call")
    far.send(b"x")
    assert waiting.result() == [rx]


@pytest.mark.parametrize("spin", [None, math.inf], ids=["asleep", "spinning"])
def test_ctrl_c_ends_a_wait_and_leaves_all_as_it_was(pipes, polled, spin):
    ((rx, far),) = pipes(1)
    poller = polled(rx, timeout=None, spin=spin)
    for i in range(10):
        interrupted(poller.__next__ if i % 2 else poller.poll, 0.008)
        far.send(bytes([i]))
        assert bytes(next(poller)[1][0]) == bytes([i])


class Boom(Exception):
    """What a handler raises here."""


AMID = ("_add", "_close", "_drop", "_enter", "_leave", "_meet", "_part", "_ring", "_watch_for")


def raising_at(line, call):
    """Call, and raise before that line of all that run within AMID: whether there were so many."""
    left, before = [line], sys.gettrace()

    def trace(frame, event, _):
        if frame.f_code.co_name not in AMID:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] < 0:
                raise Boom
        return trace

    sys.settrace(trace)
    try:
        call()
    except Boom:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("amid", ["close", "register", "unregister"])
def test_what_a_handler_raises_amid_a_call_leaves_no_closed_receiver_registered(both, amid):
    """Of the twin, which takes many steps, at each of which a handler may raise; the native backend runs none there."""
    stdlib, interrupted_at = both[1], 0
    with stdlib.Poller() as poller:
        for line in range(1000):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            with far, stdlib.Receiver(near) as rx:
                if amid != "register":
                    poller.register(rx)
                call = rx.close if amid == "close" else lambda rx=rx: getattr(poller, amid)(rx)
                interrupted_at += raising_at(line, call)
                rx.close()
                assert (len(poller), len(poller._selector.get_map()), near.fileno()) == (0, 1, -1), line  # 1: its wake
                assert rx._retired, line
            if interrupted_at == line:
                break
        assert interrupted_at > 20


@pytest.mark.parametrize("spin", [None, math.inf], ids=["asleep", "spinning"])
def test_a_signal_with_a_handler_does_not_shorten_the_wait(pipes, polled, spin):
    ((rx, _),) = pipes(1)
    poller, seen = polled(rx, spin=spin), []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        thread = later(0.02, signal.pthread_kill, threading.main_thread().ident, signal.SIGUSR1)
        begin = time.monotonic()
        assert poller.poll(0.1) == []
        assert time.monotonic() - begin >= 0.1
        assert seen == [1]
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


FORK = """
import os, socket
import multicast

pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
a, b = (multicast.Receiver(near) for near, _ in pairs)
poller = multicast.Poller([a, b], timeout=20)
child = os.fork()
if child == 0:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    own = multicast.Receiver(near)
    mine = multicast.Poller([own])
    far.send(b"x")
    assert mine.poll() == [own]
    calls = (poller.poll, lambda: next(poller), lambda: poller.register(own), lambda: poller.unregister(a))
    for call in (*calls, lambda: mine.register(a), lambda: multicast.Poller([a])):
        try:
            call()
        except RuntimeError as error:
            assert "os.fork()" in str(error), error
        else:
            os._exit(1)
    before = len(os.listdir("/proc/self/fd"))
    a.close()  # takes nothing out of the parent's poller
    poller.close()
    assert len(os.listdir("/proc/self/fd")) < before
    assert poller.fileno() == -1
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
for number, rx in enumerate((a, b)):
    pairs[number][1].send(b"x")
    assert poller.poll() == [rx]
    rx.recv_batch()
child = os.fork()  # holds the sockets open while the parent closes one of them
if child == 0:
    import signal
    signal.pause()
a.close()
pairs[0][1].send(b"x")
assert poller.poll(0.01) == []
os.kill(child, 9)
os.waitpid(child, 0)
print("parent and child are apart")
"""


@linux
def test_a_forked_child_is_refused_and_takes_nothing_from_the_parent(multicast):
    done = subprocess.run(
        [sys.executable, "-P", "-c", FORK],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "parent and child are apart\n", "")
