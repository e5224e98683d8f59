/* Bare C's ways of draining a socket's queue, timed where they run: ns for `count` datagrams.
 * The contenders that every other is measured against; called by bare_c.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* Headers and slots as the native backend has them; name_size and control_size: 0 where nobody wants them. */
struct block {
    struct mmsghdr *headers;
    int batch, name_size, control_size;
};

#ifndef UDP_GRO
#define UDP_GRO 104 /* linux/udp.h */
#endif

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void arm(struct block *block, int n) {
    for (int i = 0; i < n; i++) {
        block->headers[i].msg_hdr.msg_namelen = block->name_size;
        block->headers[i].msg_hdr.msg_controllen = block->control_size;
        block->headers[i].msg_hdr.msg_flags = 0;
    }
}

/* NULL where memory is short; never freed. */
struct block *block_new(int batch, int datagram_size, int slot_size, int name_size, int control_size) {
    struct block *block = malloc(sizeof *block);
    struct iovec *vectors = calloc(batch, sizeof *vectors);
    char *names = calloc(batch, name_size + 1), *controls = calloc(batch, control_size + 1), *slots;
    if (!block || !vectors || !names || !controls) return NULL;
    if (posix_memalign((void **)&slots, 64, (size_t)batch * slot_size)) return NULL;
    if (!(block->headers = calloc(batch, sizeof *block->headers))) return NULL;
    memset(slots, 0, (size_t)batch * slot_size);
    for (int i = 0; i < batch; i++) {
        struct msghdr *header = &block->headers[i].msg_hdr;
        vectors[i].iov_base = slots + (size_t)i * slot_size;
        vectors[i].iov_len = datagram_size;
        header->msg_iov = &vectors[i];
        header->msg_iovlen = 1;
        if (name_size) header->msg_name = names + (size_t)i * name_size;
        if (control_size) header->msg_control = controls + (size_t)i * control_size;
    }
    block->batch = batch;
    block->name_size = name_size;
    block->control_size = control_size;
    arm(block, batch);
    return block;
}

/* recvmmsg, headers armed again after each call; -errno if it fails. */
long long drain_recvmmsg(struct block *block, int fd, int count) {
    long long begin = now();
    while (count > 0) {
        int n = recvmmsg(fd, block->headers, block->batch, MSG_DONTWAIT, NULL);
        if (n < 0) return -errno;
        arm(block, n);
        count -= n;
    }
    return now() - begin;
}

/* Datagrams on a train: the kernel tells how long each is but for the last one (udp(7)). */
static int on_train(struct mmsghdr *header) {
    struct msghdr *message = &header->msg_hdr;
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each; each = CMSG_NXTHDR(message, each))
        if (each->cmsg_level == IPPROTO_UDP && each->cmsg_type == UDP_GRO) {
            int length;
            memcpy(&length, CMSG_DATA(each), sizeof length);
            return (header->msg_len + length - 1) / length;
        }
    return 1;
}

/* The same with trains, which count as the datagrams that they are made of. */
long long drain_trains(struct block *block, int fd, int count) {
    long long begin = now();
    while (count > 0) {
        int n = recvmmsg(fd, block->headers, block->batch, MSG_DONTWAIT, NULL);
        if (n < 0) return -errno;
        for (int i = 0; i < n; i++) count -= on_train(&block->headers[i]);
        arm(block, n);
    }
    return now() - begin;
}

/* One recv a datagram. */
long long drain_recv(int fd, int count, int datagram_size) {
    static char slot[65536];
    long long begin = now();
    while (count-- > 0)
        if (recv(fd, slot, datagram_size, MSG_DONTWAIT) < 0) return -errno;
    return now() - begin;
}
