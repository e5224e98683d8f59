"""Control messages: what the kernel says about a datagram beside its bytes (cmsg(3)).

Owns the walk over them, which trusts no length: what is cut or makes no sense is left out, never read past. Must not
touch Python objects. `_ancillary_py.py` says the same of the lists that socket.recvmsg makes of them.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from multicast._libc cimport *

cdef enum TimestampKind:
    NO_TIMESTAMP = 0
    SOFTWARE = 1   # when the kernel took the datagram from the driver
    HARDWARE = 2   # when the network card saw it, by the card's own clock

cdef struct Ancillary:
    char destination[16]      # as many bytes as the family's addresses have; zeros if not told
    uint32_t interface        # index; 0 if not told
    uint32_t drops            # SO_RXQ_OVFL: left out while it is 0, so 0 either way
    uint32_t segment          # UDP_GRO: the length of each datagram in a train, the last may be shorter; 0: no train
    int64_t timestamp         # ns since 1970, 0 if not told
    uint8_t timestamp_kind
    uint8_t ttl
    uint8_t tos


cdef inline int64_t _nanoseconds(const char *data, size_t size) noexcept nogil:
    """A struct timespec of either width: its ns since 1970; 0, which means none, for what is no time."""
    cdef int64_t wide[2]
    cdef int32_t narrow[2]
    if size == sizeof(wide):
        memcpy(wide, data, sizeof(wide))
    else:
        memcpy(narrow, data, sizeof(narrow))
        wide[0], wide[1] = narrow[0], narrow[1]
    if not 0 <= wide[0] < <int64_t> 9000000000 or not 0 <= wide[1] < 1000000000:  # ns until 2255 fit
        return 0
    return wide[0] * 1000000000 + wide[1]


cdef inline void _timestamp(const char *data, size_t size, Ancillary *found) noexcept nogil:
    """SCM_TIMESTAMPNS has one time; SCM_TIMESTAMPING three: by software, an unused one, by hardware."""
    cdef size_t width = size // 3 if size == 48 or size == 24 else size
    cdef int64_t time = 0
    if width != 16 and width != 8:
        return
    if width != size:
        time = _nanoseconds(data + 2 * width, width)
        if time:
            found.timestamp, found.timestamp_kind = time, HARDWARE
            return
    time = _nanoseconds(data, width)
    if time and found.timestamp_kind != HARDWARE:
        found.timestamp, found.timestamp_kind = time, SOFTWARE


cdef inline void _small(const char *data, size_t size, uint8_t *found) noexcept nogil:
    """A number from 0 to 255 that the kernel gives as an int, or as the byte that it is."""
    cdef int value = 0
    if size == sizeof(value):
        memcpy(&value, data, sizeof(value))
        found[0] = <uint8_t> value
    elif size == 1:
        found[0] = <uint8_t> data[0]


cdef inline void _one_message(int level, int kind, const char *data, size_t size, Ancillary *found) noexcept nogil:
    cdef int number = 0
    if level == SOL_SOCKET:
        if kind == SO_RXQ_OVFL:
            if size == sizeof(found.drops):
                memcpy(&found.drops, data, sizeof(found.drops))
        elif kind == MULTICAST_TIMESTAMPNS_OLD or kind == MULTICAST_TIMESTAMPNS_NEW:
            if size == 16 or size == 8:
                _timestamp(data, size, found)
        elif kind == MULTICAST_TIMESTAMPING_OLD or kind == MULTICAST_TIMESTAMPING_NEW:
            if size == 48 or size == 24:
                _timestamp(data, size, found)
    elif level == IPPROTO_IP:
        if kind == IP_PKTINFO:
            if size == 12:  # struct in_pktinfo: index, local address, destination
                memcpy(&found.interface, data, 4)
                memset(found.destination, 0, sizeof(found.destination))
                memcpy(found.destination, data + 8, 4)
        elif kind == IP_TTL:
            _small(data, size, &found.ttl)
        elif kind == IP_TOS:
            _small(data, size, &found.tos)
    elif level == IPPROTO_IPV6:
        if kind == IPV6_PKTINFO:
            if size == 20:  # struct in6_pktinfo: destination, index
                memcpy(found.destination, data, 16)
                memcpy(&found.interface, data + 16, 4)
        elif kind == IPV6_HOPLIMIT:
            _small(data, size, &found.ttl)
        elif kind == IPV6_TCLASS:
            _small(data, size, &found.tos)
    elif level == IPPROTO_UDP:
        if kind == MULTICAST_UDP_GRO and size == sizeof(number):  # an int, whatever udp(7) says
            memcpy(&number, data, sizeof(number))
            found.segment = <uint32_t> number if number > 0 else 0


cdef inline void ancillary_read(const char *control, size_t left, Ancillary *found) noexcept nogil:
    """Read the control messages in `left` bytes, which need not be aligned."""
    cdef cmsghdr header
    cdef size_t size, step
    memset(found, 0, sizeof(Ancillary))
    while left >= sizeof(cmsghdr):
        memcpy(&header, control, sizeof(cmsghdr))
        size = header.cmsg_len
        if size < sizeof(cmsghdr) or size > left:  # no message, or one that was cut (MSG_CTRUNC)
            return
        _one_message(header.cmsg_level, header.cmsg_type, control + sizeof(cmsghdr), size - sizeof(cmsghdr), found)
        step = (size + sizeof(size_t) - 1) & ~(sizeof(size_t) - 1)  # CMSG_ALIGN
        if step >= left:
            return
        control += step
        left -= step


cdef inline uint64_t widened(uint64_t known, uint32_t count) noexcept nogil:
    """The 64-bit count whose lower half is `count`, and which is nearest to the one known."""
    return known + <uint64_t> <int64_t> <int32_t> (count - <uint32_t> known)


cdef inline uint64_t stamped(uint64_t known, uint32_t drops) noexcept nogil:
    """The 64-bit count that a datagram was stamped with.

    It has no stamp (0) if it was queued before there was a drop, or before SO_RXQ_OVFL was set: no news of drops then,
    however near to the next 2**32 the one known is.
    """
    return widened(known, drops) if drops else known >> 32 << 32
