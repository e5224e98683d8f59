"""How long it takes to empty a queue of datagrams: both backends, the socket module, and bare C, in one run.

A queue on the loopback interface (TTL 0) is filled, then one contender empties it and is timed; then the next. The
contenders take turns for many rounds, and each one is compared with bare C's recvmmsg of the same round.

    python3 dev.py bench [--rounds 400] [--count 256] [--size 200] [--batch 64] [--datagram-size 2048] [--json]
"""

import argparse
import ctypes
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import multicast
from multicast import _skt_py

GROUP, PORT = "239.255.64.65", 47_064
HERE = pathlib.Path(__file__).parent


def compiled_c():
    """Compile the C beside this file and load it."""
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder) / "drain.so"
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, HERE / "drain.c"], check=True)
        loaded = ctypes.CDLL(str(library))
    for function in (loaded.drain_recvmmsg, loaded.drain_recv):
        function.restype = ctypes.c_longlong
    return loaded


class Queue:
    """A bound and joined socket that can be filled with datagrams."""

    def __init__(self, count, size):
        self.receiver = multicast.open_receiver(GROUP, PORT, interface="lo", receive_buffer=64 << 20, exclusive=True)
        self.socket = self.receiver.socket
        self.sender = multicast.open_sender(GROUP, PORT, interface="lo", ttl=0)
        self.datagrams = [os.urandom(size) for _ in range(count)]

    def fill(self):
        left = self.datagrams
        while left:
            left = left[self.sender.send_batch(left) :]

    def empty(self):
        """Whether nothing is left: a contender that stopped early would be too fast."""
        try:
            self.receiver.recv_batch(0)
        except BlockingIOError:
            return True
        return False


def contenders(queue, count, batch, datagram_size):
    """Name, and a function that empties the queue and returns the ns it took."""
    c = compiled_c()
    slot = multicast._arguments.slot_size(datagram_size)
    fd = queue.socket.fileno()
    buffer = bytearray(datagram_size)
    options = {"batch_size": batch, "datagram_size": datagram_size, "timeout": 0}

    def in_c(function):
        def drain():
            taken = function(fd, count, batch, datagram_size, slot)
            if taken < 0:
                raise OSError(-taken, os.strerror(-taken))
            return taken

        return drain

    def in_batches(receiver):
        """Each batch is let go before the next is received, so one block of memory serves them all, as in C."""
        recv_batch = receiver.recv_batch

        def drain():
            left = count
            begin = time.perf_counter_ns()
            while left > 0:
                left -= len(recv_batch())
            return time.perf_counter_ns() - begin

        return drain

    def holding_the_last(receiver):
        """The variable of a for loop holds a batch while the next is received: two blocks take turns."""

        def drain():
            left = count
            begin = time.perf_counter_ns()
            for received in receiver:
                left -= len(received)
                if left <= 0:
                    break
            return time.perf_counter_ns() - begin

        return drain

    def looking_at_each(receiver):
        """The same, with a view made of every datagram."""

        def drain():
            left = count
            begin = time.perf_counter_ns()
            for received in receiver:
                for _ in received:
                    left -= 1
                if left <= 0:
                    break
            return time.perf_counter_ns() - begin

        return drain

    def one_by_one(receive):
        def drain():
            begin = time.perf_counter_ns()
            for _ in range(count):
                receive(buffer)
            return time.perf_counter_ns() - begin

        return drain

    found = {
        "C recvmmsg": in_c(c.drain_recvmmsg),
        "C recv": in_c(c.drain_recv),
        "socket.recv_into": one_by_one(queue.socket.recv_into),
        "socket.recvfrom_into": one_by_one(queue.socket.recvfrom_into),
    }
    # Each on a duplicate of the one socket, so that all empty the same queue.
    if multicast.BACKEND == "native":
        found["native"] = in_batches(multicast.Receiver(queue.socket.dup(), **options))
        found["native, for loop"] = holding_the_last(multicast.Receiver(queue.socket.dup(), **options))
        found["native, each view"] = looking_at_each(multicast.Receiver(queue.socket.dup(), **options))
    found["stdlib backend"] = in_batches(_skt_py.Receiver(queue.socket.dup(), **options))
    return found


def measure(count, size, batch, datagram_size, rounds):
    """Let the contenders take turns; return each one's times in ns a datagram."""
    queue = Queue(count, size)
    found = contenders(queue, count, batch, datagram_size)
    times = {name: [] for name in found}
    order = list(found)
    for turn in range(rounds + 5):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            queue.fill()
            taken = found[name]() / count
            if not queue.empty():
                raise SystemExit(f"{name} left datagrams behind")
            if turn >= 5:  # the first ones warm up
                times[name].append(taken)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--count", type=int, default=256, help="datagrams in the queue (256: within the caches)")
    parser.add_argument("--size", type=int, default=200, help="bytes of a datagram")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--datagram-size", type=int, default=2048, help="bytes of a slot")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    times = measure(given.count, given.size, given.batch, given.datagram_size, given.rounds)
    reference = times["C recvmmsg"]
    rows = {
        name: {
            "median_ns": round(statistics.median(each), 1),
            "best_ns": round(min(each), 1),
            # Of the same turn: what slows the machine down for a while slows both.
            "of_c_recvmmsg": round(statistics.median(c / own for c, own in zip(reference, each, strict=True)), 3),
        }
        for name, each in times.items()
    }
    where = f"{platform.machine()}, Linux {platform.release()}, CPython {platform.python_version()}"
    if given.json:
        print(json.dumps({"machine": where, "arguments": vars(given), "results": rows}))
        return 0
    print(
        f"{where}; {given.count} datagrams of {given.size} bytes, "
        f"batches of {given.batch} in slots of {given.datagram_size}, {given.rounds} rounds\n"
    )
    print(f"{'ns a datagram':24}{'median':>10}{'best':>10}{'of C recvmmsg':>16}")
    for name, row in rows.items():
        print(f"{name:24}{row['median_ns']:>10}{row['best_ns']:>10}{row['of_c_recvmmsg']:>16}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
