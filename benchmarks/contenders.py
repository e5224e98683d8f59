"""Who takes part where a filled queue is emptied, by what the kernel is asked to tell of each datagram.

Owns the queues, which have the same datagrams, and the contenders of each; the first one of each is bare C, which the
others are measured against. What the socket's options cost is paid by all who read from it, so each set of options has
a queue of its own. Must not measure.
"""

from __future__ import annotations

import contextlib
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import bare_c

import multicast
from multicast import _skt_py, bench
from multicast._columns import COLUMNS, Wanted
from multicast.bench import Contender, Queue, in_a_loop, in_batches, one_by_one, viewing_each

NATIVE = multicast.BACKEND == "native"
SLOT = 2048  # bytes: what `datagram_size` is unless said otherwise

PAYLOAD, TOLD, ALL, TRAINS = bench.PAYLOAD, bench.METADATA, "all", "trains"
TITLES = {
    PAYLOAD: bench.TITLES[bench.PAYLOAD],
    TOLD: bench.TITLES[bench.METADATA],
    ALL: f"all that columns can keep told: {', '.join(COLUMNS)} and timestamp",
    TRAINS: "sent as trains (UDP_SEGMENT), and received as such where it says GRO",
}
ABSENT = {"spead2": "it takes heaps of the SPEAD protocol alone, in threads of its own: not the same work"}


class Settled(NamedTuple):
    """What all contenders have to work with."""

    datagrams: list[bytes]
    batch: int
    slot: int


def everybody(settled: Settled, closing: contextlib.ExitStack) -> dict[str, list[Contender]]:
    """Return the contenders for the same datagrams, by what they are told."""
    return {
        PAYLOAD: [*of_payload(settled, closing), *others(settled, closing)],
        TOLD: list(of_told(settled, closing)),
        ALL: list(of_all(settled, closing)),
    }


def of_payload(settled: Settled, closing: contextlib.ExitStack) -> Iterator[Contender]:
    """Give those on a socket of which nothing more was asked."""
    queue = closing.enter_context(Queue(settled.datagrams))
    count, buffer = queue.count, bytearray(settled.slot)
    options = {"batch_size": settled.batch, "datagram_size": settled.slot}
    yield Contender("C recvmmsg", queue, bare_c.recvmmsg(queue, settled.batch, settled.slot))
    yield Contender("C recvmmsg, sources", queue, bare_c.recvmmsg(queue, settled.batch, settled.slot, names=True))
    yield Contender("C recv", queue, bare_c.recv(queue, settled.slot))
    if NATIVE:
        yield Contender("native, batch by batch", queue, in_batches(queue.open(**options), count))
        yield Contender("native, for batch in rx", queue, in_a_loop(queue.open(**options), count))
        yield Contender("native, a view of each", queue, viewing_each(queue.open(**options), count))
        sourced = queue.open(**options, columns=["source"])
        yield Contender("native, sources kept", queue, in_batches(sourced, count))
    yield Contender("socket.recv_into", queue, one_by_one(queue.socket.recv_into, count, buffer))
    yield Contender("socket.recvfrom_into", queue, one_by_one(queue.socket.recvfrom_into, count, buffer))
    twin = queue.open(_skt_py.Receiver, **options)
    yield Contender("stdlib backend, batch by batch", queue, in_batches(twin, count))


def of_told(settled: Settled, closing: contextlib.ExitStack) -> Iterator[Contender]:
    """Give those that keep source, group, interface and timestamp."""
    queue = closing.enter_context(Queue(settled.datagrams))
    room = control_size(queue, bench.TOLD)
    options = {"batch_size": settled.batch, "datagram_size": settled.slot}
    options |= {"columns": bench.TOLD, "timestamps": "software"}
    bare = bare_c.recvmmsg(queue, settled.batch, settled.slot, names=True, control=room)
    yield Contender("C recvmmsg, told", queue, bare)
    if NATIVE:
        yield Contender("native, kept", queue, in_batches(queue.open(**options), queue.count))
        yield Contender("native, kept and looked at", queue, looking_at_each(queue.open(**options), queue.count))
    receive = queue.socket.recvmsg_into
    yield Contender("socket.recvmsg_into", queue, one_by_one(receive, queue.count, [bytearray(settled.slot)], room))


def of_all(settled: Settled, closing: contextlib.ExitStack) -> Iterator[Contender]:
    """Give those that keep all columns."""
    queue = closing.enter_context(Queue(settled.datagrams))
    room = control_size(queue, COLUMNS)
    options = {"batch_size": settled.batch, "datagram_size": settled.slot}
    options |= {"columns": COLUMNS, "timestamps": "software"}
    bare = bare_c.recvmmsg(queue, settled.batch, settled.slot, names=True, control=room)
    yield Contender("C recvmmsg, all told", queue, bare)
    if NATIVE:
        yield Contender("native, all kept", queue, in_batches(queue.open(**options), queue.count))
        if reading := by_numpy(queue.open(**options), queue.count):
            yield Contender("native, all kept, by numpy", queue, reading)
    receive = queue.socket.recvmsg_into
    all_of_it = one_by_one(receive, queue.count, [bytearray(settled.slot)], room)
    yield Contender("socket.recvmsg_into, all told", queue, all_of_it)
    twin = queue.open(_skt_py.Receiver, **options)
    yield Contender("stdlib backend, all kept", queue, in_batches(twin, queue.count))


def of_trains(settled: Settled, closing: contextlib.ExitStack) -> Iterator[Contender]:
    """Give those that receive what was sent as trains: whole, or as the datagrams that they are made of."""
    apart = closing.enter_context(Queue(settled.datagrams, trains=True))
    whole = closing.enter_context(Queue(settled.datagrams, trains=True))
    room = Wanted((), None, True, False, "bench").enable(whole.socket, "bench")
    options = {"batch_size": settled.batch, "gro": True}
    bare = bare_c.recvmmsg(whole, settled.batch, control=room, trains=True)
    yield Contender("C recvmmsg, GRO", whole, bare)
    if NATIVE:
        yield Contender("native, GRO", whole, in_batches(whole.open(**options), whole.count))
        yield Contender("native, GRO, a view of each", whole, viewing_each(whole.open(**options), whole.count))
    receive = apart.socket.recv_into
    yield Contender("socket.recv_into, no GRO", apart, one_by_one(receive, apart.count, bytearray(settled.slot)))


def others(settled: Settled, closing: contextlib.ExitStack) -> Iterator[Contender]:
    """Give other packages that can do the same work; those that can't be had are in `absent`."""
    try:
        import multicast_expert
    except ImportError:
        return
    with bench.joined_socket() as probe:
        port = probe.getsockname()[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        receiver = multicast_expert.McastRxSocket(
            socket.AF_INET, mcast_ips=[bench.GROUP], port=port, iface=bench.INTERFACE, blocking=False
        )
        closing.enter_context(receiver)
    queue = closing.enter_context(Queue(settled.datagrams, sock=receiver.sockets[0]))
    yield Contender("multicast_expert.recvfrom", queue, one_by_one(receiver.recvfrom, queue.count))


def absent() -> dict[str, str]:
    """Return who does not take part, and why."""
    found = dict(ABSENT)
    for name in ("multicast_expert", "numpy"):
        try:
            __import__(name)
        except ImportError as error:
            found[name] = str(error)
    if not NATIVE:
        found["native backend"] = multicast.BACKEND_REASON
    return found


def control_size(queue: Queue, columns: tuple[str, ...]) -> int:
    """Have the kernel tell columns and timestamps; return the bytes that control messages then need."""
    return Wanted(columns, "software", False, False, "bench").enable(queue.socket, "bench")


def looking_at_each(receiver, count: int) -> Callable[[], int]:
    """In batches, and of each datagram the time and the source as Python objects."""
    recv_batch, clock = receiver.recv_batch, time.perf_counter_ns

    def drain() -> int:
        left = count
        begin = clock()
        while left > 0:
            batch = recv_batch()
            source = batch.source
            for i, _ in enumerate(batch.timestamps):
                source(i)
            left -= len(batch)
            del batch, source
        return clock() - begin

    return drain


def by_numpy(receiver, count: int) -> Callable[[], int] | None:
    """In batches, and of each batch the columns as arrays."""
    try:
        from numpy import asarray
    except ImportError:
        return None
    recv_batch, clock = receiver.recv_batch, time.perf_counter_ns

    def drain() -> int:
        left = count
        begin = clock()
        while left > 0:
            batch = recv_batch()
            asarray(batch.lengths)
            asarray(batch.timestamps)
            asarray(batch.source_addresses)
            asarray(batch.source_ports)
            asarray(batch.destination_addresses)
            asarray(batch.interfaces)
            asarray(batch.ttls)
            asarray(batch.tos)
            asarray(batch.drops)
            left -= len(batch)
            del batch
        return clock() - begin

    return drain
