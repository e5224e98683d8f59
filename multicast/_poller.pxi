"""Several receivers in one thread: which of them are ready, over `_poller.pxd`.

Owns which receivers are registered, and whose turn it is. Must not close one, nor receive but in iteration.
"""

cdef inline int64_t _due(int64_t timeout) noexcept nogil:
    """When waiting for so long (ns; -1: without end, 0: not at all) is over: monotonic ns, or the same of these two."""
    return timeout if timeout <= 0 else monotonic_ns() + timeout


@cython.final
@cython.no_gc_clear  # methods count on what it knows; a cycle through a receiver is broken there
cdef class Poller(_Closable):
    """Waits for several receivers at once, in one thread, without asking each (epoll(7), where there is one).

    Poller(receivers=(), *, timeout=None, spin=None)

    - receivers: several, each of which is registered; they stay open when the poller is closed
    - timeout: seconds that `poll` and iteration wait; None: until something comes, 0: not at all
    - spin: seconds for which they ask the kernel again and again before they sleep, math.inf: for as long as they wait;
      None: not at all

    Iterating gives pairs of a receiver and its batch, one of each that is ready before the next of any, until the
    poller is closed or no receiver is registered any more. It raises TimeoutError when nothing came in time,
    BlockingIOError for timeout=0, and what `Receiver.recv_batch` raises, of whichever receiver: the others' turn is
    next.

    A receiver is kept alive while it is registered, its interfaces and its silence are seen to (`open_receiver`), and
    when it is closed it is registered no more. One thread at a time may wait; all else may be done by any, meanwhile.
    Raises TypeError or ValueError for arguments that can't be, and OSError, also as `register` does.
    """

    cdef bint _made
    cdef int64_t _timeout, _spin
    cdef dict _receivers         # by number
    cdef dict _numbers           # the other way round
    cdef uint64_t _count         # the last number given
    cdef dict _pools             # of the receivers' blocks, by what they are like
    cdef list _turns             # who is still to be received from in this round, the next one last
    cdef epoll_event *_events
    cdef int _room

    def __cinit__(self, *_, **__):
        self._receivers, self._numbers, self._pools, self._turns = {}, {}, {}, []

    def __dealloc__(self):
        free(self._events)

    def __init__(self, receivers=(), *, timeout=None, spin=None):
        operation = "Poller"
        wait = _arguments.timeout_ns(timeout, operation)
        spinning = _arguments.spin_ns(spin, operation)
        several = _arguments.receivers(receivers, Receiver, Poller, operation)
        if self._made:  # asked last: an argument's own code may have come here, too
            raise _errors.initialised(operation)
        _check(poller_open(&self._endpoint), operation)
        self._made, self._timeout, self._spin = True, wait, spinning
        try:
            for each in several:
                self._add(each, operation)
        except BaseException:
            self._close()
            raise

    cdef int _retire(self) except -1:
        endpoint_release(&self._endpoint)
        self._receivers.clear()
        self._numbers.clear()
        self._pools.clear()
        self._turns.clear()

    # Who is registered

    cdef int _add(self, Receiver receiver, str operation) except -1:
        if not self._enter(SHARED, operation):
            raise _errors.closed(operation)
        try:
            if not receiver._enter(SHARED, operation):
                raise _errors.receiver_closed(operation)
            try:
                self._watch_for(receiver, operation)
                receiver._meet(self)
                receiver._share(self._pools)
                if endpoint_closed(&receiver._endpoint):  # and may have been before they had met
                    self._drop(receiver)
            finally:
                receiver._leave(SHARED)
        finally:
            self._leave(SHARED)

    cdef int _watch_for(self, Receiver receiver, str operation) except -1:
        cdef bint known
        cdef int result = 0
        with cython.critical_section(self):
            known = receiver in self._numbers
            if not known:
                self._count += 1
                self._numbers[receiver] = self._count
                self._receivers[self._count] = receiver
                result = poller_add(&self._endpoint, &receiver._endpoint, self._count)
                if result < 0:
                    del self._receivers[self._numbers.pop(receiver)]
        if known:
            raise _errors.registered(operation)
        if result < 0:
            raise _errors.failed(-result, operation, _errors.epoll_hint(-result))
        return 0

    cdef bint _drop(self, Receiver receiver) except -1:
        """Forget a receiver, by a call that is inside of it: whether it was registered."""
        cdef bint known = False
        if endpoint_enter(&self._endpoint, SHARED) != ENTERED:
            return False  # all of them go with the epoll
        with cython.critical_section(self):
            number = self._numbers.pop(receiver, None)
            if number is not None:
                known = True
                del self._receivers[number]
                poller_remove(&self._endpoint, &receiver._endpoint)
                if not self._numbers:  # who waits here would wait for ever
                    poller_wake(&self._endpoint)
        self._leave(SHARED)
        return known

    def register(self, receiver):
        """Wait for a receiver, too, from now on, also while another thread waits here.

        It may be registered with several pollers. Raises TypeError for what is no receiver of this backend, ValueError
        for one that is registered already, RuntimeError in a forked child, and OSError: EBADF (the receiver is closed,
        or the poller), ENOSPC (a limit, which is named), ENOMEM.
        """
        self._add(_arguments.receiver(receiver, Receiver, "register"), "register")

    def unregister(self, receiver):
        """Wait for a receiver no more, also while another thread waits here; for one that is closed, do nothing.

        Raises TypeError for what is no receiver of this backend, ValueError for one that is not registered,
        RuntimeError in a forked child, OSError with EBADF once the poller is closed.
        """
        cdef Receiver checked = _arguments.receiver(receiver, Receiver, "unregister")
        cdef bint known = True
        if not self._enter(SHARED, "unregister"):
            raise _errors.closed("unregister")
        try:
            if checked._enter(SHARED, "unregister"):
                try:
                    known = self._drop(checked)
                finally:
                    checked._leave(SHARED)
        finally:
            self._leave(SHARED)
        if not known and not (self.closed or checked.closed):  # another thread may have closed either just now
            raise _errors.not_registered("unregister")

    def __len__(self):
        return len(self._numbers)

    def __contains__(self, receiver):
        return isinstance(receiver, Receiver) and receiver in self._numbers

    # Waiting

    cdef bint _nothing_left(self) except -1:
        """Whether nobody is registered. Then that is known, and `fileno()` needs not go on telling of it."""
        cdef bint nothing
        with cython.critical_section(self):
            nothing = not self._numbers
            if nothing:
                poller_woken(&self._endpoint)
        return nothing

    cdef int _make_room(self) except -1:
        """Have room for an event of each descriptor, so that one wait tells of all that are ready."""
        cdef int wanted = 2 * <int> len(self._numbers) + 1
        cdef void *made
        if wanted > self._room:
            made = realloc(self._events, wanted * sizeof(epoll_event))
            if made == NULL:
                raise MemoryError()
            self._events, self._room = <epoll_event *> made, wanted
        return 0

    cdef bint _look_after(self, uint64_t number) except -1:
        """Have a receiver do what its watch is ready for; false if another thread is at that. Others may receive."""
        cdef Receiver receiver = self._receivers.get(number)
        if receiver is None or endpoint_enter(&receiver._endpoint, SHARED) != ENTERED:
            return True
        try:
            return receiver._look()
        finally:
            receiver._leave(SHARED)

    cdef list _sort_out(self, int n):
        """Do what can be done here, and return the receivers that are ready, as they are after that."""
        cdef bint held_up = False
        cdef uint64_t data
        cdef list ready = []
        for i in range(n):
            data = self._events[i].data.u64
            if data == WOKEN:
                poller_woken(&self._endpoint)
            elif data & OF_WATCH and not self._look_after(data // 2):
                held_up = True
        for i in range(n):
            data = self._events[i].data.u64
            if data != WOKEN and not data & OF_WATCH:
                receiver = self._receivers.get(data // 2)
                if receiver is not None:
                    ready.append(receiver)
        if held_up and not ready:
            with nogil:
                outbox_pause(self._endpoint.wake, HELD_UP)
        return ready

    cdef list _wait(self, int64_t deadline):
        """The receivers that are ready, [] after the deadline (as of _due); None if there is nothing to wait for."""
        cdef int64_t spin_end = 0, until = 0
        cdef bint over = False
        cdef int n
        while True:
            PyErr_CheckSignals()
            if endpoint_closed(&self._endpoint) or self._nothing_left():
                return None
            self._make_room()
            until = spin_turn(self._spin, deadline, &spin_end) if self._spin and deadline and not over else 0
            with nogil:
                if until:
                    n = poller_spin(&self._endpoint, self._events, self._room, until)
                else:
                    n = poller_wait(&self._endpoint, self._events, self._room, 0 if over else deadline)
            if n == -EINTR:
                continue
            if _check(n, "poll") == 0:
                if until or (not over and deadline and not 0 < deadline <= monotonic_ns()):
                    continue
                return []
            ready = self._sort_out(n)
            if ready or over:  # however often a watch is ready, the deadline holds
                return ready
            over = 0 <= deadline <= monotonic_ns()  # looking took until then: what came meanwhile came in time

    def poll(self, timeout=...):
        """Return the receivers that are ready, in a list, as soon as there is one; an empty list when none was in time.

        - timeout: seconds to wait, None without end, 0 not at all; left out: the poller's own

        `recv_batch(timeout=0)` of a ready one brings a batch, or raises what is wrong with it. BlockingIOError: there
        was nothing, as of a datagram with a wrong checksum, or of foreign ones alone.
        Raises ValueError when no receiver is registered, also when the last one was closed or unregistered while this
        call waits, as it would never end; RuntimeError while another thread waits here and in a forked child; OSError
        with EBADF once the poller is closed, also meanwhile; and what `on_silence` of a receiver raises.
        """
        cdef int64_t wait = self._timeout if timeout is ... else _arguments.timeout_ns(timeout, "poll")
        if not self._enter(EXCLUSIVE, "poll"):
            raise _errors.closed("poll")
        try:
            ready = self._wait(_due(wait))
            if ready is None:
                raise _errors.closed("poll") if self.closed else _errors.nothing_registered("poll")
            return ready
        finally:
            self._leave(EXCLUSIVE)

    def __iter__(self):
        return self

    cdef tuple _next(self):
        """Return the next receiver and its batch; None if there is none to wait for."""
        cdef int64_t deadline = _due(self._timeout)
        cdef bint waited = False
        cdef Receiver receiver
        cdef Batch batch
        while True:
            while self._turns:
                receiver = self._turns.pop()
                if receiver in self._numbers:
                    try:
                        batch = receiver._next_batch(0, "recv_batch")
                    except BlockingIOError:
                        continue
                    if batch is not None:
                        return receiver, batch
            if waited and 0 <= deadline <= monotonic_ns():  # what is ready brings nothing, and may do so for ever
                ready = []
            else:
                ready = self._wait(deadline)
            if ready is None:
                return None
            if not ready:
                timeout = self._timeout / 1e9
                raise _errors.timed_out("Poller", timeout) if timeout else _errors.would_block("Poller")
            ready.reverse()
            self._turns, waited = ready, True

    def __next__(self):
        found = None
        if self._enter(EXCLUSIVE, "Poller"):
            try:
                found = self._next()
            finally:
                self._leave(EXCLUSIVE)
        if found is None:
            raise StopIteration
        return found

    # Ending

    def fileno(self):
        """Return the descriptor to wait on with selectors or an event loop, then to call `poll(0)`; -1 once closed.

        Raises OSError with ENOSYS where the system has none for several (epoll(7) and kqueue are such).
        """
        return -1 if self.closed else self._endpoint.fd

    def close(self):
        """End what waits here in another thread, and forget the receivers, which stay open; again, it does nothing."""
        self._close()

    def __repr__(self):
        return f"<multicast.Poller {'closed' if self.closed else f'of {len(self)}'}>"
