"""Buffers on their way out by sendmmsg(2); of one length in a row, as a train that the kernel cuts (UDP_SEGMENT).

Owns which datagrams go together, what a refused train means, and the flags that sending hands to the kernel. Must not
touch Python objects, copy a payload, or lose an error.
"""

from libc.errno cimport EINVAL, EIO, EMSGSIZE, ENOPROTOOPT, EOPNOTSUPP, errno
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from multicast._libc cimport *
from multicast._mmsg cimport *

cdef enum:
    SEND_AT_ONCE = 64      # buffers held at a time; also as many as any kernel takes in one train
    CONTROL_WORDS = 4      # 32 bytes: CMSG_SPACE of an uint16_t and more, aligned as a cmsghdr has to be

cdef enum Reports:
    UNASKED = 0            # whether the socket's owner wants to know of each datagram dropped on the way out
    UNWANTED = 1
    WANTED = 2

cdef struct Rules:         # of multicast/_sending.py, where they are explained
    uint32_t room          # bytes that a train may have; 0: there are none
    uint32_t fewest        # datagrams in one
    uint32_t fits          # a segment so long can't be too long for a path
    int report_level       # the option for reports of what was dropped
    int report_name
    int64_t first_pause    # ns, for a device's queue that is full
    int64_t longest_pause
    int64_t patience

cdef struct Outbox:
    mmsghdr headers[SEND_AT_ONCE]
    iovec vectors[SEND_AT_ONCE]
    uint64_t controls[SEND_AT_ONCE][CONTROL_WORDS]
    Py_buffer buffers[SEND_AT_ONCE]  # what the vectors point to, held while it is sent
    Rules rules
    uint32_t too_long      # datagrams of this length and more go alone, since the kernel refused such a train
    Reports reports        # as the call that is inside found it


cdef inline void outbox_init(Outbox *outbox) noexcept nogil:
    cdef cmsghdr *control
    cdef int i
    for i in range(SEND_AT_ONCE):
        control = <cmsghdr *> outbox.controls[i]
        control.cmsg_len = CMSG_LEN(sizeof(uint16_t))
        control.cmsg_level = SOL_UDP
        control.cmsg_type = UDP_SEGMENT


cdef inline void outbox_take(Outbox *outbox, int i) noexcept nogil:
    """The i-th buffer is there: point to it."""
    outbox.vectors[i].iov_base = outbox.buffers[i].buf
    outbox.vectors[i].iov_len = outbox.buffers[i].len


cdef inline bint reports_wanted(Outbox *outbox, int fd) noexcept nogil:
    """Whether every datagram has to have its own answer. Asked once a call: the option may come at any time."""
    cdef int wanted = 0
    cdef socklen_t length = sizeof(wanted)
    if outbox.reports == UNASKED:
        if getsockopt(fd, outbox.rules.report_level, outbox.rules.report_name, &wanted, &length) < 0:
            wanted = 1
        outbox.reports = WANTED if wanted else UNWANTED
    return outbox.reports == WANTED


cdef inline int outbox_run(Outbox *outbox, int first, int held) noexcept nogil:
    """How many of the buffers from `first` on can leave together: of one length, but for a shorter last one."""
    cdef size_t length = outbox.vectors[first].iov_len
    cdef size_t total = length, following
    cdef int n = 1
    if length == 0 or length >= outbox.too_long:
        return 1
    while first + n < held:
        following = outbox.vectors[first + n].iov_len
        if following == 0 or following > length or total + following > outbox.rules.room:
            break
        total += following
        n += 1
        if following < length:
            break
    return n if n >= <int> outbox.rules.fewest else 1


cdef inline int outbox_pack(Outbox *outbox, int fd, int held) noexcept nogil:
    """Make messages of the first `held` buffers, trains where it may: how many there are."""
    cdef msghdr *message
    cdef uint16_t size
    cdef int first = 0, messages = 0, n
    while first < held:
        n = 1 if outbox.reports == WANTED else outbox_run(outbox, first, held)
        if n > 1 and reports_wanted(outbox, fd):
            n = 1
        message = &outbox.headers[messages].msg_hdr
        message.msg_control, message.msg_controllen = NULL, 0
        if n > 1:
            size = <uint16_t> outbox.vectors[first].iov_len
            memcpy(CMSG_DATA(<cmsghdr *> outbox.controls[messages]), &size, sizeof(size))
            message.msg_control, message.msg_controllen = outbox.controls[messages], CMSG_SPACE(sizeof(size))
        message.msg_iov, message.msg_iovlen = &outbox.vectors[first], n
        first += n
        messages += 1
    return messages


cdef inline int outbox_datagrams(const Outbox *outbox, int messages) noexcept nogil:
    """How many datagrams are in the first `messages`."""
    cdef int i, n = 0
    for i in range(messages):
        n += <int> outbox.headers[i].msg_hdr.msg_iovlen
    return n


cdef inline bint train_refused(Outbox *outbox, int error) noexcept nogil:
    """Whether the first message is a train that was refused for being one: then remember, and do without.

    Of a train that is refused, nothing has left (udp_send_skb of net/ipv4/udp.c): its datagrams can go alone.
    """
    cdef size_t length = outbox.vectors[0].iov_len
    if outbox.headers[0].msg_hdr.msg_iovlen == 1:
        return False
    if error == EMSGSIZE or (error == EINVAL and length > outbox.rules.fits):  # EINVAL: older kernels
        outbox.too_long = <uint32_t> length  # for the path; alone it is fragmented, or fails by itself
    elif error == EIO or error == EINVAL or error == EOPNOTSUPP or error == ENOPROTOOPT:
        outbox.too_long = 0  # no checksums by the device, or none at all, or another protocol
    else:
        return False
    return True


cdef inline int send_messages(int fd, mmsghdr *headers, int size, uint32_t *calls) noexcept nogil:
    """Send up to `size` messages: how many went, or -errno if none did; it never waits.

    What stopped it after some is met again by whoever sends the rest (sendmmsg(2), NOTES).
    """
    cdef int n, error
    if not atomic_load_word(calls, __ATOMIC_RELAXED):
        n = sendmmsg(fd, headers, size, MSG_DONTWAIT | MSG_NOSIGNAL)
        if n >= 0:
            return n
        error = errno
        if not mmsg_denied(calls, True, error):
            return -error
    n = 0
    while n < size and sendmsg(fd, &headers[n].msg_hdr, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0:
        n += 1
    return n if n > 0 else -errno


cdef inline void outbox_pause(int wake, int64_t ns) noexcept nogil:
    """Let a device's queue drain for so long; a close ends it, and so does a signal.

    Not on the socket: it is ready for writing, as far as poll can tell, and a message on its error queue stays there.
    """
    cdef pollfd closing
    cdef timespec rest
    closing.fd, closing.events, closing.revents = wake, POLLIN, 0
    rest.tv_sec, rest.tv_nsec = ns // 1000000000, ns % 1000000000
    ppoll(&closing, 1, &rest, NULL)
