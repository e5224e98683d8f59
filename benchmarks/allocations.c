/* Counts what Python allocates, by any of its allocators for which the GIL is held (PyMem_SetAllocator in its C API).
 * Built and called by steady.py. No Python.h is needed: the struct is part of the stable documentation.
 */
#include <stddef.h>

struct allocator {
    void *context;
    void *(*malloc)(void *context, size_t size);
    void *(*calloc)(void *context, size_t count, size_t size);
    void *(*realloc)(void *context, void *memory, size_t size);
    void (*free)(void *context, void *memory);
};
enum { FIRST = 1, LAST = 2 }; /* PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ */

void PyMem_GetAllocator(int domain, struct allocator *allocator);
void PyMem_SetAllocator(int domain, struct allocator *allocator);

static struct allocator own[LAST + 1];
static long long calls;

static void *counted_malloc(void *context, size_t size) {
    struct allocator *behind = context;
    calls++;
    return behind->malloc(behind->context, size);
}

static void *counted_calloc(void *context, size_t count, size_t size) {
    struct allocator *behind = context;
    calls++;
    return behind->calloc(behind->context, count, size);
}

static void *counted_realloc(void *context, void *memory, size_t size) {
    struct allocator *behind = context;
    calls++;
    return behind->realloc(behind->context, memory, size);
}

static void passed_free(void *context, void *memory) {
    struct allocator *behind = context;
    behind->free(behind->context, memory);
}

void counting_begin(void) {
    for (int domain = FIRST; domain <= LAST; domain++) {
        struct allocator counting = {&own[domain], counted_malloc, counted_calloc, counted_realloc, passed_free};
        PyMem_GetAllocator(domain, &own[domain]);
        PyMem_SetAllocator(domain, &counting);
    }
    calls = 0;
}

/* How often something was allocated since. */
long long counting_end(void) {
    long long found = calls;
    for (int domain = FIRST; domain <= LAST; domain++) PyMem_SetAllocator(domain, &own[domain]);
    return found;
}
