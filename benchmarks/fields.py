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

TITLE = "the sequence number of every datagram (MoldUDP64: 8 bytes at 10): what reading takes, ns a datagram"
BATCHES = (16, 64, 256)
COUNT, SIZE = 512, 200  # datagrams in a queue, bytes of each
FIELD = slice(SEQUENCE_AT, SEQUENCE_AT + SEQUENCE.size)


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


# The reading alone: what it takes of a batch that has just come, between two looks at the clock. A difference of whole
# loops is of the receiving, too, and that varies by more than reading takes.


def timed(receiver, count, read, found):
    recv_batch, clock = receiver.recv_batch, time.perf_counter_ns

    def drain():
        spent, left = 0, count
        while left > 0:
            batch = recv_batch()
            begin = clock()
            numbers = read(batch)
            spent += clock() - begin
            left -= len(batch)
            del batch
        if numbers is not None:
            found.append(numbers if isinstance(numbers, int) else int(numbers[-1]))
        return spent

    return drain


def reading_nothing(batch):
    """Take as long as a call and two looks at the clock."""


def reading_views(batch):
    for _ in batch:
        pass


def reading_by_struct(batch, unpack=SEQUENCE.unpack_from, at=SEQUENCE_AT):
    for view in batch:
        (number,) = unpack(view, at)
    return number


def reading_by_slice(batch, from_bytes=int.from_bytes, field=FIELD):
    for view in batch:
        number = from_bytes(view[field], "big")
    return number


def readers_by_numpy(memory):
    """Give the ways of numpy: name, and the function."""
    import numpy as np

    layout, own, frombuffer = record(), np.dtype(np.uint64), np.frombuffer
    sequence = frombuffer(memory, layout)["sequence"]
    yield ARRAY, lambda batch: frombuffer(batch, layout)["sequence"]
    yield COPIED, lambda batch: frombuffer(batch, layout)["sequence"].astype(own)
    yield OWN_ARRAY, lambda batch: sequence[: len(batch)]


# The scenario ------------------------------------------------------------------------------------------------------

NOTHING = "native, nothing read"
STDLIB, STDLIB_READ = "socket.recv_into", "socket.recv_into and struct"
STRUCT, SLICED = "native, struct.unpack_from(view)", "native, int.from_bytes(view[10:18])"
ARRAY, COPIED, OWN_ARRAY = "native, numpy over each batch", "native, numpy, copied out", "native, numpy over own memory"
VIEWS = "native, a view of each"
WAYS = {VIEWS: NOTHING, STRUCT: VIEWS, SLICED: VIEWS, ARRAY: NOTHING, COPIED: NOTHING, OWN_ARRAY: NOTHING}  # on top of


def run(settings):
    payloads = random.Random(settings.seed)
    datagrams = [
        HEADER.pack(b"0123456789", number, 1) + payloads.randbytes(SIZE - HEADER.size) for number in range(1, COUNT + 1)
    ]
    found = {}  # of each contender that reads: the last number of each queue
    times, reading, rounds = {}, {}, settings.rounds(100)
    with machine.pinned(), contextlib.ExitStack() as closing:
        queue = closing.enter_context(Queue(datagrams))
        # A few ns are to be told apart: who is compared takes turns with few others, so that little time lies between.
        for size in BATCHES if contenders.NATIVE else BATCHES[1:2]:
            few = [*of_the_socket_module(queue, found)]
            if contenders.NATIVE:
                few += of_batches(queue, size, found)
            times[str(size)] = bench.take_turns(few, bench.rounds(rounds), settings.seed)
            if contenders.NATIVE:
                few = [*of_the_reading(queue, size, found)]
                reading[str(size)] = bench.take_turns(few, bench.rounds(rounds), settings.seed)
    check(found)
    named = {"count": COUNT, "size": SIZE, "rounds": rounds, "absent": contenders.absent()}
    return named | {"times": times, "reading": reading}


def check(found):
    """Raise NotMeasuredError where a way did not read what was sent."""
    for name, numbers in found.items():
        if numbers and set(numbers) != {COUNT}:
            raise NotMeasuredError(f"{name} read {sorted(set(numbers) - {COUNT})}, and {COUNT} was sent")


def of_batches(queue, size, found):
    """Give ours for one size of batches; `found` gets to know what those that read have read."""
    count, arrays = queue.count, "numpy" not in contenders.absent()

    def opened(**options):
        return queue.open(batch_size=size, datagram_size=contenders.SLOT, **options)

    yield Contender("native, for batch in rx", queue, in_a_loop(opened(), count))
    yield Contender(VIEWS, queue, viewing_each(opened(), count))
    ways = [(STRUCT, by_struct), (SLICED, by_slice)]
    ways += [(ARRAY, by_numpy), (COPIED, by_numpy_copied)] * arrays
    for way, drain in ways:
        yield Contender(way, queue, drain(opened(), count, found.setdefault(way, [])))
    if arrays:
        memory = bytearray(size * slot_size(contenders.SLOT))
        receiver = opened(memory=memory)
        yield Contender("native, batch by batch, own memory", queue, in_batches(receiver, count))
        drain = by_numpy_of_memory(receiver, count, found.setdefault(OWN_ARRAY, []), memory)
        yield Contender(OWN_ARRAY, queue, drain)


def of_the_reading(queue, size, found):
    """Give the ways to read a batch of one size, each timed alone."""
    memory = bytearray(size * slot_size(contenders.SLOT))
    ways = {NOTHING: reading_nothing, VIEWS: reading_views, STRUCT: reading_by_struct, SLICED: reading_by_slice}
    if "numpy" not in contenders.absent():
        ways |= dict(readers_by_numpy(memory))
    for way, read in ways.items():
        own = {"memory": memory} if way == OWN_ARRAY else {}
        receiver = queue.open(batch_size=size, datagram_size=contenders.SLOT, **own)
        drain = timed(receiver, queue.count, read, found.setdefault(f"{way}, timed", []))
        yield Contender(way, queue, drain)


def of_the_socket_module(queue, found):
    receive, count = queue.socket.recv_into, queue.count
    yield Contender(STDLIB, queue, one_by_one(receive, count, bytearray(contenders.SLOT)))
    yield Contender(STDLIB_READ, queue, one_by_one_by_struct(queue.socket, count, found.setdefault(STDLIB_READ, [])))


def added(result):
    """Return what reading adds: {batch size: {way: Spread}}."""
    return {
        int(size): {way: bench.on_top(times, way, other) for way, other in WAYS.items() if way in times}
        for size, times in result["reading"].items()
    }


def show(result):
    lines = [f"{result['count']} datagrams of {result['size']} bytes in the queue, {result['rounds']} rounds"]
    for size, times in result["times"].items():
        lines += [f"\nbatches of {size}:", bench.table(times, STDLIB)]
    lines.append(f"\n{'what reading takes, ns a datagram; quartiles':44}batches of")
    for size, ways in added(result).items():
        for way, (median, low, high) in ways.items():
            lines.append(f"{way:44}{size:>10}{median:>10.1f}   {low:.1f} to {high:.1f}")
    lines += [f"\nnot taking part: {name}: {why}" for name, why in result["absent"].items() if name != "spead2"]
    return "\n".join(lines)


def goals(result):
    found, added_by = [], added(result)
    for way in (OWN_ARRAY, ARRAY):
        for size in BATCHES[1:]:
            name = f"fields: {way}, batches of {size}, on top"
            if way in added_by.get(size, {}):
                found.append(at_most(name, 5, added_by[size][way], "ns"))
            else:
                found.append(unmeasured(name, "at most 5 ns", "no native backend, or no numpy"))
    return found


def plot(result, figure):
    """What reading adds, with batches of the usual size."""
    axes = figure.subplots()
    style.bars(axes, added(result)[BATCHES[1]], "ns a datagram on top of receiving, and quartiles")
    axes.set_title(f"Reading one field of every datagram, batches of {BATCHES[1]}")
