"""The columns that somebody reads: from a block's headers and control messages into arrays, once a batch.

Owns the layout of these arrays. Must not run before somebody asks for one, nor touch Python objects.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from multicast._ancillary cimport *
from multicast._blocks cimport *
from multicast._libc cimport *


cdef inline size_t decoded_size(const Pool *pool, int column) noexcept nogil:
    """Bytes of an item."""
    if column == SOURCE_ADDRESS or column == DESTINATION_ADDRESS:
        return pool.shape.address_size
    if column == SOURCE_PORT:
        return sizeof(uint16_t)
    if column == INTERFACE:
        return sizeof(uint32_t)
    if column == TIMESTAMP or column == DROPS:
        return sizeof(uint64_t)
    return sizeof(uint8_t)


cdef inline void _decode_name(const Pool *pool, const msghdr *header, char *address, uint16_t *port) noexcept nogil:
    """The source's address, in network order, and its port, as a number; zeros if there is none."""
    cdef const unsigned char *name = <const unsigned char *> header.msg_name
    cdef size_t begin = 4 if pool.shape.address_size == 4 else 8  # in sockaddr_in and sockaddr_in6 (ip(7), ipv6(7))
    if header.msg_namelen < begin + pool.shape.address_size:
        memset(address, 0, pool.shape.address_size)
        port[0] = 0
        return
    memcpy(address, name + begin, pool.shape.address_size)
    port[0] = <uint16_t> (name[2] << 8 | name[3])


cdef inline bint decode(const Pool *pool, Block *block, uint32_t count) noexcept nogil:
    """Fill the arrays for the `count` datagrams of a batch; false where memory is short."""
    cdef Ancillary found
    cdef const msghdr *header
    cdef uint32_t i, slot, last = 0xffffffff
    cdef int column
    if block.decoded_capacity < count:
        for column in range(DECODED_COLUMNS):
            if not grown(&block.decoded[column], block.capacity, decoded_size(pool, column)):
                return False
        block.decoded_capacity = block.capacity
    for i in range(count):
        slot = block.offsets[i] // pool.shape.slot_size
        header = &block.headers[slot].msg_hdr
        if slot != last:  # the datagrams of a train share what is told
            ancillary_read(<const char *> header.msg_control, header.msg_controllen, &found)
            last = slot
        _decode_name(
            pool, header, <char *> block.decoded[SOURCE_ADDRESS] + i * pool.shape.address_size,
            &(<uint16_t *> block.decoded[SOURCE_PORT])[i])
        memcpy(
            <char *> block.decoded[DESTINATION_ADDRESS] + i * pool.shape.address_size,
            found.destination, pool.shape.address_size)
        (<uint32_t *> block.decoded[INTERFACE])[i] = found.interface
        (<uint8_t *> block.decoded[HOPS])[i] = found.ttl
        (<uint8_t *> block.decoded[TRAFFIC_CLASS])[i] = found.tos
        (<int64_t *> block.decoded[TIMESTAMP])[i] = found.timestamp
        (<uint8_t *> block.decoded[TIMESTAMP_KIND])[i] = found.timestamp_kind
        (<uint64_t *> block.decoded[DROPS])[i] = stamped(block.known_drops, found.drops)
    return True
