"""Batches: what a receive call returns, and the views and columns over its block of memory.

Owns how long a block is counted as held. Must not make a system call.
"""

from __future__ import annotations

import array
import operator
import weakref

from ._endpoint_py import final

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, NoReturn, Self, SupportsIndex, overload

    from typing_extensions import Buffer

if TYPE_CHECKING:

    class _Block(Sequence[memoryview]):
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


@final
class Batch(_Block):
    """The datagrams of one `recv_batch`: a sequence of read-only memoryviews, each exactly a datagram's bytes.

    Every view's exporter is the batch, and the batch holds the block of memory: while any of them lives, the bytes
    stay as they are, also after `Receiver.close()`. `memoryview(batch)` is the block itself, one byte an item, as far
    as it was filled: datagram i is the `lengths[i]` bytes at `offsets[i]`; bytes between two datagrams mean nothing.
    """

    _slot_size: int
    _lengths: array.array[int]
    _real_lengths: array.array[int]
    _truncated: bytes

    _lease: weakref.ref[_Pool]

    def __new__(cls, *_: object) -> Self:
        raise TypeError("batches come from Receiver.recv_batch")

    @classmethod
    def _of(cls, data: Buffer, slot_size: int, lengths: list[int], real: list[int], pool: _Pool) -> Self:
        batch = _Block.__new__(cls, data)
        batch._slot_size = slot_size
        batch._lengths = array.array("I", lengths)
        batch._real_lengths = array.array("I", real)
        batch._truncated = bytes(length < whole for length, whole in zip(lengths, real, strict=True))
        batch._lease = pool.lease()
        return batch

    def __len__(self) -> int:
        return len(self._lengths)

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, index: SupportsIndex) -> memoryview: ...
        @overload
        def __getitem__(self, index: slice) -> list[memoryview]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> memoryview | list[memoryview]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = operator.index(index)
        if i < 0:
            i += len(self)
        if not 0 <= i < len(self):
            raise IndexError("batch index out of range")
        start = i * self._slot_size
        return memoryview(self)[start : start + self._lengths[i]]

    def __iter__(self) -> Iterator[memoryview]:
        whole = memoryview(self)
        for start, length in zip(self.offsets, self._lengths, strict=True):
            yield whole[start : start + length]

    def __contains__(self, value: object) -> bool:
        return any(view == value for view in self)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<multicast.Batch of {len(self)} datagrams>"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a batch can't be pickled or copied; bytes(view) can")

    if not TYPE_CHECKING:  # of bytes, what a batch does not do
        __add__ = __mul__ = __rmul__ = __mod__ = __rmod__ = __lt__ = __le__ = __gt__ = __ge__ = None

    @property
    def offsets(self) -> memoryview[int]:
        """Where in `memoryview(batch)` each datagram begins: a read-only buffer of uint32 (format "I"), bytes."""
        step = self._slot_size
        return _column(array.array("I", range(0, len(self) * step, step)), "I")

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


def _column(items: Buffer, code: str) -> memoryview[Any]:
    return memoryview(items).cast("B").cast(code).toreadonly()  # type: ignore[call-overload,no-any-return]
