"""Receive a feed, say each second how it goes, and end cleanly on Ctrl-C or SIGTERM.

receive.py [GROUP PORT INTERFACE]
"""

import signal
import sys
import threading

import multicast

GROUP, PORT, INTERFACE = sys.argv[1:] or ["239.255.64.1", "5000", "lo"]


def report(rx, ended):
    """Print what the last second brought, from a thread of its own: the one that receives isn't kept from it."""
    before = rx.stats()
    while not ended.wait(1):
        now = rx.stats()
        datagrams, batches = now.datagrams - before.datagrams, now.batches - before.batches
        print(
            f"{datagrams} datagrams/s, {(now.bytes - before.bytes) * 8 / 1e6:.1f} Mbit/s, "
            f"{datagrams / max(1, batches):.1f} a batch, {now.drops or 0} dropped, {now.queued or 0} bytes queued"
        )
        before = now


with multicast.open_receiver(GROUP, int(PORT), interface=INTERFACE, receive_buffer=8 << 20) as rx:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: rx.close())  # ends the loop below
    ended = threading.Event()
    threading.Thread(target=report, args=(rx, ended), daemon=True).start()
    for _batch in rx:
        pass  # your decoder, for each view in the batch: bytes(view) is what you may keep for long
    ended.set()
    stats = rx.stats()
    print(f"received {stats.datagrams} datagrams, {stats.bytes} bytes; {stats.drops} dropped by this host")
