"""Memory on huge pages, mapped in chunks of whole pages that are there at once, and carved from the front.

Owns the mappings. Must not touch Python objects, nor know what the memory is for. `_hugepages.py` asks the kernel what
came of it.
"""

from libc.errno cimport EINVAL, ENOMEM, errno
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from multicast._libc cimport *

cdef enum HugePages:
    NO_HUGE_PAGES = 0
    TRANSPARENT = 1        # advice, which the kernel follows where it can (MADV_HUGEPAGE)
    RESERVED = 2           # out of those that the administrator has set aside (MAP_HUGETLB)

cdef struct Chunk:
    Chunk *earlier
    void *memory           # atomic: NULL once it is unmapped; the record stays, for whoever reads along
    size_t size
    void *mapping          # with what is around the memory, where nobody may read or write
    size_t mapping_size

cdef struct Chunks:
    HugePages kind
    size_t page            # bytes
    void *last             # atomic: the Chunk that was mapped last
    char *free             # what is left of that one
    size_t left
    uint64_t mapped        # atomic: bytes in all of them
    int error              # the errno by which the last attempt to map one failed
    size_t needed          # how many pages that would have taken


cdef inline bint _chunk_advised(Chunk *chunk, size_t page) noexcept nogil:
    """Map memory that begins with a huge page.

    What is around it stays inaccessible: no read or write past an end goes unseen, and the kernel joins the mapping
    with no other, of which it would then tell both in one sum.
    """
    chunk.mapping_size = chunk.size + 2 * page
    chunk.mapping = mmap(NULL, chunk.mapping_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if chunk.mapping == MAP_FAILED:
        return False
    chunk.memory = <void *> ((<uintptr_t> chunk.mapping // page + 1) * page)
    return (mprotect(chunk.memory, chunk.size, PROT_READ | PROT_WRITE) == 0
            and madvise(chunk.memory, chunk.size, MADV_HUGEPAGE) == 0)


cdef inline bint _chunk_reserved(Chunk *chunk) noexcept nogil:
    chunk.mapping_size = chunk.size
    chunk.mapping = mmap(
        NULL, chunk.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0)
    chunk.memory = chunk.mapping
    return chunk.mapping != MAP_FAILED


cdef inline bint _chunk_touched(Chunk *chunk) noexcept nogil:
    """Have every page there; first the kernel is asked for them, since one that can't be had kills who touches it.

    It may be so with reserved pages, in a cpuset or a cgroup that has none left (hugetlbpage.rst of Linux).
    """
    if madvise(chunk.memory, chunk.size, MADV_POPULATE_WRITE) and errno != EINVAL:  # Linux before 5.14 can't be asked
        return False
    memset(chunk.memory, 0, chunk.size)
    return True


cdef inline bint _chunk_mapped(Chunks *chunks, size_t size) noexcept nogil:
    """Map another chunk, of so many bytes in whole pages; false with `error` set."""
    cdef Chunk *chunk = <Chunk *> malloc(sizeof(Chunk))
    if chunk == NULL:
        chunks.error = ENOMEM
        return False
    chunk.size = size
    if ((_chunk_reserved(chunk) if chunks.kind == RESERVED else _chunk_advised(chunk, chunks.page))
            and _chunk_touched(chunk)):
        chunk.earlier = <Chunk *> chunks.last
        chunks.free, chunks.left = <char *> chunk.memory, size
        atomic_add_count(&chunks.mapped, size, __ATOMIC_RELAXED)
        atomic_exchange_pointer(&chunks.last, chunk, __ATOMIC_RELEASE)
        return True
    chunks.error = errno
    if chunk.mapping != MAP_FAILED:
        munmap(chunk.mapping, chunk.mapping_size)
    free(chunk)
    return False


cdef inline char *chunks_room(Chunks *chunks, size_t size, size_t at_once) noexcept nogil:
    """Where there are so many bytes, `chunks_carve` takes them; NULL with `error` set where none are to be had.

    at_once: bytes to map if a new chunk is needed, rounded up to whole pages
    """
    if chunks.left < size:
        chunks.needed = (at_once + chunks.page - 1) // chunks.page
        if not _chunk_mapped(chunks, chunks.needed * chunks.page):
            return NULL
    return chunks.free


cdef inline void chunks_carve(Chunks *chunks, size_t size) noexcept nogil:
    chunks.free += size
    chunks.left -= size


cdef inline void chunks_unmap(Chunks *chunks) noexcept nogil:
    """Nobody needs the memory any more; by whoever learns that, once. Others may read the records meanwhile."""
    cdef Chunk *chunk = <Chunk *> atomic_load_pointer(&chunks.last, __ATOMIC_ACQUIRE)
    chunks.left = 0
    while chunk != NULL:
        if atomic_exchange_pointer(&chunk.memory, NULL, __ATOMIC_ACQ_REL) != NULL:
            munmap(chunk.mapping, chunk.mapping_size)
            atomic_sub_count(&chunks.mapped, chunk.size, __ATOMIC_RELAXED)
        chunk = chunk.earlier


cdef inline void chunks_free(Chunks *chunks) noexcept nogil:
    """Nobody refers to the chunks any more."""
    cdef Chunk *chunk = <Chunk *> chunks.last
    cdef Chunk *earlier
    chunks_unmap(chunks)
    while chunk != NULL:
        earlier = chunk.earlier
        free(chunk)
        chunk = earlier
    chunks.last = NULL
