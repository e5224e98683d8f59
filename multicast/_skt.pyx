# cython: language_level=3, freethreading_compatible=True
# cython: boundscheck=False, wraparound=False, cdivision=True, embedsignature=True, embedsignature.format=clinic
"""The native backend: setsockopt through the kernel's own structs, and batches on recvmmsg(2) and sendmmsg(2).

Owns the descriptors it waits on and the blocks of memory that the kernel fills: bytes that anybody can see never
change. Must not choose a backend, look up an interface or word an error; its twin is `_skt_py.py`, in the same order.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.number cimport PyNumber_AsSsize_t
from cpython.weakref cimport PyWeakref_NewRef
from libc.errno cimport EAGAIN, EBADF, EINTR, ENOMSG, ENOPROTOOPT
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free

from multicast._accounting cimport *
from multicast._ancillary cimport *
from multicast._blocks cimport *
from multicast._chunks cimport *
from multicast._decode cimport *
from multicast._endpoint cimport *
from multicast._export cimport *
from multicast._libc cimport *
from multicast._mmsg cimport *
from multicast._options cimport *
from multicast._outbox cimport *
from multicast._poller cimport *

import os
import sys

from . import _arguments, _columns, _errors, _hugepages, _memberships
from ._late import late
from ._values import Stats

_this = sys.modules[__name__]  # the backend that memberships are changed by
VERSION = MULTICAST_VERSION.decode()  # the door compares it with its own: an extension left behind is recognised


cdef int _check(int result, str operation) except -1:
    """What a function of ours returned, unless it is -errno: the one way from there to an exception."""
    if result < 0:
        raise _errors.failed(-result, operation)
    return result


include "_options.pxi"
include "_endpoint.pxi"
include "_batch.pxi"


# Receiving ---------------------------------------------------------------------------------------------------------

cdef enum:
    LOOK_EVERY = 100000000    # ns between two looks at what changes slowly, while datagrams keep coming
    FOREIGN_AT_ONCE = 16      # batches of nothing but foreign datagrams that timeout=0 goes through

cdef uint32_t[2] _calls = [UNTRIED, UNTRIED]  # whether this process may call recvmmsg, and sendmmsg (atomic)


def batch_refusals():
    """The errno by which this process is kept from recvmmsg, and from sendmmsg, 0 where it is not."""
    return mmsg_refusal(False), mmsg_refusal(True)


@cython.final
@cython.internal
@cython.no_gc
cdef class _Groups:
    """What a receiver has joined, to be looked up for each datagram; never changed once made."""

    cdef Joined joined

    def __cinit__(self, bytes entries):
        if not joined_init(&self.joined, entries, <uint32_t> (len(entries) // JOINED_SIZE)):
            raise MemoryError()

    def __dealloc__(self):
        joined_free(&self.joined)


@cython.final
@cython.internal
@cython.no_gc
cdef class _Isolation:
    """Which datagrams a receiver delivers, if that is checked: its memberships say so, without knowing the receiver."""

    cdef bint on
    cdef _Groups groups  # replaced, never changed

    def __cinit__(self):
        self.groups = _Groups(b"")

    def __call__(self, entries):
        cdef _Groups groups = _Groups(_columns.joined_table(entries))
        with cython.critical_section(self):
            self.groups = groups


cdef object _no_memory(const Pool *pool, str operation):
    """Why there is no block."""
    cdef const Chunks *chunks = &pool.chunks
    if not chunks.error:
        return MemoryError()
    reserved = chunks.kind == RESERVED
    return _errors.huge_pages_not_mapped(chunks.error, operation, reserved, chunks.needed, chunks.page)


cdef object _on_huge_pages(Pool *pool):
    """Bytes of the slots that lie on huge pages: None where that was not asked for, or is not told."""
    cdef Chunk *chunk = <Chunk *> atomic_load_pointer(&pool.chunks.last, __ATOMIC_ACQUIRE)
    if pool.chunks.kind == NO_HUGE_PAGES:
        return None
    mapped = []
    while chunk != NULL:
        mapped.append((<uintptr_t> atomic_load_pointer(&chunk.memory, __ATOMIC_RELAXED), chunk.size))
        chunk = chunk.earlier
    return _hugepages.huge_bytes([(begin, begin + size) for begin, size in mapped if begin])


@cython.final
@cython.no_gc_clear  # methods count on the pool; a cycle through the socket is broken there
cdef class Receiver(_Endpoint):
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

    cdef _Pool _pool
    cdef int64_t _timeout
    cdef int64_t _spin            # ns; -1: without end
    cdef int _late_error          # met after part of a batch: the next call's to raise
    cdef Totals _totals
    cdef object _memberships
    cdef SocketCounters _counters  # as they were when last asked for, so that they outlive the socket
    cdef bint _stamped            # each datagram carries the count of drops
    cdef _Isolation _isolation
    cdef int64_t _next_look       # coarse monotonic ns
    cdef object _watch
    cdef object _awaiting
    cdef public bint _awaited     # a task is suspended in a receive
    cdef list _pollers            # that this is, or was, registered with: weak references

    def __cinit__(self, *_, **__):
        self._pool = _Pool()  # before anything can fail, so that no method ever meets None
        self._isolation = _Isolation()
        self._memberships = _memberships.Memberships(_this, self._isolation)
        self._pollers = []

    def __init__(
            self, sock, *, batch_size=64, datagram_size=2048, timeout=None, spin=None, max_blocks=None, columns=(),
            timestamps=None, gro=False, isolation=False, memory=None, hugepages=None):
        operation = "Receiver"
        pages = _arguments.hugepages(hugepages, memory, operation)
        wanted = _columns.Wanted(columns, timestamps, gro, isolation, operation)
        sock = _arguments.receiving_socket(sock, wanted.gro, operation)
        slots = _arguments.batch_size(batch_size, operation)
        size = _arguments.datagram_size(datagram_size, operation)
        limit = _arguments.max_blocks(max_blocks, operation)
        wait = _arguments.timeout_ns(timeout, operation)
        spinning = _arguments.spin_ns(spin, operation)
        pool = _Pool()
        cdef Shape shape
        shape.batch_size, shape.datagram_size, shape.trains = slots, size, wanted.gro
        shape.slot_size = _arguments.slot_size(_arguments.MAX_DATAGRAM_SIZE if wanted.gro else size)
        shape.address_size = 4 if sock.family == AF_INET else 16
        shape.name_size = (sizeof(sockaddr_in) if sock.family == AF_INET else sizeof(sockaddr_in6))
        shape.name_size *= "source" in wanted.names
        if self._socket is not None:  # before it changes anything, and asked again last
            raise _errors.initialised(operation)
        if memory is not None:
            limit = _take(pool, memory, slots * shape.slot_size, limit, operation)
        cdef size_t page = _hugepages.page_size(pages, operation)
        shape.control_size = wanted.enable(sock, operation)
        pool.kept, pool.texts, (<_Pool> pool).receivers = wanted.kept, {}, 1
        cdef HugePages kind = RESERVED if pages == "reserved" else TRANSPARENT if pages else NO_HUGE_PAGES
        if not pool_init(&(<_Pool> pool).pool, &shape, limit, <char *> (<_Pool> pool).memory.buf, kind, page):
            raise _no_memory(&(<_Pool> pool).pool, operation)
        self._open(sock, operation)
        self._pool, self._timeout, self._spin, self._stamped = pool, wait, spinning, "drops" in wanted.names
        if wanted.isolation and shape.control_size:
            self._isolation.on = True
        first_counters(self._endpoint.fd, &self._counters)

    def __dealloc__(self):
        if self._endpoint.fd >= 0:  # nobody has closed it
            self._pool.leave()

    cdef void _remember(self) noexcept nogil:
        ask_socket(self._endpoint.fd, &self._counters)

    cdef int _meet(self, Poller poller) except -1:
        """Let a poller know of the close, before the descriptors go."""
        with cython.critical_section(self):
            others = [each for each in self._pollers if each() is not None and each() is not poller]
            self._pollers = [*others, PyWeakref_NewRef(poller, None)]

    cdef int _share(self, dict pools) except -1:
        """Take blocks from where other receivers of a thread take theirs: what one let go of is in the caches still."""
        cdef _Pool own = self._blocks()
        cdef _Pool found
        likeness = own.likeness()
        if likeness is None or own.receivers > 1:
            return 0
        found = pools.setdefault(likeness, own)
        if found is own:
            return 0
        if not found.join():
            pools[likeness] = own
            return 0
        with cython.critical_section(self):
            self._pool, own = found, self._pool  # as another poller may have left it meanwhile
        own.leave()

    cdef _Pool _blocks(self):
        """The pool that calls which begin now take from; it may be another one at any time."""
        with cython.critical_section(self):
            return self._pool

    cdef int _part(self) except -1:
        with cython.critical_section(self):
            pollers, self._pollers = self._pollers, []
        for each in pollers:
            poller = each()
            if poller is not None:
                (<Poller> poller)._drop(self)

    cdef int _retire(self) except -1:
        self._remember()
        self._pool.leave()
        endpoint_release(&self._endpoint)
        if self._watch is not None:
            try:
                self._watch.close()
            finally:
                self._watch.close()  # there is no other call to go on with what a signal's handler interrupted

    cdef object _in_loop(self):
        """What it knows of the event loop that it is awaited in: made, and its module imported, for who awaits."""
        if self._awaiting is None:
            made = late("_async").Awaiting()
            with cython.critical_section(self):
                self._awaiting = self._awaiting or made
        return self._awaiting

    cdef int _dismiss(self) except -1:
        if self._awaiting is not None:
            self._awaiting.close()

    def _watch_over(self, make):
        """Heal and listen by a `Watch`: made of the memberships and the descriptor, before anybody else has this."""
        self._watch = make(self._memberships, self._endpoint.fd)
        self._endpoint.watch, self._endpoint.gate = self._watch.fileno(), self._watch.outer_fileno()

    cdef bint _look(self) except -1:
        cdef int64_t now = coarse_ns()
        cdef Entry entry = endpoint_enter(&self._endpoint, LOOKING)
        self._next_look = now + LOOK_EVERY
        if entry != ENTERED:
            return entry == ENDED
        try:
            self._blocks().trim(now)
            self._remember()  # often enough for the kernel's 32 bits of drops not to wrap unseen
            if self._watch is not None:
                sock = _memberships.Descriptor(self._endpoint.fd, self._socket.family)
                self._watch.handle(sock, atomic_load_count(&self._totals.datagrams, __ATOMIC_RELAXED))
        finally:
            self._leave(LOOKING)
        return True

    cdef int _receive(self, Pool *pool, Block *block, int64_t until) except? -1:
        """Receive what is there: how many datagrams are to be delivered, or -errno; 0: only foreign ones were there.

        If nothing is, ask again and again `until` then (monotonic ns; 0: once), or until the receiver is closed.
        """
        cdef _Groups groups
        cdef bint came = False, last = True
        cdef int n
        with nogil:
            while True:
                # The clock costs a tenth of what receiving does, where the vDSO has it (vdso(7)). A pause instruction
                # between two turns wins nothing: nearly all of a turn is the system call.
                if until:
                    last = endpoint_closed(&self._endpoint) or monotonic_ns() >= until
                n = receive_batch(self._endpoint.fd, pool, block, &_calls[0], &self._late_error)
                if n != -EAGAIN or last:  # asked after that was known: what came before the close, or in time, is in
                    break
            if n > 0 and self._stamped:
                block.known_drops = drops_known(&self._counters)
                count_stamp(&self._counters, stamped_drops(&block.headers[n - 1].msg_hdr))
            if n > 0 and not self._isolation.on:
                n = account(pool, block, n, NULL, &self._totals)
                came = True
        if n > 0 and self._isolation.on:
            # As they are now: a datagram may be here because of a group that was joined since the call began.
            with cython.critical_section(self._isolation):
                groups = self._isolation.groups
            n = account(pool, block, n, &groups.joined, &self._totals)
            came = True
        if came and n < 0:  # no room for the datagrams of a train
            raise MemoryError()
        return n

    cdef int _fill(self, Pool *pool, Block *block, int64_t timeout, str operation) except -1:
        """Receive 1 to batch_size datagrams into a block of the pool; 0: closed, or timeout is 0 and nothing there."""
        cdef int64_t deadline = -1, spin_end = 0, until = 0
        cdef short found = 0
        cdef int n, ready, foreign = 0
        while True:
            if coarse_ns() >= self._next_look:
                if timeout > 0 and deadline < 0:
                    deadline = monotonic_ns() + timeout  # the time that looking takes is the caller's
                self._look()
            n = self._receive(pool, block, until)
            if n > 0:
                return n
            if n == -EINTR:
                PyErr_CheckSignals()
                continue
            if n != -EAGAIN:
                _check(n, operation)
            if endpoint_closed(&self._endpoint):
                return 0
            if n == 0:  # only foreign ones: more may be there, but not even a flood of them puts off the deadline
                PyErr_CheckSignals()
                if timeout > 0 and deadline < 0:
                    deadline = monotonic_ns() + timeout
                foreign += 1
                if timeout == 0 and foreign == FOREIGN_AT_ONCE:
                    return 0
                if timeout > 0 and monotonic_ns() >= deadline:
                    raise _errors.timed_out(operation, timeout / 1e9)
                continue
            if timeout == 0 and found == 0 and self._wait(POLLIN | POLLRDHUP, 0, &found, operation) > 0:
                continue  # it may have come just now: for a receive to meet, before it is judged
            # Nothing to read: whoever polls would find "ready" for ever if the reason is one of these.
            if found & POLLRDHUP:
                raise _errors.shut_down(operation)
            if found & POLLERR:
                raise _errors.error_queue(operation)
            if timeout == 0:
                return 0
            if timeout > 0 and deadline < 0:
                deadline = monotonic_ns() + timeout
            until = spin_turn(self._spin, deadline, &spin_end) if self._spin else 0
            ready = self._wait(POLLIN | POLLRDHUP, 0 if until else deadline, &found, operation)
            if found:
                until = 0  # for a receive to meet, before it is judged
            elif ready == 0 and until == 0:
                raise _errors.timed_out(operation, timeout / 1e9)

    cdef Batch _next_batch(self, int64_t timeout, str operation):
        """A batch, or None: the receiver is closed, or nothing is there and timeout is 0."""
        cdef Batch batch = None
        cdef Block *block = NULL
        cdef _Pool blocks
        cdef Pool *pool
        if not self._enter(EXCLUSIVE, operation):
            return None
        blocks = self._blocks()  # for the whole call, also if it shares another receiver's meanwhile
        pool = &blocks.pool
        try:
            if self._awaited:
                raise _errors.busy(operation)
            block = blocks.take()
            if block == NULL:
                if pool.limit and pool.blocks == pool.limit:
                    raise _errors.no_block(operation, pool.blocks)
                raise _no_memory(pool, operation)
            batch = Batch.__new__(Batch)
            batch._count = self._fill(pool, block, timeout, operation)
            if batch._count == 0:
                return None
            batch._pool, batch._block = blocks, block
            atomic_add_word(&pool.in_use, 1, __ATOMIC_RELAXED)
            block = NULL
            return batch
        finally:
            if block != NULL:
                blocks.put(block)
            self._leave(EXCLUSIVE)

    def _poll_batch(self, str operation):
        """Return what is there, as `recv_batch(0)` does; None if nothing is, and once the receiver is closed."""
        return self._next_batch(0, operation)

    def _wait_ready(self, double seconds):
        """Wait until there may be something to receive, or to see to, or the receiver is closed; in any thread."""
        cdef int64_t deadline = monotonic_ns() + <int64_t> (seconds * 1e9)
        cdef short found = 0
        cdef bint watched = False
        cdef int n
        if not self._enter(SHARED, "recv_batch_async"):
            return
        try:
            with nogil:
                n = endpoint_poll(&self._endpoint, POLLIN | POLLRDHUP, deadline, &found, &watched)
            if n != -EINTR:
                _check(n, "recv_batch_async")
        finally:
            self._leave(SHARED)

    def recv_batch(self, timeout=...):
        """Return the next 1 to `batch_size` datagrams, as soon as there is one.

        - timeout: seconds to wait, None without end, 0 not at all; left out: the receiver's own

        Raises TimeoutError when nothing came in time, BlockingIOError for timeout=0 when nothing was there,
        RuntimeError while another thread receives and in a forked child, BufferError when every one of `max_blocks`
        blocks is held, OSError with EBADF once the receiver is closed (also while this call waits), OSError with
        ESHUTDOWN when the socket is shut down, and OSError with the errno of any other failure. An error that the
        kernel met after part of a batch is raised by the next call (recvmmsg(2)); no datagram is lost with it.
        """
        cdef int64_t wait = self._timeout if timeout is ... else _arguments.timeout_ns(timeout, "recv_batch")
        batch = self._next_batch(wait, "recv_batch")
        if batch is None:
            if wait == 0 and not endpoint_closed(&self._endpoint):
                raise _errors.would_block("recv_batch")
            raise _errors.closed("recv_batch")
        return batch

    def recv_batch_async(self, timeout=...):
        """Await the next 1 to `batch_size` datagrams: `recv_batch` for a task of asyncio, uvloop, trio or anyio.

        - timeout: as in `recv_batch`

        Raises as `recv_batch` does; RuntimeError while another task receives, and where no such event loop runs. A task
        that is cancelled loses no datagram. While datagrams keep coming, the loop's other tasks have their turn after
        16 batches or 1 ms. `async for` does the same with the receiver's own timeout, until the receiver is closed.
        """
        cdef int64_t wait = self._timeout if timeout is ... else _arguments.timeout_ns(timeout, "recv_batch_async")
        return self._in_loop().receive(self, wait, False)

    def __iter__(self):
        return self

    def __next__(self):
        batch = self._next_batch(self._timeout, "recv_batch")
        if batch is None:
            if self._timeout == 0 and not endpoint_closed(&self._endpoint):
                raise _errors.would_block("recv_batch")
            raise StopIteration
        return batch

    def __aiter__(self):
        return self

    def __anext__(self):
        return self._in_loop().receive(self, self._timeout, True)

    def stats(self):
        """Return what was counted since the receiver was opened (`Stats`); after `close()`, how it ended."""
        if self._enter(SHARED, "stats"):
            self._remember()
            self._leave(SHARED)
        cdef int64_t drops = <int64_t> atomic_load_count(&self._counters.drops, __ATOMIC_RELAXED)
        cdef _Pool blocks = self._blocks()
        return Stats(
            datagrams=atomic_load_count(&self._totals.datagrams, __ATOMIC_RELAXED),
            bytes=atomic_load_count(&self._totals.bytes, __ATOMIC_RELAXED),
            batches=atomic_load_count(&self._totals.batches, __ATOMIC_RELAXED),
            truncated=atomic_load_count(&self._totals.truncated, __ATOMIC_RELAXED),
            foreign=atomic_load_count(&self._totals.foreign, __ATOMIC_RELAXED),
            control_truncated=atomic_load_count(&self._totals.control_truncated, __ATOMIC_RELAXED),
            drops=None if drops == NOT_TOLD else drops,
            queued=None if drops == NOT_TOLD else atomic_load_count(&self._counters.queued, __ATOMIC_RELAXED),
            receive_buffer=atomic_load_count(&self._counters.receive_buffer, __ATOMIC_RELAXED),
            links_lost=0 if self._watch is None else self._watch.links_lost,
            rejoins=0 if self._watch is None else self._watch.rejoins,
            silences=0 if self._watch is None else self._watch.silences,
            blocks=atomic_load_word(&blocks.pool.blocks, __ATOMIC_RELAXED),
            blocks_in_use=atomic_load_word(&blocks.pool.in_use, __ATOMIC_RELAXED),
            slot_memory=pool_slot_memory(&blocks.pool),
            huge_memory=_on_huge_pages(&blocks.pool),
        )

    # Membership: on the receiver's own descriptor, within a call that close() waits for.

    def _change(self, str operation, *arguments):
        if not self._enter(SHARED, operation):
            raise _errors.closed(operation)
        try:
            sock = _memberships.Descriptor(self._endpoint.fd, self._socket.family)
            getattr(self._memberships, operation)(sock, *arguments)
        finally:
            self._leave(SHARED)

    def join(self, group, interface=None, source=None):
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

    def leave(self, group, interface=None, source=None):
        """Leave a group, or sources of it, also while another thread receives.

        - group, source: as in `join`; leaving the last source leaves the group
        - interface: as in `join_group`, or None: the one on which this receiver has joined the group

        An interface that has gone can still be named, and left. Raises as `join` does.
        """
        self._change("leave", group, interface, source)

    def block(self, group, source, interface=None):
        """Stop receiving one source of a group that was joined from any, also while another thread receives.

        - group, source, interface: as in `leave`, one source

        Raises as `join` and `block_source` do.
        """
        self._change("block", group, source, interface)

    def unblock(self, group, source, interface=None):
        """Receive a source again that `block` had blocked; the arguments are the same, and so are the errors."""
        self._change("unblock", group, source, interface)

    def set_source_filter(self, group, mode, sources, interface=None):
        """Say at once from which sources to receive a group that was joined, also while another thread receives.

        - group, interface: as in `leave`; mode, sources: as in the function `set_source_filter`

        Raises as `join` and that function do.
        """
        self._change("set_source_filter", group, mode, sources, interface)

    @property
    def memberships(self):
        """What this receiver has joined by its own methods: a tuple of `Membership`; () once it is closed."""
        return () if self.closed else self._memberships.list()

    @property
    def batch_size(self):
        """How many datagrams a batch has at most."""
        return self._blocks().pool.shape.batch_size

    @property
    def datagram_size(self):
        """How many bytes of a datagram are kept."""
        return self._blocks().pool.shape.datagram_size

    def __repr__(self):
        state = "closed" if self.closed else f"fd={self.fileno()}"
        return f"<multicast.Receiver {state} batch_size={self.batch_size} datagram_size={self.datagram_size}>"


include "_sender.pxi"
include "_poller.pxi"
