"""Socket options through the kernel's own structs. Each returns 0 or more, or -errno.

Owns how an option is packed. Must not touch Python objects: an address is a pointer to its bytes in network order.
"""

from libc.errno cimport EAFNOSUPPORT, ENOMEM, ENOPROTOOPT, EPERM, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from multicast._ancillary cimport widened
from multicast._libc cimport *


cdef inline int option_set(int fd, int level, int name, const void *value, socklen_t size) noexcept nogil:
    return 0 if setsockopt(fd, level, name, value, size) == 0 else -errno


cdef inline int option_set_int(int fd, int family, int ipv4_name, int ipv6_name, int value) noexcept nogil:
    """One of the options that both families have, each under its own name."""
    if family == AF_INET:
        return option_set(fd, IPPROTO_IP, ipv4_name, &value, sizeof(value))
    return option_set(fd, IPPROTO_IPV6, ipv6_name, &value, sizeof(value))


cdef inline void option_fill(sockaddr_storage *where, int family, const char *packed) noexcept nogil:
    if family == AF_INET:
        memcpy(&(<sockaddr_in *> where).sin_addr, packed, 4)
    else:
        memcpy(&(<sockaddr_in6 *> where).sin6_addr, packed, 16)
    where.ss_family = <unsigned short> family


cdef inline int option_membership(
        int fd, int family, int any_source, int one_source,
        const char *group, uint32_t index, const char *source) noexcept nogil:
    """MCAST_JOIN_GROUP and its kin (RFC 3678, section 5): the same structs for both families, by interface index."""
    cdef group_req request
    cdef group_source_req source_request
    cdef int level = IPPROTO_IP if family == AF_INET else IPPROTO_IPV6
    if source == NULL:
        memset(&request, 0, sizeof(request))
        request.gr_interface = index
        option_fill(&request.gr_group, family, group)
        return option_set(fd, level, any_source, &request, sizeof(request))
    memset(&source_request, 0, sizeof(source_request))
    source_request.gsr_interface = index
    option_fill(&source_request.gsr_group, family, group)
    option_fill(&source_request.gsr_source, family, source)
    return option_set(fd, level, one_source, &source_request, sizeof(source_request))


cdef inline const char *option_packed(const sockaddr_storage *where) noexcept nogil:
    """The bytes of the address in a struct sockaddr, IPv4 or IPv6."""
    if where.ss_family == AF_INET:
        return <const char *> &(<const sockaddr_in *> where).sin_addr
    return <const char *> &(<const sockaddr_in6 *> where).sin6_addr


cdef inline group_filter *option_filter(int family, const char *group, uint32_t index, uint32_t sources) noexcept nogil:
    """A group's filter with room for so many sources, for free() to end; NULL without memory."""
    cdef group_filter *filter = <group_filter *> malloc(GROUP_FILTER_SIZE(sources))
    if filter != NULL:
        memset(filter, 0, GROUP_FILTER_SIZE(sources))
        filter.gf_interface, filter.gf_numsrc = index, sources
        option_fill(&filter.gf_group, family, group)
    return filter


cdef inline int option_set_filter(
        int fd, int family, const char *group, uint32_t index, bint including,
        const char *sources, uint32_t n) noexcept nogil:
    """MCAST_MSFILTER (RFC 3678, section 5.2): mode and sources at once; `sources` one after the other."""
    cdef int level = IPPROTO_IP if family == AF_INET else IPPROTO_IPV6
    cdef int size = 4 if family == AF_INET else 16
    cdef group_filter *filter = option_filter(family, group, index, n)
    cdef uint32_t i
    cdef int result
    if filter == NULL:
        return -ENOMEM
    filter.gf_fmode = MCAST_INCLUDE if including else MCAST_EXCLUDE
    for i in range(n):
        option_fill(filter.gf_slist + i, family, sources + i * size)
    result = option_set(fd, level, MCAST_MSFILTER, filter, <socklen_t> GROUP_FILTER_SIZE(n))
    free(filter)
    return result


cdef inline int option_get_filter(
        int fd, int family, const char *group, uint32_t index, group_filter **found) noexcept nogil:
    """The filter, for free() to end. The kernel tells how many sources there are: with less room, it is asked again."""
    cdef int level = IPPROTO_IP if family == AF_INET else IPPROTO_IPV6
    cdef uint32_t room = 64
    cdef group_filter *filter
    cdef socklen_t length
    cdef int error
    while True:
        filter = option_filter(family, group, index, room)
        if filter == NULL:
            return -ENOMEM
        length = <socklen_t> GROUP_FILTER_SIZE(room)
        if getsockopt(fd, level, MCAST_MSFILTER, filter, &length) < 0:
            error = errno
            free(filter)
            return -error
        if filter.gf_numsrc <= room:
            found[0] = filter
            return 0
        room = filter.gf_numsrc
        free(filter)


cdef inline int option_bound_address(int fd, sockaddr_storage *address) noexcept nogil:
    """The family of the address that a socket is bound to; all zeros: to any."""
    cdef socklen_t length = sizeof(address[0])
    memset(address, 0, sizeof(address[0]))
    if getsockname(fd, <sockaddr *> address, &length) < 0:
        return -errno
    return address.ss_family if address.ss_family in (AF_INET, AF_INET6) else -EAFNOSUPPORT


cdef inline int option_follow_interface(int fd, int old, int new) noexcept nogil:
    """Bind to the interface `new` a socket that was bound to `old`; 1 if it was."""
    cdef int bound = 0
    cdef socklen_t length = sizeof(bound)
    cdef int result
    if getsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &bound, &length) < 0:
        return 0 if errno == ENOPROTOOPT else -errno  # a kernel before 5.0
    if bound != old:
        return 0
    result = option_set(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &new, sizeof(new))
    return result if result < 0 else 1


cdef inline int option_multicast_interface(int fd, int family, uint32_t index) noexcept nogil:
    cdef ip_mreqn request
    cdef int index6 = <int> index
    if family != AF_INET:
        return option_set(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index6, sizeof(index6))
    memset(&request, 0, sizeof(request))
    request.imr_ifindex = <int> index
    return option_set(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof(request))


cdef inline int option_receive_buffer(int fd) noexcept nogil:
    """Bytes granted, in the unit in which they are asked for: the kernel doubles that for its own use (socket(7))."""
    cdef int size = 0
    cdef socklen_t length = sizeof(size)
    return size // 2 if getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &length) == 0 else -errno


cdef inline int option_set_receive_buffer(int fd, int size) noexcept nogil:
    """Past net.core.rmem_max where this process may (CAP_NET_ADMIN), else as far as that allows: bytes granted."""
    cdef int result = option_set(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size))
    if result == -EPERM:
        result = option_set(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size))
    return result if result < 0 else option_receive_buffer(fd)


cdef struct SocketCounters:
    uint64_t drops           # each atomic
    uint64_t queued
    uint64_t receive_buffer

cdef enum:
    NOT_TOLD = -1            # as drops: the kernel has no SO_MEMINFO (before 4.12)


cdef inline void count_drops(SocketCounters *counters, uint32_t count) noexcept nogil:
    """Bring the 64-bit count up to the kernel's 32-bit one, which wraps; what an older one says changes nothing."""
    cdef uint64_t known = atomic_load_count(&counters.drops, __ATOMIC_RELAXED)
    cdef uint64_t now
    while known != <uint64_t> NOT_TOLD:
        now = widened(known, count)
        if <int64_t> (now - known) <= 0:
            return
        if atomic_swap_count(&counters.drops, &known, now, False, __ATOMIC_RELAXED, __ATOMIC_RELAXED):
            return


cdef inline uint64_t drops_known(SocketCounters *counters) noexcept nogil:
    """The count so far, 0 where the kernel does not tell."""
    cdef uint64_t known = atomic_load_count(&counters.drops, __ATOMIC_RELAXED)
    return known if known != <uint64_t> NOT_TOLD else 0


cdef inline void count_stamp(SocketCounters *counters, uint32_t drops) noexcept nogil:
    """Bring the count up to what a datagram was stamped with; it may have come without a stamp (`stamped`)."""
    if drops:
        count_drops(counters, drops)


cdef inline int _memory_of(int fd, uint32_t *words) noexcept nogil:
    """SO_MEMINFO, for which no datagram is needed: 0, or -errno."""
    cdef socklen_t length = MULTICAST_MEMINFO_WORDS * sizeof(uint32_t)
    memset(words, 0, length)
    return 0 if getsockopt(fd, SOL_SOCKET, SO_MEMINFO, words, &length) == 0 else -errno


cdef inline void ask_socket(int fd, SocketCounters *counters) noexcept nogil:
    """Bring the counters up to date; where the socket does not answer, they stay as they were."""
    cdef uint32_t words[MULTICAST_MEMINFO_WORDS]
    cdef int size = option_receive_buffer(fd)
    cdef int result = _memory_of(fd, words)
    if result == 0:
        count_drops(counters, words[MULTICAST_MEMINFO_DROPS])
        atomic_store_count(&counters.queued, words[MULTICAST_MEMINFO_QUEUED] // 2, __ATOMIC_RELAXED)
    elif result == -ENOPROTOOPT:
        atomic_store_count(&counters.drops, <uint64_t> NOT_TOLD, __ATOMIC_RELAXED)
    if size >= 0:
        atomic_store_count(&counters.receive_buffer, <uint64_t> size, __ATOMIC_RELAXED)


cdef inline void first_counters(int fd, SocketCounters *counters) noexcept nogil:
    """Begin with what was counted for the socket before it was ours."""
    cdef uint32_t words[MULTICAST_MEMINFO_WORDS]
    if _memory_of(fd, words) == 0:
        atomic_store_count(&counters.drops, words[MULTICAST_MEMINFO_DROPS], __ATOMIC_RELAXED)
    ask_socket(fd, counters)
