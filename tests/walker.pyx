# cython: language_level=3, freethreading_compatible=True
# cython: boundscheck=False, wraparound=False, cdivision=True
"""Drives what reads control messages and sorts a batch out, with all that a hostile kernel could put there.

Owns the cases (walker_hostile.pxi), a second opinion on each (walker_opinion.pxi), blocks to sort (walker_blocks.pxi),
the pool that lends them (walker_pool.pxi).
Must not be installed, nor decide how it is built: `walking.py` does, with sanitizers (`dev.py fuzz`) or without.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from multicast._accounting cimport *
from multicast._ancillary cimport *
from multicast._blocks cimport *
from multicast._chunks cimport *
from multicast._decode cimport *
from multicast._libc cimport *
from multicast._options cimport *

cdef extern from "walker_memory.h" nogil:
    int64_t walker_held() noexcept
    int64_t walker_refused() noexcept
    void walker_grant(int64_t pieces) noexcept

# Faults to plant, each 0 or 1: they show that a fault is reported. Where a sanitizer watches, multicast_plant_fault
# (_compat.h) has two more.
cdef extern from *:
    int WALKER_READS_ON  # the walk is told of a byte more than there is
    int WALKER_LIES      # what the walk found is changed before it is compared

cdef enum:
    # What a run has seen; `_NAMES` in the same order.
    RECOGNISED                                    # of each kind of message, so many as there are
    MISSIZED = RECOGNISED + 12                    # of a known kind, of a size that it can't have
    UNKNOWN = MISSIZED + 12
    EMPTY                                         # no bytes at all
    ENDED                                         # by the last message
    PADDING_CUT                                   # by the last message, whose padding is not there
    HEADER_CUT
    TOO_SHORT                                     # for its own header
    TOO_LONG
    NO_TIME                                       # what is no time, out of a message of the right size
    BY_SOFTWARE
    BY_HARDWARE
    SOFTWARE_PASSED_OVER                          # the card's time was there first
    NO_SEGMENT                                    # not above 0
    WIDENED_UP
    WIDENED_DOWN
    BLOCKS
    CALLERS_MEMORY
    MEMORY_SHORT
    ALL_FOREIGN
    FOREIGN
    JOINED_HERE
    JOINED_ANYWHERE
    MOVED
    TRUNCATED
    CONTROL_TRUNCATED
    NO_CONTROL
    LONE                                          # in a slot for trains
    TRAINS
    PIECES
    PIECES_CUT
    PIECES_BEYOND                                 # of the slot, wholly
    NAMES_TOLD
    NAMES_SHORT
    POOLS
    HUGE_PAGES
    TRIMMED                                       # blocks
    MISSED                                        # one that had been freed
    CLOSED                                        # while blocks were held
    OUTCOMES

_KINDS = (
    "RXQ_OVFL", "TIMESTAMPNS_OLD", "TIMESTAMPNS_NEW", "TIMESTAMPING_OLD", "TIMESTAMPING_NEW", "IP_PKTINFO", "IP_TTL",
    "IP_TOS", "IPV6_PKTINFO", "IPV6_HOPLIMIT", "IPV6_TCLASS", "UDP_GRO",
)
_NAMES = (
    *_KINDS, *(f"{kind} missized" for kind in _KINDS), "unknown", "empty", "ended", "padding cut", "header cut",
    "too short", "too long", "no time", "by software", "by hardware", "software passed over", "no segment",
    "widened up", "widened down", "blocks", "caller's memory", "memory short", "all foreign", "foreign", "joined here",
    "joined anywhere", "moved", "truncated", "control truncated", "no control", "lone", "trains", "pieces",
    "pieces cut", "pieces beyond", "names told", "names short", "pools", "huge pages", "trimmed", "missed", "closed",
)
assert len(_NAMES) == OUTCOMES

cdef enum:
    ENDLESS = -1      # memory
    AT_ONCE = 100000  # cases between two looks for a signal
    SMALL_PAGE = 4096  # stands in for a huge one, which takes too long


include "walker_hostile.pxi"
include "walker_opinion.pxi"
include "walker_blocks.pxi"
include "walker_pool.pxi"


# One case ----------------------------------------------------------------------------------------------------------

cdef char *_exactly(const char *bytes_, size_t size, size_t misaligned, char **memory) noexcept nogil:
    """A copy that ends where its memory ends, so that AddressSanitizer sees the first byte read past it."""
    memory[0] = <char *> malloc(misaligned + size)
    if memory[0] != NULL and size:
        memcpy(memory[0] + misaligned, bytes_, size)
    return memory[0] + misaligned


cdef const char *_walk(Dice *dice, uint64_t *seen) noexcept nogil:
    """One walk over hostile control messages: what is wrong with what it found, or NULL."""
    cdef char scratch[SCRATCH]
    cdef char *memory = NULL
    cdef char *control
    cdef size_t size = hostile_control(dice, scratch, ANY)
    cdef Ancillary found, expected
    memset(&found, 0xa5, sizeof(found))  # the walk has to set every field
    control = _exactly(scratch, size, below(dice, 8) if below(dice, 4) == 0 else 0, &memory)
    if memory == NULL:
        return "no memory for a case"
    ancillary_read(control, size + WALKER_READS_ON, &found)
    found.ttl = <uint8_t> (found.ttl ^ WALKER_LIES)
    free(memory)
    second_opinion(scratch, size, &expected, seen)
    return difference(&found, &expected)


cdef const char *_count(Dice *dice, uint64_t *seen) noexcept nogil:
    """One count of 32 bits that is made one of 64."""
    cdef uint32_t shift = below(dice, 64)
    cdef uint64_t known = roll(dice) >> shift
    cdef uint32_t count = <uint32_t> (roll(dice) if below(dice, 2) else known + below(dice, 9) - 4)
    cdef uint64_t now = widened(known, count)
    seen[WIDENED_UP] += now >> 32 > known >> 32
    seen[WIDENED_DOWN] += now >> 32 < known >> 32
    if now != nearest(known, count):
        return "widened: not the nearest"
    return NULL


cdef const char *_case(uint64_t seed, uint64_t number, uint64_t *seen) noexcept nogil:
    cdef Dice dice
    cdef const char *fault
    dice_init(&dice, seed, number)
    if below(&dice, 16) == 0:
        fault = pool_case(&dice, seen) if below(&dice, 16) == 0 else blocks_case(&dice, seen)
    elif below(&dice, 16) == 0:
        fault = _count(&dice, seen)
    else:
        fault = _walk(&dice, seen)
    walker_grant(ENDLESS)
    if fault == NULL and walker_held() != 0:
        return "memory that was not given back"
    return fault


# What Python calls -------------------------------------------------------------------------------------------------

def fuzz(uint64_t seed, uint64_t cases, uint64_t first=0, at=None):
    """Run so many cases, numbered from `first`; return how often each outcome was seen.

    - at: a writable buffer of 8 bytes, where the number of the case under way is put: it outlives a crash, if it is a
      file's

    Raises AssertionError for a case that ends otherwise than it should. Each case depends on the seed and its number
    alone, so `fuzz(seed, 1, number)` is that case again.
    """
    cdef uint64_t seen[OUTCOMES]
    cdef uint64_t number = first
    cdef uint64_t until = first + cases
    cdef uint64_t pause
    cdef volatile uint64_t *place
    cdef const char *fault = NULL
    cdef Py_buffer buffer
    PyObject_GetBuffer(bytearray(8) if at is None else at, &buffer, PyBUF_WRITABLE)
    try:
        if buffer.len < 8:
            raise ValueError("fuzz: `at` has to have room for 8 bytes")
        place = <uint64_t *> buffer.buf
        memset(seen, 0, sizeof(seen))
        while number < until and fault == NULL:
            pause = number + AT_ONCE if until - number > AT_ONCE else until
            with nogil:
                while number < pause:
                    place[0] = number
                    fault = _case(seed, number, seen)
                    if fault != NULL:
                        break
                    number += 1
            PyErr_CheckSignals()
    finally:
        PyBuffer_Release(&buffer)
    if fault != NULL:
        raise AssertionError(f"seed {seed}, case {number}: {fault.decode()}")
    return {name: seen[i] for i, name in enumerate(_NAMES)}


def pattern(uint32_t peak, uint32_t period, int periods, uint32_t quiet=0):
    """Hold so many blocks at once, again after each period, and one in between: how many each period had to be made.

    - period, quiet: ms; after the last period one is held at a time for `quiet`

    Returns a list of these numbers, and how many blocks there are at the end.
    """
    cdef Pool pool
    cdef Shape shape
    cdef int64_t now = 0
    cdef uint32_t blocks
    made = []
    memset(&shape, 0, sizeof(shape))
    shape.batch_size, shape.datagram_size, shape.slot_size, shape.address_size = 1, 64, 64, 4
    if not pool_init(&pool, &shape, 0, NULL, NO_HUGE_PAGES, 0):
        raise MemoryError()
    for _ in range(periods):
        blocks = pool.blocks
        if not hold(&pool, peak):
            raise MemoryError()
        made.append(pool.blocks - blocks)
        pass_time(&pool, &now, period)
    pass_time(&pool, &now, quiet)
    blocks = pool.blocks
    pool_free(&pool)
    return made, blocks


def read(bytes control not None):
    """Return what a buffer of control messages tells: the fields of `Ancillary`, by name."""
    cdef Ancillary found
    cdef char *memory = NULL
    cdef char *start = _exactly(PyBytes_AS_STRING(control), PyBytes_GET_SIZE(control), 0, &memory)
    if memory == NULL:
        raise MemoryError()
    memset(&found, 0xa5, sizeof(found))
    ancillary_read(start, PyBytes_GET_SIZE(control), &found)
    free(memory)
    return {
        "destination": found.destination[:16],
        "interface": found.interface,
        "drops": found.drops,
        "segment": found.segment,
        "timestamp": found.timestamp,
        "timestamp_kind": found.timestamp_kind,
        "ttl": found.ttl,
        "tos": found.tos,
    }


def wide(uint64_t known, uint32_t count):
    """Return the 64-bit count that `widened` makes of the one known and 32 bits."""
    return widened(known, count)


def stamp(uint64_t known, uint32_t drops):
    """Return the 64-bit count that `stamped` makes of the one known and what a datagram came with."""
    return stamped(known, drops)


def trains(uint32_t length, uint32_t segment):
    """Return how many datagrams `_pieces` says that a train has."""
    return _pieces(length, segment)


def drops(uint64_t counted, uint32_t stamp):
    """Return what a socket's count becomes by the stamp of a datagram, and what that datagram's column starts from."""
    cdef SocketCounters counters
    counters.drops = counted
    count_stamp(&counters, stamp)
    return counters.drops, drops_known(&counters)


def joined(bytes table not None, bytes destination not None, uint32_t interface):
    """Return whether `is_joined` finds a datagram to this address, that came in on this interface, in the table."""
    cdef Ancillary found
    cdef Joined entries
    if len(table) % JOINED_SIZE or len(destination) > sizeof(found.destination):
        raise ValueError("the table is of entries of 20 bytes; the destination has 16 at most")
    memset(&found, 0, sizeof(found))
    memcpy(found.destination, PyBytes_AS_STRING(destination), len(destination))
    found.interface = interface
    if not joined_init(&entries, table, <uint32_t> (len(table) // JOINED_SIZE)):
        raise MemoryError()
    try:
        return is_joined(&entries, &found)
    finally:
        joined_free(&entries)
