"""The demonstration: a synthetic market-data feed at full rate, received two ways, every datagram accounted for.

Owns the sender process, the two receive loops and the ledger between them. Must keep its traffic in this host: the
loopback interface, TTL 0.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import signal
import socket
import struct
import sys
import time
import warnings
from typing import TYPE_CHECKING, NamedTuple

from . import __version__, skt
from ._moldudp64 import HEADER, SyntheticFeed
from ._options_py import memory_of
from ._values import Value
from .cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

GROUP = "239.255.64.64"  # of the block for use within an organisation (RFC 2365)
INTERFACE = "127.0.0.1"
RECEIVE_BUFFER = 8 << 20
BURST = 8  # trains of the feed that the sender hands over at once, some 190 datagrams
POLL = 0.1  # seconds without a datagram after which a receiver asks whether the sender is done
QUIET = 1.0  # seconds that the last datagrams may take


class Run(Value):
    """How one receiver fared on the feed; datagrams unless said otherwise."""

    __slots__ = (  # noqa: RUF023 - the order of the table
        "receiver",
        "sent",
        "received",
        "dropped",
        "missing",
        "gaps",
        "unaccounted",
        "seconds",
        "datagrams_per_second",
        "megabits_per_second",
        "mean_batch",
        "cpu_ns",
    )
    receiver: str
    sent: int
    received: int
    dropped: int | None
    missing: int
    gaps: int
    unaccounted: int | None
    seconds: float
    datagrams_per_second: float
    megabits_per_second: float
    mean_batch: float
    cpu_ns: float

    @property
    def closed(self) -> bool:
        """Whether sent = received + dropped by the kernel, and the sequence numbers miss just what was dropped.

        Where the system does not count drops, nothing can contradict the sequence numbers.
        """
        return self.dropped is None or (self.unaccounted == 0 and self.missing == self.dropped)


class Count(NamedTuple):
    """What a receiver counted so far."""

    datagrams: int
    bytes: int
    batches: int
    drops: int | None


class Tally:
    """Which datagrams the sequence numbers say are missing, and the line for each second."""

    def __init__(self, feed: SyntheticFeed, name: str, show: Callable[[str], None]) -> None:
        self.feed: SyntheticFeed = feed
        self.name: str = name
        self.show: Callable[[str], None] = show
        self.gaps: int = 0
        self.missing: int = 0
        self.expected = 1
        self.next_line: float = time.monotonic() + 1
        self._last = Count(0, 0, 0, 0)
        self._cpu = time.thread_time()

    def gap(self, session: bytes, sequence: int) -> None:
        """Note that a datagram begins with another message than the one expected."""
        if session != self.feed.session:
            raise SystemExit(f"demo: somebody else sends to {GROUP} on this port: session {session!r}; run it again")
        self.gaps += 1
        self.missing += self.feed.datagram_number(sequence) - self.feed.datagram_number(self.expected)

    def line(self, count: Count, now: float) -> None:
        """Show what the last second brought."""
        seconds = now - self.next_line + 1
        datagrams, size, batches = (count[i] - self._last[i] for i in range(3))  # type: ignore[operator]
        self.show(
            f"{self.name:9} {datagrams / seconds:>9,.0f} datagrams/s {size * 8 / seconds / 1e6:>7,.1f} Mbit/s"
            f"  batch {datagrams / max(1, batches):>4.1f}  drops {count.drops!s:>7}"
        )
        self._last = count
        self.next_line = now + 1

    def finish(self, count: Count, sent: int, seconds: float) -> Run:
        """Return the account: what never came after the last datagram is missing, too."""
        cpu = time.thread_time() - self._cpu
        return Run(
            receiver=self.name,
            sent=sent,
            received=count.datagrams,
            dropped=count.drops,
            missing=self.missing + sent - self.feed.datagram_number(self.expected),
            gaps=self.gaps,
            unaccounted=None if count.drops is None else sent - count.datagrams - count.drops,
            seconds=round(seconds, 3),
            datagrams_per_second=round(count.datagrams / seconds),
            megabits_per_second=round(count.bytes * 8 / seconds / 1e6, 1),
            mean_batch=round(count.datagrams / max(1, count.batches), 1),
            cpu_ns=round(cpu / max(1, count.datagrams) * 1e9),
        )


# The sender --------------------------------------------------------------------------------------------------------


def publish(connection: Connection, session: bytes, port: int, seconds: float) -> None:
    """Send the feed as fast as it goes; in a process of its own. Reports (datagrams, seconds)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the receiver, too, which then ends this process
    feed = SyntheticFeed(session)
    bursts = [feed.trains[at : at + BURST] for at in range(0, len(feed.trains), BURST)]
    views = [[view for train in burst for view in train.views] for burst in bursts]
    with skt.open_sender(GROUP, port, interface=INTERFACE, ttl=0) as sender:
        connection.send("ready")
        connection.recv()
        datagrams, sequence = 0, 1
        begin = now = time.monotonic()
        while now - begin < seconds:
            for burst, buffers in zip(bursts, views, strict=True):
                for train in burst:
                    sequence = train.number(sequence)
                sent = 0
                while sent < len(buffers):
                    sent += sender.send_batch(buffers[sent:])
                datagrams += sent
                now = time.monotonic()
                if now - begin >= seconds:
                    break
        connection.send((datagrams, now - begin))


@contextlib.contextmanager
def _ctrl_c_kept_from_children() -> Iterator[None]:
    """Have processes that start meanwhile block SIGINT, also before they are at `publish`; ours comes afterwards."""
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # else it would be started by the first of them, and unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Publisher:
    """The sender's process, and what it reported."""

    def __init__(self, session: bytes, port: int, seconds: float) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._connection, theirs = spawning.Pipe()
        self._process = spawning.Process(target=publish, args=(theirs, session, port, seconds), daemon=True)
        with _ctrl_c_kept_from_children():
            self._process.start()
        theirs.close()
        self.sent: int | None = None
        self.seconds: float = 0.0
        self._done = 0.0

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.join()
        self._connection.close()

    def start(self) -> None:
        """Wait until it can send, and let it."""
        self._connection.recv()
        self._connection.send("go")

    def all_in(self, count: Count) -> bool:
        """Whether nothing can come any more: all that was sent is accounted for, or has had its time."""
        if self.sent is None:
            if self._connection.poll():
                self.sent, self.seconds = self._connection.recv()
                self._done = time.monotonic()
            return False
        return count.datagrams + (count.drops or 0) >= self.sent or time.monotonic() - self._done > QUIET


# The receivers -----------------------------------------------------------------------------------------------------


def receive_batches(port: int, publisher: Publisher, tally: Tally) -> Count:
    """Receive by this package, a batch a call."""
    unpack = HEADER.unpack_from
    with skt.open_receiver(
        GROUP, port, interface=INTERFACE, receive_buffer=RECEIVE_BUFFER, timeout=POLL, exclusive=True
    ) as receiver:

        def count() -> Count:
            stats = receiver.stats()
            return Count(stats.datagrams, stats.bytes, stats.batches, stats.drops)

        publisher.start()
        while True:
            try:
                batch = receiver.recv_batch()
            except TimeoutError:
                if publisher.all_in(count()):
                    return count()
                continue
            for view in batch:
                session, sequence, messages = unpack(view)
                if sequence != tally.expected:
                    tally.gap(session, sequence)
                tally.expected = sequence + messages
            now = time.monotonic()
            if now >= tally.next_line:
                tally.line(count(), now)


def receive_one_by_one(port: int, publisher: Publisher, tally: Tally) -> Count:
    """Receive as one does with the socket module alone: recv_into, a datagram a call."""
    unpack = HEADER.unpack_from
    with skt.genSocket() as sock:
        sock.bind((GROUP, port))
        skt.join_group(sock, GROUP, INTERFACE)
        skt.set_receive_buffer(sock, RECEIVE_BUFFER)
        if sys.platform == "linux":  # the kernel's own limit: settimeout costs a system call more for each datagram
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, round(POLL * 1e6)))
        else:
            sock.settimeout(POLL)
        buffer = bytearray(2048)
        recv_into = sock.recv_into
        datagrams = total = 0

        def count() -> Count:
            return Count(datagrams, total, datagrams, (memory_of(sock) or (None,))[0])

        publisher.start()
        while True:
            try:
                size = recv_into(buffer)
            except (BlockingIOError, TimeoutError):
                if publisher.all_in(count()):
                    return count()
                continue
            session, sequence, messages = unpack(buffer)
            if sequence != tally.expected:
                tally.gap(session, sequence)
            tally.expected = sequence + messages
            datagrams += 1
            total += size
            if not datagrams & 1023:
                now = time.monotonic()
                if now >= tally.next_line:
                    tally.line(count(), now)


# The show ----------------------------------------------------------------------------------------------------------


def run(seconds: float, *, as_json: bool = False) -> int:
    """Run both receivers for half the time each and print the account; 0 if it closes, 1 if not."""
    output = Output(as_json=as_json)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", RuntimeWarning)
        if not as_json:
            output.paragraph(
                output.paint(f"multicast {__version__}", "title") + f", {skt.BACKEND} backend ({skt.BACKEND_REASON})"
            )
            output.paragraph(
                f"a synthetic MoldUDP64 feed to {GROUP} on the loopback interface, TTL 0, as fast as it goes"
            )
        runs = [
            measure(skt.BACKEND, receive_batches, seconds / 2, output),
            measure("recv_into", receive_one_by_one, seconds / 2, output),
        ]
    closed = all(each.closed for each in runs)
    values = [each.as_dict() | {"closed": each.closed} for each in runs]
    output.emit({"version": __version__, "backend": skt.BACKEND, "closed": closed, "runs": values})
    if not as_json:
        for note in notes:
            output.paragraph(f"note: {note.message}")
        output.say()
        show_table(output, runs)
        output.say()
        for each in runs:
            output.paragraph(ledger(each, output))
    return 0 if closed else 1


def measure(name: str, receive: Callable[[int, Publisher, Tally], Count], seconds: float, output: Output) -> Run:
    """Let one receiver take the feed from a sender of its own."""
    with skt.genSocket() as probe:
        probe.bind((GROUP, 0))  # a port that nobody has
        port: int = probe.getsockname()[1]
    feed = SyntheticFeed(b"DEMO%06d" % random.randrange(1_000_000))
    with Publisher(feed.session, port, seconds) as publisher:
        tally = Tally(feed, name, _unseen if output.as_json else output.update)
        try:
            count = receive(port, publisher, tally)
        finally:
            output.keep()
        return tally.finish(count, publisher.sent or 0, publisher.seconds)


def _unseen(line: str) -> None:
    """Show nothing: a program reads the account alone."""


def show_table(output: Output, runs: list[Run]) -> None:
    """Print the receivers side by side."""
    rows: list[tuple[str, Callable[[Run], object]]] = [
        ("sent", lambda run: run.sent),
        ("received", lambda run: run.received),
        ("dropped by the kernel", lambda run: run.dropped),
        ("missing by sequence number", lambda run: run.missing),
        ("received a second", lambda run: run.datagrams_per_second),
        ("Mbit/s", lambda run: run.megabits_per_second),
        ("datagrams a call", lambda run: run.mean_batch),
        ("receiver's CPU a datagram, ns", lambda run: run.cpu_ns),
    ]
    head = [f"{run.receiver}, " + ("one at a time" if run.receiver == "recv_into" else "in batches") for run in runs]
    output.table(
        ["", *head],
        [[title, *(_shown(value(run)) for run in runs)] for title, value in rows],
        numbers=range(1, len(runs) + 1),
    )


def ledger(run: Run, output: Output) -> str:
    """Return the account of one receiver in a line."""
    if run.dropped is None:
        return f"{run.receiver}: {run.sent:,} sent, {run.received:,} received; this system does not count drops"
    verdict = (
        output.paint("closed", "good")
        if run.closed
        else output.paint(f"OPEN: {run.unaccounted:,} unaccounted for", "bad")
    )
    return (
        f"ledger, {run.receiver}: sent {run.sent:,} = received {run.received:,} + dropped by the kernel "
        f"{run.dropped:,}; missing in {run.gaps:,} gaps {run.missing:,}: {verdict}"
    )


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)
