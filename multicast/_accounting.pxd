"""What a receive call brought, sorted out: foreign datagrams left out, trains split, the rest measured and counted.

Owns the totals: each datagram ends in exactly one of them. Must not make a system call.
"""

from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from multicast._ancillary cimport *
from multicast._blocks cimport *
from multicast._libc cimport *

cdef struct Totals:
    uint64_t datagrams  # each atomic: written by the one consumer, read by any thread
    uint64_t bytes
    uint64_t batches
    uint64_t truncated
    uint64_t foreign
    uint64_t control_truncated

cdef enum:
    JOINED_SIZE = 20    # of an entry: a group, zeros up to 16 bytes, and the index of an interface

cdef struct Joined:
    const char *entries  # in rising order of their bytes
    uint32_t count


cdef inline bint _joined_entry(const Joined *joined, const char *wanted) noexcept nogil:
    cdef uint32_t low = 0, high = joined.count, middle
    cdef int order
    while low < high:
        middle = low + (high - low) // 2
        order = memcmp(wanted, joined.entries + <size_t> middle * JOINED_SIZE, JOINED_SIZE)
        if order == 0:
            return True
        if order < 0:
            high = middle
        else:
            low = middle + 1
    return False


cdef inline bint is_joined(const Joined *joined, const Ancillary *found) noexcept nogil:
    """Whether a datagram is to a group joined on the interface that it came in on, or joined wherever that be (0)."""
    cdef char wanted[JOINED_SIZE]
    cdef uint32_t anywhere = 0
    memcpy(wanted, found.destination, 16)
    memcpy(wanted + 16, &found.interface, 4)
    if _joined_entry(joined, wanted):
        return True
    memcpy(wanted + 16, &anywhere, 4)
    return _joined_entry(joined, wanted)


cdef inline void _move(const Pool *pool, Block *block, int to, int origin) noexcept nogil:
    """Put a datagram, and all that is told of it, into an earlier slot: only where something foreign came before it."""
    cdef const Shape *shape = &pool.shape
    cdef mmsghdr *target = &block.headers[to]
    cdef mmsghdr *header = &block.headers[origin]
    cdef size_t size = header.msg_len
    if size > shape.datagram_size:
        size = shape.datagram_size
    memcpy(block.slots + <size_t> to * shape.slot_size, block.slots + <size_t> origin * shape.slot_size, size)
    if shape.name_size:
        memcpy(target.msg_hdr.msg_name, header.msg_hdr.msg_name, shape.name_size)
    memcpy(target.msg_hdr.msg_control, header.msg_hdr.msg_control, shape.control_size)
    target.msg_hdr.msg_namelen = header.msg_hdr.msg_namelen
    target.msg_hdr.msg_controllen = header.msg_hdr.msg_controllen
    target.msg_hdr.msg_flags = header.msg_hdr.msg_flags
    target.msg_len = header.msg_len


cdef inline uint32_t _pieces(uint32_t length, uint32_t segment) noexcept nogil:
    """How many datagrams a train of so many bytes has."""
    return 1 if segment == 0 or segment >= length else (length - 1) // segment + 1


cdef inline void _rows_alike(
        Block *block, uint32_t first, uint32_t rows, uint32_t offset, uint32_t own, uint32_t there) noexcept nogil:
    """Rows of datagrams of one length that lie one after the other, `own` bytes each, of which `there` are kept."""
    cdef uint32_t *offsets = block.offsets + first  # one array a loop: each becomes a few wide stores
    cdef uint32_t *real_lengths = block.real_lengths + first
    cdef uint32_t *lengths = block.lengths + first
    cdef uint32_t i
    for i in range(rows):
        offsets[i] = offset + i * own
    for i in range(rows):
        real_lengths[i] = own
    for i in range(rows):
        lengths[i] = there
    memset(block.truncated + first, there < own, rows)


cdef inline int _split(const Pool *pool, Block *block, int slot, uint32_t segment, int count) noexcept nogil:
    """Append the datagrams of a slot's train to the `count` that are there: how many there are now, or -ENOMEM."""
    cdef uint32_t size = pool.shape.datagram_size
    cdef uint32_t length = block.headers[slot].msg_len
    cdef uint32_t kept = length if length < pool.shape.slot_size else pool.shape.slot_size
    cdef uint32_t pieces = _pieces(length, segment)
    cdef uint32_t whole = 0, start, own, there, piece
    if not block_reserve(pool, block, count + pieces):
        return -ENOMEM
    if pieces > 1:  # all but the last are alike, as far as they lie in the slot
        whole = pieces - 1 if kept == length else kept // segment
        _rows_alike(
            block, count, whole, slot * pool.shape.slot_size, segment, segment if segment < size else size)
    start = whole * segment
    for piece in range(whole, pieces):
        own = length - start if piece + 1 == pieces else segment
        there = kept - start if kept > start else 0
        if there > own:
            there = own
        if there > size:
            there = size
        _rows_alike(block, count + piece, 1, slot * pool.shape.slot_size + (start if start < kept else 0), own, there)
        start += own
    return count + pieces


cdef inline int sort_out(
        const Pool *pool, Block *block, int n, const Joined *joined, Totals *totals) noexcept nogil:
    """Leave out what is foreign, and split trains: how many datagrams (trains) or slots (else) are left; or -ENOMEM.

    joined: NULL to let everything pass
    """
    cdef mmsghdr *header
    cdef Ancillary found
    cdef uint64_t foreign = 0
    cdef int i, kept = 0
    for i in range(n):
        header = &block.headers[i]
        ancillary_read(<const char *> header.msg_hdr.msg_control, header.msg_hdr.msg_controllen, &found)
        if joined != NULL and not is_joined(joined, &found):
            foreign += _pieces(header.msg_len, found.segment)
            continue
        if pool.shape.trains:
            kept = _split(pool, block, i, found.segment, kept)
            if kept < 0:
                break
        else:
            if i != kept:
                _move(pool, block, kept, i)
            kept += 1
    if foreign:
        atomic_store_count(&totals.foreign, totals.foreign + foreign, __ATOMIC_RELAXED)
    return kept


cdef inline void measure(const Pool *pool, Block *block, int n) noexcept nogil:
    """Fill the columns of lengths of the first n slots, a datagram each."""
    cdef uint32_t length
    cdef int i
    for i in range(n):
        length = block.headers[i].msg_len
        block.real_lengths[i] = length
        block.truncated[i] = (block.headers[i].msg_hdr.msg_flags & MSG_TRUNC) != 0
        block.lengths[i] = length if length < pool.shape.datagram_size else pool.shape.datagram_size


cdef inline void count_up(const Block *block, int n, uint32_t cut_control, Totals *totals) noexcept nogil:
    """Count n datagrams as received."""
    cdef uint64_t size = 0, cut = 0
    cdef int i
    for i in range(n):
        size += block.lengths[i]
        cut += block.truncated[i]
    atomic_store_count(&totals.datagrams, totals.datagrams + n, __ATOMIC_RELAXED)
    atomic_store_count(&totals.bytes, totals.bytes + size, __ATOMIC_RELAXED)
    atomic_store_count(&totals.batches, totals.batches + 1, __ATOMIC_RELAXED)
    atomic_store_count(&totals.truncated, totals.truncated + cut, __ATOMIC_RELAXED)
    atomic_store_count(&totals.control_truncated, totals.control_truncated + cut_control, __ATOMIC_RELAXED)


cdef inline uint32_t stamped_drops(const msghdr *header) noexcept nogil:
    """The kernel's count of drops when this datagram was queued, modulo 2**32 (SO_RXQ_OVFL)."""
    cdef Ancillary found
    ancillary_read(<const char *> header.msg_control, header.msg_controllen, &found)
    return found.drops


cdef inline int account(
        const Pool *pool, Block *block, int n, const Joined *joined, Totals *totals) noexcept nogil:
    """Sort out, measure and count the n messages in a block: how many datagrams it has to deliver; or -ENOMEM."""
    cdef uint32_t cut_control = 0
    cdef int i
    if pool.shape.control_size:
        for i in range(n):
            cut_control += (block.headers[i].msg_hdr.msg_flags & MSG_CTRUNC) != 0
        if joined != NULL or pool.shape.trains:
            n = sort_out(pool, block, n, joined, totals)
            if n <= 0:
                if n == 0:
                    atomic_store_count(
                        &totals.control_truncated, totals.control_truncated + cut_control, __ATOMIC_RELAXED)
                return n
    if not pool.shape.trains:
        measure(pool, block, n)
    count_up(block, n, cut_control, totals)
    multicast_plant_fault(block.slots + <size_t> pool.shape.batch_size * pool.shape.slot_size)
    return n
