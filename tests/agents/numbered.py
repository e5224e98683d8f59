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

import multicast
from __main__ import receivers, senders

DATAGRAM = struct.Struct("!BQ")
TURN = 64  # datagrams, or trains, that are sent until each stream has had its turn

tallies = {}


# Sending -----------------------------------------------------------------------------------------------------------


def do_send_numbered(port, streams, first, count, train=1):
    """Send `count` datagrams of each stream, from the one with the number `first` on, in turns.

    train: how many the kernel takes at once, to be taken apart where they are received (`Sender.send_batch`)
    """
    turn = max(1, TURN // len(streams)) * train
    for start in range(first, first + count, turn):
        numbers = range(start, min(start + turn, first + count))
        for stream, *where in streams:
            sending = outlet(port, *where, segmentation=train > 1)
            payloads = [DATAGRAM.pack(stream, number) for number in numbers]
            at_once = train if train > 1 else len(payloads)
            for at in range(0, len(payloads), at_once):
                sending.send_batch(payloads[at : at + at_once])


def outlet(port, source, to, interface=None, ttl=1, segmentation=False):
    """What sends from an own address, through the interface that has it unless another one is named."""
    key = port, source, to, interface, ttl, segmentation
    if key not in senders:
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if ipaddress.ip_address(to).is_multicast:
            multicast.set_multicast_interface(sock, interface or source)
            multicast.set_multicast_ttl(sock, ttl)
        sock.bind((source, 0))
        sock.connect((to, port))
        senders[key] = multicast.Sender(sock, segmentation=segmentation)
    return senders[key]


def do_move(cpu):
    """Run on any CPU, or on the one at this place among those that this process may have."""
    os.sched_setaffinity(0, range(os.cpu_count()))
    if cpu is not None:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[cpu]})


# Receiving ---------------------------------------------------------------------------------------------------------


class Tally:
    """What came of each stream: how many, the number of the last, how many are missing before it, and what was odd."""

    def __init__(self):
        self.streams = {}
        self.drops = 0  # the last of the column
        self.behind = []  # the least and the most by which this column was behind the numbers missing so far

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
            missing.append(sum(each["missing"] for each in self.streams.values()))
        if stamped:
            drops = batch.drops.tolist()
            if [self.drops, *drops] != sorted([self.drops, *drops]):
                raise AssertionError(f"the column of drops goes back: {self.drops}, then {drops}")
            self.drops = drops[-1]
            behind = [lost - stamp for lost, stamp in zip(missing, drops, strict=True)]
            self.behind = [min([*behind, *self.behind]), max([*behind, *self.behind])]

    def told(self):
        return {"streams": self.streams, "drops": self.drops, "behind": self.behind}


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
    tally, receiver = tally_of(name), receivers[name]
    drops = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        stats = receiver.stats()
        if stats.drops < max(drops, tally.drops):
            raise AssertionError(f"stats().drops goes back: {drops} and in the column {tally.drops}, then {stats}")
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
