# cython: language_level=3, freethreading_compatible=True
# cython: boundscheck=False, wraparound=False, cdivision=True, embedsignature=True, embedsignature.format=clinic
"""The native backend: setsockopt through the kernel's own structs, and batches on recvmmsg(2) and sendmmsg(2).

Owns the descriptors it waits on and the blocks of memory that the kernel fills: bytes that anybody can see never
change. Must not choose a backend, look up an interface or word an error; its twin is `_skt_py.py`, in the same order.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.number cimport PyNumber_AsSsize_t
from libc.errno cimport EAGAIN, EBADF, EINTR, ENOMSG, ENOPROTOOPT
from libc.stdint cimport int64_t, uint32_t, uint64_t

from multicast._blocks cimport *
from multicast._endpoint cimport *
from multicast._export cimport *
from multicast._libc cimport *
from multicast._mmsg cimport *
from multicast._options cimport *

import os

from . import _arguments, _errors
from ._values import Stats

VERSION = MULTICAST_VERSION.decode()  # the door compares it with its own: an extension left behind is recognised


cdef int _check(int result, str operation) except -1:
    """What a function of ours returned, unless it is -errno: the one way from there to an exception."""
    if result < 0:
        raise _errors.failed(-result, operation)
    return result


# Socket options ----------------------------------------------------------------------------------------------------


cdef int _membership(
        str operation, int fd, int any_source, int one_source,
        bytes group, uint32_t index, bytes source) except -1:
    cdef int family = AF_INET if len(group) == 4 else AF_INET6
    cdef const char *group_bytes = group
    cdef const char *source_bytes = NULL
    cdef int result
    if len(group) not in (4, 16) or (source is not None and len(source) != len(group)):
        raise ValueError("addresses have 4 or 16 bytes, a group's sources as many as the group")
    if source is not None:
        source_bytes = source
    with nogil:  # a membership waits for the kernel's lock on its interfaces
        result = option_membership(fd, family, any_source, one_source, group_bytes, index, source_bytes)
    return _check(result, operation)


def join_group(sock, bytes group not None, uint32_t index, bytes source):
    _membership("join_group", sock.fileno(), MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP, group, index, source)


def leave_group(sock, bytes group not None, uint32_t index, bytes source):
    _membership("leave_group", sock.fileno(), MCAST_LEAVE_GROUP, MCAST_LEAVE_SOURCE_GROUP, group, index, source)


def unblock_source(sock, bytes group not None, uint32_t index, bytes source not None):
    _membership("unblock_source", sock.fileno(), 0, MCAST_UNBLOCK_SOURCE, group, index, source)


def set_multicast_interface(sock, uint32_t index):
    _check(option_multicast_interface(sock.fileno(), sock.family, index), "set_multicast_interface")


def set_multicast_ttl(sock, int ttl):
    _check(option_set_int(sock.fileno(), sock.family, IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS, ttl), "set_multicast_ttl")


def set_multicast_loopback(sock, bint enabled):
    cdef int result = option_set_int(sock.fileno(), sock.family, IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP, enabled)
    _check(result, "set_multicast_loopback")


def limit_to_joined(sock):
    """Deliver only groups joined on this socket (IP_MULTICAST_ALL off, ip(7)); False where the kernel can't."""
    cdef int result = option_set_int(sock.fileno(), sock.family, IP_MULTICAST_ALL, IPV6_MULTICAST_ALL, 0)
    return result != -ENOPROTOOPT and _check(result, "limit_to_joined") == 0


def set_receive_buffer(sock, int nbytes):
    """Past net.core.rmem_max where this process may (CAP_NET_ADMIN), else as far as that allows: bytes granted."""
    return _check(option_set_receive_buffer(sock.fileno(), nbytes), "set_receive_buffer")


# Waiting and closing -----------------------------------------------------------------------------------------------

cdef uint64_t _generation = 0  # how many forks lie between this process and the one that imported us


def _after_fork():
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_after_fork)


@cython.internal
cdef class _Endpoint:
    """A socket of ours, and who is inside a call on it."""

    cdef object __weakref__, _socket
    cdef Endpoint _endpoint
    cdef uint64_t _born

    def __cinit__(self):
        endpoint_init(&self._endpoint)
        self._born = _generation

    def __dealloc__(self):
        endpoint_release(&self._endpoint)

    cdef int _open(self, sock, str operation) except -1:
        cdef int fd = sock.fileno()
        if self._socket is not None:  # asked last: an argument's own code may have come here, too
            raise RuntimeError(f"{operation}: already initialised")
        _check(endpoint_open(&self._endpoint, fd), operation)
        self._socket = sock
        return 0

    cdef void _remember(self) noexcept nogil:
        """Keep what may be asked for once the descriptor is gone."""

    cdef void _retire(self) noexcept nogil:
        """Closed, and nobody is inside any more: let go."""
        endpoint_release(&self._endpoint)

    cdef bint _enter(self, uint32_t claim, str operation) except -1:
        """Begin a call; false if the endpoint is closed."""
        cdef Entry entry
        if self._born != _generation:
            raise _errors.forked(operation)
        entry = endpoint_enter(&self._endpoint, claim)
        if entry == TAKEN:
            raise _errors.busy(operation)
        return entry == ENTERED

    cdef void _leave(self, uint32_t claim) noexcept nogil:
        if endpoint_leave(&self._endpoint, claim):
            self._retire()

    cdef int _wait(self, short events, int64_t deadline, short *found, str operation) except -1:
        """Wait as endpoint_poll does, with signal handlers run: Ctrl-C and its like end the wait."""
        cdef int n
        while True:
            PyErr_CheckSignals()
            with nogil:
                n = endpoint_poll(&self._endpoint, events, deadline, found)
            if n != -EINTR:
                return _check(n, operation)

    @property
    def socket(self):
        """The socket that it was made with; `close()` closes it."""
        return self._socket

    def fileno(self):
        """Return the descriptor to wait on with selectors or an event loop; -1 once closed."""
        return -1 if endpoint_closed(&self._endpoint) else self._endpoint.fd

    @property
    def closed(self):
        """Whether `close()` was called."""
        return endpoint_closed(&self._endpoint)

    def close(self):
        """Close the socket and wake a call that waits in another thread; again, it does nothing.

        The descriptor is closed once the last call has left it. Batches and views stay as they are.
        """
        if endpoint_enter(&self._endpoint, SHARED) == ENDED:
            return
        self._remember()
        if self._born == _generation:
            endpoint_close(&self._endpoint)
            self._leave(SHARED)
        else:  # a forked child: the calls inside are the parent's, and so is whoever the eventfd would wake
            self._endpoint.state = CLOSED
            self._retire()
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


# Batches -----------------------------------------------------------------------------------------------------------

cdef uint64_t _nothing = 0  # what a batch without a block exports: Batch.__new__ can make one, receivers don't


@cython.final
@cython.internal
@cython.no_gc
cdef class _Pool:
    """Keeps a pool as long as its receiver or one of its batches lives."""

    cdef Pool pool

    def __dealloc__(self):
        pool_free(&self.pool)


@cython.final
@cython.internal
@cython.no_gc
@cython.freelist(8)
cdef class _Column:
    """The exporter behind one column: an array of a block, with its batch kept alive."""

    cdef Batch _batch
    cdef Column _column

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if flags & PyBUF_WRITABLE or self._batch is None:  # None: made by nobody here
            raise BufferError("a column is read-only")
        buffer.obj = self
        column_fill(&self._column, buffer, flags)


cdef object _column(Batch batch, void *items, const char *format, Py_ssize_t size):
    cdef _Column exporter = _Column.__new__(_Column)
    exporter._batch = batch
    exporter._column.items, exporter._column.format = (items if items != NULL else &_nothing), format
    exporter._column.shape[0], exporter._column.strides[0] = batch._count, size
    return memoryview(exporter)


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Batch:
    """The datagrams of one `recv_batch`: a sequence of read-only memoryviews, each exactly a datagram's bytes.

    Every view's exporter is the batch, and the batch holds the block of memory: while any of them lives, the bytes
    stay as they are, also after `Receiver.close()`. `memoryview(batch)` is the block itself, one byte an item, as far
    as it was filled: datagram i is the `lengths[i]` bytes at `offsets[i]`; bytes between two datagrams mean nothing.
    """

    cdef _Pool _pool
    cdef Block *_block
    cdef Py_ssize_t _count
    cdef Column _bytes

    def __init__(self, *_):
        raise TypeError("batches come from Receiver.recv_batch")

    def __dealloc__(self):
        if self._block != NULL:
            pool_give_back(&self._pool.pool, self._block)

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        cdef Py_ssize_t i
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        i = PyNumber_AsSsize_t(index, IndexError)
        if i < 0:
            i += self._count
        if not 0 <= i < self._count:
            raise IndexError("batch index out of range")
        return multicast_view(self, i * self._pool.pool.slot_size, self._block.lengths[i])

    def __iter__(self):
        cdef _BatchIterator iterator = _BatchIterator.__new__(_BatchIterator)
        iterator._batch = self
        iterator._whole = memoryview(self)
        return iterator

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("a batch is read-only")
        self._bytes.format, self._bytes.strides[0] = b"B", 1
        self._bytes.items = self._block.slots if self._count else <void *> &_nothing
        self._bytes.shape[0] = self._count * <Py_ssize_t> self._pool.pool.slot_size if self._count else 0
        buffer.obj = self
        column_fill(&self._bytes, buffer, flags)

    def __repr__(self):
        return f"<multicast.Batch of {self._count} datagrams>"

    @property
    def offsets(self):
        """Where in `memoryview(batch)` each datagram begins: a read-only buffer of uint32 (format "I"), bytes."""
        return _column(self, self._pool.pool.offsets if self._count else NULL, b"I", sizeof(uint32_t))

    @property
    def lengths(self):
        """How long each datagram's view is: a read-only buffer of uint32 (format "I"), bytes."""
        return _column(self, self._block.lengths if self._count else NULL, b"I", sizeof(uint32_t))

    @property
    def real_lengths(self):
        """How long each datagram was when it arrived (MSG_TRUNC, recv(2)): a read-only buffer of uint32, bytes."""
        return _column(self, self._block.real_lengths if self._count else NULL, b"I", sizeof(uint32_t))

    @property
    def truncated(self):
        """Whether each datagram was longer than `datagram_size`: a read-only buffer of bool (format "?")."""
        return _column(self, self._block.truncated if self._count else NULL, b"?", 1)


@cython.final
@cython.internal
@cython.no_gc
@cython.freelist(8)
cdef class _BatchIterator:
    cdef Batch _batch
    cdef object _whole
    cdef Py_ssize_t _next

    def __iter__(self):
        return self

    def __next__(self):
        cdef Py_ssize_t i = self._next
        if self._batch is None or i >= self._batch._count:  # None: made by nobody here
            raise StopIteration
        self._next = i + 1
        return multicast_view(self._whole, i * self._batch._pool.pool.slot_size, self._batch._block.lengths[i])


# Receiving ---------------------------------------------------------------------------------------------------------

cdef uint32_t[2] _calls = [UNTRIED, UNTRIED]  # whether this process may call recvmmsg, and sendmmsg (atomic)


@cython.final
@cython.no_gc_clear  # methods count on the pool; a cycle through the socket is broken there
cdef class Receiver(_Endpoint):
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

    cdef _Pool _pool
    cdef int64_t _timeout
    cdef int _late_error          # met after part of a batch: the next call's to raise
    cdef Totals _totals
    cdef SocketCounters _counters  # as they were when last asked for, so that they outlive the socket

    def __cinit__(self, *_, **__):
        self._pool = _Pool()  # before anything can fail, so that no method ever meets None

    def __init__(self, sock, *, batch_size=64, datagram_size=2048, timeout=None, max_blocks=None):
        operation = "Receiver"
        sock = _arguments.receiving_socket(sock, operation)
        slots = _arguments.batch_size(batch_size, operation)
        size = _arguments.datagram_size(datagram_size, operation)
        limit = _arguments.max_blocks(max_blocks, operation)
        wait = _arguments.timeout_ns(timeout, operation)
        pool = _Pool()
        if not pool_init(&(<_Pool> pool).pool, slots, size, _arguments.slot_size(size), limit):
            raise MemoryError()
        self._open(sock, operation)
        self._pool, self._timeout = pool, wait

    cdef void _remember(self) noexcept nogil:
        ask_socket(self._endpoint.fd, &self._counters)

    cdef void _retire(self) noexcept nogil:
        self._remember()
        pool_close(&self._pool.pool)
        endpoint_release(&self._endpoint)

    cdef int _fill(self, Block *block, int64_t timeout, str operation) except -1:
        """Receive 1 to batch_size datagrams into the block; 0 if the receiver was closed."""
        cdef Pool *pool = &self._pool.pool
        cdef int64_t deadline = -1
        cdef short found = 0
        cdef int n
        while True:
            with nogil:
                n = receive_batch(self._endpoint.fd, block, <int> pool.batch_size, &_calls[0], &self._late_error)
                if n > 0:
                    account(pool, block, n, &self._totals)
            if n > 0:
                return n
            if n == -EINTR:
                PyErr_CheckSignals()
                continue
            if n != -EAGAIN:
                _check(n, operation)
            if endpoint_closed(&self._endpoint):
                return 0
            if timeout == 0 and found == 0 and self._wait(POLLIN | POLLRDHUP, 0, &found, operation) > 0:
                continue  # it may have come just now: for a receive to meet, before it is judged
            # Nothing to read: whoever polls would find "ready" for ever if the reason is one of these.
            if found & POLLRDHUP:
                raise _errors.shut_down(operation)
            if found & POLLERR:
                raise _errors.error_queue(operation)
            if timeout == 0:
                raise _errors.would_block(operation)
            if timeout > 0 and deadline < 0:
                deadline = monotonic_ns() + timeout
            if self._wait(POLLIN | POLLRDHUP, deadline, &found, operation) == 0:
                raise _errors.timed_out(operation, timeout / 1e9)

    cdef Batch _next_batch(self, int64_t timeout, str operation):
        """A batch, or None if the receiver is closed."""
        cdef Batch batch = None
        cdef Block *block = NULL
        cdef Pool *pool
        if not self._enter(EXCLUSIVE, operation):
            return None
        pool = &self._pool.pool
        try:
            block = pool_take(pool)
            if block == NULL:
                if pool.limit and pool.blocks == pool.limit:
                    raise _errors.no_block(operation, pool.blocks)
                raise MemoryError()
            batch = Batch.__new__(Batch)
            batch._count = self._fill(block, timeout, operation)
            if batch._count == 0:
                return None
            batch._pool, batch._block = self._pool, block
            atomic_add_word(&pool.in_use, 1, __ATOMIC_RELAXED)
            block = NULL
            return batch
        finally:
            if block != NULL:
                pool_put(pool, block)
            self._leave(EXCLUSIVE)

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
            raise _errors.closed("recv_batch")
        return batch

    def __iter__(self):
        return self

    def __next__(self):
        batch = self._next_batch(self._timeout, "recv_batch")
        if batch is None:
            raise StopIteration
        return batch

    def stats(self):
        """Return what was counted since the receiver was opened (`Stats`); after `close()`, how it ended."""
        if self._enter(SHARED, "stats"):
            self._remember()
            self._leave(SHARED)
        cdef int64_t drops = <int64_t> atomic_load_count(&self._counters.drops, __ATOMIC_RELAXED)
        return Stats(
            datagrams=atomic_load_count(&self._totals.datagrams, __ATOMIC_RELAXED),
            bytes=atomic_load_count(&self._totals.bytes, __ATOMIC_RELAXED),
            batches=atomic_load_count(&self._totals.batches, __ATOMIC_RELAXED),
            truncated=atomic_load_count(&self._totals.truncated, __ATOMIC_RELAXED),
            drops=None if drops == NOT_TOLD else drops,
            receive_buffer=atomic_load_count(&self._counters.receive_buffer, __ATOMIC_RELAXED),
            blocks=atomic_load_word(&self._pool.pool.blocks, __ATOMIC_RELAXED),
            blocks_in_use=atomic_load_word(&self._pool.pool.in_use, __ATOMIC_RELAXED),
        )

    @property
    def batch_size(self):
        """How many datagrams a batch has at most."""
        return self._pool.pool.batch_size

    @property
    def datagram_size(self):
        """How many bytes of a datagram are kept."""
        return self._pool.pool.datagram_size

    def __repr__(self):
        state = "closed" if self.closed else f"fd={self._endpoint.fd}"
        return f"<multicast.Receiver {state} batch_size={self.batch_size} datagram_size={self.datagram_size}>"


# Sending -----------------------------------------------------------------------------------------------------------

cdef int _hold(data, Outbox *outbox, int i, str operation) except -1:
    if not PyObject_CheckBuffer(data):
        raise _errors.no_buffer(operation, data)
    if not get_contiguous(data, &outbox.buffers[i]):
        raise _errors.not_contiguous(operation, data)
    outbox_take(outbox, i)
    return 0


@cython.final
cdef class Sender(_Endpoint):
    """Sends datagrams to the group that its socket is connected to.

    Sender(sock): an open SOCK_DGRAM socket, connected to a group; `close()` closes it. `open_sender` makes both.
    Raises TypeError or ValueError for a socket that can't be, and OSError.
    """

    cdef Outbox _outbox

    def __init__(self, sock):
        outbox_init(&self._outbox)
        self._open(_arguments.connected_socket(sock, "Sender"), "Sender")

    cdef int _flush(self, int size, str operation) except 0:
        """Send the first `size` messages: how many went, or -errno; waits while the socket's buffer is full."""
        cdef int n
        cdef short found = 0
        while True:
            with nogil:
                n = send_messages(self._endpoint.fd, self._outbox.headers, size, &_calls[1])
            if n == -EINTR:
                PyErr_CheckSignals()
            elif n != -EAGAIN:
                return n
            elif endpoint_closed(&self._endpoint):
                return -EBADF
            elif found & POLLERR:  # and no error that sending would have met
                return -ENOMSG
            else:
                self._wait(POLLOUT, -1, &found, operation)

    cdef Py_ssize_t _send(self, tuple buffers, str operation) except -1:
        """Send each buffer as a datagram: how many went; a failure is raised only if the first one met it."""
        cdef Py_ssize_t sent = 0, total = len(buffers)
        cdef int size, held, n
        if not self._enter(EXCLUSIVE, operation):
            raise _errors.closed(operation)
        try:
            while sent < total:
                size = held = 0
                try:
                    try:
                        for size in range(<int> min(total - sent, <Py_ssize_t> SEND_AT_ONCE)):
                            _hold(buffers[sent + size], &self._outbox, size, operation)
                            held += 1
                    except (TypeError, BufferError, ValueError):
                        if sent == 0:
                            raise
                        break
                    n = self._flush(held, operation)
                finally:
                    for size in range(held):
                        PyBuffer_Release(&self._outbox.buffers[size])
                if n < 0:
                    if sent == 0:
                        raise _errors.not_sent(-n, operation)
                    break
                sent += n
            return sent
        finally:
            self._leave(EXCLUSIVE)

    def send(self, data):
        """Send one datagram from any contiguous buffer; return its length in bytes.

        Waits while the socket's send buffer is full. Raises OSError with the errno of what failed (EMSGSIZE: longer
        than a datagram can be; EBADF: closed), RuntimeError while another thread sends and in a forked child.
        """
        self._send((data,), "send")
        return memoryview(data).nbytes

    def send_batch(self, buffers):
        """Send each of several contiguous buffers as a datagram, in order, by sendmmsg(2); return how many went.

        Fewer than given means that one of the others failed: sending the rest raises its error. Raises only where none
        went: as `send` does, and TypeError or BufferError for what is no contiguous buffer. Buffers are handed to the
        kernel 64 at a time, so up to 63 good ones before a bad one may not have gone.
        """
        return self._send(tuple(buffers), "send_batch")

    def __repr__(self):
        return f"<multicast.Sender {'closed' if self.closed else f'fd={self._endpoint.fd}'}>"
