"""Batches: what a receive call returns, and the views and columns over its block of memory.

Owns how the interpreter keeps a block alive: every view's exporter is its batch. Must not make a system call.
"""

cdef uint64_t _nothing = 0  # what a batch without a block exports: Batch.__new__ can make one, receivers don't


@cython.final
@cython.internal
@cython.no_gc_clear  # batches count on it; a cycle through the caller's memory is broken there
cdef class _Pool:
    """Keeps a pool as long as a receiver that takes from it or one of its batches lives."""

    cdef Pool pool
    cdef object kept    # names of the columns that were asked for
    cdef dict texts     # addresses as the kernel gives them, and as we show them: each is made once
    cdef Py_buffer memory  # the caller's, if the blocks' slots lie there
    cdef uint32_t receivers  # that take from it: several, where one thread receives from them all

    def __dealloc__(self):
        pool_free(&self.pool)
        PyBuffer_Release(&self.memory)

    # One taker at a time: a call inside of a receiver, which holds the GIL, or this where there is none.

    cdef Block *take(self) noexcept:
        with cython.critical_section(self):
            return pool_take(&self.pool)

    cdef void put(self, Block *block) noexcept:
        with cython.critical_section(self):
            pool_put(&self.pool, block)

    cdef void trim(self, int64_t now) noexcept:
        with cython.critical_section(self):
            pool_trim(&self.pool, now)

    cdef void leave(self) noexcept:
        """A receiver takes from it no more."""
        with cython.critical_section(self):
            self.receivers -= 1
            if self.receivers == 0:
                pool_close(&self.pool)

    cdef bint join(self) noexcept:
        """A receiver takes from it from now on; false if the last one has left."""
        with cython.critical_section(self):
            if self.pool.closed:
                return False
            self.receivers += 1
            return True

    cdef tuple likeness(self):
        """What pools have to have in common for receivers to take from one of them; None: it is a receiver's own."""
        cdef const Shape *shape = &self.pool.shape
        if self.pool.limit:
            return None
        return (
            shape.batch_size, shape.datagram_size, shape.slot_size, shape.name_size, shape.control_size,
            shape.address_size, shape.trains, self.pool.chunks.kind, self.kept,
        )


cdef int _take(_Pool pool, memory, Py_ssize_t block, int limit, str operation) except -1:
    """Take the caller's memory for as long as the pool lives: how many blocks fit, at most `limit` unless that is 0."""
    if not PyObject_CheckBuffer(memory):
        raise _errors.no_memory(operation, memory)
    try:
        PyObject_GetBuffer(memory, &pool.memory, PyBUF_WRITABLE)
    except (BufferError, ValueError) as error:  # numpy's for an array in pieces, and mmap's once closed
        raise _errors.memory_not_writable(operation, memory, error) from None
    if pool.memory.len < block:
        raise _errors.memory_too_small(operation, pool.memory.len, block)
    return <int> min(pool.memory.len // block, <Py_ssize_t> limit if limit else _arguments.MAX_BLOCKS)


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
    column_is(&exporter._column, items if items != NULL else &_nothing, format, size, batch._count)
    return memoryview(exporter)


cdef object _addresses(Batch batch, void *items, Py_ssize_t size):
    cdef _Column exporter = _Column.__new__(_Column)
    exporter._batch = batch
    column_of_addresses(&exporter._column, items, size, batch._count)
    return memoryview(exporter)


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Batch:
    """The datagrams of one `recv_batch`: a sequence of read-only memoryviews, each exactly a datagram's bytes.

    Every view's exporter is the batch, and the batch holds the block of memory: while any of them lives, the bytes
    stay as they are, also after `Receiver.close()`. `memoryview(batch)` is the block itself, one byte an item, as far
    as it was filled: datagram i is the `lengths[i]` bytes at `offsets[i]`; bytes between two datagrams mean nothing.

    Columns are read-only buffers, an item a datagram, which numpy wraps without a copy. All but the lengths have to be
    asked for when the receiver is opened (`columns`, `timestamps`); reading one that was not raises ValueError.
    """

    cdef _Pool _pool
    cdef Block *_block
    cdef Py_ssize_t _count
    cdef Column _bytes
    cdef bint _decoded

    def __init__(self, *_):
        raise TypeError("batches come from Receiver.recv_batch")

    def __dealloc__(self):
        if self._block != NULL:
            pool_give_back(&self._pool.pool, self._block)

    cdef Py_ssize_t _at(self, index) except -1:
        """The datagram that an index means, which may count from the end."""
        cdef Py_ssize_t i = PyNumber_AsSsize_t(index, IndexError)
        if i < 0:
            i += self._count
        if not 0 <= i < self._count:
            raise IndexError("batch index out of range")
        return i

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        cdef Py_ssize_t i
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        i = self._at(index)
        return multicast_view(self, self._block.offsets[i], self._block.lengths[i])

    def __iter__(self):
        cdef _BatchIterator iterator = _BatchIterator.__new__(_BatchIterator)
        iterator._batch = self
        iterator._whole = memoryview(self)
        return iterator

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef Py_ssize_t size = 0
        if flags & PyBUF_WRITABLE:
            raise BufferError("a batch is read-only")
        if self._count:  # whole slots, up to the one with the last datagram
            size = self._pool.pool.shape.slot_size
            size *= self._block.offsets[self._count - 1] // size + 1
        column_is(&self._bytes, self._block.slots if self._count else <void *> &_nothing, b"B", 1, size)
        buffer.obj = self
        column_fill(&self._bytes, buffer, flags)

    def __repr__(self):
        return f"<multicast.Batch of {self._count} datagrams>"

    @property
    def offsets(self):
        """Where in `memoryview(batch)` each datagram begins: a read-only buffer of uint32 (format "I"), bytes."""
        return _column(self, self._block.offsets if self._count else NULL, b"I", sizeof(uint32_t))

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

    # Decoded when one of them is first read

    cdef void *_items(self, str what, str column, int which) except? NULL:
        """The array of a column; NULL for a batch of nothing."""
        cdef bint done
        if self._count == 0:
            return NULL
        if column not in self._pool.kept:
            raise _columns.not_kept(f"Batch.{what}", column)
        with cython.critical_section(self):
            done = self._decoded or decode(&self._pool.pool, self._block, self._count)
            self._decoded = done
        if not done:
            raise MemoryError()
        return self._block.decoded[which]

    cdef tuple _text_of(self, bytes key, make):
        """What an address is shown as, made once for each; not for ever more of them, since sources can be forged."""
        found = self._pool.texts.get(key)
        if found is None:
            found = make(key)
            if len(self._pool.texts) >= _columns.MOST_TEXTS:
                self._pool.texts.clear()
            self._pool.texts[key] = found
        return found

    def source(self, index):
        """Return where a datagram came from, as `socket.recvfrom` does: (address, port), over IPv6 with two more."""
        cdef Py_ssize_t i = self._at(index), length
        cdef msghdr *header = &self._block.headers[self._block.offsets[i] // self._pool.pool.shape.slot_size].msg_hdr
        if "source" not in self._pool.kept:
            raise _columns.not_kept("Batch.source", "source")
        # The kernel says how long the address is, not how much of it there was room for.
        length = min(header.msg_namelen, self._pool.pool.shape.name_size)
        return self._text_of((<char *> header.msg_name)[:length], _columns.socket_address)

    def destination(self, index):
        """Return the address that a datagram was sent to, as text: the group, or an address of this host."""
        cdef Py_ssize_t i = self._at(index)
        cdef Py_ssize_t size = self._pool.pool.shape.address_size
        cdef char *items = <char *> self._items("destination", "destination", DESTINATION_ADDRESS)
        return self._text_of((items + i * size)[:size], _columns.address_text)[0]

    def interface(self, index):
        """Return the index of the interface that a datagram came in on."""
        cdef Py_ssize_t i = self._at(index)
        return (<uint32_t *> self._items("interface", "interface", INTERFACE))[i]

    def timestamp_kind(self, index):
        """Return what stamped a datagram: "hardware" (the network card), "software" (the kernel), or None."""
        cdef Py_ssize_t i = self._at(index)
        return _columns.KINDS[(<uint8_t *> self._items("timestamp_kind", "timestamps", TIMESTAMP_KIND))[i]]

    @property
    def source_addresses(self):
        """Each datagram's source address, in network order: a read-only buffer of uint8, a row of 4 or 16 of them."""
        cdef void *items = self._items("source_addresses", "source", SOURCE_ADDRESS)
        return _addresses(self, items, self._pool.pool.shape.address_size if self._count else 4)

    @property
    def source_ports(self):
        """Each datagram's source port: a read-only buffer of uint16 (format "H")."""
        return _column(self, self._items("source_ports", "source", SOURCE_PORT), b"H", sizeof(uint16_t))

    @property
    def destination_addresses(self):
        """The address each datagram was sent to, in network order: a read-only buffer of uint8, a row of 4 or 16."""
        cdef void *items = self._items("destination_addresses", "destination", DESTINATION_ADDRESS)
        return _addresses(self, items, self._pool.pool.shape.address_size if self._count else 4)

    @property
    def interfaces(self):
        """The index of the interface each datagram came in on: a read-only buffer of uint32 (format "I")."""
        return _column(self, self._items("interfaces", "interface", INTERFACE), b"I", sizeof(uint32_t))

    @property
    def ttls(self):
        """Each datagram's time to live, or hop limit, on arrival: a read-only buffer of uint8 (format "B")."""
        return _column(self, self._items("ttls", "ttl", HOPS), b"B", 1)

    @property
    def tos(self):
        """Each datagram's TOS byte, or traffic class: DSCP * 4 + ECN (RFC 2474, 3168); uint8 (format "B")."""
        return _column(self, self._items("tos", "tos", TRAFFIC_CLASS), b"B", 1)

    @property
    def timestamps(self):
        """When each datagram was received: a read-only buffer of int64 (format "q"), ns since 1970; 0: not stamped.

        The kernel's time is the system's clock (CLOCK_REALTIME), a network card's is that card's own.
        """
        return _column(self, self._items("timestamps", "timestamps", TIMESTAMP), b"q", sizeof(int64_t))

    @property
    def timestamp_kinds(self):
        """What stamped each datagram: 0 nothing, 1 the kernel, 2 the network card: a buffer of uint8 (format "B")."""
        return _column(self, self._items("timestamp_kinds", "timestamps", TIMESTAMP_KIND), b"B", 1)

    @property
    def drops(self):
        """How many datagrams the kernel had dropped for this socket when each was queued (SO_RXQ_OVFL, socket(7)).

        A read-only buffer of uint64 (format "Q"). The kernel tells it when the next datagram comes, and may be late by
        a few; `Receiver.stats()` asks for the count as it is.
        """
        return _column(self, self._items("drops", "drops", DROPS), b"Q", sizeof(uint64_t))


multicast_refuse_writers(Batch)


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
        if self._batch is None or i >= self._batch._count:  # None: made by nobody here, or at its end
            self._batch = self._whole = None
            raise StopIteration
        self._next = i + 1
        return multicast_view(self._whole, self._batch._block.offsets[i], self._batch._block.lengths[i])
