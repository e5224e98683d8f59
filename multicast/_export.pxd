"""How an array of a block is shown through the buffer protocol: read-only, one dimension, never copied.

Owns the filling of a Py_buffer. Must not decide how long the memory lives: the exporter does.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES

cdef struct Column:
    void *items
    const char *format      # of the struct module, static
    Py_ssize_t shape[1]     # how many items
    Py_ssize_t strides[1]   # from one to the next, which is an item's size


cdef inline void column_fill(Column *column, Py_buffer *buffer, int flags) noexcept nogil:
    """Fill what a consumer asked for; `obj` is the exporter's to set."""
    buffer.buf = column.items
    buffer.len = column.shape[0] * column.strides[0]
    buffer.itemsize = column.strides[0]
    buffer.readonly = 1
    buffer.ndim = 1
    buffer.format = <char *> column.format if flags & PyBUF_FORMAT else NULL
    buffer.shape = column.shape if flags & PyBUF_ND else NULL
    buffer.strides = column.strides if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
    buffer.suboffsets = NULL
    buffer.internal = NULL
