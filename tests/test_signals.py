"""Signals whose handlers raise, or close: nothing is swallowed, nothing stays locked, nothing is lost on the way."""

import errno
import signal
import socket
import subprocess
import sys

import pytest
from net import python_environment


class Boom(Exception):
    """What a handler raises here."""


@pytest.fixture
def handling():
    """Set a handler for SIGALRM, and a timer that sends it; both are put back."""
    before = signal.getsignal(signal.SIGALRM)

    def handle(handler, seconds, interval=0.0):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds, interval)

    yield handle
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def raising(error):
    def handler(*_):
        raise error

    return handler


@pytest.mark.timeout(60, method="thread")
@pytest.mark.parametrize("error", [Boom(), TimeoutError("alarm"), ValueError("mine")], ids=lambda e: type(e).__name__)
def test_what_a_handler_raises_ends_a_blocked_send(opened, handling, error):
    """Also after some have gone: it is not taken for a failure of the rest."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    opened.closing(far)
    tx = opened.closing(opened.package.Sender(near))
    handling(raising(error), 0.05)
    with pytest.raises(type(error)) as caught:
        tx.send_batch([b"x"] * 5000)
    assert caught.value is error


@pytest.mark.timeout(60, method="thread")
@pytest.mark.parametrize("error", [Boom(), TimeoutError("alarm")], ids=lambda e: type(e).__name__)
def test_what_a_handler_raises_ends_a_blocked_receive(opened, handling, error):
    rx, far = opened.pipe(timeout=None)
    handling(raising(error), 0.05)
    with pytest.raises(type(error)) as caught:
        rx.recv_batch()
    assert caught.value is error
    far.send(b"and goes on")
    assert bytes(rx.recv_batch()[0]) == b"and goes on"


@pytest.mark.parametrize("error", [Boom(), TimeoutError("alarm")], ids=lambda e: type(e).__name__)
def test_what_a_handler_raises_amid_a_batch_costs_no_more_than_the_datagram_at_hand(both, handling, error, monkeypatch):
    """Of the twin, whose batch takes many steps; the native backend runs no handler with datagrams in hand."""
    stdlib = both[1]
    module = stdlib._mmsg_py
    came = module.Came

    def interrupted(*arguments):
        if len(taken) == 2:
            taken.append(None)
            signal.raise_signal(signal.SIGALRM)
        taken.append(None)
        return came(*arguments)

    handling(raising(error), 0)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    taken = []
    with far, stdlib.Receiver(near, timeout=0) as rx:
        for i in range(5):
            far.send(b"%d" % i)
        monkeypatch.setattr(module, "Came", interrupted)
        with pytest.raises(type(error)) as caught:
            rx.recv_batch()
        assert caught.value is error
        assert [bytes(view) for view in rx.recv_batch()] == [b"0", b"1", b"3", b"4"]
        assert rx.stats().datagrams == 4


@pytest.mark.timeout(60, method="thread")
def test_a_handler_may_close(opened, handling):
    for _ in range(20):
        rx, _ = opened.pipe(timeout=None)
        handling(lambda *_, rx=rx: rx.close(), 0.005)
        with pytest.raises(OSError, match="already closed") as caught:
            rx.recv_batch()
        assert caught.value.errno == errno.EBADF
        assert rx.socket.fileno() == -1


AMID = """
import errno, os, signal, socket, sys
import multicast

class Boom(Exception):
    pass

def boom(*_):
    raise Boom

def close(*_):
    rx.close()

what = sys.argv[1]
signal.signal(signal.SIGALRM, boom if what == "raise" else close)
before = os.listdir("/proc/self/fd") if sys.platform == "linux" else ()
for turn in range(300):
    if sys.argv[2] == "healed":
        rx = multicast.open_receiver(
            sys.argv[3], int(sys.argv[4]), interface="lo", timeout=0, silence=0.01, on_silence=lambda _: None
        )
        near, far = rx.socket, rx
    else:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        rx = multicast.Receiver(near, timeout=0)
    number = rx.fileno()
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.00001 * (turn % 50 + 1))
            for _ in range(turn % 40 if sys.argv[2] == "healed" else 200):  # then the alarm may come amid its close
                try:
                    rx.stats()
                    rx.recv_batch()
                except BlockingIOError:
                    pass
            if sys.argv[2] == "healed":
                rx.close()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Boom:
        pass
    except OSError as error:
        assert what == "close" and error.errno == errno.EBADF, error
    if what == "raise" and not rx.closed:
        try:
            rx.recv_batch(0)    # RuntimeError if a claim was left behind
        except BlockingIOError:
            pass
    rx.close()
    assert near.fileno() == -1
    try:
        os.fstat(number)
        raise AssertionError(f"the descriptor is still open: {os.readlink(f'/proc/self/fd/{number}')}, {vars(rx)}")
    except OSError:
        pass
    far.close()
    if before:
        assert os.listdir("/proc/self/fd") == before
print("all let go")
"""


@pytest.mark.parametrize("kind", ["plain", "healed"])
@pytest.mark.parametrize("what", ["raise", "close"])
def test_a_handler_that_comes_amid_a_call_leaves_nothing_locked_and_nothing_open(multicast, feed, what, kind):
    done = subprocess.run(
        [sys.executable, "-P", "-c", AMID, what, kind, *map(str, feed)],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "all let go\n", "")
