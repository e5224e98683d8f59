"""The benchmark's short form: a queue of datagrams, emptied in turns by this package and by the socket module.

Owns the queue, the turns and the figures made of them, for the full benchmark, too, which is in benchmarks/ of the
project's repository and needs a compiler. Must keep its traffic in this host: the loopback interface, TTL 0.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import random
import socket
import statistics
import sys
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from . import __version__, skt
from ._columns import Wanted
from ._options_py import memory_of
from .cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ._skt_py import Receiver

    Times = Mapping[str, Sequence[float]]  # of each contender: ns a datagram, round by round

GROUP = "239.255.64.65"  # of the block for use within an organisation (RFC 2365)
INTERFACE = "127.0.0.1"
DATAGRAMS, SIZE, BATCH = 256, 200, 64  # few enough to stay in a processor's caches
TOLD = ("source", "destination", "interface")  # columns; with them, timestamps
WARM_UP, FEWEST = 5, 10  # rounds: not counted, and counted at least
LATE = 1.0  # seconds that the kernel may take to queue what was sent; where it is idle, it is there at once


class NotMeasuredError(RuntimeError):
    """A figure would have been no measure of what it is called."""


class TooShortError(NotMeasuredError):
    """A queue did not hold what it was to be filled with."""


# The queue ---------------------------------------------------------------------------------------------------------


class Queue:
    """A socket that is bound and joined, and the datagrams that it is filled with.

    - datagrams: what one filling is
    - trains: whether they may be sent as trains (UDP_SEGMENT), which `gro=True` then receives as such
    - sock: another socket than one made for it, bound to a port and joined to GROUP; closed with the queue
    """

    def __init__(self, datagrams: Sequence[bytes], *, trains: bool = False, sock: socket.socket | None = None) -> None:
        self.datagrams: Sequence[bytes] = datagrams
        self.count: int = len(datagrams)
        with contextlib.ExitStack() as undo:
            self.socket: socket.socket = undo.enter_context(joined_socket() if sock is None else sock)
            self.socket.setblocking(False)
            # A datagram is charged what it occupies, which is some 600 bytes more than it has, rounded up.
            skt.set_receive_buffer(self.socket, sum(2 * len(each) + 2048 for each in datagrams))
            port = self.socket.getsockname()[1]
            sender = skt.open_sender(GROUP, port, interface=INTERFACE, ttl=0, segmentation=trains)
            self._sender = undo.enter_context(sender)
            self._closing = undo.pop_all()
        self._dropped = self._memory()[0]
        self._charge: int | None = None  # for what one filling is

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def open(self, kind: type[Receiver] = skt.Receiver, **options: object) -> Receiver:
        """Return a receiver of this queue, on a duplicate of its one socket; it is closed with the queue."""
        receiver = kind(self.socket.dup(), **{"timeout": 0, **options})  # type: ignore[arg-type]
        return self._closing.enter_context(receiver)

    def fill(self) -> None:
        """Send all datagrams, and see that they are there."""
        left = self.datagrams
        while left:
            left = left[self._sender.send_batch(left) :]
        if self._charge is None:
            self._charge = self._settled_charge()
        deadline = time.monotonic() + LATE
        while (now := self._memory()) != (self._dropped, self._charge):
            if now[0] != self._dropped or time.monotonic() > deadline:
                lost = f"{now[0] - self._dropped} were dropped" if now[0] != self._dropped else "others came"
                raise TooShortError(
                    f"of {self.count} datagrams that were sent, the queue does not have just those: {lost}; a receive "
                    "buffer beyond net.core.rmem_max is for root alone"
                )

    def _memory(self) -> tuple[int, int]:
        """Return drops, and what the kernel charges for what is queued; no more than (0, 0) where it does not tell."""
        return memory_of(self.socket) or (0, 0)

    def _settled_charge(self) -> int:
        """Return the charge once it does not change any more: the kernel may queue late what was sent."""
        charge = -1
        while charge != (charge := self._memory()[1]):
            time.sleep(0.01)
        return charge

    def left(self) -> bool:
        """Whether anything is still there."""
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return False
        return True


def joined_socket() -> socket.socket:
    """Return a socket that has joined GROUP, on a port that nobody else has."""
    sock = skt.genSocket()
    try:
        # Among sockets that reuse addresses Linux counts no port as taken: it would give one to two of them.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        sock.bind((GROUP, 0))
        skt.join_group(sock, GROUP, INTERFACE)
    except OSError:
        sock.close()
        raise
    return sock


# The turns ---------------------------------------------------------------------------------------------------------


class Filled(Protocol):
    """What a contender empties: a `Queue`, or several as one."""

    count: int

    def fill(self) -> None:
        """Queue the datagrams."""

    def left(self) -> bool:
        """Return whether anything is still there."""


class Contender(NamedTuple):
    """One way to empty a queue; `drain` returns the ns that it took for the datagrams of one filling."""

    name: str
    queue: Filled
    drain: Callable[[], int]


def take_turns(
    contenders: Sequence[Contender],
    turns: Iterable[object],
    seed: int = 0,
    *,
    fillings: int = 3,
    warm_up: int = WARM_UP,
) -> dict[str, list[float]]:
    """Let every contender empty its queue once a turn, in an order drawn anew each time; return their `Times`.

    What slows the machine down for a while so slows all of them, and none is always the same one's neighbour. The
    first turns don't count.

    - fillings: how many a turn consists of, whose median counts. They come after one that does not, so that none pays
      for what the one before it has left in the processor's caches. 1: there is none before
    - warm_up: the turns that don't count

    Raises NotMeasuredError when one doesn't take just what its queue has.
    """
    dice, order = random.Random(seed), list(contenders)
    times: dict[str, list[float]] = {each.name: [] for each in contenders}
    if len(times) != len(order):
        raise ValueError("two contenders have one name")
    for turn, _ in enumerate(turns):
        dice.shuffle(order)
        for each in order:
            if fillings > 1:
                taken_by(each)
            taken = statistics.median(taken_by(each) for _ in range(fillings))
            if turn >= warm_up:
                times[each.name].append(round(taken / each.queue.count, 2))
    return times


def taken_by(contender: Contender) -> int:
    """Return the ns in which it empties its queue, filled for it."""
    name, queue, drain = contender
    queue.fill()
    try:
        taken = drain()
    except BlockingIOError:
        raise NotMeasuredError(f"{name} found the queue empty before it had {queue.count} datagrams") from None
    if queue.left():
        raise NotMeasuredError(f"{name} left datagrams behind")
    return taken


def rounds(count: int, warm_up: int = WARM_UP) -> range:
    """Return the turns for so many rounds that count."""
    return range(warm_up + count)


def rounds_for(seconds: float) -> Iterator[int]:
    """Give turns for about so long."""
    deadline = time.monotonic() + seconds
    for turn in itertools.count():
        if turn >= WARM_UP + FEWEST and time.monotonic() >= deadline:
            return
        yield turn


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Keep this thread on one core, the last that it may run on, so that its caches stay its own."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# Ways to empty a queue, as loops that are as short as Python lets them be ------------------------------------------


def in_batches(receiver: Receiver, count: int) -> Callable[[], int]:
    """Let each batch go before the next is received, so that one block of memory serves them all."""
    recv_batch, clock = receiver.recv_batch, time.perf_counter_ns

    def drain() -> int:
        left = count
        begin = clock()
        while left > 0:
            left -= len(recv_batch())
        return clock() - begin

    return drain


def in_a_loop(receiver: Receiver, count: int) -> Callable[[], int]:
    """Receive as most programs do. The loop's variable holds a batch while the next comes: two blocks take turns."""
    clock = time.perf_counter_ns

    def drain() -> int:
        left = count
        begin = clock()
        for batch in receiver:
            left -= len(batch)
            if left <= 0:
                break
        return clock() - begin

    return drain


def viewing_each(receiver: Receiver, count: int) -> Callable[[], int]:
    """Do the same and have a view made of every datagram."""
    clock = time.perf_counter_ns

    def drain() -> int:
        left = count
        begin = clock()
        for batch in receiver:
            for _ in batch:
                pass
            left -= len(batch)
            if left <= 0:
                break
        return clock() - begin

    return drain


def one_by_one(receive: Callable[..., object], count: int, *arguments: object) -> Callable[[], int]:
    """Make a call for each datagram, as the socket module needs it."""
    clock = time.perf_counter_ns

    def drain() -> int:
        begin = clock()
        for _ in itertools.repeat(None, count):
            receive(*arguments)
        return clock() - begin

    return drain


# The figures -------------------------------------------------------------------------------------------------------


class Spread(NamedTuple):
    """A figure over all rounds: its median, and the quartiles beside it."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Return the quartiles of at least two values."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def speed(times: Times, name: str, reference: str) -> Spread:
    """Return how fast a contender is, where the reference in the same round is 1."""
    return spread(theirs / own for own, theirs in zip(times[name], times[reference], strict=True))


def on_top(times: Times, name: str, reference: str) -> Spread:
    """Return by how many ns a contender takes longer than the reference in the same round."""
    return spread(own - theirs for own, theirs in zip(times[name], times[reference], strict=True))


def table(times: Times, reference: str) -> str:
    """Return contenders side by side: what a datagram takes each, and their speed against one of them."""
    width = max(40, *map(len, times))
    lines = [f"{'':{width}}{'ns a datagram':>15}{'best':>12}   speed, quartiles ({reference} = 1)"]
    for name, each in times.items():
        median, low, high = speed(times, name, reference)
        figures = f"{statistics.median(each):>15,.1f}{min(each):>12,.1f}"
        lines.append(f"{name:{width}}{figures}   {median:.3f}  {low:.3f} to {high:.3f}")
    return "\n".join(lines)


# The short form ----------------------------------------------------------------------------------------------------

PAYLOAD, METADATA = "payload", "metadata"
HEAD = ["", "ns a datagram", "best", "speed"]
TITLES = {
    PAYLOAD: "payload alone, or with the source",
    METADATA: f"{', '.join(TOLD)} and timestamp told by the kernel",
}
REFERENCES = {PAYLOAD: "socket.recv_into", METADATA: "socket.recvmsg_into"}


def run(seconds: float, *, as_json: bool = False) -> int:
    """Measure for about so long and print the figures; return 0, or 1 where they would be none."""
    output = Output(as_json=as_json)
    if not as_json:
        head = output.paint(f"multicast {__version__}", "title")
        output.paragraph(f"{head}, {skt.BACKEND} backend ({skt.BACKEND_REASON})")
    try:
        found = measure(seconds)
    except NotMeasuredError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    about = {
        "version": __version__,
        "backend": skt.BACKEND,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "datagrams": DATAGRAMS,
        "bytes": SIZE,
        "batch_size": BATCH,
        "rounds": len(found[PAYLOAD][REFERENCES[PAYLOAD]]),
    }
    results = {title: as_figures(found[title], REFERENCES[title]) for title in found}
    output.emit(about | {"results": results})
    if not as_json:
        output.paragraph(
            f"{about['python']}, {about['system']}: a queue of {DATAGRAMS} datagrams of {SIZE} bytes on the loopback "
            f"interface, batches of {BATCH}, {about['rounds']} rounds"
        )
        for title, figures in results.items():
            output.say()
            output.paragraph(f"{TITLES[title]}; speed: median and quartiles, {REFERENCES[title]} = 1:")
            output.table(HEAD, [shown(name, each) for name, each in figures.items()], numbers=range(1, len(HEAD)))
        output.say()
        output.paragraph(
            "Beside bare C and others, with goals and plots: python3 dev.py bench, in the project's repository."
        )
    return 0


def shown(name: str, figures: dict[str, float]) -> list[str]:
    """Return a contender's row of the table."""
    speeds = (f"{figures[f'speed_{part}']:.3f}" for part in ("median", "low", "high"))
    return [name, f"{figures['median_ns']:,.1f}", f"{figures['best_ns']:,.1f}", "{} ({} to {})".format(*speeds)]


def measure(seconds: float) -> dict[str, Times]:
    """Let this backend and the socket module take turns for about so long."""
    payloads = random.Random(0)
    datagrams = [payloads.randbytes(SIZE) for _ in range(DATAGRAMS)]
    with pinned(), contextlib.ExitStack() as closing:
        found = {PAYLOAD: list(plain_contenders(closing.enter_context(Queue(datagrams))))}
        if sys.platform == "linux":
            found[METADATA] = list(told_contenders(closing.enter_context(Queue(datagrams))))
        times = take_turns([each for those in found.values() for each in those], rounds_for(seconds))
    return {title: {each.name: times[each.name] for each in those} for title, those in found.items()}


def plain_contenders(queue: Queue) -> Iterator[Contender]:
    """Give those that take the payload, or source and payload, of a socket that was asked for nothing more."""
    buffer, own, count = bytearray(2048), skt.BACKEND, queue.count
    yield Contender(f"{own}, batch by batch", queue, in_batches(queue.open(batch_size=BATCH), count))
    yield Contender(f"{own}, for batch in rx", queue, in_a_loop(queue.open(batch_size=BATCH), count))
    yield Contender(f"{own}, a view of each", queue, viewing_each(queue.open(batch_size=BATCH), count))
    sourced = queue.open(batch_size=BATCH, columns=["source"])
    yield Contender(f"{own}, sources kept", queue, in_batches(sourced, count))
    yield Contender("socket.recv_into", queue, one_by_one(queue.socket.recv_into, count, buffer))
    yield Contender("socket.recvfrom_into", queue, one_by_one(queue.socket.recvfrom_into, count, buffer))


def told_contenders(queue: Queue) -> Iterator[Contender]:
    """Give those that keep what the kernel tells of each datagram."""
    told = queue.open(batch_size=BATCH, columns=TOLD, timestamps="software")
    room = Wanted(TOLD, "software", False, False, "bench").enable(queue.socket, "bench")
    yield Contender(f"{skt.BACKEND}, all of that kept", queue, in_batches(told, queue.count))
    receive = queue.socket.recvmsg_into
    yield Contender("socket.recvmsg_into", queue, one_by_one(receive, queue.count, [bytearray(2048)], room))


def as_figures(times: Times, reference: str) -> dict[str, dict[str, float]]:
    """Return the figures of each contender."""
    return {
        name: {"median_ns": statistics.median(each), "best_ns": min(each)}
        | {f"speed_{part}": round(value, 4) for part, value in speed(times, name, reference)._asdict().items()}
        for name, each in times.items()
    }
