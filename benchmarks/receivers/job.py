"""What a Python receiver of the live scenarios is given, and how it begins, ends and tells.

Owns the words on stdin and stdout: "ready", a line to stop at, and the result. Must not receive.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable

STAMP_AT = 48  # feed.h


class Absent(Exception):
    """This contender can't run here; says why."""


class Job:
    """A bound and joined socket, how to receive from it, and what stops that.

    - sock: a shutdown ends a receive on it that blocks, once the queue is empty
    - control_size: bytes for what the kernel was asked to tell beside each datagram
    - timed: keep each datagram's delay
    """

    def __init__(
        self, fd: int, group: str, port: int, size: int, batch: int, control_size: int, timed: bool, limit: int
    ) -> None:
        signal.alarm(limit)  # whatever happens
        self.sock = socket.socket(fileno=fd)
        self.group, self.port = group, port
        self.size, self.batch, self.control_size, self.timed = size, batch, control_size, timed
        self._stop: list[Callable[[], object]] = []
        self._before = resource.getrusage(resource.RUSAGE_SELF)

    def on_stop(self, call: Callable[[], object]) -> None:
        """Have this called in another thread, once everything is sent and the queue is empty."""
        self._stop.append(call)

    def begin(self) -> None:
        """Say that the feed may come."""
        threading.Thread(target=self._wait, daemon=True).start()
        self._before = resource.getrusage(resource.RUSAGE_SELF)
        print("ready", flush=True)

    def _wait(self) -> None:
        if not sys.stdin.readline():
            os._exit(1)  # nobody is there any more
        for call in self._stop:
            call()

    def tell(self, found: int | list[int]) -> None:
        """Report the datagrams counted, or the delay of each in ns."""
        after = resource.getrusage(resource.RUSAGE_SELF)
        delays = found if isinstance(found, list) else []
        result = {
            "received": len(found) if isinstance(found, list) else found,
            "user": after.ru_utime - self._before.ru_utime,
            "system": after.ru_stime - self._before.ru_stime,
            "delays": delays,
        }
        print(json.dumps(result), flush=True)
