"""Sending: buffers of any kind, held while sendmmsg(2) takes the bytes from them.

Owns the outbox and what a partial send means. Must not copy a payload.
"""

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
