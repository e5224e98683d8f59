"""Scenario: what a datagram costs with more of everything: groups, receivers in a thread, batch, datagram, slot.

Owns the points that are measured. Must not compare points of different rounds.
"""

from __future__ import annotations

import contextlib
import random
import time

import bare_c
import contenders
import groups
import machine
import style
from goals import at_most, unmeasured

import multicast
from multicast import bench
from multicast.bench import Contender, Queue, in_batches, one_by_one

TITLE = "cost against groups, receivers in one thread, sizes of batch, datagram and slot: ns a datagram"
RECEIVERS = (1, 2, 4, 8, 16, 32, 64)
SHARED = 4_096  # datagrams, in the queues of however many receivers: a batch for each of the most
BATCHES = tuple(2**power for power in range(11))
SIZES = (64, 128, 256, 512, 1_024, 2_048, 4_096, 9_000)
SLOTS = (256, 512, 1_024, 2_048, 4_096, 9_216)
COUNT, SIZE, BATCH = 256, 200, 64
OURS = multicast.BACKEND


class Several:
    """Queues that are filled and emptied as one."""

    def __init__(self, queues):
        self.queues = queues
        self.count = sum(queue.count for queue in queues)

    def fill(self):
        for queue in self.queues:
            queue.fill()

    def left(self):
        found = [queue.left() for queue in self.queues]  # each is asked: what is left in one is taken out
        return any(found)


def turn_by_turn(receivers, count):
    """Ask each receiver in turn for what is there."""
    calls, clock = [receiver.recv_batch for receiver in receivers], time.perf_counter_ns

    def drain():
        left = count
        begin = clock()
        while left > 0:
            for recv_batch in calls:
                left -= len(recv_batch(0))
        return clock() - begin

    return drain


def by_poller(poller, count):
    """Have the poller say who has something, and receive it."""
    clock = time.perf_counter_ns

    def drain():
        left = count
        begin = clock()
        for _, batch in poller:
            left -= len(batch)
            if left <= 0:
                break
        return clock() - begin

    return drain


def of_receivers(datagrams, closing):
    poller = getattr(multicast, "Poller", None)
    for number in RECEIVERS:
        share = datagrams[: SHARED // number]
        several = Several([closing.enter_context(Queue(share)) for _ in range(number)])
        opened = [queue.open(batch_size=BATCH) for queue in several.queues]
        yield Contender(f"{OURS}, recv_batch(0) {number}", several, turn_by_turn(opened, SHARED))
        if poller is not None:
            waiting = closing.enter_context(poller(opened, timeout=0))
            yield Contender(f"{OURS}, Poller {number}", several, by_poller(waiting, SHARED))


def of_batches(datagrams, closing):
    queue = closing.enter_context(Queue(datagrams))
    for size in BATCHES:
        yield Contender(f"C recvmmsg {size}", queue, bare_c.recvmmsg(queue, size))
        yield Contender(f"{OURS} {size}", queue, in_batches(queue.open(batch_size=size), queue.count))


def of_sizes(payloads, closing):
    for size in SIZES:
        queue = closing.enter_context(Queue([payloads.randbytes(size) for _ in range(COUNT)]))
        slot = max(size, contenders.SLOT)
        yield Contender(f"C recvmmsg {size}", queue, bare_c.recvmmsg(queue, BATCH, slot))
        receiver = queue.open(batch_size=BATCH, datagram_size=slot)
        yield Contender(f"{OURS} {size}", queue, in_batches(receiver, queue.count))
        one_call = one_by_one(queue.socket.recv_into, queue.count, bytearray(slot))
        yield Contender(f"socket.recv_into {size}", queue, one_call)


def of_slots(datagrams, closing):
    queue = closing.enter_context(Queue(datagrams))
    for slot in SLOTS:
        yield Contender(f"C recvmmsg {slot}", queue, bare_c.recvmmsg(queue, BATCH, slot))
        receiver = queue.open(batch_size=BATCH, datagram_size=slot)
        yield Contender(f"{OURS} {slot}", queue, in_batches(receiver, queue.count))


def run(settings):
    payloads = random.Random(settings.seed)
    many = [payloads.randbytes(SIZE) for _ in range(SHARED)]
    parts = {"groups": groups.measure(settings)}
    with machine.pinned():
        for name, usual, how, taking_part in (
            ("receivers", 60, {"fillings": 1, "warm_up": 2}, lambda closing: of_receivers(many, closing)),
            ("batches", 40, {}, lambda closing: of_batches(many[: max(BATCHES)], closing)),
            ("sizes", 60, {}, lambda closing: of_sizes(payloads, closing)),
            ("slots", 60, {}, lambda closing: of_slots(many[:COUNT], closing)),
        ):
            rounds = settings.rounds(usual)
            with contextlib.ExitStack() as closing:
                turns = bench.rounds(rounds, how.get("warm_up", bench.WARM_UP))
                times = bench.take_turns(list(taking_part(closing)), turns, settings.seed, **how)
            parts[name] = {"rounds": rounds, "times": times}
    return parts


# What is shown -----------------------------------------------------------------------------------------------------

PARTS = {
    "groups": "groups joined by one receiver",
    "receivers": "receivers in one thread, each with a queue",
    "batches": "datagrams in a batch, at most",
    "sizes": "bytes of a datagram",
    "slots": f"bytes kept of a datagram of {SIZE}",
}


def curves(times):
    """Return the times of each contender by the number at the end of its name."""
    found = {}
    for name, each in times.items():
        who, _, number = name.rpartition(" ")
        found.setdefault(who, {})[int(number)] = each
    return found


def against_first(points):
    """Return each point's cost where that of the first one in the same round is 1."""
    first = next(iter(points.values()))
    return {
        number: bench.spread(own / theirs for own, theirs in zip(each, first, strict=True))
        for number, each in points.items()
    }


def show(result):
    lines = []
    for part, title in PARTS.items():
        found = result[part]
        if "left_out" in found:
            lines.append(f"\n{title}: left out: {found['left_out']}")
            continue
        lines.append(f"\n{title}, {found['rounds']} rounds: ns a datagram; against the first, quartiles")
        for who, points in curves(found["times"] | found.get("sending", {})).items():
            for number, cost in against_first(points).items():
                median = bench.spread(points[number]).median
                lines.append(f"{who:36}{number:>7,}{median:>11,.1f}   {cost[0]:.3f}  {cost[1]:.3f} to {cost[2]:.3f}")
    return "\n".join(lines)


GOALS = (("groups", OURS, 1_000), ("receivers", f"{OURS}, recv_batch(0)", 64), ("receivers", f"{OURS}, Poller", 64))


def goals(result):
    found = []
    for part, who, number in GOALS:
        name = f"scale: {number:,} {part} against 1, {who}"
        points = curves(result[part].get("times", {})).get(who)
        if points:
            found.append(at_most(name, 1.1, against_first(points)[number]))
        else:
            found.append(unmeasured(name, "at most 1.1", result[part].get("left_out", "there is none")))
    return found


def plot(result, figure):
    """A picture for each of what there is more of."""
    figure.set_size_inches(9.5, 10)
    pictures = list(figure.subplots(3, 2).flat)
    for axes, (part, title) in zip(pictures, PARTS.items(), strict=False):
        axes.set_title(title)
        if "left_out" in result[part]:
            continue
        points = {
            who: {number: bench.spread(times) for number, times in each.items()}
            for who, each in curves(result[part]["times"]).items()
        }
        style.curves(axes, points, max(map(list, points.values()), key=len))
        axes.set_ylabel("ns a datagram")
    for axes in pictures[len(PARTS) :]:
        axes.set_axis_off()
