/* Bare C's receivers in the live scenarios, one a process.
 *
 *     receive recv|recvmmsg FD SIZE BATCH NAME_SIZE CONTROL_SIZE TIMED LIMIT
 *
 * FD is a bound and joined socket. TIMED 1: keep how long each datagram was on its way (its stamp is of the same clock).
 * NAME_SIZE, CONTROL_SIZE: bytes for what the kernel tells beside each, 0 for nothing. It ends after LIMIT seconds
 * whatever happens. Says "ready"; the socket's shutdown ends it, once the queue is empty; it says in JSON what it counted.
 */
#define _GNU_SOURCE
#include "feed.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static int64_t received, *delays;
static size_t room;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void keep_delay(const char *datagram, int64_t at) {
    int64_t stamp;
    memcpy(&stamp, datagram + STAMP_AT, sizeof stamp);
    if ((size_t)received == room) {
        room = room ? 2 * room : 1 << 16;
        if (!(delays = realloc(delays, room * sizeof *delays))) fail("realloc");
    }
    delays[received] = at - stamp;
}

static void with_recv(int fd, int size, int timed) {
    char *slot = calloc(1, size);
    ssize_t n;
    if (!slot) fail("calloc");
    while ((n = recv(fd, slot, size, 0)) > 0) { /* 0: shut down; the feed has no empty datagrams */
        if (timed) keep_delay(slot, now());
        received++;
    }
    if (n < 0) fail("recv");
}

static void arm(struct mmsghdr *headers, int n, int name_size, int control_size) {
    for (int i = 0; i < n; i++) {
        headers[i].msg_hdr.msg_namelen = name_size;
        headers[i].msg_hdr.msg_controllen = control_size;
        headers[i].msg_hdr.msg_flags = 0;
    }
}

/* As the native backend does it: take what is there, and wait by poll where nothing is. */
static void with_recvmmsg(int fd, int size, int batch, int name_size, int control_size, int timed) {
    int slot_size = (size + 63) / 64 * 64;
    struct mmsghdr *headers = calloc(batch, sizeof *headers);
    struct iovec *vectors = calloc(batch, sizeof *vectors);
    char *names = calloc(batch, name_size + 1), *controls = calloc(batch, control_size + 1), *slots;
    if (!headers || !vectors || !names || !controls || posix_memalign((void **)&slots, 64, (size_t)batch * slot_size))
        fail("calloc");
    memset(slots, 0, (size_t)batch * slot_size);
    for (int i = 0; i < batch; i++) {
        struct msghdr *header = &headers[i].msg_hdr;
        vectors[i].iov_base = slots + (size_t)i * slot_size;
        vectors[i].iov_len = size;
        header->msg_iov = &vectors[i];
        header->msg_iovlen = 1;
        if (name_size) header->msg_name = names + (size_t)i * name_size;
        if (control_size) header->msg_control = controls + (size_t)i * control_size;
    }
    arm(headers, batch, name_size, control_size);
    for (int ended = 0;;) {
        int n = recvmmsg(fd, headers, batch, MSG_DONTWAIT, NULL);
        if (n < 0) {
            struct pollfd waiting = {.fd = fd, .events = POLLIN | POLLRDHUP};
            if (errno != EAGAIN) fail("recvmmsg");
            if (ended) return;
            if (poll(&waiting, 1, -1) < 0) fail("poll");
            ended = waiting.revents & POLLRDHUP; /* shut down: what is queued comes first */
            continue;
        }
        int64_t at = timed ? now() : 0;
        for (int i = 0; i < n; i++) {
            if (timed) keep_delay(vectors[i].iov_base, at);
            received++;
        }
        arm(headers, n, name_size, control_size);
    }
}

static double seconds(struct timeval time) { return time.tv_sec + time.tv_usec * 1e-6; }

int main(int argc, char **argv) {
    struct rusage before, after;
    if (argc != 9) return 2;
    int fd = atoi(argv[2]), size = atoi(argv[3]), batch = atoi(argv[4]), timed = atoi(argv[7]);
    alarm(atoi(argv[8]));
    getrusage(RUSAGE_SELF, &before);
    puts("ready");
    fflush(stdout);
    if (!strcmp(argv[1], "recv"))
        with_recv(fd, size, timed);
    else
        with_recvmmsg(fd, size, batch, atoi(argv[5]), atoi(argv[6]), timed);
    getrusage(RUSAGE_SELF, &after);
    printf("{\"received\": %lld, \"user\": %.6f, \"system\": %.6f, \"delays\": [", (long long)received,
           seconds(after.ru_utime) - seconds(before.ru_utime), seconds(after.ru_stime) - seconds(before.ru_stime));
    for (int64_t i = 0; timed && i < received; i++) printf("%s%lld", i ? "," : "", (long long)delays[i]);
    puts("]}");
    return 0;
}
