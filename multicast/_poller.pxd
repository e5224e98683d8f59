"""An epoll(7) over the descriptors of several receivers, and which of them an event is about.

Owns the epoll, and the eventfd that ends a wait. Must not touch Python objects, nor the descriptors of a receiver that
the caller is not inside of: only then are their numbers that receiver's.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint64_t

from multicast._endpoint cimport *
from multicast._libc cimport *

cdef enum:
    # What an event's data says: a receiver's number, twice, and whether it is about its watch. Numbers begin at 1 and
    # are never given again, so what is reported of one that has gone since can't be taken for another's.
    WOKEN = 0
    OF_WATCH = 1
    LONGEST_WAIT = 86400000  # ms, a day: whoever waits for longer asks again


cdef inline int _poller_watch(int poller, int fd, uint64_t data) noexcept nogil:
    cdef epoll_event event
    event.events, event.data.u64 = EPOLLIN, data  # EPOLLERR and EPOLLHUP are always reported
    return 0 if epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0 else -errno


cdef inline int poller_open(Endpoint *poller) noexcept nogil:
    """Open: 0, or -errno if the system refuses."""
    cdef int result = 0
    poller.fd = epoll_create1(EPOLL_CLOEXEC)
    if poller.fd >= 0:
        poller.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if poller.fd < 0 or poller.wake < 0:
        result = -errno
    else:
        result = _poller_watch(poller.fd, poller.wake, WOKEN)
    if result < 0:
        endpoint_release(poller)
        return result
    poller.gate = poller.fd
    poller.state = 0
    return 0


cdef inline void poller_remove(Endpoint *poller, Endpoint *receiver) noexcept nogil:
    """Watch a receiver no more. Not left to its closing: epoll would go on as long as any duplicate is open."""
    cdef epoll_event unused  # before Linux 2.6.9 not even this call could do without one
    epoll_ctl(poller.fd, EPOLL_CTL_DEL, receiver.fd, &unused)
    if receiver.watch >= 0:
        epoll_ctl(poller.fd, EPOLL_CTL_DEL, receiver.watch, &unused)


cdef inline int poller_add(Endpoint *poller, Endpoint *receiver, uint64_t number) noexcept nogil:
    """Watch a receiver's socket and its watch: 0, or -errno, and then neither."""
    cdef int result = _poller_watch(poller.fd, receiver.fd, 2 * number)
    if result == 0 and receiver.watch >= 0:
        result = _poller_watch(poller.fd, receiver.watch, 2 * number | OF_WATCH)
        if result < 0:
            poller_remove(poller, receiver)
    return result


cdef inline void poller_wake(Endpoint *poller) noexcept nogil:
    """End a wait, or the next one."""
    cdef uint64_t one = 1
    write(poller.wake, &one, sizeof(one))


cdef inline void poller_woken(Endpoint *poller) noexcept nogil:
    """Take notice of that, so that it ends no other one."""
    cdef uint64_t count
    read(poller.wake, &count, sizeof(count))


cdef inline int poller_wait(Endpoint *poller, epoll_event *events, int room, int64_t deadline) noexcept nogil:
    """Wait for events: how many there are, 0 when the deadline (monotonic ns; -1: none) or a day is over; or -errno."""
    cdef int64_t left
    cdef int n, milliseconds = -1
    if deadline >= 0:
        left = deadline - monotonic_ns() if deadline else 0
        left = (left + 999999) // 1000000 if left > 0 else 0  # epoll counts in ms: never early
        milliseconds = <int> left if left < LONGEST_WAIT else LONGEST_WAIT
    n = epoll_wait(poller.fd, events, room, milliseconds)
    return n if n >= 0 else -errno


cdef inline int poller_spin(Endpoint *poller, epoll_event *events, int room, int64_t until) noexcept nogil:
    """Ask for events again and again until then (monotonic ns): how many there are, or -errno."""
    cdef bint last
    cdef int n
    while True:
        last = monotonic_ns() >= until
        n = epoll_wait(poller.fd, events, room, 0)
        if n != 0 or last:
            return n if n >= 0 else -errno
