"""Scenario: one field of every datagram read in Python, which is the sequence number of MoldUDP64.

Owns the ways to read it, each in the loop that it is measured against without the reading. Must not believe a way that
reads anything else: the last number of a queue has to be right.
"""

from __future__ import annotations

import contextlib
import random
import time

import contenders
import machine
import style
from goals import at_most, unmeasured

from multicast import bench
from multicast._arguments import slot_size
from multicast._moldudp64 import HEADER, SEQUENCE, SEQUENCE_AT
from multicast.bench import Contender, NotMeasuredError, Queue, in_a_loop, in_batches, one_by_one, viewing_each

TITLE = "the sequence number of every datagram (MoldUDP64: 8 bytes at 10): what reading adds, ns a datagram"
BATCHES = (16, 64, 256)
COUNT, SIZE = 512, 200  # datagrams in a queue, bytes of each
FIELD = slice(SEQUENCE_AT, SEQUENCE_AT + SEQUENCE.size)
EACH, ARRAY = "of each view", "of a batch"


# Ways to read. Each is the loop of multicast.bench with the reading in it; `found` gets the last numbers, untimed. ---


def by_struct(receiver, count, found):
    unpack, at, clock = SEQUENCE.unpack_from, SEQUENCE_AT, time.perf_counter_ns

    def drain():
        left = count
        begin = clock()
        for batch in receiver:
            for view in batch:
                (number,) = unpack(view, at)
            left -= len(batch)
            if left <= 0:
                break
        taken = clock() - begin
        found.append(number)
        return taken

    return drain


def by_slice(receiver, count, found):
    from_bytes, field, clock = int.from_bytes, FIELD, time.perf_counter_ns

    def drain():
        left = count
        begin = clock()
        for batch in receiver:
            for view in batch:
                number = from_bytes(view[field], "big")
            left -= len(batch)
            if left <= 0:
                break
        taken = clock() - begin
        found.append(number)
        return taken

    return drain


def record():
    """Return numpy's type of a slot that has the field at its place."""
    import numpy as np

    size = slot_size(contenders.SLOT)
    return np.dtype({"names": ["sequence"], "formats": [">u8"], "offsets": [SEQUENCE_AT], "itemsize": size})


def by_numpy(receiver, count, found):
    """An array over the batch itself, of what is at one place in each slot."""
    import numpy as np

    layout, frombuffer, clock = record(), np.frombuffer, time.perf_counter_ns

    def drain():
        left = count
        begin = clock()
        for batch in receiver:
            numbers = frombuffer(batch, layout)["sequence"]
            left -= len(batch)
            if left <= 0:
                break
        taken = clock() - begin
        found.append(int(numbers[-1]))
        return taken

    return drain


def by_numpy_copied(receiver, count, found):
    """The same, and the numbers copied out in the machine's own order: an array to keep."""
    import numpy as np

    layout, own, frombuffer, clock = record(), np.dtype(np.uint64), np.frombuffer, time.perf_counter_ns

    def drain():
        left = count
        begin = clock()
        for batch in receiver:
            numbers = frombuffer(batch, layout)["sequence"].astype(own)
            left -= len(batch)
            if left <= 0:
                break
        taken = clock() - begin
        found.append(int(numbers[-1]))
        return taken

    return drain


def by_numpy_of_memory(receiver, count, found, memory):
    """A slice of an array that was made once, over memory that the receiver was given: one block, so it starts there.

    The numbers are good until the batch is let go.
    """
    import numpy as np

    sequence = np.frombuffer(memory, record())["sequence"]
    recv_batch, clock = receiver.recv_batch, time.perf_counter_ns

    def drain():
        left = count
        begin = clock()
        while left > 0:
            batch = recv_batch()
            numbers = sequence[: len(batch)]
            left -= len(batch)
            del batch
        taken = clock() - begin
        found.append(int(numbers[-1]))
        return taken

    return drain


def one_by_one_by_struct(sock, count, found):
    unpack, at, clock, buffer = SEQUENCE.unpack_from, SEQUENCE_AT, time.perf_counter_ns, bytearray(contenders.SLOT)
    recv_into = sock.recv_into

    def drain():
        begin = clock()
        for _ in range(count):
            recv_into(buffer)
            (number,) = unpack(buffer, at)
        taken = clock() - begin
        found.append(number)
        return taken

    return drain


# The scenario ------------------------------------------------------------------------------------------------------

WAYS = {  # name of a way: the loop that it is measured against
    "struct.unpack_from(view)": "a view of each",
    "int.from_bytes(view[10:18])": "a view of each",
    "numpy over each batch": "for batch in rx",
    "numpy, copied out": "for batch in rx",
    "numpy over memory of one's own": "batch by batch, into memory of one's own",
}
STDLIB, STDLIB_READ = "socket.recv_into", "socket.recv_into and struct"


def run(settings):
    payloads = random.Random(settings.seed)
    datagrams = [
        HEADER.pack(b"0123456789", number, 1) + payloads.randbytes(SIZE - HEADER.size) for number in range(1, COUNT + 1)
    ]
    found = {}  # of each contender that reads: the last number of each queue
    with machine.pinned(), contextlib.ExitStack() as closing:
        queue = closing.enter_context(Queue(datagrams))
        taking_part = list(everybody(queue, found))
        rounds = settings.rounds(100)
        times = bench.take_turns(taking_part, bench.rounds(rounds), settings.seed)
    check(found)
    return {"count": COUNT, "size": SIZE, "rounds": rounds, "times": times, "absent": contenders.absent()}


def check(found):
    """Raise NotMeasuredError where a way did not read what was sent."""
    for name, numbers in found.items():
        if set(numbers) != {COUNT}:
            raise NotMeasuredError(f"{name} read {sorted(set(numbers) - {COUNT})}, and {COUNT} was sent")


def everybody(queue, found):
    """Give all contenders, as `found` gets to know what those that read have read."""
    count, arrays = queue.count, "numpy" not in contenders.absent()
    for size in BATCHES if contenders.NATIVE else ():

        def opened(size=size, **options):
            return queue.open(batch_size=size, datagram_size=contenders.SLOT, **options)

        def reading(way, size=size):
            return found.setdefault(of_batch(way, size), [])

        yield Contender(of_batch("for batch in rx", size), queue, in_a_loop(opened(), count))
        yield Contender(of_batch("a view of each", size), queue, viewing_each(opened(), count))
        struct_way, slice_way, numpy_way, copied_way, memory_way = WAYS
        ways = [(struct_way, by_struct), (slice_way, by_slice)]
        ways += [(numpy_way, by_numpy), (copied_way, by_numpy_copied)] * arrays
        for way, drain in ways:
            yield Contender(of_batch(way, size), queue, drain(opened(), count, reading(way)))
        if arrays:
            memory = bytearray(size * slot_size(contenders.SLOT))
            receiver = opened(memory=memory)
            yield Contender(of_batch(WAYS[memory_way], size), queue, in_batches(receiver, count))
            drain = by_numpy_of_memory(receiver, count, reading(memory_way), memory)
            yield Contender(of_batch(memory_way, size), queue, drain)
    sock = queue.socket
    yield Contender(STDLIB, queue, one_by_one(sock.recv_into, count, bytearray(contenders.SLOT)))
    yield Contender(STDLIB_READ, queue, one_by_one_by_struct(sock, count, found.setdefault(STDLIB_READ, [])))


def of_batch(name, size):
    """Return what a contender of ours is called."""
    return f"native, {name}, {size}"


def added(result):
    """Return what reading adds: {way: {batch size: Spread}}, the socket module's without a batch size."""
    times, found = result["times"], {}
    for way, loop in WAYS.items():
        sizes = [size for size in BATCHES if of_batch(way, size) in times]
        found[way] = {size: bench.on_top(times, of_batch(way, size), of_batch(loop, size)) for size in sizes}
    return found, bench.on_top(times, STDLIB_READ, STDLIB)


def show(result):
    ours, theirs = added(result)
    lines = [f"{result['count']} datagrams of {result['size']} bytes in the queue, {result['rounds']} rounds"]
    lines += [
        bench.table(result["times"], STDLIB_READ),
        "",
        f"{'what reading adds, ns a datagram; quartiles':48}batches of",
    ]
    for way, sizes in ours.items():
        for size, (median, low, high) in sizes.items():
            lines.append(f"{way:48}{size:>10}{median:>10.1f}   {low:.1f} to {high:.1f}")
    median, low, high = theirs
    lines.append(f"{STDLIB_READ:48}{'':>10}{median:>10.1f}   {low:.1f} to {high:.1f}")
    lines += [f"\nnot taking part: {name}: {why}" for name, why in result["absent"].items() if name != "spead2"]
    return "\n".join(lines)


def goals(result):
    ours, _ = added(result)
    found = []
    for way in ("numpy over memory of one's own", "numpy over each batch"):
        for size in BATCHES[1:]:
            name = f"fields: {way}, batches of {size}, on top"
            if size in ours[way]:
                found.append(at_most(name, 5, ours[way][size], "ns"))
            else:
                found.append(unmeasured(name, "at most 5 ns", "no native backend, or no numpy"))
    return found


def plot(result, figure):
    """What reading adds, by the size of a batch."""
    ours, theirs = added(result)
    size = BATCHES[1]
    values = {f"native, {way}": sizes[size] for way, sizes in ours.items() if size in sizes}
    axes = figure.subplots()
    style.bars(axes, values | {STDLIB_READ: theirs}, "ns a datagram on top of receiving, and quartiles")
    axes.set_title(f"Reading one field of every datagram, batches of {size}")
