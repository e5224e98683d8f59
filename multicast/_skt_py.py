"""The stdlib backend: what `_skt.pyx` does, on the socket module alone, one system call a datagram.

Owns the same names in the same order with the same errors, and the types of both. Must not be clever: it is the
reference that the native backend is held against, and what every system without that has.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import time
import weakref

from . import __version__, _arguments, _columns, _errors, _memberships, _options_py
from ._accounting_py import Came, Isolation
from ._ancillary_py import widened
from ._batch_py import Batch, Told, _Pool
from ._endpoint_py import ERROR, HANGUP, READABLE, Claim, Endpoint, Spinning, final
from ._late import late
from ._mmsg_py import DONTWAIT, receive_one
from ._options_py import (
    _receive_buffer,
    block_source,
    bound_address,
    follow_interface,
    get_source_filter,
    join_group,
    leave_group,
    limit_to_joined,
    memory_of,
    set_multicast_interface,
    set_multicast_loopback,
    set_multicast_ttl,
    set_receive_buffer,
    set_source_filter,
    unblock_source,
)
from ._sender_py import Sender
from ._values import Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from socket import socket as _Socket  # in a class whose own attribute is called socket
    from types import EllipsisType
    from typing import Any, Self, SupportsFloat, SupportsIndex

    from typing_extensions import Buffer

    from ._arguments import AddressLike
    from ._async import Awaiting
    from ._interfaces import InterfaceLike
    from ._memberships import Memberships
    from ._values import Membership
    from ._watch import Watch

__all__ = [
    "VERSION",
    "Batch",
    "Poller",
    "Receiver",
    "Sender",
    "batch_refusals",
    "block_source",
    "bound_address",
    "follow_interface",
    "get_source_filter",
    "join_group",
    "leave_group",
    "limit_to_joined",
    "set_multicast_interface",
    "set_multicast_loopback",
    "set_multicast_ttl",
    "set_receive_buffer",
    "set_source_filter",
    "unblock_source",
]

VERSION = __version__
notice: Callable[[], None] | None = None  # the door's: what to say when the first receiver opens

_LOOK_EVERY = 0.1  # seconds between two looks at what changes slowly, while datagrams keep coming
_FOREIGN_AT_ONCE = 16  # batches of nothing but foreign datagrams that timeout=0 goes through


def batch_refusals() -> tuple[int, int] | None:
    """Return the errno by which this process is kept from recvmmsg, and from sendmmsg; None: neither is used here."""
    return None


@final
class Receiver(Endpoint):
    """Receives batches of datagrams from a socket, into memory that it owns.

    Receiver(sock, *, batch_size=64, datagram_size=2048, timeout=None, spin=None, max_blocks=None, columns=(),
             timestamps=None, gro=False, isolation=False, memory=None, hugepages=None)

    - sock: an open SOCK_DGRAM socket, bound and joined as you like; `close()` closes it
    - batch_size: datagrams in a batch, at most (1 to 1024); with gro, trains of them
    - datagram_size: bytes kept of each datagram (1 to 65535); what is longer is cut, and flagged in `Batch.truncated`
    - timeout: seconds that `recv_batch` and iteration wait; None: until something comes, 0: not at all
    - spin: seconds for which they ask the kernel again and again before they sleep, math.inf: for as long as they wait;
      None: not at all. What comes meanwhile is received within some µs; it costs a CPU
    - max_blocks: blocks of batch_size slots that may exist at once, None for no limit. A block is in use while its
      batch, or any view of it, lives.
    - columns: what to keep of each datagram beside its bytes, out of "source", "destination", "interface", "ttl",
      "tos" and "drops" (see `Batch`): the kernel is asked to tell them; they are decoded when they are read
    - timestamps: "software", the kernel's; "hardware", the network card's where it has one and
      `set_hardware_timestamps` switched that on, else the kernel's; None: none
    - gro: let the kernel join datagrams of a sender into trains (UDP_GRO, udp(7)), which come apart here again: less
      work for each where a sender sends runs of equal length. Slots are of 64 KiB then.
    - isolation: deliver only groups joined by `join`, from the interfaces that they were joined on. The rest is dropped
      here and counted (`Stats.foreign`), as is what was sent to this host alone. `open_receiver` does it where the
      kernel doesn't.
    - memory: a writable contiguous buffer of your own, such as an mmap on huge pages, that the kernel is to write the
      datagrams into: it holds as many blocks of batch_size slots (of datagram_size, rounded up to 64 bytes) as fit, and
      stays in use as long as the receiver or a view. What is read there otherwise than through batches may change.
      None: memory of the receiver's own
    - hugepages: where that lies: "transparent", on huge pages where the kernel has them (MADV_HUGEPAGE, madvise(2));
      "reserved", on those that the administrator has set aside (MAP_HUGETLB, mmap(2); vm.nr_hugepages); None, on
      ordinary ones. Whole huge pages are mapped for as many blocks as fit; `Stats.huge_memory` tells what came of it

    Iterating, by `for` or `async for`, gives batches until the receiver is closed. One thread or task at a time may
    receive; all else may be done by any, meanwhile. Raises TypeError or ValueError for arguments that can't be,
    MemoryError, and OSError.
    """

    def __init__(
        self,
        sock: _Socket,
        *,
        batch_size: SupportsIndex = 64,
        datagram_size: SupportsIndex = 2048,
        timeout: SupportsFloat | None = None,
        spin: SupportsFloat | None = None,
        max_blocks: SupportsIndex | None = None,
        columns: str | Iterable[str] = (),
        timestamps: str | None = None,
        gro: bool = False,
        isolation: bool = False,
        memory: Buffer | None = None,
        hugepages: str | None = None,
    ) -> None:
        operation = "Receiver"
        if _arguments.hugepages(hugepages, memory, operation):
            raise _errors.no_own_hugepages(operation)
        if memory is not None:
            raise _errors.no_own_memory(operation)
        wanted = _columns.Wanted(columns, timestamps, gro, isolation, operation)
        sock = _arguments.receiving_socket(sock, wanted.gro, operation)
        slots = _arguments.batch_size(batch_size, operation)
        size = _arguments.datagram_size(datagram_size, operation)
        limit = _arguments.max_blocks(max_blocks, operation)
        wait = _arguments.timeout_ns(timeout, operation)
        spinning = _arguments.spin_ns(spin, operation)
        if hasattr(self, "_own"):  # asked last: an argument's own code may have called this, too
            raise _errors.initialised(operation)
        self._control_size = wanted.enable(sock, operation)
        self._kept, self._trains = wanted.kept, wanted.gro
        self._isolation = Isolation(wanted.isolation and self._control_size > 0)
        self._batch_size, self._datagram_size, self._max_blocks = slots, size, limit
        self._timeout, self._spin = wait, spinning
        self._slot_size = _arguments.slot_size(_arguments.MAX_DATAGRAM_SIZE if wanted.gro else size)
        self._scratch = memoryview(bytearray(slots * self._slot_size))
        length = self._slot_size if wanted.gro else size
        self._slots = [self._scratch[start : start + length] for start in range(0, len(self._scratch), self._slot_size)]
        self._pool = _Pool()
        self._names: dict[Any, Any] = {}  # sources as they are shown: each is made once
        self._came: list[Came] = []
        self._late_error: OSError | None = None
        self._memberships = _memberships.Memberships(_options_py, self._isolation)
        self._datagrams = self._bytes = self._batches = self._truncated = self._foreign = self._control_truncated = 0
        self._drops: int | None = None
        self._queued: int | None = None
        self._last_receive_buffer = 0
        self._next_look = 0.0
        self._looking = weakref.ref(Claim(exclusive=True))  # who sees to the watch: nobody
        self._watch: Watch | None = None
        self._awaiting: Awaiting | None = None
        self._awaited = False  # a task is suspended in a receive
        self._pollers: list[weakref.ref[Poller]] = []  # that this is, or was, registered with
        if notice is not None:
            notice()
        super().__init__(sock)
        if (counted := memory_of(self._own)) is not None:
            self._drops = counted[0]
        self._remember()

    def _remember(self) -> None:
        try:
            self._last_receive_buffer = _receive_buffer(self._own)
        except OSError:  # somebody closed the descriptor by its number
            return
        if (counted := memory_of(self._own)) is not None:
            self._count_drops(counted[0])
            self._queued = counted[1] // 2  # in the unit of the receive buffer

    def _count_drops(self, count: int) -> None:
        """Bring our count up to the kernel's, which has 32 bits and wraps; what an older one says changes nothing."""
        with self._lock:
            if self._drops is not None:
                self._drops = max(self._drops, widened(self._drops, count))

    def _meet(self, poller: Poller) -> None:
        """Let a poller know of the close, before the descriptors go."""
        with self._lock:
            others = [each for each in self._pollers if each() is not None and each() is not poller]
            self._pollers = [*others, weakref.ref(poller)]

    def _part(self) -> None:
        for each in self._pollers:
            if (poller := each()) is not None:
                poller._drop(self)
            with self._lock:  # only now: had a signal's handler raised before, the next call would go on with this one
                self._pollers = [other for other in self._pollers if other is not each]

    def _retire(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._remember()
        super()._retire()

    def _in_loop(self) -> Awaiting:
        """Return what it knows of the loop that it is awaited in: made, and its module imported, for who awaits."""
        if self._awaiting is None:
            with self._lock:
                self._awaiting = self._awaiting or late("_async").Awaiting()
        return self._awaiting

    def _dismiss(self) -> None:
        if self._awaiting is not None:
            self._awaiting.close()

    def _watch_over(self, make: Callable[[Memberships, int], Watch]) -> None:
        """Heal and listen by a `Watch`: made of the memberships and the descriptor, before anybody else has this."""
        self._watch = make(self._memberships, self._own.fileno())
        self._watched, self._gate = self._watch.fileno(), self._watch.outer_fileno()

    def _look(self) -> bool:
        self._next_look = time.monotonic() + _LOOK_EVERY
        claim = Claim(exclusive=True)
        with self._lock:
            looking = self._looking()
            if looking is not None and not looking.over:
                return False
            self._looking = weakref.ref(claim)
        try:
            self._remember()  # often enough for the kernel's 32 bits of drops not to wrap unseen
            if self._watch is not None:
                self._watch.handle(self._own, self._datagrams)
        finally:
            claim.over = True
        return True

    def _receive(self, operation: str) -> list[Came]:
        """Receive what is there, up to a batch; raises if nothing is."""
        if self._late_error is not None:
            error, self._late_error = self._late_error, None
            raise error
        came = self._came  # what a handler interrupted: still in its slots, and delivered now
        try:
            for slot in self._slots[len(came) :]:  # appending one by one keeps what came before an error
                if not DONTWAIT and not self._poll(False, 0) & READABLE:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                came.append(receive_one(self._own, slot, self._control_size, bool(self._kept), operation))
        except BlockingIOError:
            if not came:
                raise
        except OSError as error:
            if error.errno is None:  # a handler's own, such as the usual TimeoutError of an alarm
                raise
            named = _errors.system(error, operation)
            if not came:
                raise named from None
            self._late_error = named
        self._came = []
        return came

    def _name_of(self, came: Came) -> Any:
        if len(self._names) >= _columns.MOST_TEXTS:  # sources can be forged
            self._names.clear()
        return self._names.setdefault(came.name, came.name)

    def _sort_out(self, came: list[Came]) -> Batch | None:
        """Leave out what is foreign, split trains, measure and count: the batch, None if all was foreign."""
        known_drops = self._drops or 0
        if "drops" in self._kept and came[-1].ancillary.drops:  # else it came without a stamp (`stamped`)
            self._count_drops(came[-1].ancillary.drops)
        self._control_truncated += sum(each.control_cut for each in came)
        slots = list(range(len(came)))
        if self._isolation.on:
            joined = self._isolation.joined
            slots = [slot for slot in slots if came[slot].is_joined(joined)]
            left_out = set(range(len(came))).difference(slots)
            self._foreign += sum(len(came[slot].pieces()) for slot in left_out)
        if not slots:
            return None
        size = self._slot_size
        # Of trains, just what is filled: 64 KiB a slot would be much to copy.
        widths = {slot: min(came[slot].length, size) if self._trains else size for slot in slots}
        begins = dict(zip(slots, itertools.accumulate([0, *widths.values()]), strict=False))
        if self._trains or len(slots) < len(came):
            data: Buffer = b"".join(self._scratch[slot * size :][: widths[slot]] for slot in slots)
        else:
            data = self._scratch[: len(slots) * size]
        rows = [(slot, piece) for slot in slots for piece in came[slot].pieces()]
        real = [len(piece) for _, piece in rows]
        room = [min(self._datagram_size, max(0, size - piece.start)) for _, piece in rows]
        lengths = [min(length, most) for length, most in zip(real, room, strict=True)]
        told = Told(
            self._pool,
            self._kept,
            4 if self._own.family == socket.AF_INET else 16,
            [self._name_of(came[slot]) for slot, _ in rows],
            [came[slot].messages for slot, _ in rows],
            known_drops,
        )
        batch = Batch._of(data, [begins[slot] + min(piece.start, size) for slot, piece in rows], lengths, real, told)
        self._datagrams += len(real)
        self._bytes += sum(lengths)
        self._batches += 1
        self._truncated += batch._truncated.count(1)
        return batch

    def _receive_until(self, until: float, operation: str) -> list[Came]:
        """Receive what is there; if nothing is, ask again and again until then, or until the receiver is closed."""
        while True:
            # Asked after that is known: what came before the close, or in time, is in.
            last = self._closed or not until or time.monotonic() >= until
            try:
                return self._receive(operation)
            except BlockingIOError:
                if last:
                    raise

    def _fill(self, timeout: int, operation: str) -> Batch | None:
        """Receive 1 to batch_size datagrams; None: closed, or nothing is there and timeout is 0."""
        deadline = None
        found = foreign = 0
        until = 0.0
        spinning = Spinning(self._spin)
        while True:
            if time.monotonic() >= self._next_look:
                if timeout > 0 and deadline is None:
                    deadline = time.monotonic() + timeout / 1e9  # the time that looking takes is the caller's
                self._look()
            try:
                batch = self._sort_out(self._receive_until(until, operation))
            except BlockingIOError:
                pass
            else:
                if batch is not None:
                    return batch
                if self._closed:
                    return None
                # Only foreign ones: more may be there, but not even a flood of them puts off the deadline.
                if timeout > 0 and deadline is None:
                    deadline = time.monotonic() + timeout / 1e9
                foreign += 1
                if timeout == 0 and foreign == _FOREIGN_AT_ONCE:
                    return None
                if deadline is not None and time.monotonic() >= deadline:
                    raise _errors.timed_out(operation, timeout / 1e9)
                continue
            if self._closed:
                return None
            if timeout == 0 and not found and (found := self._wait(False, 0.0)):
                continue  # it may have come just now: for a receive to meet, before it is judged
            if found & HANGUP:
                raise _errors.shut_down(operation)
            if found & ERROR:
                raise _errors.error_queue(operation)
            if timeout == 0:
                return None
            if timeout > 0 and deadline is None:
                deadline = time.monotonic() + timeout / 1e9
            until = spinning.turn(deadline)
            found = self._wait(False, 0.0 if until else deadline)
            if found:
                until = 0.0  # for a receive to meet, before it is judged
            elif not until:
                raise _errors.timed_out(operation, timeout / 1e9)

    def _next_batch(self, timeout: int, operation: str) -> Batch | None:
        """Return a batch, or None: the receiver is closed, or nothing is there and timeout is 0."""
        claim = Claim(exclusive=True)
        try:
            if not self._enter(claim, operation):
                return None
            if self._awaited:
                raise _errors.busy(operation)
            if self._max_blocks and self._pool.held() >= self._max_blocks:
                raise _errors.no_block(operation, self._max_blocks)
            return self._fill(timeout, operation)
        finally:
            self._leave(claim)

    def _poll_batch(self, operation: str) -> Batch | None:
        """Return what is there, as `recv_batch(0)` does; None if nothing is, and once the receiver is closed."""
        return self._next_batch(0, operation)

    def _wait_ready(self, seconds: float) -> None:
        """Wait until there may be something to receive, or to see to, or the receiver is closed; in any thread."""
        claim = Claim(exclusive=False)
        try:
            if self._enter(claim, "recv_batch_async"):
                self._poll(False, seconds)
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
            if wait == 0 and not self._closed:
                raise _errors.would_block("recv_batch")
            raise _errors.closed("recv_batch")
        return batch

    def recv_batch_async(self, timeout: SupportsFloat | EllipsisType | None = ...) -> Coroutine[Any, Any, Batch]:
        """Await the next 1 to `batch_size` datagrams: `recv_batch` for a task of asyncio, uvloop, trio or anyio.

        - timeout: as in `recv_batch`

        Raises as `recv_batch` does; RuntimeError while another task receives, and where no such event loop runs. A task
        that is cancelled loses no datagram. While datagrams keep coming, the loop's other tasks have their turn after
        16 batches or 1 ms. `async for` does the same with the receiver's own timeout, until the receiver is closed.
        """
        wait = self._timeout if timeout is ... else _arguments.timeout_ns(timeout, "recv_batch_async")
        return self._in_loop().receive(self, wait, False)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        batch = self._next_batch(self._timeout, "recv_batch")
        if batch is None:
            if self._timeout == 0 and not self._closed:
                raise _errors.would_block("recv_batch")
            raise StopIteration
        return batch

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Batch]:
        return self._in_loop().receive(self, self._timeout, True)

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
            foreign=self._foreign,
            control_truncated=self._control_truncated,
            drops=self._drops,
            queued=self._queued,
            receive_buffer=self._last_receive_buffer,
            links_lost=0 if self._watch is None else self._watch.links_lost,
            rejoins=0 if self._watch is None else self._watch.rejoins,
            silences=0 if self._watch is None else self._watch.silences,
            blocks=held + 1,
            blocks_in_use=held,
            slot_memory=(held + 1) * len(self._scratch),
            huge_memory=None,
        )

    # Membership: on the receiver's own descriptor, within a call that close() waits for.

    def _change(self, operation: str, *arguments: object) -> None:
        claim = Claim(exclusive=False)
        try:
            if not self._enter(claim, operation):
                raise _errors.closed(operation)
            getattr(self._memberships, operation)(self._own, *arguments)
        finally:
            self._leave(claim)

    def join(
        self,
        group: AddressLike,
        interface: InterfaceLike = None,
        source: AddressLike | Iterable[AddressLike] | None = None,
    ) -> None:
        """Join a group, also while another thread receives: from any source, or from those named (RFC 3678).

        - group, interface: as in `join_group`; a receiver bound to one group can be joined to that alone
        - source: one or several

        What is joined on an interface belongs to its index, also once it has gone. Over IPv6, Linux judges a socket's
        sources by the group and not the interface: a group on several is joined there from the same ones.
        Raises TypeError or ValueError for arguments that can't be and for what the receiver can't tell apart or could
        not get, OSError as `join_group` does, with EBADF once the receiver is closed, RuntimeError in a forked child.
        If a source is refused, none of the call's is joined.
        """
        self._change("join", group, interface, source)

    def leave(
        self,
        group: AddressLike,
        interface: InterfaceLike = None,
        source: AddressLike | Iterable[AddressLike] | None = None,
    ) -> None:
        """Leave a group, or sources of it, also while another thread receives.

        - group, source: as in `join`; leaving the last source leaves the group
        - interface: as in `join_group`, or None: the one on which this receiver has joined the group

        An interface that has gone can still be named, and left. Raises as `join` does.
        """
        self._change("leave", group, interface, source)

    def block(self, group: AddressLike, source: AddressLike, interface: InterfaceLike = None) -> None:
        """Stop receiving one source of a group that was joined from any, also while another thread receives.

        - group, source, interface: as in `leave`, one source

        Raises as `join` and `block_source` do.
        """
        self._change("block", group, source, interface)

    def unblock(self, group: AddressLike, source: AddressLike, interface: InterfaceLike = None) -> None:
        """Receive a source again that `block` had blocked; the arguments are the same, and so are the errors."""
        self._change("unblock", group, source, interface)

    def set_source_filter(
        self,
        group: AddressLike,
        mode: str,
        sources: AddressLike | Iterable[AddressLike],
        interface: InterfaceLike = None,
    ) -> None:
        """Say at once from which sources to receive a group that was joined, also while another thread receives.

        - group, interface: as in `leave`; mode, sources: as in the function `set_source_filter`

        Raises as `join` and that function do.
        """
        self._change("set_source_filter", group, mode, sources, interface)

    @property
    def memberships(self) -> tuple[Membership, ...]:
        """What this receiver has joined by its own methods: a tuple of `Membership`; () once it is closed."""
        return () if self.closed else self._memberships.list()

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


from ._poller_py import Poller  # noqa: E402 - of receivers, as they are above
