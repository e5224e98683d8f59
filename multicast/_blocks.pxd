"""Blocks of slots for datagrams, and the pool that lends them: one taker, any thread gives back, nothing locks.

Owns the memory that the kernel writes to. Must not touch Python objects; whoever holds a block keeps its pool alive.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from multicast._libc cimport *

cdef struct Block:
    Block *next            # among the idle ones
    char *slots            # batch_size slots, slot_size apart, on cache lines
    mmsghdr *headers
    iovec *vectors
    uint32_t *lengths      # bytes that the slot has of its datagram
    uint32_t *real_lengths  # bytes that the datagram had when it arrived
    uint8_t *truncated

cdef struct Pool:
    uint32_t batch_size
    uint32_t datagram_size
    uint32_t slot_size
    uint32_t *offsets      # where each slot begins: the same in every block
    uint32_t blocks        # in existence (atomic; made by the taker alone)
    uint32_t limit         # 0: none
    uint32_t in_use        # atomic
    uint32_t closed        # atomic
    Block *idle            # the taker's own list
    void *returned         # atomic: a stack that any thread pushes to and only the taker empties, whole


cdef inline void block_free(Block *block) noexcept nogil:
    if block != NULL:
        free(block.slots)
        free(block.headers)
        free(block.vectors)
        free(block.lengths)
        free(block.real_lengths)
        free(block.truncated)
        free(block)


cdef inline Block *block_new(const Pool *pool) noexcept nogil:
    """A block with its headers armed; NULL where memory is short."""
    cdef size_t n = pool.batch_size
    cdef size_t i
    cdef void *slots = NULL
    cdef Block *block = <Block *> calloc(1, sizeof(Block))
    if block == NULL:
        return NULL
    if posix_memalign(&slots, 64, n * pool.slot_size) == 0:
        block.slots = <char *> slots
    block.headers = <mmsghdr *> calloc(n, sizeof(mmsghdr))  # zeroed whole, with musl's padding
    block.vectors = <iovec *> calloc(n, sizeof(iovec))
    block.lengths = <uint32_t *> calloc(n, sizeof(uint32_t))
    block.real_lengths = <uint32_t *> calloc(n, sizeof(uint32_t))
    block.truncated = <uint8_t *> calloc(n, 1)
    if (block.slots == NULL or block.headers == NULL or block.vectors == NULL or block.lengths == NULL
            or block.real_lengths == NULL or block.truncated == NULL):
        block_free(block)
        return NULL
    memset(block.slots, 0, n * pool.slot_size)  # nobody else's bytes, and every page is there before a datagram is
    for i in range(n):
        block.vectors[i].iov_base = block.slots + i * pool.slot_size
        block.vectors[i].iov_len = pool.datagram_size
        block.headers[i].msg_hdr.msg_iov = &block.vectors[i]
        block.headers[i].msg_hdr.msg_iovlen = 1
    return block


cdef inline void pool_drop(Pool *pool, Block *block) noexcept nogil:
    atomic_sub_word(&pool.blocks, 1, __ATOMIC_RELAXED)
    block_free(block)


cdef inline void pool_put(Pool *pool, Block *block) noexcept nogil:
    """Back to the taker's own list, unused; by the taker alone."""
    block.next = pool.idle
    pool.idle = block


cdef inline Block *pool_take(Pool *pool) noexcept nogil:
    """An idle block, or a new one; by the taker alone. NULL at the limit, or where memory is short.

    The one that came back last is the one that the processor's caches and its TLB still know.
    """
    cdef Block *block
    cdef Block *last
    if atomic_load_pointer(&pool.returned, __ATOMIC_RELAXED) != NULL:
        block = <Block *> atomic_exchange_pointer(&pool.returned, NULL, __ATOMIC_ACQUIRE)
        last = block
        while last.next != NULL:
            last = last.next
        last.next = pool.idle
        pool.idle = block
    block = pool.idle
    if block != NULL:
        pool.idle = block.next
    elif pool.blocks != pool.limit or pool.limit == 0:
        block = block_new(pool)
        atomic_add_word(&pool.blocks, block != NULL, __ATOMIC_RELAXED)
    return block


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
    pool.idle = NULL


cdef inline void pool_close(Pool *pool) noexcept nogil:
    """Free what is idle now, and each block that comes back from here on; by the taker alone."""
    atomic_or_word(&pool.closed, 1, __ATOMIC_ACQ_REL)
    pool_free_idle(pool)


cdef inline bint pool_init(
        Pool *pool, uint32_t batch_size, uint32_t datagram_size, uint32_t slot_size, uint32_t limit) noexcept nogil:
    """Prepare two blocks, so that one can be looked at while the next fills; false where memory is short."""
    cdef uint32_t i, _
    cdef Block *block
    memset(pool, 0, sizeof(Pool))
    pool.batch_size, pool.datagram_size, pool.slot_size, pool.limit = batch_size, datagram_size, slot_size, limit
    pool.offsets = <uint32_t *> calloc(batch_size, sizeof(uint32_t))
    if pool.offsets == NULL:
        return False
    for i in range(batch_size):
        pool.offsets[i] = i * slot_size
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
    free(pool.offsets)
