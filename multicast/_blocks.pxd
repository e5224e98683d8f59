"""Blocks of slots for datagrams, and the pool that lends them: one taker, any thread gives back, nothing locks.

Owns the memory that the kernel writes to. Must not touch Python objects; whoever holds a block keeps its pool alive.
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from multicast._chunks cimport *
from multicast._libc cimport *

cdef enum:
    # The columns that are decoded when one of them is first read: an array each.
    SOURCE_ADDRESS
    SOURCE_PORT
    DESTINATION_ADDRESS
    INTERFACE
    HOPS                   # TTL, or hop limit
    TRAFFIC_CLASS          # TOS over IPv4
    TIMESTAMP
    TIMESTAMP_KIND
    DROPS
    DECODED_COLUMNS        # how many they are

cdef enum:
    # How a pool gives back what a burst left behind (`pool_trim`).
    SPARE_BLOCKS = 2               # idle ones that are kept whatever happens
    TRIMMED_AT_ONCE = 8            # freeing them holds up the next receive: some 25 us each
    FIRST_PATIENCE = 2             # seconds that a block has to be idle for
    LAST_PATIENCE = 64             # the same, where blocks that were freed have been missed again and again

cdef struct Shape:
    # What every block of a pool is like: fixed when the receiver is opened.
    uint32_t batch_size    # slots
    uint32_t datagram_size
    uint32_t slot_size
    uint32_t name_size     # bytes for a datagram's source, 0 if nobody asked
    uint32_t control_size  # bytes for its control messages, 0 if nobody asked
    uint32_t address_size  # of the family: 4 or 16
    bint trains            # a slot may hold a train of datagrams (UDP_GRO)

cdef struct Block:
    Block *next            # among the idle ones
    char *slots            # batch_size slots, slot_size apart, on cache lines
    mmsghdr *headers
    iovec *vectors
    char *names
    char *controls
    uint32_t used          # headers that the kernel has written to: to be armed again before the next call
    uint32_t capacity      # datagrams that the arrays below have room for
    uint32_t *offsets      # where each datagram begins: the pool's, unless slots hold trains
    uint32_t *lengths      # bytes that are kept of it
    uint32_t *real_lengths  # bytes that it had when it arrived
    uint8_t *truncated
    uint64_t known_drops   # the count before this batch, which the stamped lower halves are counted from
    void *decoded[DECODED_COLUMNS]
    uint32_t decoded_capacity

cdef struct Pool:
    Shape shape
    char *memory           # the caller's, a block's slots after the other's; NULL: memory of our own
    Chunks chunks          # where that is on huge pages; else each block has its own
    uint32_t *offsets      # where each slot begins: the same in every block
    uint32_t blocks        # in existence (atomic; made by the taker alone)
    uint32_t limit         # 0: none
    uint32_t in_use        # atomic
    uint32_t closed        # atomic
    Block *idle            # the taker's own list: of those that nobody needed lately the last ones
    uint32_t idle_blocks   # in that list
    uint32_t least_idle    # how few were left there when a block was taken, since the taker last looked at this
    int64_t next_trim      # coarse monotonic ns
    int64_t patience       # ns
    bint trimmed           # a block has been freed, and none was missed since
    void *returned         # atomic: a stack that any thread pushes to and only the taker empties, whole


cdef inline void block_free(const Pool *pool, Block *block) noexcept nogil:
    cdef int i
    if block != NULL:
        for i in range(DECODED_COLUMNS):
            free(block.decoded[i])
        if block.offsets != pool.offsets:
            free(block.offsets)
        if pool.memory == NULL and pool.chunks.kind == NO_HUGE_PAGES:
            free(block.slots)
        free(block.headers)
        free(block.vectors)
        free(block.names)
        free(block.controls)
        free(block.lengths)
        free(block.real_lengths)
        free(block.truncated)
        free(block)


cdef inline bint grown(void **array, size_t items, size_t size) noexcept nogil:
    """Make room for so many items, keeping those that are there; false where memory is short."""
    cdef void *larger = realloc(array[0], items * size)
    if larger != NULL:
        array[0] = larger
    return larger != NULL


cdef inline bint block_reserve(const Pool *pool, Block *block, uint32_t datagrams) noexcept nogil:
    """Make room in the arrays for so many datagrams; false where memory is short."""
    if datagrams <= block.capacity:
        return True
    if (not grown(<void **> &block.lengths, datagrams, sizeof(uint32_t))
            or not grown(<void **> &block.real_lengths, datagrams, sizeof(uint32_t))
            or not grown(<void **> &block.truncated, datagrams, 1)):
        return False
    if pool.shape.trains:
        if not grown(<void **> &block.offsets, datagrams, sizeof(uint32_t)):
            return False
    else:
        block.offsets = pool.offsets
    block.capacity = datagrams
    return True


cdef inline size_t block_size(const Shape *shape) noexcept nogil:
    """Bytes that the slots of a block take."""
    return <size_t> shape.batch_size * shape.slot_size


cdef inline char *_slots_new(Pool *pool) noexcept nogil:
    """Slots for another block, nobody else's bytes in them and every page there before a datagram is; NULL: no memory.

    On huge pages they stay free until `chunks_carve` takes them.
    """
    cdef size_t size = block_size(&pool.shape)
    cdef void *slots = NULL
    if pool.chunks.kind != NO_HUGE_PAGES:
        return chunks_room(&pool.chunks, size, size if pool.limit == 1 else 2 * size)
    if pool.memory != NULL:  # blocks are freed when the pool is closed, and then none is made any more
        slots = pool.memory + pool.blocks * size
    elif posix_memalign(&slots, 64, size):
        return NULL
    memset(slots, 0, size)
    return <char *> slots


cdef inline Block *block_new(Pool *pool) noexcept nogil:
    """A block with its headers armed; NULL where memory is short."""
    cdef const Shape *shape = &pool.shape
    cdef size_t n = shape.batch_size
    cdef size_t i
    cdef Block *block = <Block *> calloc(1, sizeof(Block))
    if block == NULL:
        return NULL
    block.slots = _slots_new(pool)
    block.headers = <mmsghdr *> calloc(n, sizeof(mmsghdr))  # zeroed whole, with musl's padding
    block.vectors = <iovec *> calloc(n, sizeof(iovec))
    block.names = <char *> calloc(n, shape.name_size + 1)
    block.controls = <char *> calloc(n, shape.control_size + 1)
    if (block.slots == NULL or block.headers == NULL or block.vectors == NULL or block.names == NULL
            or block.controls == NULL or not block_reserve(pool, block, shape.batch_size)):
        block_free(pool, block)
        return NULL
    if pool.chunks.kind != NO_HUGE_PAGES:
        chunks_carve(&pool.chunks, block_size(shape))
    for i in range(n):
        block.vectors[i].iov_base = block.slots + i * shape.slot_size
        block.vectors[i].iov_len = shape.slot_size if shape.trains else shape.datagram_size
        block.headers[i].msg_hdr.msg_iov = &block.vectors[i]
        block.headers[i].msg_hdr.msg_iovlen = 1
        if shape.name_size:
            block.headers[i].msg_hdr.msg_name = block.names + i * shape.name_size
        if shape.control_size:
            block.headers[i].msg_hdr.msg_control = block.controls + i * shape.control_size
    block.used = shape.batch_size
    return block


cdef inline void block_arm(const Pool *pool, Block *block) noexcept nogil:
    """Undo what the kernel wrote to the headers; until then they tell of the datagrams, for the columns."""
    cdef msghdr *header
    cdef uint32_t i
    for i in range(block.used):
        header = &block.headers[i].msg_hdr
        header.msg_namelen = pool.shape.name_size
        header.msg_controllen = pool.shape.control_size
        header.msg_flags = 0
    block.used = 0


cdef inline void pool_drop(Pool *pool, Block *block) noexcept nogil:
    block_free(pool, block)
    if (atomic_sub_word(&pool.blocks, 1, __ATOMIC_ACQ_REL) == 1
            and atomic_load_word(&pool.closed, __ATOMIC_ACQUIRE)):
        chunks_unmap(&pool.chunks)


cdef inline void pool_put(Pool *pool, Block *block) noexcept nogil:
    """Back to the taker's own list, unused; by the taker alone."""
    block.next = pool.idle
    pool.idle = block
    pool.idle_blocks += 1


cdef inline Block *pool_take(Pool *pool) noexcept nogil:
    """An idle block, or a new one; by the taker alone. NULL at the limit, or where memory is short.

    The one that came back last is the one that the processor's caches and its TLB still know.
    """
    cdef Block *block
    cdef Block *last
    if atomic_load_pointer(&pool.returned, __ATOMIC_RELAXED) != NULL:
        block = <Block *> atomic_exchange_pointer(&pool.returned, NULL, __ATOMIC_ACQUIRE)
        last = block
        pool.idle_blocks += 1
        while last.next != NULL:
            last = last.next
            pool.idle_blocks += 1
        last.next = pool.idle
        pool.idle = block
    block = pool.idle
    if block != NULL:
        pool.idle = block.next
        pool.idle_blocks -= 1
    elif pool.blocks != pool.limit or pool.limit == 0:
        block = block_new(pool)
        atomic_add_word(&pool.blocks, block != NULL, __ATOMIC_RELAXED)
        if pool.trimmed:  # too early, it seems: a pattern that comes again has to end up without an allocation
            pool.trimmed = False
            pool.patience = min(2 * pool.patience, <int64_t> LAST_PATIENCE * 1000000000)
    if pool.idle_blocks < pool.least_idle:
        pool.least_idle = pool.idle_blocks
    return block


cdef inline void pool_trim(Pool *pool, int64_t now) noexcept nogil:
    """Free blocks that were idle for as long as it has patience, but for spare ones; by the taker alone.

    So many as the list never fell below since it began to watch: its last ones, as it gives and takes at its front.
    """
    cdef Block **where = &pool.idle
    cdef Block *block
    cdef uint32_t unused, _
    if pool.memory != NULL or pool.chunks.kind != NO_HUGE_PAGES:  # a block has no memory of its own there
        return
    if now < pool.next_trim:
        return
    unused = min(pool.least_idle, pool.idle_blocks)  # the list alone, if nothing was taken since
    for _ in range(pool.idle_blocks - unused + SPARE_BLOCKS if unused > SPARE_BLOCKS else 0):
        where = &where[0].next
    for _ in range(TRIMMED_AT_ONCE):
        if unused <= SPARE_BLOCKS:
            break
        block = where[0]
        where[0] = block.next
        pool_drop(pool, block)
        pool.idle_blocks -= 1
        pool.trimmed = True
        unused -= 1
    pool.least_idle = unused  # goes on at the next look, unless they are needed before
    if unused <= SPARE_BLOCKS:
        pool.least_idle = UINT32_MAX
        pool.next_trim = now + pool.patience


cdef inline void pool_give_back(Pool *pool, Block *block) noexcept nogil:
    """Nothing refers to the block any more; from any thread."""
    cdef void *old = atomic_load_pointer(&pool.returned, __ATOMIC_RELAXED)
    atomic_sub_word(&pool.in_use, 1, __ATOMIC_RELAXED)
    if atomic_load_word(&pool.closed, __ATOMIC_ACQUIRE):
        pool_drop(pool, block)
        return
    while True:
        block.next = <Block *> old
        if atomic_swap_pointer(&pool.returned, &old, block, True, __ATOMIC_RELEASE, __ATOMIC_RELAXED):
            return


cdef inline void pool_free_idle(Pool *pool) noexcept nogil:
    cdef Block *block = pool.idle
    cdef Block *following
    cdef int turn
    for turn in range(2):  # the taker's list, then what came back
        while block != NULL:
            following = block.next
            pool_drop(pool, block)
            block = following
        block = <Block *> atomic_exchange_pointer(&pool.returned, NULL, __ATOMIC_ACQUIRE) if turn == 0 else NULL
    pool.idle, pool.idle_blocks = NULL, 0


cdef inline void pool_close(Pool *pool) noexcept nogil:
    """Free what is idle now, and each block that comes back from here on; by the taker alone."""
    atomic_or_word(&pool.closed, 1, __ATOMIC_ACQ_REL)
    pool_free_idle(pool)


cdef inline bint pool_init(
        Pool *pool, const Shape *shape, uint32_t limit, char *memory, HugePages kind, size_t page) noexcept nogil:
    """Prepare two blocks, so that one can be looked at while the next fills; false where memory is short.

    memory: room for the slots of `limit` blocks, or NULL
    page: bytes of a huge page of that kind
    """
    cdef uint32_t i, _
    cdef Block *block
    memset(pool, 0, sizeof(Pool))
    pool.shape, pool.limit, pool.memory = shape[0], limit, memory
    pool.chunks.kind, pool.chunks.page = kind, page
    pool.patience = <int64_t> FIRST_PATIENCE * 1000000000
    pool.offsets = <uint32_t *> calloc(shape.batch_size, sizeof(uint32_t))
    if pool.offsets == NULL:
        return False
    for i in range(shape.batch_size):
        pool.offsets[i] = i * shape.slot_size
    for _ in range(1 if limit == 1 else 2):
        block = block_new(pool)
        if block == NULL:
            return False
        pool.blocks += 1
        pool_put(pool, block)
    return True


cdef inline void pool_free(Pool *pool) noexcept nogil:
    """The last holder is gone."""
    pool_free_idle(pool)
    chunks_free(&pool.chunks)
    free(pool.offsets)


cdef inline uint64_t pool_slot_memory(Pool *pool) noexcept nogil:
    """Bytes that the slots of all blocks take; from any thread."""
    if pool.chunks.kind != NO_HUGE_PAGES:
        return atomic_load_count(&pool.chunks.mapped, __ATOMIC_RELAXED)
    return <uint64_t> atomic_load_word(&pool.blocks, __ATOMIC_RELAXED) * block_size(&pool.shape)
