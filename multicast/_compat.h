/* What differs between systems' headers and builds of CPython. The only #ifdef of the project.
 *
 * Owns stand-ins for what may be missing. Must not keep state, and must not pretend: what the system
 * lacks gives the system's own error.
 */
#ifndef MULTICAST_COMPAT_H
#define MULTICAST_COMPAT_H

#include <Python.h>

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* Options that older C libraries don't name; a kernel without them answers ENOPROTOOPT. */
#ifndef IP_MULTICAST_ALL
#define IP_MULTICAST_ALL 49
#endif
#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif
#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif
#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

/* Advice that older C libraries don't name; a kernel without it answers EINVAL. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Where in SO_MEMINFO what is: SK_MEMINFO_RMEM_ALLOC and _DROPS of linux/sock_diag.h, which has no libc counterpart. */
enum { MULTICAST_MEMINFO_QUEUED = 0, MULTICAST_MEMINFO_DROPS = 8, MULTICAST_MEMINFO_WORDS = 9 };

/* The kernel's two generations of time stamps: which of them SO_TIMESTAMPNS and SO_TIMESTAMPING mean depends on the
 * width of time_t, and both can come.
 */
#ifdef SO_TIMESTAMPNS_OLD
enum {
    MULTICAST_TIMESTAMPNS_OLD = SO_TIMESTAMPNS_OLD,
    MULTICAST_TIMESTAMPNS_NEW = SO_TIMESTAMPNS_NEW,
    MULTICAST_TIMESTAMPING_OLD = SO_TIMESTAMPING_OLD,
    MULTICAST_TIMESTAMPING_NEW = SO_TIMESTAMPING_NEW
};
#else
enum {
    MULTICAST_TIMESTAMPNS_OLD = SO_TIMESTAMPNS,
    MULTICAST_TIMESTAMPNS_NEW = 64,
    MULTICAST_TIMESTAMPING_OLD = SO_TIMESTAMPING,
    MULTICAST_TIMESTAMPING_NEW = 65
};
#endif

enum { MULTICAST_UDP_GRO = 104 }; /* linux/udp.h, which clashes with netinet/udp.h */

/* A new read-only memoryview of `length` bytes at `offset` of what `source` exports (bytes, in one dimension).
 * `source` is the exporter or a memoryview of it; either way the exporter lives as long as the result.
 */
static inline PyObject *multicast_view(PyObject *source, Py_ssize_t offset, Py_ssize_t length) {
    PyObject *view;
#ifdef Py_GIL_DISABLED
    /* Views of one memoryview share its count of exports, which is no atomic one before 3.15 (CPython gh-127716): let
     * each have its own, from the exporter. */
    if (PyMemoryView_Check(source)) source = PyMemoryView_GET_BASE(source);
#endif
    view = PyMemoryView_FromObject(source);
#ifdef Py_LIMITED_API
    if (view != NULL) {
        PyObject *slice = PySequence_GetSlice(view, offset, offset + length);
        Py_DECREF(view);
        view = slice;
    }
#else
    if (view != NULL) {
        /* The view is ours alone until we return it, and its Py_buffer is its own copy: narrowing it here is what
         * slicing does, without a second memoryview. */
        Py_buffer *buffer = PyMemoryView_GET_BUFFER(view);
        buffer->buf = (char *)buffer->buf + offset;
        buffer->len = length;
        buffer->shape[0] = length;
    }
#endif
    return view;
}

/* Makes a type whose buffers are read-only say so before its own Cython code runs. numpy asks every exporter for
 * writable memory first; refused there, that costs a traceback, which is more than the array.
 */
__attribute__((unused)) static getbufferproc multicast_export;

static inline int multicast_export_read_only(PyObject *exporter, Py_buffer *buffer, int flags) {
    if (buffer != NULL && flags & PyBUF_WRITABLE) {
        buffer->obj = NULL;
        PyErr_SetString(PyExc_BufferError, "a batch is read-only");
        return -1;
    }
    return multicast_export(exporter, buffer, flags);
}

static inline void multicast_refuse_writers(PyObject *type) {
#ifndef Py_LIMITED_API
    PyBufferProcs *procs = ((PyTypeObject *)type)->tp_as_buffer;
    if (procs->bf_getbuffer == multicast_export_read_only) return;
    multicast_export = procs->bf_getbuffer;
    procs->bf_getbuffer = multicast_export_read_only;
#else
    (void)type;
#endif
}

/* Faults planted in builds that prove that a sanitizer sees this extension; in every other build, nothing.
 * `end` is one past a block of slots.
 */
static inline void multicast_plant_fault(char *end) {
#if defined(MULTICAST_PLANT_OVERFLOW)
    *(volatile char *)end = 1;
#elif defined(MULTICAST_PLANT_UNDEFINED)
    volatile int shift = 32 + (end == NULL);
    volatile int undefined = 1 << shift;
    (void)undefined;
#else
    (void)end;
#endif
}

#endif
