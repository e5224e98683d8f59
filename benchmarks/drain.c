/* Bare C's ways of draining a socket's queue, timed where they run: ns for `count` datagrams.
 * The contender that every other is measured against; built by drain.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* recvmmsg into slots as the native backend has them, headers armed again after each call; -errno if it fails. */
long long drain_recvmmsg(int fd, int count, int batch, int datagram_size, int slot_size) {
    static struct mmsghdr *headers;
    static struct iovec *vectors;
    static char *slots;
    static int made;
    if (made != batch * slot_size) {
        free(headers);
        free(vectors);
        free(slots);
        headers = calloc(batch, sizeof *headers);
        vectors = calloc(batch, sizeof *vectors);
        if (posix_memalign((void **)&slots, 64, (size_t)batch * slot_size)) return -ENOMEM;
        memset(slots, 0, (size_t)batch * slot_size);
        for (int i = 0; i < batch; i++) {
            vectors[i].iov_base = slots + (size_t)i * slot_size;
            vectors[i].iov_len = datagram_size;
            headers[i].msg_hdr.msg_iov = &vectors[i];
            headers[i].msg_hdr.msg_iovlen = 1;
        }
        made = batch * slot_size;
    }
    long long begin = now();
    while (count > 0) {
        int n = recvmmsg(fd, headers, batch, MSG_DONTWAIT, NULL);
        if (n < 0) return -errno;
        for (int i = 0; i < n; i++) {
            headers[i].msg_hdr.msg_namelen = 0;
            headers[i].msg_hdr.msg_controllen = 0;
            headers[i].msg_hdr.msg_flags = 0;
        }
        count -= n;
    }
    return now() - begin;
}

/* One recv a datagram. */
long long drain_recv(int fd, int count, int batch, int datagram_size, int slot_size) {
    static char slot[65536];
    (void)batch;
    (void)slot_size;
    long long begin = now();
    while (count-- > 0)
        if (recv(fd, slot, datagram_size, MSG_DONTWAIT) < 0) return -errno;
    return now() - begin;
}
