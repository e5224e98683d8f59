"""Receive each group in a process of its own, pinned to a CPU, so that no GIL is shared; Ctrl-C or SIGTERM ends all.

processes.py [PORT INTERFACE GROUP...]
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys

import multicast

PORT, INTERFACE, *GROUPS = sys.argv[1:] or ["5000", "lo", "239.255.64.8", "239.255.64.9"]


def receive(group, cpu):
    os.sched_setaffinity(0, {cpu})  # before the receiver is opened: its memory comes from this CPU's node
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent passes on SIGTERM
    with multicast.open_receiver(group, int(PORT), interface=INTERFACE) as rx:
        signal.signal(signal.SIGTERM, lambda *_: rx.close())
        print(f"{group}: on CPU {cpu}")
        for _batch in rx:
            pass  # your decoder, for each view in the batch
        print(f"{group}: {rx.stats().datagrams} datagrams, {rx.stats().drops} dropped")


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")  # a fork would share the parent's receivers, if it had any
    cpus = sorted(os.sched_getaffinity(0))
    children = [context.Process(target=receive, args=(each, cpus[i % len(cpus)])) for i, each in enumerate(GROUPS)]
    for child in children:
        child.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: children[0].terminate())
    multiprocessing.connection.wait([child.sentinel for child in children])  # with one that ends, all end
    for child in children:
        child.terminate()
        child.join()
    sys.exit(max(abs(child.exitcode) for child in children))
