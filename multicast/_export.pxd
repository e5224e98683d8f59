"""The buffer protocol, both ways: how an array of a block is shown, and how the bytes to be sent are taken.

Owns the filling of a Py_buffer: read-only, contiguous, never copied. Must not decide how long the memory lives: the
exporter does.
"""

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_FULL_RO, PyBUF_ND, PyBUF_STRIDES, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_GetBuffer,
)

cdef struct Column:
    void *items
    const char *format      # of the struct module, static
    Py_ssize_t itemsize
    int ndim
    Py_ssize_t shape[2]     # how many items; where an item is an address, how many bytes it has
    Py_ssize_t strides[2]


cdef inline void column_is(Column *column, void *items, const char *format, Py_ssize_t size, Py_ssize_t count) noexcept:
    """So many items of this format and size, one after the other."""
    column.items, column.format, column.itemsize, column.ndim = items, format, size, 1
    column.shape[0], column.strides[0] = count, size


cdef inline void column_of_addresses(Column *column, void *items, Py_ssize_t size, Py_ssize_t count) noexcept:
    """A row of `size` bytes for each address."""
    column.items, column.format, column.itemsize, column.ndim = items, b"B", 1, 2
    column.shape[0], column.shape[1] = count, size
    column.strides[0], column.strides[1] = size, 1


cdef inline void column_fill(Column *column, Py_buffer *buffer, int flags) noexcept nogil:
    """Fill what a consumer asked for; `obj` is the exporter's to set."""
    buffer.buf = column.items
    buffer.len = column.shape[0] * column.strides[0]
    buffer.itemsize = column.itemsize
    buffer.readonly = 1
    buffer.ndim = column.ndim if flags & PyBUF_ND else 1
    buffer.format = <char *> column.format if flags & PyBUF_FORMAT else NULL
    buffer.shape = column.shape if flags & PyBUF_ND else NULL
    buffer.strides = column.strides if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
    buffer.suboffsets = NULL
    buffer.internal = NULL


cdef inline bint get_contiguous(data, Py_buffer *buffer) except -1:
    """Take the bytes of an exporter; false, and nothing taken, if they are in several pieces."""
    PyObject_GetBuffer(data, buffer, PyBUF_FULL_RO)
    if PyBuffer_IsContiguous(buffer, b"C"):
        return True
    PyBuffer_Release(buffer)
    return False
