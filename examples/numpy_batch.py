"""Look at every packet of a MoldUDP64 feed with numpy, a batch at a time: gaps, and messages by type.

numpy_batch.py [GROUP PORT INTERFACE]
"""

import signal
import sys

import numpy as np

import multicast

GROUP, PORT, INTERFACE = sys.argv[1:] or ["239.255.64.5", "5000", "lo"]
PACKET = np.dtype([("session", "S10"), ("sequence", ">u8"), ("count", ">u2"), ("length", ">u2"), ("type", "u1")])
END = 0xFFFF

expected, packets, gaps, missing, types = 0, 0, 0, 0, np.zeros(256, int)
with multicast.open_receiver(GROUP, int(PORT), interface=INTERFACE) as rx:
    signal.signal(signal.SIGINT, lambda *_: rx.close())
    for batch in rx:
        # A row a datagram, over the memory that the kernel wrote: nothing is copied yet.
        slots = np.frombuffer(batch, np.uint8).reshape(len(batch), -1)
        rows = slots[:, : PACKET.itemsize].view(PACKET)[:, 0]
        rows = rows[(rows["count"] > 0) & (rows["count"] != END) & (np.asarray(batch.lengths) >= PACKET.itemsize)]
        if not len(rows):
            continue  # heartbeats
        starts = rows["sequence"].astype(np.int64)
        due = np.maximum.accumulate(np.concatenate([[expected or starts[0]], starts + rows["count"]]))
        steps = starts - due[:-1]
        for row in np.flatnonzero(steps > 0):
            print(f"gap: {starts[row] - steps[row]} to {starts[row] - 1}")
        gaps, missing = gaps + np.count_nonzero(steps > 0), missing + steps[steps > 0].sum()
        expected, packets = due[-1], packets + len(rows)
        types += np.bincount(rows["type"], minlength=256)  # of the first message of each packet
print(f"{packets} packets, {gaps} gaps, {missing} messages missing")
print(", ".join(f"{chr(kind)}: {types[kind]}" for kind in np.flatnonzero(types)))
