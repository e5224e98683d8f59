"""What comes later than a call begins: a datagram, a close, Ctrl-C.

Owns how long a test waits for what should come.
"""

from __future__ import annotations

import signal
import threading

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
