"""A second opinion on control messages: what a walk should find in them, said in another way.

Owns the counts of what the messages are like. Must not call what it judges.
"""


cdef int64_t _time_of(const char *where, size_t width) noexcept nogil:
    cdef int64_t seconds = 0
    cdef int64_t rest = 0
    cdef int32_t part
    if width == 16:
        memcpy(&seconds, where, 8)
        memcpy(&rest, where + 8, 8)
    else:
        memcpy(&part, where, 4)
        seconds = part
        memcpy(&part, where + 4, 4)
        rest = part
    if seconds < 0 or seconds > <int64_t> 8999999999 or rest < 0 or rest > 999999999:
        return 0
    return rest + seconds * 1000000000


cdef void _stamped(int64_t time, TimestampKind kind, Ancillary *told, uint64_t *seen) noexcept nogil:
    if time == 0:
        seen[NO_TIME] += 1
    elif kind == SOFTWARE and told.timestamp_kind == HARDWARE:
        seen[SOFTWARE_PASSED_OVER] += 1
    else:
        seen[BY_SOFTWARE if kind == SOFTWARE else BY_HARDWARE] += 1
        told.timestamp, told.timestamp_kind = time, kind


cdef void _opinion(int which, const char *data, size_t size, Ancillary *told, uint64_t *seen) noexcept nogil:
    """Of one message of a known kind."""
    cdef uint8_t *small = &told.tos if which == TOS4 or which == CLASS6 else &told.ttl
    cdef size_t begin
    cdef int32_t number = 0
    if size != _sizes[which] and size != _other_sizes[which]:
        seen[MISSIZED + which] += 1
        return
    seen[RECOGNISED + which] += 1
    if which == PACKET4 or which == PACKET6:
        begin = 8 if which == PACKET4 else 0
        memset(told.destination, 0, 16)
        memcpy(told.destination, data + begin, size - begin if which == PACKET4 else 16)
        memcpy(&told.interface, data if which == PACKET4 else data + 16, 4)
        return
    if which == TIME_OLD or which == TIME_NEW:
        _stamped(_time_of(data, size), SOFTWARE, told, seen)
        return
    if which == TIMES_OLD or which == TIMES_NEW:
        _stamped(_time_of(data, size // 3), SOFTWARE, told, seen)
        _stamped(_time_of(data + size // 3 * 2, size // 3), HARDWARE, told, seen)
        return
    if size == 1:
        small[0] = <uint8_t> data[0]
        return
    memcpy(&number, data, 4)
    if which == RXQ_OVERFLOW:
        told.drops = <uint32_t> number
    elif which == TRAIN:
        seen[NO_SEGMENT] += number <= 0
        told.segment = 0 if number < 0 else <uint32_t> number
    else:
        small[0] = <uint8_t> (number & 0xff)


cdef void second_opinion(const char *control, size_t size, Ancillary *told, uint64_t *seen) noexcept nogil:
    cdef cmsghdr header
    cdef size_t at = 0
    cdef int which
    memset(told, 0, sizeof(told[0]))
    if size == 0:
        seen[EMPTY] += 1
        return
    while size - at >= sizeof(header):
        memcpy(&header, control + at, sizeof(header))
        if header.cmsg_len < sizeof(header):
            seen[TOO_SHORT] += 1
            return
        if header.cmsg_len > size - at:
            seen[TOO_LONG] += 1
            return
        for which in range(KINDS):
            if header.cmsg_level == _levels[which] and header.cmsg_type == _types[which]:
                _opinion(which, control + at + sizeof(header), header.cmsg_len - sizeof(header), told, seen)
                break
        else:
            seen[UNKNOWN] += 1
        at += header.cmsg_len
        while at % sizeof(size_t):
            at += 1
        if at >= size:
            seen[ENDED if at == size else PADDING_CUT] += 1
            return
    seen[HEADER_CUT] += 1


cdef const char *difference(const Ancillary *found, const Ancillary *expected) noexcept nogil:
    """What the walk found and should not have, or the other way round; NULL if they agree."""
    if memcmp(found.destination, expected.destination, sizeof(found.destination)) != 0:
        return "another destination"
    if found.interface != expected.interface:
        return "another interface"
    if found.drops != expected.drops:
        return "another count of drops"
    if found.segment != expected.segment:
        return "another segment"
    if found.timestamp != expected.timestamp:
        return "another timestamp"
    if found.timestamp_kind != expected.timestamp_kind:
        return "another kind of timestamp"
    if found.ttl != expected.ttl:
        return "another TTL"
    if found.tos != expected.tos:
        return "another TOS"
    return NULL


cdef uint64_t nearest(uint64_t known, uint32_t count) noexcept nogil:
    """Of the 64-bit counts with this lower half the one with the least distance, of two the lower; modulo 2**64."""
    cdef uint64_t low = (known >> 32 << 32) + count
    cdef uint64_t way
    if low > known:
        low -= <uint64_t> 1 << 32
    way = known - low  # up to it, from below
    return low if way <= <uint64_t> 1 << 31 else low + (<uint64_t> 1 << 32)


cdef uint64_t count_of(uint64_t known, uint32_t stamp) noexcept nogil:
    """What a stamp tells: none of them, that the lower half may be 0."""
    if stamp == 0:
        return known - known % (<uint64_t> 1 << 32)
    return nearest(known, stamp)
