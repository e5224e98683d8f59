"""What any thread may close, and a socket of ours: the bases of Receiver, Sender and Poller, over `_endpoint.pxd`.

Owns entering, waiting with signal handlers run, closing, and what a fork means. Must not know what is received or sent.
"""

cdef uint64_t _generation = 0  # how many forks lie between this process and the one that imported us


def _after_fork():
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_after_fork)


@cython.internal
cdef class _Closable:
    """What any thread may close: who is inside a call on it, the last of whom lets go of it."""

    cdef object __weakref__
    cdef Endpoint _endpoint
    cdef uint64_t _born

    def __cinit__(self):
        endpoint_init(&self._endpoint)
        self._born = _generation

    def __dealloc__(self):
        endpoint_release(&self._endpoint)

    cdef void _remember(self) noexcept nogil:
        """Keep what may be asked for once the descriptor is gone."""

    cdef int _part(self) except -1:
        """Closed, and the descriptors are there still: leave whoever else waits on them."""

    cdef int _retire(self) except -1:
        """Closed, and nobody is inside any more: let go. Raises only what a signal's handler raises."""
        endpoint_release(&self._endpoint)

    cdef bint _enter(self, uint32_t claim, str operation) except -1:
        """Begin a call; false if this is closed."""
        cdef Entry entry
        if self._born != _generation:
            raise _errors.forked(operation)
        entry = endpoint_enter(&self._endpoint, claim)
        if entry == TAKEN:
            raise _errors.busy(operation)
        return entry == ENTERED

    cdef int _leave(self, uint32_t claim) except -1:
        if endpoint_leave(&self._endpoint, claim):
            self._retire()

    cdef int _close(self) except -1:
        if endpoint_enter(&self._endpoint, SHARED) == ENTERED:
            self._remember()
            if self._born == _generation:
                endpoint_close(&self._endpoint)
                try:
                    self._part()
                finally:
                    self._leave(SHARED)
            else:  # a forked child: the calls inside are the parent's, and so is whoever the eventfd would wake
                self._endpoint.state = CLOSED
                self._retire()

    @property
    def closed(self):
        """Whether `close()` was called."""
        return endpoint_closed(&self._endpoint)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


@cython.internal
cdef class _Endpoint(_Closable):
    """A socket of ours, and who is inside a call on it."""

    cdef object _socket

    cdef int _open(self, sock, str operation) except -1:
        cdef int fd = sock.fileno()
        if self._socket is not None:  # asked last: an argument's own code may have come here, too
            raise _errors.initialised(operation)
        _check(endpoint_open(&self._endpoint, fd), operation)
        self._socket = sock
        return 0

    cdef bint _look(self) except -1:
        """What is watched beside the socket has something to say: see to it; false if another thread is at that."""
        return True

    cdef int _dismiss(self) except -1:
        """Closed: wake who waits for it elsewhere than inside a call."""

    cdef int _wait(self, short events, int64_t deadline, short *found, str operation) except -1:
        """Wait as endpoint_poll does, with signal handlers run: Ctrl-C and its like end the wait, the watch doesn't."""
        cdef bint watched = False, over = False
        cdef int n
        while True:
            PyErr_CheckSignals()
            if deadline == 0:  # some 1 µs: to let the GIL go and get it back may take 5 ms where others compute
                n = endpoint_poll(&self._endpoint, events, deadline, found, &watched)
            else:
                with nogil:
                    n = endpoint_poll(&self._endpoint, events, deadline, found, &watched)
            if n == -EINTR:
                continue
            if n <= 0 or not watched:
                return _check(n, operation)
            if over:  # however often the watch is ready, the deadline holds
                return n - 1
            if not self._look() and n == 1:
                with nogil:
                    outbox_pause(self._endpoint.wake, HELD_UP)
            if n > 1:
                return n
            over = 0 <= deadline <= monotonic_ns()  # looking took until then: what came meanwhile came in time

    @property
    def socket(self):
        """The socket that it was made with; `close()` closes it."""
        return self._socket

    def fileno(self):
        """Return the descriptor to wait on with selectors or an event loop; -1 once closed.

        A receiver's may also be ready when an interface has changed: then there is nothing to receive with timeout=0.
        """
        return -1 if endpoint_closed(&self._endpoint) else self._endpoint.gate

    def close(self):
        """Close the socket and wake a call that waits in another thread; again, it does nothing.

        The descriptor is closed once the last call has left it. Batches and views stay as they are.
        """
        self._close()
        self._dismiss()  # this, too, also if a signal's handler raised amid an earlier call
        if self._socket is not None:
            self._socket.close()
