"""Blocks of datagrams as a receive call could leave them, sorted out, measured, counted and decoded.

Owns what a block should be like afterwards, byte by byte. Must not bring more datagrams than a test has time for.
"""

cdef enum:
    MOST_SLOTS = 8
    MOST_SLOT_SIZE = 512
    MOST_PIECES = 100      # of one train
    MOST_ENTRIES = 8       # of a table of joined groups
    NAME_ROOM = 32

cdef struct Kept:
    # One slot, as the kernel left it.
    char bytes_[MOST_SLOT_SIZE]
    char name[NAME_ROOM]
    char control[SCRATCH]
    uint32_t length
    uint32_t name_length
    size_t control_length
    int flags
    bint foreign
    Ancillary told

cdef struct Trial:
    Dice *dice
    uint64_t *seen
    Pool pool
    char *memory                 # of the caller's, for the slots of every block; or NULL
    Block *block
    char *controls[MOST_SLOTS]   # each slot's own: a read past one of them is seen
    Kept kept[MOST_SLOTS]
    int n                        # slots that the kernel filled
    char *entries
    uint32_t entry_count
    Joined joined
    Totals totals
    Totals expected


cdef uint32_t _one_of(Dice *dice, uint32_t one, uint32_t other) noexcept nogil:
    return one if below(dice, 2) else other


cdef void _shape(Dice *dice, Shape *shape) noexcept nogil:
    memset(shape, 0, sizeof(shape[0]))
    shape.batch_size = 1 + below(dice, MOST_SLOTS)
    shape.trains = below(dice, 2)
    shape.datagram_size = 1 + below(dice, 200)
    if below(dice, 4) == 0:
        shape.datagram_size = 64 * (1 + below(dice, 3))
    shape.slot_size = (shape.datagram_size + 63) // 64 * 64
    if shape.trains:
        shape.slot_size += 64 * below(dice, 5)
    shape.address_size = _one_of(dice, 4, 16)
    shape.name_size = _one_of(dice, 0, 16 if shape.address_size == 4 else 28)
    shape.control_size = 8 * below(dice, SCRATCH // 8 + 1)
    if below(dice, 4) == 0:
        shape.control_size = SCRATCH if shape.trains else 0
    if shape.trains and shape.control_size == 0:
        shape.control_size = 24  # trains come with a message, or not at all


cdef bint _table(Trial *trial) noexcept nogil:
    """Some groups to be joined to, in memory that ends with them; false where there is none."""
    cdef Dice *dice = trial.dice
    cdef uint32_t count = below(dice, MOST_ENTRIES + 1)
    cdef uint32_t interface, i
    cdef char *entry
    trial.entries = <char *> malloc(count * JOINED_SIZE)
    trial.entry_count = count
    if trial.entries == NULL:
        return False
    for i in range(count):
        entry = trial.entries + i * JOINED_SIZE
        interface = some_interface(dice)
        memset(entry, 0, JOINED_SIZE)
        some_group(dice, entry, trial.pool.shape.address_size)
        memcpy(entry + 16, &interface, sizeof(interface))
    return joined_init(&trial.joined, trial.entries, count)


cdef bint _is_foreign(Trial *trial, const Ancillary *told) noexcept nogil:
    """Whether no entry is of this group, and of this interface or of any."""
    cdef bint here = False
    cdef bint anywhere = False
    cdef const char *entry
    cdef uint32_t interface, i
    for i in range(trial.entry_count):
        entry = trial.entries + i * JOINED_SIZE
        if memcmp(entry, told.destination, 16) == 0:
            memcpy(&interface, entry + 16, sizeof(interface))
            here = here or interface == told.interface
            anywhere = anywhere or interface == 0
    trial.seen[JOINED_HERE] += here
    trial.seen[JOINED_ANYWHERE] += anywhere and not here
    return not here and not anywhere


cdef uint64_t _train(const Kept *slot) noexcept nogil:
    """How many datagrams a slot holds, if it holds a train."""
    if slot.told.segment == 0 or slot.length <= slot.told.segment:
        return 1
    return slot.length // slot.told.segment + (slot.length % slot.told.segment != 0)


cdef int _likely(Trial *trial) noexcept nogil:
    """The kind of message to begin with, so that groups are met and trains come; ANY: any."""
    if trial.entries != NULL and below(trial.dice, 4):
        return PACKET4 if trial.pool.shape.address_size == 4 else PACKET6
    return TRAIN if trial.pool.shape.trains else ANY


cdef void _fill_slot(Trial *trial, int i) noexcept nogil:
    """Do to a slot and its header what a receive call does, and remember it."""
    cdef Dice *dice = trial.dice
    cdef const Shape *shape = &trial.pool.shape
    cdef mmsghdr *header = &trial.block.headers[i]
    cdef Kept *slot = &trial.kept[i]
    cdef uint32_t way = below(dice, 16)
    cdef size_t room = trial.block.vectors[i].iov_len
    noise(dice, slot.bytes_, shape.slot_size)
    noise(dice, slot.name, NAME_ROOM)
    noise(dice, slot.control, SCRATCH)
    slot.control_length = hostile_control(dice, slot.control, _likely(trial))
    if slot.control_length > shape.control_size:
        slot.control_length = shape.control_size
    second_opinion(slot.control, slot.control_length, &slot.told, trial.seen)
    slot.length = below(dice, <uint32_t> room + 1)
    if way == 0:
        slot.length = below(dice, 4 * shape.slot_size)
    elif way == 1:
        slot.length = <uint32_t> roll(dice)
    elif way == 2:
        slot.length = <uint32_t> room
    elif way == 3:
        slot.length = <uint32_t> 0xffffffff - below(dice, 3)
    if shape.trains and _train(slot) > MOST_PIECES:
        slot.length = slot.told.segment * (MOST_PIECES - 1) + below(dice, slot.told.segment)
    slot.flags = MSG_CTRUNC if below(dice, 4) == 0 else 0
    if slot.length > room:
        slot.flags |= MSG_TRUNC
    slot.name_length = below(dice, 2 * shape.name_size) if below(dice, 2) else shape.name_size
    slot.foreign = trial.entries != NULL and _is_foreign(trial, &slot.told)

    memcpy(trial.block.slots + i * shape.slot_size, slot.bytes_, shape.slot_size)
    if shape.name_size:
        memcpy(header.msg_hdr.msg_name, slot.name, shape.name_size)
    if shape.control_size:
        memcpy(header.msg_hdr.msg_control, slot.control, shape.control_size)
    header.msg_hdr.msg_namelen = slot.name_length
    header.msg_hdr.msg_controllen = slot.control_length
    header.msg_hdr.msg_flags = slot.flags
    header.msg_len = slot.length


cdef const char *_check_datagram(
        Trial *trial, uint32_t row, int origin, uint32_t start, uint32_t length) noexcept nogil:
    """Whether a row says this of the datagram that began there in the slot that it came in."""
    cdef const Shape *shape = &trial.pool.shape
    cdef Block *block = trial.block
    cdef uint32_t offset = block.offsets[row]
    cdef uint32_t size = block.lengths[row]
    cdef uint32_t there = min(shape.slot_size, trial.kept[origin].length)
    cdef uint32_t most = 0 if start >= there else min(there - start, length)
    if offset % shape.slot_size + size > shape.slot_size or offset // shape.slot_size >= shape.batch_size:
        return "a view that leaves its slot"
    if block.real_lengths[row] != length:
        return "another real length"
    if size != min(most, shape.datagram_size):
        return "another length"
    if (block.truncated[row] != 0) != (size < length):
        return "cut, and not told so, or the other way round"
    if size and memcmp(block.slots + offset, trial.kept[origin].bytes_ + start, size) != 0:
        return "another datagram's bytes"
    trial.expected.datagrams += 1
    trial.expected.bytes += size
    trial.expected.truncated += size < length
    trial.seen[TRUNCATED] += size < length
    return NULL


cdef const char *_check_trains(Trial *trial, int result) noexcept nogil:
    cdef uint32_t row = 0
    cdef uint32_t start, length
    cdef uint64_t n, total
    cdef const char *fault
    cdef Kept *slot
    cdef int i
    for i in range(trial.n):
        slot = &trial.kept[i]
        if memcmp(trial.block.slots + i * trial.pool.shape.slot_size, slot.bytes_, trial.pool.shape.slot_size) != 0:
            return "a slot of a train that was written to"
        n = _train(slot)
        if slot.foreign:
            continue
        trial.seen[LONE if n == 1 else TRAINS] += 1
        start = 0
        total = 0
        while n:
            n -= 1
            length = slot.told.segment if n else slot.length - start
            if <int> row >= result:
                return "fewer datagrams than the trains have"
            if trial.block.offsets[row] // trial.pool.shape.slot_size != <uint32_t> i:
                return "a view of another slot"
            fault = _check_datagram(trial, row, i, start, length)
            if fault != NULL:
                return fault
            trial.seen[PIECES] += 1
            trial.seen[PIECES_CUT] += 0 < trial.block.lengths[row] < length
            trial.seen[PIECES_BEYOND] += trial.block.lengths[row] == 0 < length
            total += trial.block.real_lengths[row]
            start += length
            row += 1
        if total != slot.length:
            return "pieces that are not the train"
    if <int> row != result:
        return "more datagrams than the trains have"
    return NULL


cdef const char *_check_header(Trial *trial, int i, int origin) noexcept nogil:
    """Whether the header of a slot says what came with the datagram that it holds now, and points where it did."""
    cdef const Shape *shape = &trial.pool.shape
    cdef const mmsghdr *header = &trial.block.headers[i]
    cdef const Kept *slot = &trial.kept[origin]
    if (header.msg_hdr.msg_iov != &trial.block.vectors[i] or header.msg_hdr.msg_iovlen != 1
            or trial.block.vectors[i].iov_base != trial.block.slots + i * shape.slot_size
            or header.msg_hdr.msg_control != trial.controls[i]):
        return "a header that points elsewhere"
    if shape.name_size and header.msg_hdr.msg_name != trial.block.names + i * shape.name_size:
        return "a header that points to another name"
    if (header.msg_len != slot.length or header.msg_hdr.msg_flags != slot.flags
            or header.msg_hdr.msg_namelen != slot.name_length or header.msg_hdr.msg_controllen != slot.control_length):
        return "a header that tells of another datagram"
    if shape.name_size and memcmp(header.msg_hdr.msg_name, slot.name, shape.name_size) != 0:
        return "another name"
    if shape.control_size and memcmp(header.msg_hdr.msg_control, slot.control, shape.control_size) != 0:
        return "other control messages"
    return NULL


cdef const char *_check_slots(Trial *trial, int result) noexcept nogil:
    """Whether the slots hold what was to be kept, in order, and nothing else was written."""
    cdef const Shape *shape = &trial.pool.shape
    cdef const char *bytes_
    cdef const char *fault
    cdef uint32_t moved
    cdef int origin = 0
    cdef int i
    for i in range(trial.n):
        bytes_ = trial.block.slots + i * shape.slot_size
        while i < result and origin < trial.n and trial.kept[origin].foreign:
            origin += 1
        if i >= result or origin == i:
            moved = 0
        elif origin < trial.n:
            moved = min(trial.kept[origin].length, shape.datagram_size)
            trial.seen[MOVED] += 1
        else:
            return "more datagrams than there were"
        if memcmp(bytes_ + moved, trial.kept[i].bytes_ + moved, shape.slot_size - moved) != 0:
            return "a slot that was written to"
        fault = _check_header(trial, i, origin if i < result else i)
        if fault == NULL and i < result:
            if trial.block.offsets[i] != i * shape.slot_size:
                return "another offset"
            fault = _check_datagram(trial, i, origin, 0, trial.kept[origin].length)
        if fault != NULL:
            return fault
        origin += i < result
    while origin < trial.n:
        if result and not trial.kept[origin].foreign:
            return "fewer datagrams than there were"
        origin += 1
    return NULL


cdef const char *_check_columns(Trial *trial, int result) noexcept nogil:
    cdef const Shape *shape = &trial.pool.shape
    cdef void **items = trial.block.decoded
    cdef size_t width = shape.address_size
    cdef size_t begin = 4 if width == 4 else 8
    cdef const char *address
    cdef const Kept *slot
    cdef Ancillary found
    cdef uint16_t port
    cdef char name[NAME_ROOM]
    cdef int row
    cdef int i = -1
    cdef int origin = -1
    for row in range(result):
        if not shape.trains:  # slot `row` holds the next that is not foreign
            origin += 1
            while trial.kept[origin].foreign:
                origin += 1
        else:
            origin = trial.block.offsets[row] // shape.slot_size
        slot = &trial.kept[origin]
        memset(name, 0, sizeof(name))
        if slot.name_length >= begin + width:
            memcpy(name, slot.name, shape.name_size)
        trial.seen[NAMES_TOLD] += slot.name_length >= begin + width
        trial.seen[NAMES_SHORT] += shape.name_size != 0 and slot.name_length < begin + width
        address = <const char *> items[SOURCE_ADDRESS] + row * width
        port = (<uint16_t *> items[SOURCE_PORT])[row]
        if (memcmp(address, name + begin, width) != 0
                or port != <uint8_t> name[2] * 256 + <uint8_t> name[3]):
            return "another source"
        memset(&found, 0, sizeof(found))
        memcpy(found.destination, <const char *> items[DESTINATION_ADDRESS] + row * width, width)
        if width == 4:
            memcpy(found.destination + 4, slot.told.destination + 4, 12)  # of an IPv6 message, which has no column here
        found.interface = (<uint32_t *> items[INTERFACE])[row]
        found.ttl = (<uint8_t *> items[HOPS])[row]
        found.tos = (<uint8_t *> items[TRAFFIC_CLASS])[row]
        found.timestamp = (<int64_t *> items[TIMESTAMP])[row]
        found.timestamp_kind = (<uint8_t *> items[TIMESTAMP_KIND])[row]
        found.drops, found.segment = slot.told.drops, slot.told.segment
        if difference(&found, &slot.told) != NULL:
            return "a column that says something else"
        if (<uint64_t *> items[DROPS])[row] != count_of(trial.block.known_drops, slot.told.drops):
            return "another 64-bit count of drops"
    return NULL


cdef const char *_check_totals(Trial *trial) noexcept nogil:
    if trial.totals.datagrams != trial.expected.datagrams or trial.totals.bytes != trial.expected.bytes:
        return "other totals of datagrams or bytes"
    if trial.totals.batches != trial.expected.batches or trial.totals.truncated != trial.expected.truncated:
        return "other totals of batches or cut datagrams"
    if trial.totals.foreign != trial.expected.foreign:
        return "another total of foreign datagrams"
    if trial.totals.control_truncated != trial.expected.control_truncated:
        return "another total of cut control messages"
    return NULL


cdef const char *_receive(Trial *trial) noexcept nogil:
    """Let a batch come, and account for it: what is wrong with the block then."""
    cdef Dice *dice = trial.dice
    cdef Block *block = trial.block
    cdef const Shape *shape = &trial.pool.shape
    cdef const char *fault
    cdef int64_t refused = walker_refused()
    cdef uint64_t foreign = 0
    cdef uint64_t cut = 0
    cdef int i, result
    block_arm(&trial.pool, block)
    for i in range(<int> shape.batch_size):
        if (block.headers[i].msg_hdr.msg_namelen != shape.name_size or block.headers[i].msg_hdr.msg_flags != 0
                or block.headers[i].msg_hdr.msg_controllen != shape.control_size):
            return "a header that is not armed"
    trial.n = block.used = 1 + below(dice, shape.batch_size)
    for i in range(trial.n):
        _fill_slot(trial, i)
        foreign += _train(&trial.kept[i]) if trial.kept[i].foreign else 0
        trial.seen[FOREIGN] += trial.kept[i].foreign
        cut += shape.control_size != 0 and trial.kept[i].flags & MSG_CTRUNC != 0
    block.known_drops = roll(dice) if below(dice, 2) else below(dice, 4)
    if below(dice, 8) == 0:
        walker_grant(below(dice, 3))
    result = account(&trial.pool, block, trial.n, &trial.joined if trial.entries != NULL else NULL, &trial.totals)
    walker_grant(ENDLESS)
    if result < 0:
        trial.seen[MEMORY_SHORT] += 1
        trial.expected.foreign = trial.totals.foreign  # of those before memory was short
        if result != -ENOMEM or walker_refused() == refused:
            return "an error that nothing caused"
        return NULL
    if walker_refused() > refused:
        return "memory was short, and no error came of it"
    trial.seen[CONTROL_TRUNCATED] += cut != 0
    trial.seen[ALL_FOREIGN] += result == 0
    trial.seen[NO_CONTROL] += shape.control_size == 0
    trial.expected.foreign += foreign
    trial.expected.control_truncated += cut
    trial.expected.batches += result > 0
    fault = _check_trains(trial, result) if shape.trains else _check_slots(trial, result)
    if fault == NULL:
        fault = _check_totals(trial)
    if fault != NULL or result == 0:
        return fault
    if below(dice, 8) == 0:
        walker_grant(below(dice, DECODED_COLUMNS + 1))
    refused = walker_refused()
    if decode(&trial.pool, block, result):
        fault = _check_columns(trial, result)
    elif walker_refused() == refused:
        fault = "columns that are not decoded"
    else:
        trial.seen[MEMORY_SHORT] += 1
    walker_grant(ENDLESS)
    return fault


cdef const char *_take(Trial *trial) noexcept nogil:
    """Take a block; where the pool has two, the other one stays idle and has other slots."""
    cdef Pool *pool = &trial.pool
    cdef size_t size = <size_t> pool.shape.batch_size * pool.shape.slot_size
    cdef Block *other = NULL
    trial.block = pool_take(pool)
    if pool.limit == 2:
        other = pool_take(pool)
    if trial.block == NULL or (pool.limit == 2 and other == NULL):
        return "a block that is not there"
    if pool_take(pool) != NULL:
        return "a block past the limit"
    if other != NULL:
        if trial.block.slots < other.slots + size and other.slots < trial.block.slots + size:
            return "slots that two blocks share"
        pool_put(pool, other)
    if trial.memory == NULL and <uintptr_t> trial.block.slots % 64:
        return "slots that begin within a cache line"
    if trial.memory != NULL and not trial.memory <= trial.block.slots <= trial.memory + (pool.limit - 1) * size:
        return "slots that are not in the caller's memory"
    return NULL


cdef const char *blocks_case(Dice *dice, uint64_t *seen) noexcept nogil:
    """A pool of a shape that nobody would think of, and two batches in one of its blocks: what is wrong, or NULL."""
    cdef Trial trial
    cdef Shape shape
    cdef const char *fault = NULL
    cdef int64_t refused = walker_refused()
    cdef uint32_t limit = 1 + below(dice, 2)
    cdef HugePages kind = NO_HUGE_PAGES
    cdef uint32_t i
    memset(&trial.totals, 0, sizeof(trial.totals))
    memset(&trial.expected, 0, sizeof(trial.expected))
    memset(trial.controls, 0, sizeof(trial.controls))
    trial.dice, trial.seen, trial.entries, trial.memory = dice, seen, NULL, NULL
    trial.joined.buckets = NULL
    _shape(dice, &shape)
    seen[BLOCKS] += 1
    if below(dice, 4) == 0:
        trial.memory = <char *> malloc(limit * shape.batch_size * shape.slot_size)
        seen[CALLERS_MEMORY] += 1
    elif below(dice, 4) == 0:
        kind = TRANSPARENT
        seen[HUGE_PAGES] += 1
    if below(dice, 8) == 0:
        walker_grant(below(dice, 16))
    if pool_init(&trial.pool, &shape, limit, trial.memory, kind, SMALL_PAGE):
        walker_grant(ENDLESS)
        fault = _take(&trial)
        if fault != NULL:
            return fault
        trial.pool.in_use = 1
        if shape.control_size:
            for i in range(shape.batch_size):
                trial.controls[i] = <char *> malloc(shape.control_size)
                trial.block.headers[i].msg_hdr.msg_control = trial.controls[i]
            if below(dice, 2) and not _table(&trial):
                return "no memory for a table"
        for i in range(2):
            if fault == NULL:
                fault = _receive(&trial)
        if below(dice, 2):
            pool_close(&trial.pool)
        pool_give_back(&trial.pool, trial.block)
        for i in range(shape.batch_size):
            free(trial.controls[i])
        free(trial.entries)
        joined_free(&trial.joined)
    else:
        walker_grant(ENDLESS)
        if walker_refused() == refused:
            return "a pool that is not there, and memory was"
        seen[MEMORY_SHORT] += 1
    pool_free(&trial.pool)
    free(trial.memory)  # not before: whoever gave it has it until the last block is gone
    return fault
