/* The sender of the live scenarios: a feed at a rate that it keeps, or as fast as it goes, on the loopback interface.
 *
 *     feed GROUP PORT SIZE RATE SECONDS TRAIN STAMPED LIMIT
 *
 * RATE is in datagrams a second, 0 for as fast as it goes. TRAIN: how many datagrams are handed to the kernel as one
 * that it cuts (UDP_SEGMENT, udp(7)). STAMPED 1: one datagram at a time, each stamped, the gaps between them from half to
 * one and a half of 1/RATE. It ends after LIMIT seconds whatever happens. Says "ready", waits for a line, sends, and says
 * in JSON what it really did.
 */
#define _GNU_SOURCE
#include "feed.h"
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define AT_ONCE 64               /* datagrams, or trains of them, in one call */
#define LARGEST 65507            /* bytes in one send */
#define FORGIVEN INT64_C(1000000) /* ns: a sender that was kept from its core for longer leaves out what it missed */

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* A socket whose datagrams stay in this host. */
static int connected(const char *group, int port) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), ttl = 0, loop = 1;
    struct in_addr loopback = {htonl(INADDR_LOOPBACK)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (fd < 0) fail("socket");
    if (inet_pton(AF_INET, group, &to.sin_addr) != 1) fail(group);
    if (setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &loopback, sizeof loopback)) fail("IP_MULTICAST_IF");
    if (setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof ttl)) fail("IP_MULTICAST_TTL");
    if (setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, &loop, sizeof loop)) fail("IP_MULTICAST_LOOP");
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
    return fd;
}

static void put64(char *at, uint64_t value) { memcpy(at, &value, sizeof value); }

static void lay_out(char *datagram, int size) {
    uint64_t payload = size - HEADER;
    memset(datagram, 0, size);
    put64(datagram, htobe64(UINT64_C(0x5304020600000005)));       /* SPEAD 4, 16 and 48 bits, five items: */
    put64(datagram + 16, htobe64(UINT64_C(0x8002) << 48 | payload)); /* the heap's length (its number: `number`) */
    put64(datagram + 24, htobe64(UINT64_C(0x8003) << 48));           /* the payload's place in it */
    put64(datagram + 32, htobe64(UINT64_C(0x8004) << 48 | payload)); /* the payload's length */
    put64(datagram + 40, htobe64(UINT64_C(0x1000) << 48));           /* an item: all of it */
}

static void number(char *datagram, uint64_t number) {
    put64(datagram + 8, htobe64(UINT64_C(0x8001) << 48 | number));
    put64(datagram + NUMBER_AT, number);
}

/* A generator for the gaps: the same ones in every run (Marsaglia's xorshift). */
static uint64_t random_bits(void) {
    static uint64_t state = UINT64_C(88172645463325252);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int64_t send_stamped(int fd, char *datagram, int size, double rate, double seconds) {
    int64_t gap = 1e9 / rate, begin = now(), due = begin, sent = 0;
    while (due - begin < seconds * 1e9) {
        due += gap / 2 + random_bits() % gap;
        while (now() < due)
            ;
        number(datagram, ++sent);
        put64(datagram + STAMP_AT, now());
        if (send(fd, datagram, size, 0) != size) fail("send");
    }
    return sent;
}

/* Send at most AT_ONCE trains that hold `count` datagrams together; a train that is short is the last. */
static void send_trains(int fd, struct mmsghdr *headers, int64_t first, int count, int size, int train) {
    int trains = 0, done = 0;
    for (int left = count; left > 0; trains++) {
        struct iovec *vector = headers[trains].msg_hdr.msg_iov;
        int here = left < train ? left : train;
        for (int i = 0; i < here; i++) number((char *)vector->iov_base + i * size, first++);
        vector->iov_len = (size_t)here * size;
        left -= here;
    }
    while (done < trains) {
        int n = sendmmsg(fd, headers + done, trains - done, 0);
        if (n < 0) fail("sendmmsg");
        done += n;
    }
}

static int64_t send_paced(int fd, struct mmsghdr *headers, int size, double rate, double seconds, int train,
                          int64_t *left_out) {
    int64_t begin = now(), end = begin + seconds * 1e9, sent = 0, at, due;
    int most = AT_ONCE * train;
    while ((at = now()) < end) {
        due = rate > 0 ? (at - begin) * 1e-9 * rate - sent - *left_out : most;
        if (rate > 0 && due > FORGIVEN * 1e-9 * rate + most) {
            *left_out += due - most;
            due = most;
        }
        if (due < train) continue; /* whole trains; the core is this process's own */
        if (due > most) due = most;
        due -= due % train;
        send_trains(fd, headers, sent + 1, due, size, train);
        sent += due;
    }
    return sent;
}

int main(int argc, char **argv) {
    static struct mmsghdr headers[AT_ONCE];
    static struct iovec vectors[AT_ONCE];
    if (argc != 9) return 2;
    int size = atoi(argv[3]), train = atoi(argv[6]), stamped = atoi(argv[7]);
    double rate = atof(argv[4]), seconds = atof(argv[5]);
    int64_t sent, begin, end, left_out = 0;
    if (size < SMALLEST || train < 1 || size * train > LARGEST || (stamped && rate <= 0)) return 2;
    alarm(atoi(argv[8]));
    int fd = connected(argv[1], atoi(argv[2]));
    if (train > 1 && setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size)) fail("UDP_SEGMENT");
    for (int i = 0; i < AT_ONCE; i++) {
        char *datagrams = malloc((size_t)size * train);
        if (!datagrams) fail("malloc");
        for (int j = 0; j < train; j++) lay_out(datagrams + j * size, size);
        vectors[i].iov_base = datagrams;
        headers[i].msg_hdr.msg_iov = &vectors[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF) return 0; /* nobody is there any more */
    begin = now();
    if (stamped)
        sent = send_stamped(fd, vectors[0].iov_base, size, rate, seconds);
    else
        sent = send_paced(fd, headers, size, rate, seconds, train, &left_out);
    end = now();
    printf("{\"sent\": %lld, \"left_out\": %lld, \"begin_ns\": %lld, \"end_ns\": %lld}\n", (long long)sent,
           (long long)left_out, (long long)begin, (long long)end);
    return 0;
}
