"""The native backend's verbs on a socket: each a primitive that the door has checked the arguments of.

Owns the way from a `socket.socket` to the functions of `_options.pxd`. Must not look up an interface or word an error.
"""

cdef int _family(bytes group) except -1:
    if len(group) not in (4, 16):
        raise ValueError("addresses have 4 or 16 bytes")
    return AF_INET if len(group) == 4 else AF_INET6


cdef int _membership(
        str operation, int fd, int any_source, int one_source,
        bytes group, uint32_t index, bytes source) except -1:
    cdef int family = _family(group)
    cdef const char *group_bytes = group
    cdef const char *source_bytes = NULL
    cdef int result
    if source is not None and len(source) != len(group):
        raise ValueError("a group's sources have as many bytes as the group")
    if source is not None:
        source_bytes = source
    with nogil:  # a membership waits for the kernel's lock on its interfaces
        result = option_membership(fd, family, any_source, one_source, group_bytes, index, source_bytes)
    return _check(result, operation)


def join_group(sock, bytes group not None, uint32_t index, bytes source):
    _membership("join_group", sock.fileno(), MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP, group, index, source)


def leave_group(sock, bytes group not None, uint32_t index, bytes source):
    _membership("leave_group", sock.fileno(), MCAST_LEAVE_GROUP, MCAST_LEAVE_SOURCE_GROUP, group, index, source)


def block_source(sock, bytes group not None, uint32_t index, bytes source not None):
    _membership("block_source", sock.fileno(), 0, MCAST_BLOCK_SOURCE, group, index, source)


def unblock_source(sock, bytes group not None, uint32_t index, bytes source not None):
    _membership("unblock_source", sock.fileno(), 0, MCAST_UNBLOCK_SOURCE, group, index, source)


def set_source_filter(sock, bytes group not None, uint32_t index, bint including, sources):
    """Set mode and sources of a membership at once: `sources` is a sequence of packed addresses."""
    cdef int family = _family(group)
    cdef int fd = sock.fileno()
    cdef const char *group_bytes = group
    cdef bytes listed = b"".join(sources)
    cdef const char *source_bytes = listed
    cdef uint32_t n = <uint32_t> len(sources)
    cdef int result
    if len(listed) != len(sources) * len(group):
        raise ValueError("a group's sources have as many bytes as the group")
    with nogil:
        result = option_set_filter(fd, family, group_bytes, index, including, source_bytes, n)
    _check(result, "set_source_filter")


def get_source_filter(sock, bytes group not None, uint32_t index):
    """A membership's filter: whether it includes, and the packed sources."""
    cdef int family = _family(group)
    cdef Py_ssize_t size = len(group)
    cdef int fd = sock.fileno()
    cdef const char *group_bytes = group
    cdef group_filter *filter = NULL
    cdef int result
    with nogil:
        result = option_get_filter(fd, family, group_bytes, index, &filter)
    _check(result, "get_source_filter")
    try:
        sources = [option_packed(filter.gf_slist + i)[:size] for i in range(<Py_ssize_t> filter.gf_numsrc)]
        return filter.gf_fmode == <uint32_t> MCAST_INCLUDE, sources
    finally:
        free(filter)


def bound_address(sock):
    """The packed address that a socket is bound to: all zeros for any."""
    cdef sockaddr_storage address
    cdef int family = _check(option_bound_address(sock.fileno(), &address), "bound_address")
    return option_packed(&address)[:4 if family == AF_INET else 16]


def follow_interface(sock, int old, int new):
    """Bind to the interface `new` a socket that was bound to `old` (SO_BINDTOIFINDEX); whether it was."""
    return _check(option_follow_interface(sock.fileno(), old, new), "follow_interface") == 1


def set_multicast_interface(sock, uint32_t index):
    _check(option_multicast_interface(sock.fileno(), sock.family, index), "set_multicast_interface")


def set_multicast_ttl(sock, int ttl):
    _check(option_set_int(sock.fileno(), sock.family, IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS, ttl), "set_multicast_ttl")


def set_multicast_loopback(sock, bint enabled):
    cdef int result = option_set_int(sock.fileno(), sock.family, IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP, enabled)
    _check(result, "set_multicast_loopback")


def limit_to_joined(sock):
    """Deliver only groups joined on this socket (IP_MULTICAST_ALL off, ip(7)); False where the kernel can't."""
    cdef int result = option_set_int(sock.fileno(), sock.family, IP_MULTICAST_ALL, IPV6_MULTICAST_ALL, 0)
    return result != -ENOPROTOOPT and _check(result, "limit_to_joined") == 0


def set_receive_buffer(sock, int nbytes):
    """Past net.core.rmem_max where this process may (CAP_NET_ADMIN), else as far as that allows: bytes granted."""
    return _check(option_set_receive_buffer(sock.fileno(), nbytes), "set_receive_buffer")
