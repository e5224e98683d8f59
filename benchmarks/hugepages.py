"""What huge pages are worth to a receiver: the same datagrams into slots on ordinary pages and on huge ones.

Owns the comparison, of medians of turns taken in one run. Must not send but to the loopback address.

    python benchmarks/hugepages.py [--held 1000] [--size 200]
"""

from __future__ import annotations

import argparse
import collections
import platform
import socket
import statistics
import time

import multicast

AT_ONCE, TURNS = 32, 200  # batches of 64 in a turn; the first third of the turns doesn't count


class Contender:
    """A receiver and what feeds it; it holds its last batches, so that it goes through as many blocks in turn."""

    def __init__(self, hugepages: str | None, held: int) -> None:
        near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        near.bind(("127.0.0.1", 0))
        far.connect(near.getsockname())
        multicast.set_receive_buffer(near, 8 << 20)
        self.receiver, self.sender = multicast.Receiver(near, timeout=5, hugepages=hugepages), multicast.Sender(far)
        self.held: collections.deque[multicast.Batch] = collections.deque(maxlen=held)
        self.found: list[float] = []

    def turn(self, datagrams: list[bytes]) -> None:
        """Fill the queue and empty it."""
        for _ in range(AT_ONCE):
            self.sender.send_batch(datagrams)
        came = 0
        begin = time.perf_counter_ns()
        while came < AT_ONCE * len(datagrams):
            batch = self.receiver.recv_batch()
            came += len(batch)
            self.held.append(batch)
        self.found.append((time.perf_counter_ns() - begin) / came)


def main() -> None:
    """Compare, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--held", type=int, default=1000, help="batches that are held")
    parser.add_argument("--size", type=int, default=200, help="bytes of a datagram")
    given = parser.parse_args()
    contenders = {kind or "ordinary": Contender(kind, given.held) for kind in (None, "transparent")}
    for _ in range(TURNS):
        for contender in contenders.values():
            contender.turn([bytes(given.size)] * 64)
    print(f"{platform.platform()}, CPython {platform.python_version()}, {multicast.BACKEND} backend, batches of 64")
    print(f"{given.held} batches held, datagrams of {given.size} bytes: ns each, median")
    for name, contender in contenders.items():
        stats = contender.receiver.stats()
        median = statistics.median(contender.found[TURNS // 3 :])
        print(f"{name:12} {median:6.0f}   blocks {stats.blocks}, on huge pages {stats.huge_memory}")


if __name__ == "__main__":
    main()
