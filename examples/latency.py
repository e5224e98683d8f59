"""Histogram the latency of a CME MDP 3.0 feed: from the exchange's clock to this kernel, and from there to Python.

latency.py [GROUP PORT INTERFACE]
"""

import collections
import signal
import struct
import sys
import time

import multicast

GROUP, PORT, INTERFACE = sys.argv[1:] or ["239.255.64.11", "5000", "lo"]
HEADER = struct.Struct("<IQ")  # sequence number, sending time in ns since 1970
network, host = collections.Counter(), collections.Counter()  # by powers of two, in ns


def show(title, histogram):
    total, so_far = histogram.total(), 0
    print(f"{title}, {total} datagrams")
    for bits in sorted(histogram):
        so_far += histogram[bits]
        print(f"  < {2**bits / 1000:12.3f} µs {so_far / total:9.3%} {'#' * round(50 * histogram[bits] / total)}")


# Hardware stamps are the card's clock, which has to be disciplined (PTP); software ones are the kernel's.
with multicast.open_receiver(GROUP, int(PORT), interface=INTERFACE, timestamps="software") as rx:
    signal.signal(signal.SIGINT, lambda *_: rx.close())
    for batch in rx:
        now = time.time_ns()  # when Python has the batch
        for view, arrived in zip(batch, batch.timestamps, strict=True):
            _, sent = HEADER.unpack_from(view)
            network[max(0, arrived - sent).bit_length()] += 1  # below 0: the clocks disagree
            host[max(0, now - arrived).bit_length()] += 1
show("exchange to kernel", network)
show("kernel to Python", host)
