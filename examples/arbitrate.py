"""Arbitrate lines A and B of a MoldUDP64 feed: each packet once, in order, from whichever line brings it first.

arbitrate.py [GROUP PORT INTERFACE (of line A) GROUP PORT INTERFACE (of line B)]
"""

import contextlib
import signal
import struct
import sys
import time

import multicast

HEADER = struct.Struct(">10sQH")  # session, sequence number of the first message, number of messages
HEARTBEAT, END = 0, 0xFFFF  # numbers of messages that mean something else
HOLD = 0.05  # seconds that the other line has to fill a gap
FEEDS = sys.argv[1:] or ["239.255.64.3", "5000", "lo", "239.255.64.4", "5000", "lo"]

A, B = (multicast.open_receiver(group, int(port), interface=name) for group, port, name in (FEEDS[:3], FEEDS[3:]))
first, won, lost, early, behind = None, {A: 0, B: 0}, 0, {}, None
ending = []
signal.signal(signal.SIGINT, lambda *_: ending.append(True))
with A, B, multicast.Poller([A, B]) as poller:
    while not ending:
        for rx in poller.poll(timeout=HOLD):
            with contextlib.suppress(BlockingIOError):
                for view in rx.recv_batch(timeout=0):
                    _, sequence, count = HEADER.unpack_from(view)
                    first = sequence if first is None else first
                    if count not in (HEARTBEAT, END) and sequence >= first:  # else the other line was first
                        early.setdefault(sequence, (rx, count, bytes(view)))
        if behind is not None and time.monotonic() - behind > HOLD:
            print(f"lost on both lines: {first} to {min(early) - 1}")
            lost, first = lost + min(early) - first, min(early)
        while first in early:
            rx, count, packet = early.pop(first)  # your decoder gets the packet here
            won[rx], first, behind = won[rx] + 1, first + count, None
        behind = (behind or time.monotonic()) if early else None  # since when there has been this gap
print(f"first on A: {won[A]}, first on B: {won[B]}; messages lost on both: {lost}")
