"""What comes later than a call begins: a datagram, a close, Ctrl-C; and a thread that waits in a receiver or a poller.

Owns how long a test waits for what should come. What waits says how it ended.
"""

from __future__ import annotations

import signal
import threading
import time

import pytest

DEADLINE = 20  # seconds after which what should have come has not


def rounds(multicast, native, stdlib):
    return native if multicast.BACKEND == "native" else stdlib


def later(seconds, call, *arguments):
    thread = threading.Timer(seconds, call, arguments)
    thread.start()
    return thread


def interrupted(call, seconds):
    """Make a call that ends by Ctrl-C alone, which comes after so long: within the call, but on the busiest machine."""
    thread = threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        call()
    thread.join()


class Waiting(threading.Thread):
    """A thread that waits in a call, of which there is one at a time; it says how it ended.

    - ask: the same without waiting, which is refused once the thread is inside
    """

    def __init__(self, wait, ask):
        super().__init__()
        self.wait, self.ask, self.ended = wait, ask, []
        self.about_to = threading.Event()
        self.start()
        self.about_to.wait(DEADLINE)

    def run(self):
        self.about_to.set()
        while not self.ended:
            try:
                self.ended.append(self.wait())
            except RuntimeError:  # the one who asks whether this is inside was, just then
                continue
            except Exception as error:
                self.ended.append(error)

    def result(self):
        self.join(DEADLINE)
        assert not self.is_alive(), "nothing woke it"
        (ended,) = self.ended
        return ended

    def wait_until_inside(self):
        """Return what it is refused with, who asks now."""
        deadline = time.monotonic() + DEADLINE
        while True:
            assert time.monotonic() < deadline
            try:
                self.ask()
            except BlockingIOError:
                continue
            except RuntimeError as error:
                return str(error)


class Polling(Waiting):
    """A thread that waits in `poll`, or that iterates."""

    def __init__(self, poller, *, iterating=False):
        came = []

        def iterate():
            came.extend(poller)
            return came

        super().__init__(iterate if iterating else lambda: poller.poll(None), lambda: poller.poll(0))


class Receiving(Waiting):
    """A thread that waits in `recv_batch`."""

    def __init__(self, rx, **options):
        super().__init__(lambda: rx.recv_batch(**options), lambda: rx.recv_batch(0))
