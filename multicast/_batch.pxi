"""Batches: what a receive call returns, and the views and columns over its block of memory.

Owns how the interpreter keeps a block alive: every view's exporter is its batch. Must not make a system call.
"""

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
