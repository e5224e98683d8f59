"""The stdlib backend: what `_skt.pyx` does, on the socket module alone, one system call a datagram.

Owns the same names in the same order with the same errors, and the types of both. Must not be clever: it is the
reference that the native backend is held against, and what every system without that has.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time

from . import __version__, _arguments, _errors
from ._batch_py import Batch, _Pool
from ._endpoint_py import ERROR, HANGUP, READABLE, Claim, Endpoint, final
from ._options_py import (
    _receive_buffer,
    join_group,
    kernel_drops,
    leave_group,
    limit_to_joined,
    set_multicast_interface,
    set_multicast_loopback,
    set_multicast_ttl,
    set_receive_buffer,
    unblock_source,
)
from ._sender_py import Sender
from ._values import Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket as _Socket  # in a class whose own attribute is called socket
    from types import EllipsisType
    from typing import Self, SupportsFloat, SupportsIndex

__all__ = [
    "VERSION",
    "Batch",
    "Receiver",
    "Sender",
    "join_group",
    "leave_group",
    "limit_to_joined",
    "set_multicast_interface",
    "set_multicast_loopback",
    "set_multicast_ttl",
    "set_receive_buffer",
    "unblock_source",
]

VERSION = __version__
notice: Callable[[], None] | None = None  # the door's: what to say when the first receiver opens

_LINUX = sys.platform == "linux"
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
