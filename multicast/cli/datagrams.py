"""What `multicast send` sends: arguments, lines, pieces of a file, or datagrams made for the purpose.

Owns how input becomes datagrams. Must not know where they go, nor when.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from .._sequence import Sequence

    Datagram = bytes | memoryview

_READ = 65_536  # bytes at once


class Datagrams(Protocol):
    """Datagrams one after another.

    - waited: whether `take` had to wait for the last ones, since there were none yet
    """

    waited: bool

    def take(self, most: int) -> list[Datagram]:
        """Return the next ones, as many as there are and this many at most; none: that was all."""


class Given:
    """Datagrams that are all there."""

    waited = False

    def __init__(self, datagrams: Iterable[bytes]) -> None:
        self._left: deque[bytes] = deque(datagrams)

    def take(self, most: int) -> list[Datagram]:
        """Return the next ones."""
        return [self._left.popleft() for _ in range(min(most, len(self._left)))]


class Lines:
    """Lines without their ends, as they come; the last one may have no end. An empty line is an empty datagram.

    - descriptor: to read from
    - longest: how many bytes a datagram can have; OSError (EMSGSIZE) at a line of more
    """

    def __init__(self, descriptor: int, longest: int) -> None:
        self.waited: bool = False
        self._descriptor, self._longest = descriptor, longest
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._over = False
        self._taken = 0

    def take(self, most: int) -> list[Datagram]:
        """Return the next ones; wait for one where there is none."""
        self.waited = not self._lines
        while not self._lines and not self._over:
            self._read()
        found: list[Datagram] = []
        while self._lines and len(found) < most:
            if len(self._lines[0]) > self._longest:
                if found:
                    break
                raise self._too_long(len(self._lines[0]))
            found.append(self._lines.popleft())
            self._taken += 1
        return found

    def _read(self) -> None:
        came = os.read(self._descriptor, _READ)
        *lines, self._rest = (self._rest + came).split(b"\n")
        self._lines.extend(lines)
        if not came:
            self._over = True
            if self._rest:
                self._lines.append(self._rest)
        elif not lines and len(self._rest) > self._longest:
            raise self._too_long(len(self._rest))

    def _too_long(self, length: int) -> OSError:
        text = f"line {self._taken + 1} has {length:,} bytes or more, and a datagram {self._longest:,} at most"
        return OSError(errno.EMSGSIZE, text)


class Pieces:
    """A file, cut into datagrams of a size; the last one has the rest."""

    waited = False

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def take(self, most: int) -> list[Datagram]:
        """Return the next ones."""
        came = self._file.read(most * self._size)
        return [came[at : at + self._size] for at in range(0, len(came), self._size)]


class Synthetic:
    """Datagrams of a size, made once, whose sequence numbers are written when they are taken.

    - count: how many; None: without end
    - sequence: where the numbers are, which begin at 1; None: nowhere
    - streams: they go to so many groups in turns, and each group has numbers of its own

    What was taken is valid until the next ones are.
    """

    waited = False

    def __init__(self, size: int, count: int | None, sequence: Sequence | None, streams: int = 1) -> None:
        self._size, self._left, self._sequence, self._streams = size, count, sequence, streams
        self._made = 0
        self._buffer = bytearray()
        self._views: list[Datagram] = []

    def take(self, most: int) -> list[Datagram]:
        """Return the next ones."""
        if self._left is not None:
            most = min(most, self._left)
            self._left -= most
        if most > len(self._views):
            self._prepare(most)
        if self._sequence is not None:
            modulus, pack_into = self._sequence.modulus, self._sequence.number.pack_into
            at, streams = self._sequence.offset, self._streams
            for number in range(self._made, self._made + most):
                pack_into(self._buffer, at, (number // streams + 1) % modulus)
                at += self._size
        self._made += most
        return self._views[:most]

    def _prepare(self, datagrams: int) -> None:
        one = bytearray(bytes(range(256)) * (self._size // 256 + 1))[: self._size]
        if self._sequence is not None:
            self._sequence.stamp(one, 0)
        self._buffer = one * datagrams
        view = memoryview(self._buffer)
        self._views = [view[at * self._size : (at + 1) * self._size] for at in range(datagrams)]
