"""Commands for agents/host.py: streams of numbered datagrams, sent by the thousand, and a tally of what came of each.

A datagram is the number of its stream (a byte) and its own in the stream (8 bytes). Owns no judgement: what a tally has
to be, the test says. Must not keep what came, only count it.
"""

import contextlib
import ipaddress
import os
import select
import socket
import struct
import sys
import time
from __main__ import receivers, senders

import multicast

DATAGRAM = struct.Struct("!BQ")
TURN = 8  # datagrams of one stream that are sent before the next one has its turn

tallies = {}


# Sending -----------------------------------------------------------------------------------------------------------


def do_send_numbered(port, streams, first, count):
    """Send `count` datagrams of each stream, from the one with the number `first` on, in turns."""
    for start in range(first, first + count, TURN):
        numbers = range(start, min(start + TURN, first + count))
        for stream, *where in streams:
            outlet(port, *where).send_batch([DATAGRAM.pack(stream, number) for number in numbers])


def do_send_trains(port, streams, first, count):
    for start in range(first, first + count, 4096):
        for stream, *where in streams:
            out = outlet(port, *where)
            out.socket.setsockopt(17, 103, 9)
            out.send_batch([b"".join([DATAGRAM.pack(stream, number) for number in range(s, min(s+64, first+count))]) for s in range(start, min(start+4096, first+count), 64)])


def outlet(port, source, to, interface=None, ttl=1):
    """What sends from an own address, through the interface that has it unless another one is named."""
    if (port, source, to, interface, ttl) not in senders:
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if ipaddress.ip_address(to).is_multicast:
            multicast.set_multicast_interface(sock, interface or source)
            multicast.set_multicast_ttl(sock, ttl)
        sock.bind((source, 0))
        sock.connect((to, port))
        senders[port, source, to, interface, ttl] = multicast.Sender(sock)
    return senders[port, source, to, interface, ttl]


# Receiving ---------------------------------------------------------------------------------------------------------


class Tally:
    """What came of each stream: how many, the number of the last, how many are missing before it, and what was odd."""

    def __init__(self):
        self.streams = {}
        # Of the column of drops: the least and the most by which it was behind the numbers missing so far; the last.
        self.behind = []
        self.drops = 0

    def add(self, batch, stamped):
        missing = []
        for view in batch:
            stream, number = DATAGRAM.unpack(view)
            came = self.streams.get(stream)
            if came is None:
                came = self.streams[stream] = {"came": 0, "last": -1, "missing": 0, "not in order": 0}
            came["came"] += 1
            if number > came["last"]:
                came["missing"] += number - came["last"] - 1
                came["last"] = number
            else:
                came["not in order"] += 1
            missing.append(came["missing"])
        if stamped:
            drops = batch.drops.tolist()
            behind = [lost - stamp for lost, stamp in zip(missing, drops, strict=True)]
            if [self.drops, *drops] != sorted([self.drops, *drops]):
                raise AssertionError(f"the column of drops goes back: {self.drops}, then {drops}")
            self.drops = drops[-1]
            self.behind = [min([*behind, *self.behind]), max([*behind, *self.behind])]

    def told(self):
        return {"streams": self.streams, "behind": self.behind, "drops": self.drops}


def tally_of(name):
    return tallies.setdefault(name, Tally())


def do_tally(name, last, seconds, stamped=False):
    """Receive until of each of these streams this number came; tell what came since the receiver was opened."""
    tally = tally_of(name)
    deadline = time.monotonic() + seconds
    wanted = {int(stream): number for stream, number in last.items()}
    while wanted:
        try:
            tally.add(receivers[name].recv_batch(timeout=max(0.001, deadline - time.monotonic())), stamped)
        except TimeoutError as error:
            raise TimeoutError(error.errno, f"{wanted} did not come; {tally.told()}; {error}") from None
        wanted = {
            stream: number
            for stream, number in wanted.items()
            if tally.streams.get(stream, {"last": -1})["last"] < number
        }
    return tally.told()


def do_be_overrun(name, stamped=False):
    """Receive at less than half the rate at which it comes, until told that it is enough; then what is queued.

    A batch is received once the kernel has dropped twice as many datagrams as were received: on a machine of any speed.
    """
    os.sched_setaffinity(0, range(os.cpu_count()))
    tally, receiver = tally_of(name), receivers[name]
    drops = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        stats = receiver.stats()
        if stats.drops < drops:
            raise AssertionError(f"stats().drops goes back: {drops}, then {stats.drops}")
        drops = stats.drops
        if drops > 2 * stats.datagrams:
            with contextlib.suppress(BlockingIOError):
                tally.add(receiver.recv_batch(timeout=0), stamped)
    sys.stdin.readline()
    return do_drain(name, stamped)


def do_drain(name, stamped=False):
    """Receive what is there."""
    tally = tally_of(name)
    while True:
        try:
            tally.add(receivers[name].recv_batch(timeout=0), stamped)
        except BlockingIOError:
            return tally.told()
