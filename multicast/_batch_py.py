"""Batches: what a receive call returns, and the views and columns over its block of memory.

Owns how long a block is counted as held. Must not make a system call.
"""

from __future__ import annotations

import array
import operator
import socket
import weakref

from . import _columns
from ._ancillary_py import Ancillary, stamped
from ._endpoint_py import final

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, NoReturn, Self, SupportsIndex, overload

    from typing_extensions import Buffer

    from ._ancillary_py import Message

if TYPE_CHECKING:

    class _Block:
        def __new__(cls, data: Buffer) -> Self: ...
        def __buffer__(self, flags: int, /) -> memoryview: ...

else:
    # Python classes can export a buffer since 3.12 only (PEP 688); bytes always could, and can't change.
    _Block = bytes


class _Pool:
    """Counts the batches that are alive, by their weak references to it.

    With a finalizer of ours instead, a signal's handler could come in between, and its exception would go nowhere.
    """

    def lease(self) -> weakref.ref[_Pool]:
        """Return what a batch has to hold: each its own, as only a callback makes them."""
        return weakref.ref(self, id)

    def held(self) -> int:
        """Return how many leases there are."""
        return weakref.getweakrefcount(self)


class Told:
    """What a batch of datagrams came with, as the kernel told it: read when somebody asks, and no earlier."""

    def __init__(
        self,
        pool: _Pool,
        kept: frozenset[str],
        address_size: int,
        names: list[Any],
        messages: list[list[Message]],
        known_drops: int,
    ) -> None:
        self.pool, self.kept, self.address_size, self.known_drops = pool, kept, address_size, known_drops
        self.names = names  # each datagram's source
        self._messages = messages
        self._ancillary: list[Ancillary] | None = None

    @property
    def ancillary(self) -> list[Ancillary]:
        """Of each datagram."""
        if self._ancillary is None:
            self._ancillary = [Ancillary(each) for each in self._messages]
        return self._ancillary

    @property
    def destinations(self) -> list[bytes]:
        """Of each datagram, zeros where the kernel did not tell."""
        return [each.destination.ljust(self.address_size, b"\0")[: self.address_size] for each in self.ancillary]


@final
class Batch(_Block):
    """The datagrams of one `recv_batch`: a sequence of read-only memoryviews, each exactly a datagram's bytes.

    Every view's exporter is the batch, and the batch holds the block of memory: while any of them lives, the bytes
    stay as they are, also after `Receiver.close()`. `memoryview(batch)` is the block itself, one byte an item, as far
    as it was filled: datagram i is the `lengths[i]` bytes at `offsets[i]`; bytes between two datagrams mean nothing.

    Columns are read-only buffers, an item a datagram, which numpy wraps without a copy. All but the lengths have to be
    asked for when the receiver is opened (`columns`, `timestamps`); reading one that was not raises ValueError.
    """

    _told: Told
    _offsets: array.array[int]
    _lengths: array.array[int]
    _real_lengths: array.array[int]
    _truncated: bytes
    _lease: weakref.ref[_Pool]

    def __new__(cls, *_: object) -> Self:
        raise TypeError("batches come from Receiver.recv_batch")

    @classmethod
    def _of(cls, data: Buffer, offsets: Iterable[int], lengths: list[int], real: list[int], told: Told) -> Self:
        batch = _Block.__new__(cls, data)
        batch._told = told
        batch._offsets = array.array("I", offsets)
        batch._lengths = array.array("I", lengths)
        batch._real_lengths = array.array("I", real)
        batch._truncated = bytes(length < whole for length, whole in zip(lengths, real, strict=True))
        batch._lease = told.pool.lease()
        return batch

    def _at(self, index: SupportsIndex) -> int:
        """Return the datagram that an index means, which may count from the end."""
        i = operator.index(index)
        if i < 0:
            i += len(self)
        if not 0 <= i < len(self):
            raise IndexError("batch index out of range")
        return i

    def __len__(self) -> int:
        return len(self._lengths)

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, index: SupportsIndex, /) -> memoryview: ...
        @overload
        def __getitem__(self, index: slice, /) -> list[memoryview]: ...

    def __getitem__(self, index: SupportsIndex | slice, /) -> memoryview | list[memoryview]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = self._at(index)
        start = self._offsets[i]
        return memoryview(self)[start : start + self._lengths[i]]

    def __iter__(self) -> Iterator[memoryview]:
        whole = memoryview(self)
        for start, length in zip(self._offsets, self._lengths, strict=True):
            yield whole[start : start + length]

    def __repr__(self) -> str:
        return f"<multicast.Batch of {len(self)} datagrams>"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a batch can't be pickled or copied; bytes(view) can")

    if not TYPE_CHECKING:  # of bytes, what a batch does as any object does, or not at all
        __hash__ = object.__hash__

        def __eq__(self, other):
            return self is other

        def __contains__(self, value):
            return any(view == value for view in self)

        __add__ = __mul__ = __rmul__ = __mod__ = __rmod__ = __lt__ = __le__ = __gt__ = __ge__ = None

    @property
    def offsets(self) -> memoryview[int]:
        """Where in `memoryview(batch)` each datagram begins: a read-only buffer of uint32 (format "I"), bytes."""
        return _column(self._offsets, "I")

    @property
    def lengths(self) -> memoryview[int]:
        """How long each datagram's view is: a read-only buffer of uint32 (format "I"), bytes."""
        return _column(self._lengths, "I")

    @property
    def real_lengths(self) -> memoryview[int]:
        """How long each datagram was when it arrived (MSG_TRUNC, recv(2)): a read-only buffer of uint32, bytes."""
        return _column(self._real_lengths, "I")

    @property
    def truncated(self) -> memoryview[bool]:
        """Whether each datagram was longer than `datagram_size`: a read-only buffer of bool (format "?")."""
        return _column(self._truncated, "?")

    # Decoded when one of them is first read

    def _kept(self, what: str, column: str) -> Told:
        """Return what was told of the datagrams, if this was asked for."""
        if column not in self._told.kept:
            raise _columns.not_kept(f"Batch.{what}", column)
        return self._told

    def source(self, index: SupportsIndex) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return where a datagram came from, as `socket.recvfrom` does: (address, port), over IPv6 with two more."""
        i = self._at(index)
        return self._kept("source", "source").names[i]  # type: ignore[no-any-return]

    def destination(self, index: SupportsIndex) -> str:
        """Return the address that a datagram was sent to, as text: the group, or an address of this host."""
        i = self._at(index)
        told = self._kept("destination", "destination")
        return _columns.address_text(told.destinations[i])[0]

    def interface(self, index: SupportsIndex) -> int:
        """Return the index of the interface that a datagram came in on."""
        i = self._at(index)
        return self._kept("interface", "interface").ancillary[i].interface

    def timestamp_kind(self, index: SupportsIndex) -> str | None:
        """Return what stamped a datagram: "hardware" (the network card), "software" (the kernel), or None."""
        i = self._at(index)
        return _columns.KINDS[self._kept("timestamp_kind", "timestamps").ancillary[i].timestamp_kind]

    @property
    def source_addresses(self) -> memoryview[int]:
        """Each datagram's source address, in network order: a read-only buffer of uint8, a row of 4 or 16 of them."""
        told = self._kept("source_addresses", "source")
        family = socket.AF_INET if told.address_size == 4 else socket.AF_INET6
        return _rows([socket.inet_pton(family, name[0].partition("%")[0]) for name in told.names], told.address_size)

    @property
    def source_ports(self) -> memoryview[int]:
        """Each datagram's source port: a read-only buffer of uint16 (format "H")."""
        return _numbers("H", [name[1] for name in self._kept("source_ports", "source").names])

    @property
    def destination_addresses(self) -> memoryview[int]:
        """The address each datagram was sent to, in network order: a read-only buffer of uint8, a row of 4 or 16."""
        told = self._kept("destination_addresses", "destination")
        return _rows(told.destinations, told.address_size)

    @property
    def interfaces(self) -> memoryview[int]:
        """The index of the interface each datagram came in on: a read-only buffer of uint32 (format "I")."""
        return _numbers("I", [each.interface for each in self._kept("interfaces", "interface").ancillary])

    @property
    def ttls(self) -> memoryview[int]:
        """Each datagram's time to live, or hop limit, on arrival: a read-only buffer of uint8 (format "B")."""
        return _numbers("B", [each.ttl for each in self._kept("ttls", "ttl").ancillary])

    @property
    def tos(self) -> memoryview[int]:
        """Each datagram's TOS byte, or traffic class: DSCP * 4 + ECN (RFC 2474, 3168); uint8 (format "B")."""
        return _numbers("B", [each.tos for each in self._kept("tos", "tos").ancillary])

    @property
    def timestamps(self) -> memoryview[int]:
        """When each datagram was received: a read-only buffer of int64 (format "q"), ns since 1970; 0: not stamped.

        The kernel's time is the system's clock (CLOCK_REALTIME), a network card's is that card's own.
        """
        return _numbers("q", [each.timestamp for each in self._kept("timestamps", "timestamps").ancillary])

    @property
    def timestamp_kinds(self) -> memoryview[int]:
        """What stamped each datagram: 0 nothing, 1 the kernel, 2 the network card: a buffer of uint8 (format "B")."""
        return _numbers("B", [each.timestamp_kind for each in self._kept("timestamp_kinds", "timestamps").ancillary])

    @property
    def drops(self) -> memoryview[int]:
        """How many datagrams the kernel had dropped for this socket when each was queued (SO_RXQ_OVFL, socket(7)).

        A read-only buffer of uint64 (format "Q"). The kernel tells it when the next datagram comes, and may be late by
        a few; `Receiver.stats()` asks for the count as it is.
        """
        told = self._kept("drops", "drops")
        return _numbers("Q", [stamped(told.known_drops, each.drops) % 2**64 for each in told.ancillary])


def _numbers(code: str, items: list[int]) -> memoryview[int]:
    return _column(array.array(code, items), code)


def _rows(addresses: list[bytes], size: int) -> memoryview[int]:
    """Return addresses as bytes in two dimensions."""
    return memoryview(b"".join(addresses)).cast("B", (len(addresses), size))


def _column(items: Buffer, code: str) -> memoryview[Any]:
    return memoryview(items).cast("B").cast(code).toreadonly()  # type: ignore[call-overload,no-any-return]
