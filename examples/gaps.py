"""Find the gaps of a MoldUDP64 feed, and tell what this host dropped from what was lost before it.

gaps.py [GROUP PORT INTERFACE]
"""

import signal
import struct
import sys

import multicast

HEADER = struct.Struct(">10sQH")  # session, sequence number of the first message, number of messages
END = 0xFFFF
GROUP, PORT, INTERFACE = sys.argv[1:] or ["239.255.64.10", "5000", "lo"]

here = before = 0  # messages lost
expected, known = {}, 0
with multicast.open_receiver(GROUP, int(PORT), interface=INTERFACE, columns="drops") as rx:
    signal.signal(signal.SIGINT, lambda *_: rx.close())
    for batch in rx:
        for view, drops in zip(batch, batch.drops, strict=True):
            session, sequence, count = HEADER.unpack_from(view)
            missing = sequence - expected.get(session, sequence)
            if missing > 0:
                # The kernel stamps each datagram with what it had dropped until then: datagrams, not messages.
                dropped = drops - known
                print(f"gap: {sequence - missing} to {sequence - 1}, ", end="")
                if dropped:
                    print(f"{dropped} datagrams dropped by this host: a larger receive_buffer, a faster reader")
                else:
                    print("lost before this host's socket: ask for retransmission, look at the card and the network")
                here, before = here + missing * (dropped > 0), before + missing * (dropped == 0)
            expected[session] = max(expected.get(session, 0), sequence + (count if count != END else 0))
            known = drops
print(f"messages lost by this host: {here}, before it: {before}")
