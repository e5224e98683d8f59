"""What a receive call brought, sorted out: foreign datagrams left out, trains split, the rest measured and counted.

Owns the totals: each datagram ends in exactly one of them. Must not make a system call.
"""

from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
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
    AHEAD = 8           # datagrams by which the look-up of a group is begun before it is needed

cdef struct Bucket:
    char entry[JOINED_SIZE]
    uint32_t taken
    uint32_t[2] _room    # so that none lies on two cache lines

cdef struct Joined:
    Bucket *buckets      # an entry is where its hash points, or in the next one that is not taken before
    uint32_t mask        # how many buckets there are, a power of 2, less 1
    bint anywhere        # whether there are entries for wherever a group be joined (interface 0)


cdef inline Bucket *_bucket(const Joined *joined, const char *entry) noexcept nogil:
    cdef uint64_t low, high
    cdef uint32_t interface
    memcpy(&low, entry, 8)
    memcpy(&high, entry + 8, 8)
    memcpy(&interface, entry + 16, 4)
    # Odd constants with well-mixed bits: those of MurmurHash3's finaliser, and of Fibonacci hashing in 64 bits.
    low ^= high * <uint64_t> 0xff51afd7ed558ccd + interface
    return &joined.buckets[<uint32_t> (low * <uint64_t> 0x9e3779b97f4a7c15 >> 32) & joined.mask]


cdef inline Bucket *_following(const Joined *joined, Bucket *bucket) noexcept nogil:
    return joined.buckets if bucket == joined.buckets + joined.mask else bucket + 1


cdef inline bint joined_init(Joined *joined, const char *entries, uint32_t count) noexcept nogil:
    """Make a table of so many entries; false where memory is short. `joined_free` is for both."""
    cdef uint32_t buckets = 2
    cdef uint32_t interface, _
    cdef Bucket *bucket
    cdef void *memory = NULL
    while buckets < 2 * count:  # at most half of them taken: the next free one is near
        buckets *= 2
    joined.anywhere, joined.mask, joined.buckets = False, buckets - 1, NULL
    if posix_memalign(&memory, 64, buckets * sizeof(Bucket)) != 0:
        return False
    joined.buckets = <Bucket *> memset(memory, 0, buckets * sizeof(Bucket))
    for _ in range(count):
        memcpy(&interface, entries + 16, 4)
        joined.anywhere = joined.anywhere or interface == 0
        bucket = _bucket(joined, entries)
        while bucket.taken:
            bucket = _following(joined, bucket)
        memcpy(bucket.entry, entries, JOINED_SIZE)
        bucket.taken = True
        entries += JOINED_SIZE
    return True


cdef inline void joined_free(Joined *joined) noexcept nogil:
    free(joined.buckets)


cdef inline void _wanted(const Ancillary *found, uint32_t interface, char *entry) noexcept nogil:
    memcpy(entry, found.destination, 16)
    memcpy(entry + 16, &interface, 4)


cdef inline void joined_expect(const Joined *joined, const Ancillary *found) noexcept nogil:
    """Have the processor's caches fetch what `is_joined` will look at."""
    cdef char wanted[JOINED_SIZE]
    _wanted(found, found.interface, wanted)
    prefetch(_bucket(joined, wanted))


cdef inline bint _is_entry(const Joined *joined, const char *wanted) noexcept nogil:
    cdef Bucket *bucket = _bucket(joined, wanted)
    while bucket.taken:
        if memcmp(wanted, bucket.entry, JOINED_SIZE) == 0:
            return True
        bucket = _following(joined, bucket)
    return False


cdef inline bint is_joined(const Joined *joined, const Ancillary *found) noexcept nogil:
    """Whether a datagram is to a group joined on the interface that it came in on, or joined wherever that be (0)."""
    cdef char wanted[JOINED_SIZE]
    _wanted(found, found.interface, wanted)
    if _is_entry(joined, wanted):
        return True
    _wanted(found, 0, wanted)
    return joined.anywhere and _is_entry(joined, wanted)


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


cdef inline void _look_ahead(const Block *block, int slot, const Joined *joined, Ancillary *told) noexcept nogil:
    cdef const msghdr *header = &block.headers[slot].msg_hdr
    ancillary_read(<const char *> header.msg_control, header.msg_controllen, told)
    if joined != NULL:
        joined_expect(joined, told)


cdef inline int sort_out(
        const Pool *pool, Block *block, int n, const Joined *joined, Totals *totals) noexcept nogil:
    """Leave out what is foreign, and split trains: how many datagrams (trains) or slots (else) are left; or -ENOMEM.

    joined: NULL to let everything pass
    """
    cdef mmsghdr *header
    cdef Ancillary[AHEAD] told
    cdef Ancillary found
    cdef uint64_t foreign = 0
    cdef int i, kept = 0
    for i in range(n if n < AHEAD else AHEAD):
        _look_ahead(block, i, joined, &told[i])
    for i in range(n):
        header = &block.headers[i]
        found = told[i % AHEAD]
        if i + AHEAD < n:
            _look_ahead(block, i + AHEAD, joined, &told[i % AHEAD])
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
