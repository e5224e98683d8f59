"""One batch through recvmmsg(2), and what stands in where a sandbox denies that call or sendmmsg(2).

Owns the flags that receiving hands to the kernel. Must not wait, touch Python objects, or lose an error.
"""

from libc.errno cimport EAGAIN, EBADF, ENOSYS, EPERM, errno
from libc.stdint cimport uint32_t, uint64_t

from multicast._blocks cimport *
from multicast._libc cimport *

cdef enum Calls:
    UNTRIED = 0   # recvmmsg, or sendmmsg, has not failed yet
    DENIED = 1    # it does not exist for this process: its seccomp policy answers ENOSYS or EPERM


cdef inline int mmsg_refusal(bint sending) noexcept nogil:
    """The errno by which this process is kept from sendmmsg, or recvmmsg; 0: it gets through, to do nothing there."""
    cdef int result = sendmmsg(-1, NULL, 0, 0) if sending else recvmmsg(-1, NULL, 0, 0, NULL)
    return errno if result < 0 and errno != EBADF else 0  # the kernel's own answer to descriptor -1 is EBADF


cdef inline bint mmsg_denied(uint32_t *calls, bint sending, int error) noexcept nogil:
    """Whether an error means that the call itself is denied: then remember, and do without from now on."""
    if error != ENOSYS and error != EPERM:
        return False
    error = mmsg_refusal(sending)
    if error == ENOSYS or error == EPERM:
        atomic_or_word(calls, DENIED, __ATOMIC_RELAXED)
        return True
    return False


cdef inline int receive_batch(
        int fd, const Pool *pool, Block *block, uint32_t *calls, int *late_error) noexcept nogil:
    """Receive datagrams that are there, one a slot: how many, or -errno; it never waits.

    The only flags are MSG_DONTWAIT, since recvmmsg's own timeout is broken by design (its BUGS), and MSG_TRUNC, which
    makes the kernel tell the real length of a datagram; `measure` cuts that to the slot. `late_error` keeps what the
    stand-in met after part of a batch, as the kernel does for recvmmsg.
    """
    cdef int n = 0
    cdef int size = <int> pool.shape.batch_size
    cdef int error = late_error[0]
    cdef ssize_t length = 0
    if error:
        late_error[0] = 0
        return -error
    block_arm(pool, block)
    if not atomic_load_word(calls, __ATOMIC_RELAXED):
        n = recvmmsg(fd, block.headers, size, MSG_DONTWAIT | MSG_TRUNC, NULL)
        if n >= 0:
            block.used = n
            return n
        error = errno
        if not mmsg_denied(calls, False, error):
            return -error
        n = 0
    while n < size:
        length = recvmsg(fd, &block.headers[n].msg_hdr, MSG_DONTWAIT | MSG_TRUNC)
        if length < 0:
            break
        block.headers[n].msg_len = <unsigned int> length
        n += 1
        block.used = n
    error = errno if length < 0 else 0
    if n == 0:
        return -error
    if error != EAGAIN:
        late_error[0] = error
    return n
