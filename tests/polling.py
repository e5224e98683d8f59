"""What comes later than a call begins: a datagram, a close, Ctrl-C; and a thread that waits in a poller.

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


class Polling(threading.Thread):
    """A thread that waits in `poll`, or that iterates; it says how it ended."""

    def __init__(self, poller, *, iterating=False):
        super().__init__()
        self.poller, self.iterating, self.ended = poller, iterating, []
        self.about_to = threading.Event()
        self.start()
        self.about_to.wait(DEADLINE)

    def run(self):
        self.about_to.set()
        came = []
        while not self.ended:
            try:
                if self.iterating:
                    came.extend(self.poller)
                    self.ended.append(came)
                else:
                    self.ended.append(self.poller.poll(None))
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
        deadline = time.monotonic() + DEADLINE
        while True:
            assert time.monotonic() < deadline
            try:
                self.poller.poll(0)
            except RuntimeError:
                return
