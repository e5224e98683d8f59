"""Scenario: how long it takes to empty a queue that was filled beforehand, ns a datagram.

Owns which queues: within the caches and far beyond them, short datagrams and long ones, alone and as trains. Must not
know how anybody empties one.
"""

from __future__ import annotations

import contextlib
import random
import statistics

import contenders
import machine
import style
from contenders import ALL, PAYLOAD, TITLES, TOLD, TRAINS
from goals import at_least, at_most, unmeasured

from multicast import bench

TITLE = "a queue filled beforehand, emptied: ns a datagram"
BATCH = 64
SIZES = (200, 64, 1400)
HOT, COLD, COUPLED = 256, 20_000, 1_024  # datagrams in a queue
ROUNDS = {HOT: (300, 8), COLD: (8, 2), COUPLED: (150, 8)}  # as `Settings.rounds` takes them


def run(settings):
    sizes = SIZES[:1] if settings.quick else SIZES
    with machine.pinned():
        cases = [measure(count, size, settings) for count in (HOT, COLD, COUPLED) for size in sizes]
    return {"batch": BATCH, "slot": contenders.SLOT, "cases": cases, "absent": contenders.absent()}


def measure(count, size, settings):
    """Return the times of all contenders for a queue of so many datagrams of so many bytes."""
    payloads = random.Random(settings.seed)
    settled = contenders.Settled([payloads.randbytes(size) for _ in range(count)], BATCH, contenders.SLOT)
    rounds = settings.rounds(*ROUNDS[count])
    how = {"fillings": 1, "warm_up": 1} if count == COLD else {"fillings": 3, "warm_up": bench.WARM_UP}
    case = {"count": count, "size": size, "rounds": rounds}
    with contextlib.ExitStack() as closing:
        if count == COUPLED:
            groups = {TRAINS: list(contenders.of_trains(settled, closing))}
        else:
            groups = contenders.everybody(settled, closing)
        all_of_them = [each for group in groups.values() for each in group]
        try:
            times = bench.take_turns(all_of_them, bench.rounds(rounds, how["warm_up"]), settings.seed, **how)
        except bench.TooShortError as error:
            if count != COLD:
                raise
            return case | {"left_out": str(error)}
    return case | {"groups": {key: {each.name: times[each.name] for each in group} for key, group in groups.items()}}


def show(result):
    lines = [f"batches of {result['batch']} in slots of {result['slot']} bytes"]
    for case in result["cases"]:
        lines.append(f"\n{case['count']:,} datagrams of {case['size']} bytes in the queue, {case['rounds']} rounds")
        if "left_out" in case:
            lines.append(f"left out: {case['left_out']}")
        for key, times in case.get("groups", {}).items():
            lines += [f"{TITLES[key]}:", bench.table(times, next(iter(times)))]
    lines += [f"\nnot taking part: {name}: {why}" for name, why in result["absent"].items()]
    return "\n".join(lines)


# Goal, what is compared, with what, in which group, at least.
SPEEDS = (
    ("payload, against bare C", "native, batch by batch", "C recvmmsg", PAYLOAD, 0.97),
    ("metadata kept, against bare C", "native, kept", "C recvmmsg, told", TOLD, 0.95),
    ("payload, against recv_into", "native, batch by batch", "socket.recv_into", PAYLOAD, 1.8),
    ("source kept, against recvfrom_into", "native, sources kept", "socket.recvfrom_into", PAYLOAD, 2.5),
    ("metadata kept, against recvmsg_into", "native, kept", "socket.recvmsg_into", TOLD, 2.9),
    ("trains by GRO, against bare C's", "native, GRO", "C recvmmsg, GRO", TRAINS, 0.8),
    ("trains by GRO, against recv_into", "native, GRO", "socket.recv_into, no GRO", TRAINS, 20),
)
VIEWS, LOOP = "native, a view of each", "native, for batch in rx"


def goals(result):
    """Hold what has datagrams of 200 bytes, in the caches, against what is wanted."""
    groups = {}
    for case in result["cases"]:
        if case["size"] == SIZES[0] and case["count"] != COLD:
            groups |= case.get("groups", {})
    found = []
    for name, own, other, key, bound in SPEEDS:
        times = groups.get(key, {})
        if own in times and other in times:
            found.append(at_least(f"drain: {name}", bound, bench.speed(times, own, other)))
        else:
            found.append(unmeasured(f"drain: {name}", f"at least {bound:g}", "no native backend"))
    times = groups.get(PAYLOAD, {})
    if VIEWS in times:
        found.append(at_most("drain: a view of each, on top", 60, bench.on_top(times, VIEWS, LOOP), "ns"))
    else:
        found.append(unmeasured("drain: a view of each, on top", "at most 60 ns", "no native backend"))
    return found


def plot(result, figure):
    """Two pictures side by side: 200 bytes hot and cold, everybody."""
    figure.set_size_inches(9.5, 6.5)
    cases = [case for case in result["cases"] if case["size"] == SIZES[0] and PAYLOAD in case.get("groups", {})]
    for case, axes in zip(cases, figure.subplots(1, len(cases), sharey=True, squeeze=False)[0], strict=True):
        values = {}
        for key in (PAYLOAD, TOLD, ALL):
            values |= {name: bench.spread(each) for name, each in case["groups"][key].items()}
        slowest = max(median for name, (median, _, _) in values.items() if name.startswith("socket."))
        style.bars(axes, values, "ns a datagram, and quartiles", most=1.3 * slowest)
        axes.axvline(statistics.median(case["groups"][PAYLOAD]["C recvmmsg"]), color=style.INK, linewidth=0.5)
        axes.set_title(f"{case['count']:,} datagrams of {case['size']} bytes queued")
