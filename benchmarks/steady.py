"""Scenario: what Python allocates for each batch once everything has settled.

Owns the counting: of blocks that stay (sys.getallocatedblocks), and of every call of an allocator, also for what is
gone again at once. Must not count what filling a queue takes.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time

import compiler
import machine
import style
from goals import at_most, unmeasured

import multicast
from multicast import bench
from multicast.bench import Queue, in_a_loop, in_batches, viewing_each

TITLE = "what Python allocates in the steady state"
BATCHES = 100_000
BATCH, COUNT, SIZE = 2, 256, 200  # many small batches: it is them that count, not their datagrams
SETTLED = 20  # fillings that don't count
WAYS = {
    "batch by batch": (in_batches, {}),
    "batch by batch, all columns kept": (in_batches, {"columns": multicast.COLUMNS, "timestamps": "software"}),
    "for batch in rx": (in_a_loop, {}),
    "a view of each": (viewing_each, {}),
}


def run(settings):
    library = compiler.loaded("allocations.c", ctypes.PyDLL)
    library.counting_end.restype = ctypes.c_longlong
    batches = BATCHES // 10 if settings.quick else BATCHES
    found = {}
    with machine.pinned():
        for name, (way, options) in WAYS.items():
            with contextlib.ExitStack() as closing:
                queue = closing.enter_context(Queue([bytes(SIZE)] * COUNT))
                drain = way(queue.open(batch_size=BATCH, **options), COUNT)
                found[name] = counted(queue, drain, batches, library)
    return {"backend": multicast.BACKEND, "batch": BATCH, "batches": batches, "found": found}


def counted(queue, drain, batches, library):
    """Return allocations over so many batches: those that stay, and all."""
    for _ in range(SETTLED):
        queue.fill()
        drain()
    fillings = -(-batches * BATCH // COUNT)
    stay = calls = 0
    for _ in range(fillings):
        queue.fill()
        stay += staying(drain) - staying(nothing)
        if queue.left():
            raise bench.NotMeasuredError("it left datagrams behind")
        queue.fill()
        calls += calling(drain, library) - calling(nothing, library)
    return {"batches": fillings * COUNT // BATCH, "stay": stay, "calls": calls}


def nothing():
    """Do what every drain does beside receiving: what is counted for it is the counting's own."""
    clock = time.perf_counter_ns
    begin = clock()
    return clock() - begin


def staying(function):
    before = sys.getallocatedblocks()
    function()
    return sys.getallocatedblocks() - before


def calling(function, library):
    library.counting_begin()
    function()
    return library.counting_end()


def show(result):
    lines = [f"{result['backend']} backend, batches of {result['batch']}"]
    lines.append(f"{'':36}{'batches':>10}{'stay':>8}{'calls':>10}{'stay a batch':>16}{'calls a batch':>16}")
    for name, each in result["found"].items():
        batches, stay, calls = each["batches"], each["stay"], each["calls"]
        lines.append(f"{name:36}{batches:>10,}{stay:>8,}{calls:>10,}{stay / batches:>16.5f}{calls / batches:>16.3f}")
    return "\n".join(lines)


def goals(result):
    called, staying_on = "steady: allocations, batch by batch", "steady: allocations that stay, whatever is looked at"
    if result["backend"] != "native":
        return [unmeasured(name, "at most 0 a batch", "no native backend") for name in (called, staying_on)]
    calls = [each["calls"] / each["batches"] for name, each in result["found"].items() if name.startswith("batch by")]
    stay = [abs(each["stay"]) / each["batches"] for each in result["found"].values()]
    return [at_most(name, 0, [max(most)] * 3, "a batch") for name, most in ((called, calls), (staying_on, stay))]


def plot(result, figure):
    axes = figure.subplots()
    values = {f"native, {name}": [each["calls"] / each["batches"]] * 3 for name, each in result["found"].items()}
    style.bars(axes, values, f"allocations a batch of {result['batch']} datagrams", "{:,.2f}")
    axes.set_title("What Python allocates; nothing of it stays")
