"""How long it takes to empty a queue of datagrams: both backends, the socket module, and bare C, in one run.

A queue on the loopback interface (TTL 0) is filled, then one contender empties it and is timed; then the next. The
contenders take turns for many rounds, and each one is compared with bare C's recvmmsg of the same round.

There are two queues: one of the datagrams alone, and one of a socket whose kernel tells all that `columns` and
`timestamps="software"` can keep (options are a socket's, so whoever reads from it pays for them). Each is measured
against bare C that receives the same from the same socket.

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
from multicast import _columns, _skt_py

GROUP, PORT, PORT_OF_TOLD = "239.255.64.65", 47_064, 47_065
HERE = pathlib.Path(__file__).parent
NAME_SIZE = 16  # struct sockaddr_in
PLAIN, TOLD = "C recvmmsg", "C recvmmsg, all told"  # what the others are measured against


def compiled_c():
    """Compile the C beside this file and load it."""
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder) / "drain.so"
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, HERE / "drain.c"], check=True)
        loaded = ctypes.CDLL(str(library))
    loaded.block_new.restype = ctypes.c_void_p
    loaded.drain_recvmmsg.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_int
    for function in (loaded.drain_recvmmsg, loaded.drain_recv):
        function.restype = ctypes.c_longlong
    return loaded


class Queue:
    """A bound and joined socket that can be filled with datagrams; `told`: of which the kernel tells all it can."""

    def __init__(self, port, told, count, size):
        self.receiver = multicast.open_receiver(GROUP, port, interface="lo", receive_buffer=64 << 20, exclusive=True)
        self.socket = self.receiver.socket
        self.fd = self.socket.fileno()
        self.sender = multicast.open_sender(GROUP, port, interface="lo", ttl=0)
        self.datagrams = [os.urandom(size) for _ in range(count)]
        self.control_size = 0
        if told:
            wanted = _columns.Wanted(_columns.COLUMNS, "software", False, False, "bench")
            self.control_size = wanted.enable(self.socket, "bench")

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


# Each makes a function that takes `count` datagrams out of a queue and returns the ns that it took.


def in_c(function, *arguments):
    def drain():
        taken = function(*arguments)
        if taken < 0:
            raise OSError(-taken, os.strerror(-taken))
        return taken

    return drain


def in_batches(receiver, count):
    """Each batch is let go before the next is received, so one block of memory serves them all, as in C."""
    recv_batch = receiver.recv_batch

    def drain():
        left = count
        begin = time.perf_counter_ns()
        while left > 0:
            left -= len(recv_batch())
        return time.perf_counter_ns() - begin

    return drain


def holding_the_last(receiver, count):
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


def looking_at_each(receiver, count):
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


def reading_columns(receiver, count):
    """In batches, of each datagram the time and the source."""
    recv_batch = receiver.recv_batch

    def drain():
        left = count
        begin = time.perf_counter_ns()
        while left > 0:
            received = recv_batch()
            source = received.source
            for i, _ in enumerate(received.timestamps):
                source(i)
            left -= len(received)
            del received, source
        return time.perf_counter_ns() - begin

    return drain


def one_by_one(count, receive, *arguments):
    def drain():
        begin = time.perf_counter_ns()
        for _ in range(count):
            receive(*arguments)
        return time.perf_counter_ns() - begin

    return drain


def contenders(plain, told, count, batch, datagram_size):
    """Name, queue, and the function that empties it. Each receiver has a duplicate of its queue's one socket."""
    c = compiled_c()
    slot = multicast._arguments.slot_size(datagram_size)
    buffer = bytearray(datagram_size)
    options = {"batch_size": batch, "datagram_size": datagram_size, "timeout": 0}
    all_columns = options | {"columns": _columns.COLUMNS, "timestamps": "software"}
    block = c.block_new(batch, datagram_size, slot, 0, 0)
    block_of_told = c.block_new(batch, datagram_size, slot, NAME_SIZE, told.control_size)
    if not block or not block_of_told:
        raise MemoryError

    yield PLAIN, plain, in_c(c.drain_recvmmsg, block, plain.fd, count)
    yield "C recv", plain, in_c(c.drain_recv, plain.fd, count, datagram_size)
    yield "socket.recv_into", plain, one_by_one(count, plain.socket.recv_into, buffer)
    yield "socket.recvfrom_into", plain, one_by_one(count, plain.socket.recvfrom_into, buffer)
    if multicast.BACKEND == "native":
        ways = {"": in_batches, ", for loop": holding_the_last, ", each view": looking_at_each}
        for name, way in ways.items():
            yield f"native{name}", plain, way(multicast.Receiver(plain.socket.dup(), **options), count)
    yield "stdlib backend", plain, in_batches(_skt_py.Receiver(plain.socket.dup(), **options), count)

    yield TOLD, told, in_c(c.drain_recvmmsg, block_of_told, told.fd, count)
    yield "socket.recvmsg_into", told, one_by_one(count, told.socket.recvmsg_into, [buffer], told.control_size)
    if multicast.BACKEND == "native":
        for name, way in {"": in_batches, ", read": reading_columns}.items():
            receiver = multicast.Receiver(told.socket.dup(), **all_columns)
            yield f"native, all columns{name}", told, way(receiver, count)
    yield "stdlib, all columns", told, in_batches(_skt_py.Receiver(told.socket.dup(), **all_columns), count)


def measure(count, size, batch, datagram_size, rounds):
    """Let the contenders take turns; return each one's times in ns a datagram, for each queue."""
    plain, told = Queue(PORT, False, count, size), Queue(PORT_OF_TOLD, True, count, size)
    found = list(contenders(plain, told, count, batch, datagram_size))
    times = {queue: {name: [] for name, own, _ in found if own is queue} for queue in (plain, told)}
    for turn in range(rounds + 5):
        start = turn % len(found)
        for name, queue, drain in found[start:] + found[:start]:
            queue.fill()
            taken = drain() / count
            if not queue.empty():
                raise SystemExit(f"{name} left datagrams behind")
            if turn >= 5:  # the first ones warm up
                times[queue][name].append(taken)
    return times[plain], times[told]


def rows(times, reference, column):
    """The figures of each contender."""
    return {
        name: {
            "median_ns": round(statistics.median(each), 1),
            "best_ns": round(min(each), 1),
            # Of the same turn: what slows the machine down for a while slows both.
            column: round(statistics.median(c / own for c, own in zip(times[reference], each, strict=True)), 3),
        }
        for name, each in times.items()
    }


def show(found, title):
    print(f"\n{'ns a datagram':28}{'median':>10}{'best':>10}{title:>20}")
    for name, row in found.items():
        median, best, ratio = row.values()
        print(f"{name:28}{median:>10}{best:>10}{ratio:>20}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--count", type=int, default=256, help="datagrams in the queue (256: within the caches)")
    parser.add_argument("--size", type=int, default=200, help="bytes of a datagram")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--datagram-size", type=int, default=2048, help="bytes of a slot")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    plain, told = measure(given.count, given.size, given.batch, given.datagram_size, given.rounds)
    plain, told = rows(plain, PLAIN, "of_c_recvmmsg"), rows(told, TOLD, "of_c_all_told")
    where = f"{platform.machine()}, Linux {platform.release()}, CPython {platform.python_version()}"
    if given.json:
        print(json.dumps({"machine": where, "arguments": vars(given), "results": plain, "results_told": told}))
        return 0
    print(
        f"{where}; {given.count} datagrams of {given.size} bytes, "
        f"batches of {given.batch} in slots of {given.datagram_size}, {given.rounds} rounds"
    )
    show(plain, "of C recvmmsg")
    show(told, "of C, all told")
    return 0


if __name__ == "__main__":
    sys.exit(main())
