"""What is measured of one feed while it is listened to: rates, gaps in time, sources, losses.

Owns the receivers of the feed and all that is counted. Must not print.
"""

from __future__ import annotations

import errno
import operator
import time
from collections import deque
from typing import TYPE_CHECKING

from .. import _sysctl
from .._tracking import Tracker
from .._values import Value

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._feed import Feed
    from .._sequence import Sequence
    from ..skt import Batch, Receiver

MOST_SOURCES = 4096  # that are told apart
REMEMBERED = 60  # intervals: the last minute, as a rule
_UNTOLD = (errno.EOPNOTSUPP, errno.ENOPROTOOPT)  # of a system that tells less of a datagram
MEMBERSHIPS = 20  # groups that a socket can join where the system does not say (igmp_max_memberships of Linux)


class Counted:
    """What came in some time: of datagrams, bytes and batches how many, the longest gap (ns) and the last stamp."""

    __slots__ = ("batches", "bytes", "datagrams", "first_ns", "last_ns", "longest_gap_ns", "since_ns")
    datagrams: int
    bytes: int
    batches: int
    longest_gap_ns: int
    since_ns: int
    first_ns: int | None
    last_ns: int | None

    def __init__(self, since_ns: int, last_ns: int | None = None) -> None:
        self.datagrams = self.bytes = self.batches = self.longest_gap_ns = 0
        self.since_ns = since_ns  # of the monotonic clock
        self.first_ns = self.last_ns = last_ns  # stamps of datagrams; first: the one that the first gap begins with

    def values(self, now_ns: int, before: bool) -> dict[str, Any]:
        """Return the counts and the rates up to now.

        - before: whether there was one before the first of them, so that they have as many gaps as they are
        """
        seconds = max((now_ns - self.since_ns) / 1e9, 1e-9)
        gaps = self.datagrams - (not before)
        first, last = self.first_ns, self.last_ns
        return {
            "seconds": round(seconds, 6),
            "datagrams": self.datagrams,
            "bytes": self.bytes,
            "batches": self.batches,
            "datagrams_per_second": round(self.datagrams / seconds, 3),
            "mbit_per_second": round(self.bytes * 8e-6 / seconds, 6),
            "mean_batch": round(self.datagrams / self.batches, 3) if self.batches else None,
            "mean_gap_ns": (last - first) // gaps if gaps > 0 and first is not None and last is not None else None,
            "max_gap_ns": self.longest_gap_ns if gaps > 0 else None,
        }


class Row(Value):
    """What is shown of a feed.

    - feed: as it is written; state: "" or what is wrong with it
    - values: as `Meter.interval` and `Meter.total` return them
    - history: datagrams a second of the last intervals, the newest last
    """

    __slots__ = ("feed", "state", "values", "history")  # noqa: RUF023 - the order they print in
    feed: str
    state: str
    values: dict[str, Any]
    history: tuple[float, ...]


class Meter:
    """Counts one feed.

    - feed: as `parse_feed` returns it
    - open_receiver: that of the package, as are its options `receive_buffer`, `datagram_size`
    - sequence: how its datagrams are numbered; None: nobody asked
    - by_group: whether it is asked to which group of a range a datagram came
    """

    def __init__(
        self,
        feed: Feed,
        open_receiver: Callable[..., Receiver],
        *,
        sequence: Sequence | None = None,
        by_group: bool = False,
        **options: Any,
    ) -> None:
        self.feed = feed
        self.tracker: Tracker | None = None if sequence is None else Tracker(sequence)
        self.sources: set[bytes] = set()
        self.history: deque[float] = deque(maxlen=REMEMBERED)
        self.receivers: list[Receiver] = []
        self.clock: str = "kernel"
        self.error: OSError | None = None
        self._ended_ns: int | None = None  # when it failed
        # Each group has numbers of its own.
        self.by_group: bool = feed.count > 1 and (by_group or sequence is not None)
        self._by_source = sequence is not None and sequence.stream_at is None
        self._stamps: dict[Receiver, int] = {}  # the last of each
        self._only: tuple[int, bytes, bytes] = 0, b"", b""  # how a batch's sources look if they are those of the last
        try:
            for groups in _chunks(feed):
                self.receivers.append(self._opened(open_receiver, groups, options))
        except BaseException:
            self.close()
            raise
        self._drops = self.drops() or 0
        self._interval = Counted(time.monotonic_ns())
        self._total = Counted(time.monotonic_ns())

    def _opened(self, open_receiver: Callable[..., Receiver], groups: list[str], options: dict[str, Any]) -> Receiver:
        feed = self.feed
        named: dict[str, Any] = {"interface": feed.interface, "source": feed.source, **options}
        columns = ["source", "destination"] if self.by_group else ["source"]
        which = groups if feed.count > 1 else groups[0]
        if self.clock == "kernel":
            try:
                return open_receiver(which, feed.port, columns=columns, timestamps="software", **named)
            except OSError as error:
                if error.errno not in _UNTOLD:
                    raise
                self.clock = "arrival"
        if self.by_group:
            raise OSError(_UNTOLD[0], f"{feed}: this system does not tell the groups of a range apart")
        return open_receiver(which, feed.port, columns=["source"], **named)

    def close(self) -> None:
        """Close its receivers."""
        for each in self.receivers:
            each.close()

    def fail(self, error: OSError) -> None:
        """Note what a receiver of it met, and receive nothing more: what was counted until now stays."""
        self.error, self._ended_ns = error, time.monotonic_ns()
        self.close()

    # Counting: what is done for every batch, and nothing in it for every datagram but by what is written in C

    def take(self, receiver: Receiver, batch: Batch, most: int | None = None) -> int:
        """Count a batch that a receiver had; return how many datagrams that were.

        - most: count no more of them than this
        """
        count = len(batch) if most is None else min(len(batch), most)
        octets = sum(batch.real_lengths[:count])
        stamps = batch.timestamps[:count].tolist() if self.clock == "kernel" else [time.time_ns()] * count
        before = self._stamps.get(receiver)
        longest = max(map(operator.sub, stamps[1:], stamps), default=0)
        if before is not None:
            longest = max(longest, stamps[0] - before)
        self._stamps[receiver] = stamps[-1]
        for each in (self._interval, self._total):
            each.datagrams += count
            each.bytes += octets
            each.batches += 1
            each.longest_gap_ns = max(each.longest_gap_ns, longest)
            if each.first_ns is None:
                each.first_ns = stamps[0]
            each.last_ns = max(each.last_ns or 0, stamps[-1])
        sources = self._seen(batch, len(batch))
        if self.tracker is not None:
            origins: Any = sources if self._by_source else [None] * count
            if self.by_group:
                groups = batch.destination_addresses.tobytes()
                size = len(groups) // len(batch)
                origins = [(origins[at], groups[at * size : (at + 1) * size]) for at in range(count)]
            self.tracker.take(memoryview(batch), batch.offsets[:count], batch.lengths[:count], origins)
        return count

    def _seen(self, batch: Batch, count: int) -> list[bytes]:
        """Note the sources of a batch; return each datagram's. Most batches are like the one before them."""
        addresses, ports = batch.source_addresses.tobytes(), batch.source_ports.tobytes()
        size = len(addresses) // count
        known, address, port = self._only
        if known and addresses == address * count and ports == port * count:
            return [address + port] * count
        found = [addresses[at * size : (at + 1) * size] + ports[at * 2 : at * 2 + 2] for at in range(count)]
        if len(self.sources) < MOST_SOURCES:
            self.sources.update(found)
        self._only = (1, found[0][:size], found[0][size:])
        return found

    # What is told of it

    def drops(self) -> int | None:
        """How many datagrams the kernel dropped for these receivers; None where it does not tell."""
        told = [each.stats().drops for each in self.receivers]
        return sum(each or 0 for each in told) if None not in told else None

    @property
    def datagrams(self) -> int:
        """How many came."""
        return self._total.datagrams

    @property
    def missing(self) -> int:
        """How many numbers are missing now."""
        return 0 if self.tracker is None else self.tracker.total()["missing"]

    @property
    def state(self) -> str:
        """What is wrong with it, empty if nothing: it failed, or an interface that it was joined on has gone."""
        if self.error is not None:
            return "failed"
        gone = any(stats.links_lost > stats.rejoins for stats in (each.stats() for each in self.receivers))
        return "interface gone" if gone else ""

    def interval(self) -> dict[str, Any]:
        """Return what came since this was asked before, and begin anew."""
        counted, now = self._interval, time.monotonic_ns()
        before = counted.datagrams < self._total.datagrams
        self._interval = Counted(now, self._total.last_ns)
        values = counted.values(now, before) | self._rest()
        drops = values["kernel_drops"]
        if drops is not None:
            values["kernel_drops"], self._drops = drops - self._drops, drops
        self.history.append(values["datagrams_per_second"])
        return values

    def total(self) -> dict[str, Any]:
        """Return what came since the receivers were opened, until now or until it failed."""
        now = time.monotonic_ns() if self._ended_ns is None else self._ended_ns
        return self._total.values(now, before=False) | self._rest()

    def _rest(self) -> dict[str, Any]:
        stats = [each.stats() for each in self.receivers]
        queued = [each.queued for each in stats]
        found = dict.fromkeys(("gaps", "missing", "late", "duplicates", "restarts", "unnumbered"))
        if self.tracker is not None:
            found = {**self.tracker.total(), "unnumbered": self.tracker.short + self.tracker.untracked}
        return {
            "clock": self.clock,
            "kernel_drops": self.drops(),
            "queued_bytes": sum(each or 0 for each in queued) if None not in queued else None,
            "receive_buffer_bytes": sum(each.receive_buffer for each in stats),
            "sources": len(self.sources),
            **found,
            "error": None if self.error is None else self.error.strerror,
        }

    def row(self, values: dict[str, Any]) -> Row:
        """Return what is to be shown of it."""
        return Row(feed=str(self.feed), state=self.state, values=values, history=tuple(self.history))


def _chunks(feed: Feed) -> list[list[str]]:
    """Return the groups of a feed, as many together as one socket can join."""
    groups = feed.groups
    most = MEMBERSHIPS
    if ":" not in feed.group:
        most = _sysctl.value("net.ipv4.igmp_max_memberships") or MEMBERSHIPS
    return [groups[at : at + most] for at in range(0, len(groups), most)]
