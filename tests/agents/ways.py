"""Runs inside a host of tests/rig.py: receives what pacer.py sends all the while, in each of the ways to do so.

Each receiver has a thread of its own. Owns these ways, and what came in each. Must not judge: the test does.
"""

import asyncio
import contextlib
import logging
import os
import selectors
import socket
import struct
import threading
import time

import commands

import multicast

PAYLOAD = struct.Struct("!IQQ")
SHORT = 0.05  # seconds: a timeout of which many pass
consumers = {}
log = []


class Log(logging.Handler):
    def emit(self, record):
        log.append(record.getMessage())


class Consumer:
    """A receiver, and the thread that receives from it: by the method that is the way's name."""

    def __init__(self, way, receiver):
        self.receiver = receiver
        self.came, self.late, self.woken, self.spurious = [], [], 0, 0
        self.ended, self.over, self.stop = None, False, receiver.close
        self.changed = threading.Condition()
        self.begun = threading.Event()
        self.thread = threading.Thread(target=self.run, args=[getattr(self, way)])
        self.thread.start()
        self.begun.wait(10)

    def run(self, way):
        try:
            way()
        except Exception as error:
            self.ended = [type(error).__name__, getattr(error, "errno", None), str(error)]
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def take(self, batch):
        with self.changed:
            self.came += [PAYLOAD.unpack(view) for view in batch]
            self.changed.notify_all()

    def since(self, numbers, stamp, seconds):
        """Wait until each of these feeds brought something sent since then; return all that came since the last call"""
        deadline = time.monotonic() + seconds
        missing, seen = set(numbers), 0
        with self.changed:
            while True:
                missing -= {number for number, _, sent in self.came[seen:] if sent >= stamp}
                seen = len(self.came)
                if not missing:
                    break
                if self.over or not self.changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"of the feeds {sorted(missing)} nothing came; {self.state()}")
            came, self.came = self.came, []
        return came

    def state(self):
        stats = self.receiver.stats()
        return {
            "links_lost": stats.links_lost,
            "rejoins": stats.rejoins,
            "drops": stats.drops,
            "memberships": [each.as_dict() for each in self.receiver.memberships],
            "late": self.late,
            "woken": self.woken,
            "spurious": self.spurious,
            "ended": self.ended,
        }

    # The ways

    def blocked(self):
        self.begun.set()
        while True:
            self.take(self.receiver.recv_batch(None))

    def timeout(self):
        self.begun.set()
        while True:
            begin = time.monotonic()
            try:
                self.take(self.receiver.recv_batch(SHORT))
            except TimeoutError:
                self.late.append(time.monotonic() - begin - SHORT)

    def iteration(self):
        self.begun.set()
        for batch in self.receiver:
            self.take(batch)

    spinning = blocked

    def poller(self):
        with multicast.Poller([self.receiver]) as poller:
            self.begun.set()
            for _, batch in poller:
                self.take(batch)

    def never_empty(self):
        """Receive only when more is queued than one batch takes: so that no receive ever has to wait."""
        self.begun.set()
        while not self.receiver.closed:
            if self.receiver.stats().queued:
                self.take(self.receiver.recv_batch(0))
            else:
                time.sleep(0.001)

    def ask(self):
        """Receive once, as somebody does whom a descriptor has woken."""
        self.woken += 1
        try:
            batch = self.receiver.recv_batch(0)
        except BlockingIOError:
            self.spurious += 1
        else:
            self.take(batch)

    def selector(self):
        near, far = socket.socketpair()
        with near, far, selectors.DefaultSelector() as waiting:
            waiting.register(self.receiver, selectors.EVENT_READ)
            waiting.register(near, selectors.EVENT_READ)
            self.stop = far.close
            self.begun.set()
            while near not in [key.fileobj for key, _ in waiting.select()]:
                self.ask()

    def add_reader(self):
        async def run():
            loop, stopped = asyncio.get_running_loop(), asyncio.Event()
            self.stop = lambda: loop.call_soon_threadsafe(stopped.set)
            loop.add_reader(self.receiver.fileno(), self.ask)
            self.begun.set()
            await stopped.wait()
            loop.remove_reader(self.receiver.fileno())

        asyncio.run(run())

    def async_for(self):
        async def run():
            self.begun.set()
            async for batch in self.receiver:
                self.take(batch)

        asyncio.run(run())


def do_open(name, way, group, port, options, joins):
    receiver = multicast.open_receiver(group, port, **options)
    for arguments in joins:
        receiver.join(*arguments)
    consumers[name] = Consumer(way, receiver)


def do_since(name, numbers, stamp, seconds):
    return consumers[name].since(numbers, stamp, seconds)


def do_state(name):
    return consumers[name].state()


def do_log():
    said = log[:]
    log.clear()
    return said


def do_descriptors():
    return len(os.listdir("/proc/self/fd"))


def do_close(name):
    """Have it end, by closing the receiver where nothing else wakes it; return how it ended."""
    each = consumers.pop(name)
    with contextlib.closing(each.receiver):
        each.stop()
        each.thread.join(10)
        assert not each.thread.is_alive(), "it goes on"
    return each.ended


logging.getLogger("multicast").addHandler(Log())
logging.getLogger("multicast").propagate = False
commands.serve(globals(), [multicast.BACKEND, multicast.__file__])
for name in list(consumers):
    do_close(name)
