"""What is missing of a numbered feed: gaps, what came late, what came twice, and senders that began again.

Owns the account of each stream. Must not receive, nor know a layout: `_sequence.py` has them.
"""

from __future__ import annotations

import struct
from bisect import bisect_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

    from ._sequence import Sequence

MISORDERED = 1024  # numbers: one that is further behind is of a sender that began again, if the next one follows it
MOST_HOLES = 4096  # that a stream remembers; what is missing of older ones stays missing
MOST_STREAMS = 4096  # that a tracker tells apart; those that come then are counted as `untracked`
END_OF_SESSION = 0xFFFF  # MoldUDP64: as a number of messages it is none, as that of a heartbeat, 0


class Stream:
    """The account of one sequence of numbers. It counts messages where the layout does, else datagrams.

    A step of up to half of all numbers there are is one forward, else one back: of a 16-bit number 32,767 can be lost
    at once, and be told from a sender that began again.

    - gaps: how often a number came that was not the next one, but a later one
    - missing: how many numbers have not come, of those between the first and the last
    - late: how many were missing and came after all
    - duplicates: how many had come before, or are from before the first
    - restarts: how often the sender began elsewhere; what was missing then stays missing
    """

    __slots__ = ("_ends", "_starts", "_suspect", "duplicates", "expected", "gaps", "late", "missing", "restarts")

    def __init__(self, expected: int) -> None:
        self.expected = expected  # the next number, as it is when numbers never begin again at 0
        self.gaps = self.missing = self.late = self.duplicates = self.restarts = 0
        self._starts: list[int] = []  # of what is missing, by rising number, and where each ends
        self._ends: list[int] = []
        self._suspect: int | None = None  # the number that would follow on one that was far off

    def take(self, number: int, count: int, width: int) -> None:
        """Account for `count` numbers from `number` on; none: `number` is the next one that will come.

        - number: as it was sent; width: in how many bytes
        """
        modulus = 1 << 8 * width
        step = (number - self.expected) % modulus
        if step >= modulus // 2:
            step -= modulus
        if step < -MISORDERED and self._began_again(number, count, modulus):
            return
        start = self.expected + step
        end = start + count
        if step > 0:
            self._open(self.expected, start)
        elif step < 0 < count:
            seen = min(end, self.expected)
            filled = self._fill(start, seen)
            self.late += filled
            self.missing -= filled
            self.duplicates += seen - start - filled
        self.expected = max(end, start, self.expected)

    def _began_again(self, number: int, count: int, modulus: int) -> bool:
        """Whether this far-off number begins a new sequence, or may: then the next one decides (RFC 3550, A.1)."""
        follows, self._suspect = number == self._suspect, (number + count) % modulus
        if not count:
            return True
        if not follows:
            self.duplicates += count
            return True
        self.restarts += 1
        self.duplicates -= count  # the one before was none
        self.expected = number + count
        self._starts.clear()
        self._ends.clear()
        self._suspect = None
        return True

    def _open(self, start: int, end: int) -> None:
        self.gaps += 1
        self.missing += end - start
        self._starts.append(start)
        self._ends.append(end)
        if len(self._starts) > MOST_HOLES:
            del self._starts[0], self._ends[0]

    def _fill(self, start: int, end: int) -> int:
        """Strike the numbers from start to end off what is missing; return how many of them were."""
        filled = 0
        at = max(0, bisect_right(self._starts, start) - 1)
        while at < len(self._starts) and self._starts[at] < end:
            low, high = self._starts[at], self._ends[at]
            left = [(low, min(start, high)), (max(end, low), high)]
            left = [(a, b) for a, b in left if a < b]
            filled += high - low - sum(b - a for a, b in left)
            self._starts[at : at + 1] = [a for a, _ in left]
            self._ends[at : at + 1] = [b for _, b in left]
            at += len(left)
        return filled


class Tracker:
    """Keeps what is missing of all the streams of a feed, by the numbers in its datagrams.

    - sequence: where a datagram has its number, as `parse_sequence` returns it
    - short: how many datagrams were too short to have one; untracked: those of more streams than can be told apart
    - streams: the `Stream` of each, by what it came from and the bytes in the datagram that tell streams apart
    """

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.short: int = 0
        self.untracked: int = 0
        self.streams: dict[tuple[object, bytes], Stream] = {}
        self._layout, self._order = _layout(sequence)

    def take(self, block: Buffer, offsets: Iterable[int], lengths: Iterable[int], origins: Iterable[object]) -> None:
        """Account for datagrams.

        - block: memory that has them, at these offsets, of these lengths; as `memoryview(batch)`, `batch.offsets` and
          `batch.lengths`
        - origins: what each came from: a source, or a group; streams of two of them are two. All alike: None
        """
        unpack, size, width = self._layout.unpack_from, self.sequence.size, self.sequence.width
        modulus, streams = self.sequence.modulus, self.streams
        number_at, messages_at, stream_at = self._order
        for at, length, origin in zip(offsets, lengths, origins, strict=False):
            if length < size:
                self.short += 1
                continue
            fields = unpack(block, at)
            number = fields[number_at]
            count = 1 if messages_at is None else fields[messages_at]
            if count == END_OF_SESSION and messages_at is not None:
                count = 0
            key = (origin, b"" if stream_at is None else fields[stream_at])
            stream = streams.get(key)
            if stream is None:
                if len(streams) >= MOST_STREAMS:
                    self.untracked += 1
                else:
                    streams[key] = Stream(number + count)
            elif number == stream.expected % modulus:
                stream.expected += count
            else:
                stream.take(number, count, width)

    def total(self) -> dict[str, int]:
        """Return the counts of all streams together, by their names in `Stream`."""
        return {
            name: sum(getattr(each, name) for each in self.streams.values())
            for name in ("gaps", "missing", "late", "duplicates", "restarts")
        }


def _layout(sequence: Sequence) -> tuple[struct.Struct, tuple[int, int | None, int | None]]:
    """Return how to unpack all that a header tells at once, and which fields are the number, messages and stream."""
    number = sequence.number
    fields = [(sequence.offset, sequence.width, number.format[1:], "number")]
    if sequence.messages_at is not None:
        fields.append((sequence.messages_at, 2, "H", "messages"))
    if sequence.stream_at is not None:
        start, length = sequence.stream_at
        fields.append((start, length, f"{length}s", "stream"))
    fields.sort()
    text, at = number.format[0], 0
    for start, length, code, _ in fields:
        text += f"{start - at}x{code}"
        at = start + length
    names = [name for *_, name in fields]
    messages = names.index("messages") if "messages" in names else None
    stream = names.index("stream") if "stream" in names else None
    return struct.Struct(text), (names.index("number"), messages, stream)
