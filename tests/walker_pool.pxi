"""A pool of blocks that are taken, held, given back and freed in any order, and as a program does it again and again.

Owns what is known of each block without the pool. Must not look at what blocks hold beyond their slots' first bytes.
"""

cdef enum:
    MOST_HELD = 40
    STEPS = 200

cdef struct Lending:
    Dice *dice
    uint64_t *seen
    Pool pool
    Block *held[MOST_HELD]
    uint64_t marks[MOST_HELD]  # what was written to their slots
    uint32_t n
    int64_t now


cdef uint32_t _listed(const Block *block) noexcept nogil:
    cdef uint32_t n = 0
    while block != NULL:
        n += 1
        block = block.next
    return n


cdef const char *_count_blocks(Lending *lending) noexcept nogil:
    cdef Pool *pool = &lending.pool
    if _listed(pool.idle) != pool.idle_blocks:
        return "another number of idle blocks than are listed"
    if pool.blocks != pool.idle_blocks + _listed(<Block *> pool.returned) + lending.n:
        return "another number of blocks than there are"
    if pool.in_use != lending.n:
        return "another number of blocks than are held"
    if pool.limit and pool.blocks > pool.limit:
        return "more blocks than the limit"
    return NULL


cdef const char *_lend(Lending *lending) noexcept nogil:
    cdef Pool *pool = &lending.pool
    cdef uint32_t idle = pool.idle_blocks + _listed(<Block *> pool.returned)
    cdef int64_t patience = pool.patience
    cdef int64_t refused = walker_refused()
    cdef Block *block
    cdef uint32_t i
    if below(lending.dice, 32) == 0:
        walker_grant(below(lending.dice, 16))
    block = pool_take(pool)
    walker_grant(ENDLESS)
    if block == NULL:
        if idle or (pool.blocks != pool.limit and walker_refused() == refused):
            return "no block, and nothing is short"
        return NULL
    lending.seen[MISSED] += pool.patience > patience
    for i in range(lending.n):
        if lending.held[i] == block:
            return "a block that is held already"
    if lending.n == MOST_HELD or below(lending.dice, 4) == 0:
        pool_put(pool, block)
        return NULL
    lending.marks[lending.n] = roll(lending.dice)
    memcpy(block.slots, &lending.marks[lending.n], sizeof(uint64_t))
    lending.held[lending.n] = block
    lending.n += 1
    pool.in_use += 1
    return NULL


cdef const char *_end_loan(Lending *lending) noexcept nogil:
    cdef uint32_t i
    if lending.n == 0:
        return NULL
    i = below(lending.dice, lending.n)
    if memcmp(lending.held[i].slots, &lending.marks[i], sizeof(uint64_t)) != 0:
        return "a block that was written to while it was held"
    pool_give_back(&lending.pool, lending.held[i])
    lending.n -= 1
    lending.held[i], lending.marks[i] = lending.held[lending.n], lending.marks[lending.n]
    return NULL


cdef const char *_trim(Lending *lending) noexcept nogil:
    cdef Pool *pool = &lending.pool
    cdef uint32_t before = pool.blocks
    cdef uint32_t spare = min(pool.idle_blocks, <uint32_t> SPARE_BLOCKS)
    lending.now += <int64_t> below(lending.dice, 4000) * 1000000
    pool_trim(pool, lending.now)
    lending.seen[TRIMMED] += before - pool.blocks
    if pool.idle_blocks < spare:
        return "a spare block that was freed"
    if before != pool.blocks and pool.chunks.kind != NO_HUGE_PAGES:
        return "a block that was freed, and its memory is not its own"
    return NULL


cdef const char *pool_case(Dice *dice, uint64_t *seen) noexcept nogil:
    """A pool, and what its taker and its holders could do to it: what is wrong, or NULL."""
    cdef Lending lending
    cdef Shape shape
    cdef const char *fault = NULL
    cdef HugePages kind = TRANSPARENT if below(dice, 4) == 0 else NO_HUGE_PAGES
    cdef uint32_t limit = 1 + below(dice, MOST_HELD) if below(dice, 4) == 0 else 0
    cdef uint32_t bias = 1 + below(dice, 6)
    cdef uint32_t step = 0
    memset(&lending, 0, sizeof(lending))
    lending.dice, lending.seen = dice, seen
    _shape(dice, &shape)
    seen[POOLS] += 1
    seen[HUGE_PAGES] += kind != NO_HUGE_PAGES
    if not pool_init(&lending.pool, &shape, limit, NULL, kind, SMALL_PAGE):
        return "no pool, and nothing is short"
    while step < STEPS and fault == NULL:
        if below(dice, 16) == 0:
            fault = _trim(&lending)
        elif below(dice, 8) < bias:
            fault = _lend(&lending)
        else:
            fault = _end_loan(&lending)
        if below(dice, 40) == 0:
            bias = 1 + below(dice, 6)  # bursts, and what follows them
        if fault == NULL:
            fault = _count_blocks(&lending)
        step += 1
    if below(dice, 2):
        seen[CLOSED] += lending.n != 0
        pool_close(&lending.pool)
        while lending.n and fault == NULL:
            fault = _end_loan(&lending)
        if fault == NULL and (lending.pool.blocks or lending.pool.chunks.mapped):
            fault = "memory that is there though it was closed and nobody holds any"
    while lending.n and fault == NULL:
        fault = _end_loan(&lending)
    if fault == NULL:
        pool_free(&lending.pool)
    return fault


cdef bint hold(Pool *pool, uint32_t count) noexcept nogil:
    """Hold so many blocks at once, and let them go; false where memory is short."""
    cdef Block *held = NULL
    cdef Block *block = NULL
    cdef uint32_t i
    for i in range(count):
        block = pool_take(pool)
        if block == NULL:
            break
        block.next = held
        held = block
        pool.in_use += 1
    while held != NULL:
        block = held
        held = held.next
        pool_give_back(pool, block)
    return block != NULL


cdef void pass_time(Pool *pool, int64_t *now, uint32_t time) noexcept nogil:
    """Hold one block at a time, and look every 100 ms, as a receiver does under load."""
    cdef uint32_t passed = 0
    while passed < time:
        hold(pool, 1)
        passed += 100
        now[0] += <int64_t> 100 * 1000000
        pool_trim(pool, now[0])
