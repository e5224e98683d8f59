"""A descriptor to wait on that another thread may close: how calls come in, wait, are woken, and leave.

Owns two descriptors and one word of state. Must not touch Python objects: callers turn what it returns into exceptions.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t, uint64_t

from multicast._libc cimport *

cdef struct Endpoint:
    int fd           # a duplicate of the socket's: closing the socket object can't take it away from a call
    int wake         # an eventfd; readable once the endpoint is closed
    int gate         # what callers are told to wait on: fd, or something that is ready when fd or the watch is
    int watch        # somebody else's, to be waited on beside ours; -1: none
    uint32_t state   # atomic: CLOSED, plus EXCLUSIVE, LOOKING or SHARED for each call inside

cdef enum:
    # Whoever brings the state to CLOSED alone, the closer or the last call to leave, closes the descriptors. Until
    # then their numbers are ours, so no call can meet a stranger's socket behind them.
    CLOSED = 1
    EXCLUSIVE = 2    # a call that uses the endpoint's memory: one at a time
    LOOKING = 4      # within another call: to see to the watch, one at a time
    SHARED = 8       # the unit in which all others are counted

    HELD_UP = 1000000  # ns between two looks at a watch that another thread sees to

cdef enum:
    # A spinning call can't see a signal: nothing interrupts what it asks, and whether one came is known only with the
    # GIL. So it ends a turn every 5 ms to ask, and to poll for what only that shows. Where other threads compute, the
    # GIL takes another 5 ms to get (sys.getswitchinterval()), which is why it is not taken more often: half of the time
    # goes to waiting for it then, and Ctrl-C ends the call within 10 ms. Where none does, it costs well under 1 µs.
    # Threads other than the main one run no handlers, but to find out which one this is costs what this costs.
    SPIN_TURN = 5000000  # ns

cdef enum Entry:
    ENTERED
    ENDED            # the endpoint is closed
    TAKEN            # another call is inside with that claim, of which there is one at a time


cdef inline int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1000000000 + now.tv_nsec


cdef inline int64_t coarse_ns() noexcept nogil:
    """The monotonic time of the kernel's last tick, some ms ago: costs less to read."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now)
    return <int64_t> now.tv_sec * 1000000000 + now.tv_nsec


cdef inline int64_t spin_turn(int64_t spin, int64_t deadline, int64_t *end) noexcept nogil:
    """Until when the next turn of spinning lasts (monotonic ns); 0 when the time for that, or the deadline, is over.

    - spin: ns in all, -1 without end; deadline: -1 for none; end: the caller's own, 0 at first
    """
    cdef int64_t now = monotonic_ns()
    cdef int64_t until = now + SPIN_TURN
    if end[0] == 0:
        end[0] = now + spin
    if spin >= 0 and end[0] < until:
        until = end[0]
    if 0 <= deadline < until:
        until = deadline
    return until if until > now else 0


cdef inline void endpoint_init(Endpoint *endpoint) noexcept nogil:
    endpoint.fd = endpoint.gate = endpoint.wake = endpoint.watch = -1
    endpoint.state = CLOSED


cdef inline void endpoint_release(Endpoint *endpoint) noexcept nogil:
    """Close the descriptors. Linux frees a number even where close(2) fails: there is nothing to try again."""
    if endpoint.fd >= 0:
        close(endpoint.fd)
    if endpoint.wake >= 0:
        close(endpoint.wake)
    endpoint.fd = endpoint.gate = endpoint.wake = endpoint.watch = -1


cdef inline int endpoint_open(Endpoint *endpoint, int fd) noexcept nogil:
    """Open on a duplicate of `fd`: 0, or -errno if the system refuses."""
    cdef int error
    endpoint.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)
    if endpoint.fd < 0:
        return -errno
    endpoint.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if endpoint.wake < 0:
        error = errno
        endpoint_release(endpoint)
        return -error
    endpoint.gate = endpoint.fd
    endpoint.state = 0
    return 0


cdef inline bint endpoint_closed(Endpoint *endpoint) noexcept nogil:
    return atomic_load_word(&endpoint.state, __ATOMIC_ACQUIRE) & CLOSED


cdef inline Entry endpoint_enter(Endpoint *endpoint, uint32_t claim) noexcept nogil:
    cdef uint32_t old = atomic_load_word(&endpoint.state, __ATOMIC_ACQUIRE)
    while not old & CLOSED:
        if old & claim & (EXCLUSIVE | LOOKING):
            return TAKEN
        if atomic_swap_word(&endpoint.state, &old, old + claim, False, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE):
            return ENTERED
    return ENDED


cdef inline bint endpoint_leave(Endpoint *endpoint, uint32_t claim) noexcept nogil:
    """Leave; true if the endpoint was closed meanwhile and the caller, as the last one inside, has to release it."""
    return atomic_sub_word(&endpoint.state, claim, __ATOMIC_ACQ_REL) == CLOSED + claim


cdef inline void endpoint_close(Endpoint *endpoint) noexcept nogil:
    """Let nobody in any more and wake who waits; by a call that is inside itself, which then leaves."""
    cdef uint64_t one = 1
    atomic_or_word(&endpoint.state, CLOSED, __ATOMIC_ACQ_REL)
    write(endpoint.wake, &one, sizeof(one))


cdef inline int endpoint_poll(
        Endpoint *endpoint, short events, int64_t deadline, short *found, bint *watched) noexcept nogil:
    """Wait for `events`, the close, the watch or the deadline (monotonic ns; -1: none).

    Returns how many descriptors are ready, 0 after the deadline, never before; or -errno. `watched`: the watch is.
    """
    cdef pollfd fds[3]
    cdef timespec rest
    cdef int64_t left
    cdef int n
    fds[0].fd, fds[0].events, fds[0].revents = endpoint.fd, events, 0
    fds[1].fd, fds[1].events, fds[1].revents = endpoint.wake, POLLIN, 0
    fds[2].fd, fds[2].events, fds[2].revents = endpoint.watch, POLLIN, 0
    if deadline < 0:
        n = ppoll(fds, 3, NULL, NULL)
    else:
        left = deadline - monotonic_ns()
        left = left if left > 0 else 0
        rest.tv_sec, rest.tv_nsec = left // 1000000000, left % 1000000000
        n = ppoll(fds, 3, &rest, NULL)
    found[0] = fds[0].revents
    watched[0] = fds[2].revents != 0
    if fds[2].revents & POLLNVAL:  # somebody closed it by its number
        endpoint.watch = -1
    return n if n >= 0 else -errno
