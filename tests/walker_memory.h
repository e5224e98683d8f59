/* Memory that runs short when a case says so, and a count of what was not given back, for all of walker.pyx: what it
 * tests allocates through these, too.
 *
 * Owns the names malloc, calloc, realloc, posix_memalign, free, mmap, munmap, mprotect and madvise from here on. Must not
 * be used by two threads at once.
 */
#ifndef WALKER_MEMORY_H
#define WALKER_MEMORY_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

static int64_t walker_pieces;    /* of memory that nobody has freed yet */
static int64_t walker_left = -1; /* so many more are granted, then none; -1: no end to them */
static int64_t walker_no;

static int64_t walker_held(void) { return walker_pieces; }
static int64_t walker_refused(void) { return walker_no; }
static void walker_grant(int64_t pieces) { walker_left = pieces; }

static int walker_grants(void) {
    if (walker_left == 0) {
        walker_no++;
        return 0;
    }
    if (walker_left > 0) walker_left--;
    return 1;
}

static void *walker_counted(void *memory) {
    walker_pieces += memory != NULL;
    return memory;
}

static void *walker_malloc(size_t size) { return walker_grants() ? walker_counted(malloc(size)) : NULL; }

static void *walker_calloc(size_t n, size_t size) {
    return walker_grants() ? walker_counted(calloc(n, size)) : NULL;
}

static void *walker_realloc(void *memory, size_t size) {
    void *larger = walker_grants() ? realloc(memory, size) : NULL;
    walker_pieces += memory == NULL && larger != NULL;
    return larger;
}

static int walker_memalign(void **memory, size_t alignment, size_t size) {
    int error = walker_grants() ? posix_memalign(memory, alignment, size) : ENOMEM;
    walker_pieces += error == 0;
    return error;
}

static void walker_free(void *memory) {
    walker_pieces -= memory != NULL;
    free(memory);
}

static void *walker_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    void *memory = MAP_FAILED;
    errno = ENOMEM;
    if (walker_grants()) memory = mmap(address, size, protection, flags, fd, offset);
    walker_pieces += memory != MAP_FAILED;
    return memory;
}

static int walker_munmap(void *memory, size_t size) {
    walker_pieces--;
    return munmap(memory, size);
}

static int walker_mprotect(void *memory, size_t size, int protection) {
    errno = ENOMEM;
    return walker_grants() ? mprotect(memory, size, protection) : -1;
}

static int walker_madvise(void *memory, size_t size, int advice) {
    errno = ENOMEM;
    if (!walker_grants()) return -1;
    return advice == MADV_HUGEPAGE ? 0 : madvise(memory, size, advice); /* not every kernel has them, and no case needs it */
}

#define malloc walker_malloc
#define calloc walker_calloc
#define realloc walker_realloc
#define posix_memalign walker_memalign
#define free walker_free
#define mmap walker_mmap
#define munmap walker_munmap
#define mprotect walker_mprotect
#define madvise walker_madvise

#endif
