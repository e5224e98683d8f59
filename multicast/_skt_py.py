"""The stdlib backend: what `_skt.pyx` does, on the socket module alone, one system call a datagram.

Owns the same names in the same order with the same errors, and the types of both. Must not be clever: it is the
reference that the native backend is held against, and what every system without that has.
"""

from __future__ import annotations

import array
import errno
import operator
import os
import socket
import struct
import sys
import time
import weakref

from . import __version__, _arguments, _errors
from ._endpoint_py import ERROR, HANGUP, READABLE, WRITABLE, Claim, Endpoint, final
from ._values import Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from socket import socket as _Socket  # in a class whose own attribute is called socket
    from types import EllipsisType
    from typing import Any, NoReturn, Self, SupportsFloat, SupportsIndex, overload

    from typing_extensions import Buffer


VERSION = __version__
notice: Callable[[], None] | None = None  # the door's: what to say when the first receiver opens


# Socket options ----------------------------------------------------------------------------------------------------

_LINUX = sys.platform == "linux"

# By system, since the socket module names none of them (RFC 3678, section 5).
(
    _MCAST_JOIN_GROUP,
    _MCAST_UNBLOCK_SOURCE,
    _MCAST_LEAVE_GROUP,
    _MCAST_JOIN_SOURCE_GROUP,
    _MCAST_LEAVE_SOURCE_GROUP,
) = {
    "linux": (42, 44, 45, 46, 47),
    "win32": (41, 44, 42, 45, 46),
}.get(sys.platform, (80, 85, 81, 82, 83))  # macOS and the BSDs
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29
_SO_RCVBUFFORCE, _SO_MEMINFO = 33, 55
_MEMINFO = struct.Struct("=9I")
_MEMINFO_DROPS = 8
_SOCKADDR_STORAGE_SIZE = 128
# Before the sockaddr_storage in group_req: it is aligned as a pointer is, except on macOS, which packs to 4 bytes.
_INDEX = struct.Struct("=I") if sys.platform == "darwin" else struct.Struct("@I0P")
_SOCKADDR_HAS_LENGTH = not _LINUX and sys.platform != "win32"


def _sockaddr_storage(packed: bytes) -> bytes:
    if len(packed) == 4:
        family, rest, size = socket.AF_INET, bytes(2) + packed, 16
    else:
        family, rest, size = socket.AF_INET6, bytes(6) + packed, 28
    head = struct.pack("=BB", size, family) if _SOCKADDR_HAS_LENGTH else struct.pack("=H", family)
    return (head + rest).ljust(_SOCKADDR_STORAGE_SIZE, b"\0")


def _set_int(sock: socket.socket, ipv4_name: int, ipv6_name: int, value: int) -> None:
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, ipv4_name, value)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, ipv6_name, value)


def _membership(
    sock: socket.socket, any_source: int, one_source: int, group: bytes, index: int, source: bytes | None
) -> None:
    level = socket.IPPROTO_IP if len(group) == 4 else socket.IPPROTO_IPV6
    request = _INDEX.pack(index) + _sockaddr_storage(group)
    if source is None:
        sock.setsockopt(level, any_source, request)
    else:
        sock.setsockopt(level, one_source, request + _sockaddr_storage(source))


def join_group(sock: socket.socket, group: bytes, index: int, source: bytes | None) -> None:
    _membership(sock, _MCAST_JOIN_GROUP, _MCAST_JOIN_SOURCE_GROUP, group, index, source)


def leave_group(sock: socket.socket, group: bytes, index: int, source: bytes | None) -> None:
    _membership(sock, _MCAST_LEAVE_GROUP, _MCAST_LEAVE_SOURCE_GROUP, group, index, source)


def unblock_source(sock: socket.socket, group: bytes, index: int, source: bytes) -> None:
    _membership(sock, 0, _MCAST_UNBLOCK_SOURCE, group, index, source)


def set_multicast_interface(sock: socket.socket, index: int) -> None:
    if sock.family != socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    elif sys.platform == "win32":
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("!I", index))
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("@4s4si", bytes(4), bytes(4), index))


def set_multicast_ttl(sock: socket.socket, ttl: int) -> None:
    _set_int(sock, socket.IP_MULTICAST_TTL, socket.IPV6_MULTICAST_HOPS, ttl)


def set_multicast_loopback(sock: socket.socket, enabled: bool) -> None:
    _set_int(sock, socket.IP_MULTICAST_LOOP, socket.IPV6_MULTICAST_LOOP, int(enabled))


def limit_to_joined(sock: socket.socket) -> bool:
    """Deliver only groups joined on this socket (IP_MULTICAST_ALL off, ip(7)); False where the system can't."""
    if not _LINUX:
        return False
    try:
        _set_int(sock, _IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL, 0)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        return False
    return True


def _receive_buffer(sock: socket.socket) -> int:
    size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return size // 2 if _LINUX else size  # Linux doubles what is asked for, for its own book-keeping (socket(7))


def set_receive_buffer(sock: socket.socket, nbytes: int) -> int:
    """Past net.core.rmem_max where this process may (CAP_NET_ADMIN), else as far as that allows: bytes granted."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE if _LINUX else socket.SO_RCVBUF, nbytes)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, nbytes)
    return _receive_buffer(sock)


def kernel_drops(sock: socket.socket) -> int | None:
    """Datagrams that the kernel dropped for this socket (SO_MEMINFO); None where it does not tell."""
    if not _LINUX:
        return None
    try:
        words = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:  # a kernel before 4.12
        return None
    return int(_MEMINFO.unpack(words)[_MEMINFO_DROPS])


# Batches -----------------------------------------------------------------------------------------------------------

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


# Receiving ---------------------------------------------------------------------------------------------------------

_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)  # 0: Windows has none
_WSAEMSGSIZE = 10040  # Windows: the datagram was longer than the buffer, which is full


@final
class Receiver(Endpoint):
    """Receives batches of datagrams from a socket, into memory that it owns.

    Receiver(sock, *, batch_size=64, datagram_size=2048, timeout=None, max_blocks=None)

    - sock: an open SOCK_DGRAM socket, bound and joined as you like; `close()` closes it
    - batch_size: datagrams in a batch, at most (1 to 1024)
    - datagram_size: bytes kept of each datagram (1 to 65535); what is longer is cut, and flagged in `Batch.truncated`
    - timeout: seconds that `recv_batch` and iteration wait; None: until something comes, 0: not at all
    - max_blocks: blocks of batch_size slots that may exist at once, None for no limit. A block is in use while its
      batch, or any view of it, lives.

    Iterating gives batches until the receiver is closed. One thread at a time may receive; `close()` and `stats()` may
    be called from any. Raises TypeError or ValueError for arguments that can't be, MemoryError, and OSError.
    """

    def __init__(
        self,
        sock: _Socket,
        *,
        batch_size: SupportsIndex = 64,
        datagram_size: SupportsIndex = 2048,
        timeout: SupportsFloat | None = None,
        max_blocks: SupportsIndex | None = None,
    ) -> None:
        operation = "Receiver"
        sock = _arguments.receiving_socket(sock, operation)
        slots = _arguments.batch_size(batch_size, operation)
        size = _arguments.datagram_size(datagram_size, operation)
        limit = _arguments.max_blocks(max_blocks, operation)
        wait = _arguments.timeout_ns(timeout, operation)
        if hasattr(self, "_own"):  # asked last: an argument's own code may have called this, too
            raise RuntimeError("Receiver: already initialised")
        self._batch_size, self._datagram_size, self._max_blocks, self._timeout = slots, size, limit, wait
        self._slot_size = _arguments.slot_size(self._datagram_size)
        self._scratch = memoryview(bytearray(self._batch_size * self._slot_size))
        starts = range(0, len(self._scratch), self._slot_size)
        self._slots = [self._scratch[start : start + self._datagram_size] for start in starts]
        self._pool = _Pool()
        self._late_error: OSError | None = None
        self._datagrams = self._bytes = self._batches = self._truncated = 0
        self._last_drops: int | None = None
        self._last_receive_buffer = 0
        if notice is not None:
            notice()
        super().__init__(sock)

    def _remember(self) -> None:
        try:
            self._last_receive_buffer = _receive_buffer(self._own)
        except OSError:  # somebody closed the descriptor by its number
            return
        self._last_drops = kernel_drops(self._own)

    def _retire(self) -> None:
        self._remember()
        super()._retire()

    def _receive_one(self, slot: memoryview, operation: str) -> int:
        """Receive a datagram that is there, into its slot, where the system tells of a longer one in its own way."""
        if not _DONTWAIT and not self._poll(False, 0) & READABLE:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if not hasattr(self._own, "recvmsg_into"):  # Windows
            try:
                return self._own.recv_into(slot)
            except OSError as error:
                if error.errno != _WSAEMSGSIZE:
                    raise
                return len(slot) + 1  # longer, and that is all that it tells
        length, _, flags, sender = self._own.recvmsg_into([slot], 0, _DONTWAIT)
        if length == 0 and sender is None and self._own.family in (socket.AF_INET, socket.AF_INET6):
            raise _errors.shut_down(operation)  # an empty datagram has a sender
        return length + bool(flags & socket.MSG_TRUNC)

    def _receive(self, operation: str) -> list[int]:
        """Receive what is there, up to a batch: the real lengths; raises if nothing is."""
        if self._late_error is not None:
            error, self._late_error = self._late_error, None
            raise error
        lengths: list[int] = []
        recv_into, flags = self._own.recv_into, socket.MSG_TRUNC | _DONTWAIT
        try:
            for slot in self._slots:  # appending one by one keeps what came before an error
                if _LINUX:
                    lengths.append(recv_into(slot, 0, flags))  # MSG_TRUNC: the real length, also of what is cut
                else:
                    lengths.append(self._receive_one(slot, operation))
        except BlockingIOError:
            if not lengths:
                raise
        except OSError as error:
            named = _errors.system(error, operation)
            if not lengths:
                raise named from None
            self._late_error = named
        return lengths

    def _fill(self, timeout: int, operation: str) -> list[int]:
        """Receive 1 to batch_size datagrams into the scratch block: their real lengths; none if closed."""
        deadline = None
        found = 0
        while True:
            try:
                return self._receive(operation)
            except BlockingIOError:
                pass
            if self._closed:
                return []
            if timeout == 0 and not found and (found := self._poll(False, 0)):
                continue  # it may have come just now: for a receive to meet, before it is judged
            if found & HANGUP:
                raise _errors.shut_down(operation)
            if found & ERROR:
                raise _errors.error_queue(operation)
            if timeout == 0:
                raise _errors.would_block(operation)
            if timeout > 0 and deadline is None:
                deadline = time.monotonic() + timeout / 1e9
            found = self._wait(False, deadline)
            if not found:
                raise _errors.timed_out(operation, timeout / 1e9)

    def _next_batch(self, timeout: int, operation: str) -> Batch | None:
        """Return a batch, or None if the receiver is closed."""
        claim = Claim(exclusive=True)
        try:
            if not self._enter(claim, operation):
                return None
            if self._max_blocks and self._pool.held() >= self._max_blocks:
                raise _errors.no_block(operation, self._max_blocks)
            real = self._fill(timeout, operation)
            if not real:
                return None
            lengths = [min(length, self._datagram_size) for length in real]
            filled = self._scratch[: len(real) * self._slot_size]
            batch = Batch._of(filled, self._slot_size, lengths, real, self._pool)
            self._datagrams += len(real)
            self._bytes += sum(lengths)
            self._batches += 1
            self._truncated += batch._truncated.count(1)
            return batch
        finally:
            self._leave(claim)

    def recv_batch(self, timeout: SupportsFloat | EllipsisType | None = ...) -> Batch:
        """Return the next 1 to `batch_size` datagrams, as soon as there is one.

        - timeout: seconds to wait, None without end, 0 not at all; left out: the receiver's own

        Raises TimeoutError when nothing came in time, BlockingIOError for timeout=0 when nothing was there,
        RuntimeError while another thread receives and in a forked child, BufferError when every one of `max_blocks`
        blocks is held, OSError with EBADF once the receiver is closed (also while this call waits), OSError with
        ESHUTDOWN when the socket is shut down, and OSError with the errno of any other failure. An error that the
        kernel met after part of a batch is raised by the next call (recvmmsg(2)); no datagram is lost with it.
        """
        wait = self._timeout if timeout is ... else _arguments.timeout_ns(timeout, "recv_batch")
        batch = self._next_batch(wait, "recv_batch")
        if batch is None:
            raise _errors.closed("recv_batch")
        return batch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        batch = self._next_batch(self._timeout, "recv_batch")
        if batch is None:
            raise StopIteration
        return batch

    def stats(self) -> Stats:
        """Return what was counted since the receiver was opened (`Stats`); after `close()`, how it ended."""
        claim = Claim(exclusive=False)
        try:
            if self._enter(claim, "stats"):
                self._remember()
        finally:
            self._leave(claim)
        held = self._pool.held()
        return Stats(
            datagrams=self._datagrams,
            bytes=self._bytes,
            batches=self._batches,
            truncated=self._truncated,
            drops=self._last_drops,
            receive_buffer=self._last_receive_buffer,
            blocks=held + 1,
            blocks_in_use=held,
        )

    @property
    def batch_size(self) -> int:
        """How many datagrams a batch has at most."""
        return self._batch_size

    @property
    def datagram_size(self) -> int:
        """How many bytes of a datagram are kept."""
        return self._datagram_size

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd={self.fileno()}"
        return f"<multicast.Receiver {state} batch_size={self.batch_size} datagram_size={self.datagram_size}>"


# Sending -----------------------------------------------------------------------------------------------------------


def _get_buffer(data: Buffer, operation: str) -> memoryview:
    try:
        view = memoryview(data)
    except TypeError:
        raise _errors.no_buffer(operation, data) from None
    except BufferError:
        raise _errors.not_contiguous(operation, data) from None
    if not view.c_contiguous:
        raise _errors.not_contiguous(operation, data)
    return view


_SEND_AT_ONCE = 64  # as many as the native backend hands to one sendmmsg


@final
class Sender(Endpoint):
    """Sends datagrams to the group that its socket is connected to.

    Sender(sock): an open SOCK_DGRAM socket, connected to a group; `close()` closes it. `open_sender` makes both.
    Raises TypeError or ValueError for a socket that can't be, and OSError.
    """

    def __init__(self, sock: _Socket) -> None:
        sock = _arguments.connected_socket(sock, "Sender")
        if hasattr(self, "_own"):
            raise RuntimeError("Sender: already initialised")
        super().__init__(sock)

    def _send_one(self, data: memoryview, operation: str) -> OSError | None:
        """Send a datagram; return what kept it from being sent. What a signal's handler raises is raised."""
        found = 0
        while True:
            try:
                if _DONTWAIT or self._poll(True, 0) & WRITABLE:
                    self._own.send(data, _DONTWAIT)
                    return None
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno is None:  # a handler's own, such as the usual TimeoutError of an alarm
                    raise
                return _errors.system(error, operation)
            if self._closed:
                return _errors.closed(operation)
            if found & ERROR:  # and no error that sending would have met
                return _errors.error_queue(operation)
            found = self._wait(True, None)

    def _send(self, buffers: tuple[Buffer, ...], operation: str) -> int:
        """Send each buffer as a datagram: how many went; a failure is raised only if the first one met it."""
        sent = 0
        claim = Claim(exclusive=True)
        try:
            if not self._enter(claim, operation):
                raise _errors.closed(operation)
            while sent < len(buffers):
                held: list[memoryview] = []
                try:
                    try:
                        for data in buffers[sent : sent + _SEND_AT_ONCE]:
                            held.append(_get_buffer(data, operation))  # noqa: PERF401 - to release those before a bad one
                    except (TypeError, BufferError, ValueError):
                        if sent == 0:
                            raise
                        return sent
                    for view in held:
                        error = self._send_one(view, operation)
                        if error is not None:
                            if sent == 0:
                                raise error
                            return sent
                        sent += 1
                finally:
                    for view in held:
                        view.release()
            return sent
        finally:
            self._leave(claim)

    def send(self, data: Buffer) -> int:
        """Send one datagram from any contiguous buffer; return its length in bytes.

        Waits while the socket's send buffer is full. Raises OSError with the errno of what failed (EMSGSIZE: longer
        than a datagram can be; EBADF: closed), RuntimeError while another thread sends and in a forked child.
        """
        self._send((data,), "send")
        return memoryview(data).nbytes

    def send_batch(self, buffers: Iterable[Buffer]) -> int:
        """Send each of several contiguous buffers as a datagram, in order, by sendmmsg(2); return how many went.

        Fewer than given means that one of the others failed: sending the rest raises its error. Raises only where none
        went: as `send` does, and TypeError or BufferError for what is no contiguous buffer. Buffers are handed to the
        kernel 64 at a time, so up to 63 good ones before a bad one may not have gone.
        """
        return self._send(tuple(buffers), "send_batch")

    def __repr__(self) -> str:
        return f"<multicast.Sender {'closed' if self.closed else f'fd={self.fileno()}'}>"
