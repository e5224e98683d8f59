"""Control messages as no kernel should write them, and as it does.

Owns the dice, and what a case looks like. Must not know what a walk should find in it.
"""

cdef enum:
    KINDS = 12        # of messages that the walk knows; the numbers index the arrays below, and RECOGNISED
    RXQ_OVERFLOW = 0
    TIME_OLD
    TIME_NEW
    TIMES_OLD
    TIMES_NEW
    PACKET4
    TTL4
    TOS4
    PACKET6
    HOPS6
    CLASS6
    TRAIN
    ANY = KINDS + 2   # one of these, or one of two that are none of them
    MOST_MESSAGES = 6
    SCRATCH = 480     # bytes: room for so many

cdef int[KINDS] _levels = [
    SOL_SOCKET, SOL_SOCKET, SOL_SOCKET, SOL_SOCKET, SOL_SOCKET, IPPROTO_IP, IPPROTO_IP, IPPROTO_IP, IPPROTO_IPV6,
    IPPROTO_IPV6, IPPROTO_IPV6, IPPROTO_UDP,
]
cdef int[KINDS] _types = [
    SO_RXQ_OVFL, MULTICAST_TIMESTAMPNS_OLD, MULTICAST_TIMESTAMPNS_NEW, MULTICAST_TIMESTAMPING_OLD,
    MULTICAST_TIMESTAMPING_NEW, IP_PKTINFO, IP_TTL, IP_TOS, IPV6_PKTINFO, IPV6_HOPLIMIT, IPV6_TCLASS, MULTICAST_UDP_GRO,
]
# Of each kind, the sizes that its data can have.
cdef size_t[KINDS] _sizes = [4, 16, 16, 48, 48, 12, 4, 1, 20, 4, 4, 4]
cdef size_t[KINDS] _other_sizes = [4, 8, 8, 24, 24, 12, 1, 4, 20, 1, 1, 4]

cdef struct Dice:
    uint64_t state


cdef uint64_t roll(Dice *dice) noexcept nogil:
    """64 random bits (xorshift64*: Vigna, An experimental exploration of Marsaglia's xorshift generators)."""
    dice.state ^= dice.state >> 12
    dice.state ^= dice.state << 25
    dice.state ^= dice.state >> 27
    return dice.state * <uint64_t> 0x2545f4914f6cdd1d


cdef uint32_t below(Dice *dice, uint32_t n) noexcept nogil:
    return <uint32_t> ((roll(dice) >> 32) * n >> 32)


cdef void dice_init(Dice *dice, uint64_t seed, uint64_t number) noexcept nogil:
    """Far from those of the cases beside it (the finalizer of splitmix64)."""
    cdef uint64_t mixed = seed * <uint64_t> 0x9e3779b97f4a7c15 + number + 1
    cdef int _
    for _ in range(2):
        mixed = (mixed ^ mixed >> 30) * <uint64_t> 0xbf58476d1ce4e5b9
        mixed = (mixed ^ mixed >> 27) * <uint64_t> 0x94d049bb133111eb
        mixed ^= mixed >> 31
    dice.state = mixed if mixed else 1


cdef void noise(Dice *dice, char *where, size_t size) noexcept nogil:
    cdef uint64_t bits
    cdef size_t part
    while size:
        bits = roll(dice)
        part = size if size < sizeof(bits) else sizeof(bits)
        memcpy(where, &bits, part)
        where += part
        size -= part


# A few groups and interfaces, so that the same ones are met again and again.

cdef void some_group(Dice *dice, char *where, size_t size) noexcept nogil:
    memset(where, 0, size)
    where[0] = 0x6f
    where[size - 1] = <char> below(dice, 3)


cdef uint32_t some_interface(Dice *dice) noexcept nogil:
    return below(dice, 3)


cdef void _a_time(Dice *dice, char *where, size_t size) noexcept nogil:
    """A struct timespec, 16 or 8 bytes: half of them of a time that there is."""
    cdef int64_t wide[2]
    cdef int32_t narrow[2]
    cdef uint32_t way = below(dice, 8)
    wide[0] = below(dice, 2000000000)
    wide[1] = below(dice, 1000000000)
    if way == 0:
        wide[0] = <int64_t> roll(dice)
    elif way == 1:
        wide[1] = <int64_t> roll(dice)
    elif way == 2:
        wide[0] = <int64_t> 9000000000 - below(dice, 2)
        wide[1] = 999999999 + <int64_t> below(dice, 2)
    elif way == 3:
        wide[0] = -<int64_t> below(dice, 2)
        wide[1] = -<int64_t> below(dice, 2)
    if size == sizeof(wide):
        memcpy(where, wide, sizeof(wide))
    elif size == sizeof(narrow):
        narrow[0], narrow[1] = <int32_t> wide[0], <int32_t> wide[1]
        memcpy(where, narrow, sizeof(narrow))


cdef void _an_int(Dice *dice, char *where, uint32_t most) noexcept nogil:
    cdef uint32_t way = below(dice, 8)
    cdef int32_t value = <int32_t> below(dice, most)
    if way == 0:
        value = <int32_t> roll(dice)
    elif way == 1:
        value = -value
    elif way == 2:
        value = 0
    elif way == 3:
        value = 0x7fffffff
    memcpy(where, &value, sizeof(value))


cdef void _data(Dice *dice, int which, char *where, size_t size) noexcept nogil:
    """What the message of this kind says: noise, where its size is none that it can have."""
    cdef size_t width = size // 3
    cdef uint32_t interface
    cdef int i
    noise(dice, where, size)
    if which >= KINDS or (size != _sizes[which] and size != _other_sizes[which]) or below(dice, 16) == 0:
        return
    if which == TIME_OLD or which == TIME_NEW:
        _a_time(dice, where, size)
    elif which == TIMES_OLD or which == TIMES_NEW:
        for i in range(3):
            _a_time(dice, where + i * width, width)
            if below(dice, 3) == 0:
                memset(where + i * width, 0, width)  # unused, as the kernel says it
    elif which == PACKET4 or which == PACKET6:
        interface = some_interface(dice)
        some_group(dice, where + 8 if which == PACKET4 else where, 4 if which == PACKET4 else 16)
        memcpy(where if which == PACKET4 else where + 16, &interface, sizeof(interface))
    elif size == sizeof(int32_t):
        _an_int(dice, where, 200 if which == TRAIN else 2000)


cdef size_t _message(Dice *dice, int which, char *where) noexcept nogil:
    """Write a message: the bytes that it has with its padding, 80 at most."""
    cdef cmsghdr header
    cdef size_t size, whole
    cdef uint32_t way = below(dice, 8)
    memset(&header, 0, sizeof(header))  # with musl's padding
    if which < KINDS:
        header.cmsg_level, header.cmsg_type = _levels[which], _types[which]
        size = _sizes[which] if below(dice, 4) else _other_sizes[which]
    else:  # like one that is known, or like none
        header.cmsg_level = _levels[below(dice, KINDS)] if way else <int> roll(dice)
        header.cmsg_type = _types[below(dice, KINDS)] + (way == 1) if way else <int> roll(dice)
        size = _sizes[below(dice, KINDS)]
    if way == 2:
        size = below(dice, 64)
    elif way == 3:
        size = size - 1 if below(dice, 2) else size + 1
    header.cmsg_len = sizeof(header) + size
    whole = (header.cmsg_len + sizeof(size_t) - 1) // sizeof(size_t) * sizeof(size_t)
    noise(dice, where + header.cmsg_len, whole - header.cmsg_len)
    memcpy(where, &header, sizeof(header))
    _data(dice, which, where + sizeof(header), size)
    return whole


cdef uint64_t _lie(Dice *dice, uint64_t left) noexcept nogil:
    """A length for a message that has not this many bytes, or not this few; `left` of them are there."""
    cdef uint64_t[16] lies = [
        0, 1, sizeof(cmsghdr) - 1, sizeof(cmsghdr), sizeof(cmsghdr) + 1, left - 1, left, left + 1, left + 8,
        <uint64_t> -1, <uint64_t> -7, <uint64_t> -8, <uint64_t> -16, <uint64_t> 1 << 63, <uint64_t> 1 << 32,
        (<uint64_t> 1 << 32) + left,
    ]
    cdef uint32_t which = below(dice, 18)
    return lies[which] if which < 16 else roll(dice)


cdef size_t hostile_control(Dice *dice, char *scratch, int which) noexcept nogil:
    """Fill the scratch, beginning with a message of kind `which` (any: ANY): how many bytes of it the case has."""
    cdef size_t starts[MOST_MESSAGES]
    cdef size_t size = 0
    cdef size_t at, from_here
    cdef cmsghdr header
    cdef uint32_t way = below(dice, 16)
    cdef int i
    cdef int n = <int> below(dice, 16)
    if way == 0:
        size = below(dice, 129)
        noise(dice, scratch, size)
        return size
    n = 1 + n % MOST_MESSAGES if n else 0
    for i in range(n):
        if which == ANY or (i and below(dice, 4)):  # else one of the same kind again
            which = <int> below(dice, ANY)
        starts[i] = size
        size += _message(dice, which, scratch + size)
    if n and way <= 4:
        from_here = starts[below(dice, n)]
        memcpy(&header, scratch + from_here, sizeof(header))
        header.cmsg_len = <size_t> _lie(dice, size - from_here)
        memcpy(scratch + from_here, &header, sizeof(header))
    if n and 4 <= way <= 6:
        size = below(dice, <uint32_t> size + 1)  # as it is where the kernel had no room for more (MSG_CTRUNC)
    if size and way == 7:
        for i in range(4):
            at = below(dice, <uint32_t> size)
            scratch[at] = <char> (scratch[at] ^ 1 << below(dice, 8))
    return size
