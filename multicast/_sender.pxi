"""Sending: buffers of any kind, held while sendmmsg(2) takes the bytes from them.

Owns the outbox and what a partial send means. Must not copy a payload.
"""

from libc.errno cimport ENOBUFS

from . import _sending


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

    Sender(sock, *, segmentation=True)

    - sock: an open SOCK_DGRAM socket, connected to a group; `close()` closes it. `open_sender` makes both.
    - segmentation: whether `send_batch` may hand several datagrams to the kernel as one train

    Raises TypeError or ValueError for arguments that can't be, and OSError.
    """

    cdef Outbox _outbox
    cdef uint64_t _waits, _waited_ns  # each atomic: written by the one who sends, read by any thread

    def __init__(self, sock, *, segmentation=True):
        cdef Rules rules
        sock = _arguments.connected_socket(sock, "Sender")
        rules.room = _sending.train_room(sock) if _arguments.boolean(segmentation, "Sender", "segmentation") else 0
        rules.fewest, rules.fits = _sending.FEWEST_SEGMENTS, _sending.FITS_EVERY_PATH
        rules.report_level, rules.report_name = _sending.drop_reports(sock.family)
        rules.first_pause, rules.longest_pause = _sending.FIRST_PAUSE, _sending.LONGEST_PAUSE
        rules.patience = _sending.PATIENCE
        outbox_init(&self._outbox)
        self._open(sock, "Sender")
        self._outbox.rules, self._outbox.too_long = rules, _sending.EVERY_LENGTH

    cdef int _flush(self, int held, str operation) except 0:
        """Send the first `held` buffers: how many went, or -errno; waits while a queue is full."""
        cdef Outbox *outbox = &self._outbox
        cdef int64_t pause = outbox.rules.first_pause, end = -1
        cdef int n
        cdef short found = 0
        cdef bint again = False
        while True:
            with nogil:
                n = outbox_pack(outbox, self._endpoint.fd, held)
                n = send_messages(self._endpoint.fd, outbox.headers, n, &_calls[1])
                if n > 0:
                    n = outbox_datagrams(outbox, n)
            if n > 0:
                return n
            if n == -EINTR:
                PyErr_CheckSignals()
            elif n == -EAGAIN:
                if endpoint_closed(&self._endpoint):
                    return -EBADF
                if found & POLLERR:  # and no error that sending would have met
                    return -ENOMSG
                self._wait_for_room(again, 0, &found, operation)
                again = True
            elif n == -ENOBUFS:
                if endpoint_closed(&self._endpoint):
                    return -EBADF
                if end < 0:
                    end = monotonic_ns() + outbox.rules.patience
                elif monotonic_ns() >= end:
                    return n
                self._wait_for_room(again, pause, &found, operation)
                again = True
                pause = min(2 * pause, outbox.rules.longest_pause)
                PyErr_CheckSignals()
            elif not train_refused(outbox, -n):
                return n

    cdef int _wait_for_room(self, bint again, int64_t pause, short *found, str operation) except -1:
        """Wait for room in the send buffer, or for `pause` ns if not 0; count it, as one with the last if `again`."""
        cdef int64_t begun = monotonic_ns()
        try:
            if pause:
                with nogil:
                    outbox_pause(self._endpoint.wake, pause)
            else:
                self._wait(POLLOUT, -1, found, operation)
        finally:
            atomic_add_count(&self._waits, not again, __ATOMIC_RELAXED)
            atomic_add_count(&self._waited_ns, <uint64_t> (monotonic_ns() - begun), __ATOMIC_RELAXED)
        return 0

    cdef Py_ssize_t _send(self, tuple buffers, str operation) except -1:
        """Send each buffer as a datagram: how many went; a failure is raised only if the first one met it."""
        cdef Py_ssize_t sent = 0, total = len(buffers)
        cdef int size, held, n
        if not self._enter(EXCLUSIVE, operation):
            raise _errors.closed(operation)
        try:
            self._outbox.reports = UNASKED
            while sent < total:
                size = held = 0
                try:
                    try:
                        for size in range(<int> min(total - sent, <Py_ssize_t> SEND_AT_ONCE)):
                            _hold(buffers[sent + size], &self._outbox, size, operation)
                            held += 1
                    except Exception:  # whatever an exporter raises
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

        Waits while the socket's send buffer is full, and for the device's queue as `send_batch` does. Raises OSError
        with the errno of what failed (EMSGSIZE: longer than a datagram can be; ENOBUFS: the device's queue took nothing
        for a second; EBADF: closed), RuntimeError while another thread sends and in a forked child.
        """
        self._send((data,), "send")
        return memoryview(data).nbytes

    def send_batch(self, buffers):
        """Send each of several contiguous buffers as a datagram, in order; return how many went.

        By sendmmsg(2), and buffers of one length in a row, of which the last may be shorter, as trains of up to 64,
        which the kernel cuts on their way out (UDP_SEGMENT, udp(7), Linux 4.18): receivers get the same datagrams.
        Where the kernel refuses a train, each goes alone, as all do with `segmentation=False`. Whatever handles packets
        on the way out (a queueing discipline, netfilter, a capture on this host) takes a train for one.

        Fewer than given means that one of the others failed: sending the rest raises its error. Raises only where none
        went: as `send` does, and TypeError or BufferError for what is no contiguous buffer. Buffers are handed to the
        kernel 64 at a time, so up to 63 good ones before a bad one may not have gone.

        What the device's queue has no room for, Linux drops without a word (send(2)), and it counts as sent. With
        IP_RECVERR (IPV6_RECVERR) on it answers ENOBUFS: then no trains are sent, what was dropped is sent again until
        it goes, and ENOBUFS is raised after a second in which nothing did. The copies for receivers on this host
        (`loopback`) are made before that queue, so they get such a datagram more than once.
        """
        return self._send(tuple(buffers), "send_batch")

    @property
    def waits(self):
        """How often sending had to wait for room: in the send buffer (EAGAIN) or in a device's queue (ENOBUFS)."""
        return atomic_load_count(&self._waits, __ATOMIC_RELAXED)

    @property
    def waited_ns(self):
        """How long these waits took, in ns, also those that ended in an error or by a signal."""
        return atomic_load_count(&self._waited_ns, __ATOMIC_RELAXED)

    def __repr__(self):
        return f"<multicast.Sender {'closed' if self.closed else f'fd={self.fileno()}'}>"
