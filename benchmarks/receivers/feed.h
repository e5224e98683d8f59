/* The datagrams of a benchmark's feed: each is a SPEAD packet (64-48 flavour) that is one whole heap, since spead2 takes
 * nothing else; to every other contender it is bytes with two numbers at fixed places. Shared by sender and receivers.
 */
#include <stdint.h>
#include <time.h>

#define HEADER 48    /* SPEAD's: eight bytes and five item pointers */
#define STAMP_AT 48  /* CLOCK_MONOTONIC in ns right before the send; 0 where nobody asks */
#define NUMBER_AT 56 /* 1 for the first datagram, the next is one more */
#define SMALLEST 64

static inline int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}
