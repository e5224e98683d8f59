"""What Linux and the C library offer, by header. Extern declarations only; structs show the fields we use."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE
    int clock_gettime(int clock, timespec *now)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    size_t CMSG_LEN(size_t size)
    size_t CMSG_SPACE(size_t size)
    unsigned char *CMSG_DATA(cmsghdr *message)
    int AF_INET, AF_INET6
    int MSG_CTRUNC, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC
    int SOL_SOCKET, SO_RCVBUF, SO_RCVBUFFORCE, SO_RXQ_OVFL
    int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
    int recvmmsg(int fd, mmsghdr *messages, unsigned int n, int flags, timespec *timeout)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int n, int flags)
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int getsockname(int fd, sockaddr *address, socklen_t *length)

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        unsigned char s6_addr[16]
    struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        unsigned short sin6_port
        in6_addr sin6_addr
    struct ip_mreqn:
        int imr_ifindex
    struct group_req:
        uint32_t gr_interface
        sockaddr_storage gr_group
    struct group_source_req:
        uint32_t gsr_interface
        sockaddr_storage gsr_group
        sockaddr_storage gsr_source
    int IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP
    int IP_PKTINFO, IP_TOS, IP_TTL
    int IPV6_HOPLIMIT, IPV6_PKTINFO, IPV6_TCLASS
    struct group_filter:
        uint32_t gf_interface
        sockaddr_storage gf_group
        uint32_t gf_fmode
        uint32_t gf_numsrc
        sockaddr_storage *gf_slist  # an array, of as many as gf_numsrc says
    size_t GROUP_FILTER_SIZE(size_t sources)
    int IP_MULTICAST_IF, IP_MULTICAST_TTL, IP_MULTICAST_LOOP
    int IPV6_MULTICAST_IF, IPV6_MULTICAST_HOPS, IPV6_MULTICAST_LOOP
    int MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP, MCAST_JOIN_SOURCE_GROUP, MCAST_LEAVE_SOURCE_GROUP
    int MCAST_BLOCK_SOURCE, MCAST_UNBLOCK_SOURCE, MCAST_MSFILTER, MCAST_INCLUDE, MCAST_EXCLUDE

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    short POLLIN, POLLOUT, POLLERR, POLLNVAL, POLLRDHUP
    int ppoll(pollfd *fds, unsigned long n, const timespec *timeout, const void *mask)

cdef extern from "<sys/eventfd.h>" nogil:
    int EFD_CLOEXEC, EFD_NONBLOCK
    int eventfd(unsigned int value, int flags)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLLIN, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL
    int epoll_create1(int flags)
    int epoll_ctl(int fd, int operation, int other, epoll_event *event)
    int epoll_wait(int fd, epoll_event *events, int n, int milliseconds)

cdef extern from "<sys/mman.h>" nogil:
    int PROT_NONE, PROT_READ, PROT_WRITE
    int MAP_ANONYMOUS, MAP_HUGETLB, MAP_PRIVATE
    int MADV_HUGEPAGE
    void *MAP_FAILED
    void *mmap(void *address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t size)
    int mprotect(void *address, size_t size, int protection)
    int madvise(void *address, size_t size, int advice)

cdef extern from "<fcntl.h>" nogil:
    int F_DUPFD_CLOEXEC
    int fcntl(int fd, int command, ...)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t read(int fd, void *data, size_t size)
    ssize_t write(int fd, const void *data, size_t size)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **memory, size_t alignment, size_t size)

# GCC's and Clang's atomics: generic over the type pointed to, so one name here for each type and use of ours.
cdef extern from *:
    int __ATOMIC_RELAXED, __ATOMIC_ACQUIRE, __ATOMIC_RELEASE, __ATOMIC_ACQ_REL
    uint32_t atomic_load_word "__atomic_load_n" (uint32_t *word, int order) noexcept nogil
    uint32_t atomic_or_word "__atomic_fetch_or" (uint32_t *word, uint32_t bits, int order) noexcept nogil
    uint32_t atomic_add_word "__atomic_fetch_add" (uint32_t *word, uint32_t by, int order) noexcept nogil
    uint32_t atomic_sub_word "__atomic_fetch_sub" (uint32_t *word, uint32_t by, int order) noexcept nogil
    bint atomic_swap_word "__atomic_compare_exchange_n" (
        uint32_t *word, uint32_t *old, uint32_t new, bint weak, int success, int failure) noexcept nogil
    uint64_t atomic_load_count "__atomic_load_n" (uint64_t *count, int order) noexcept nogil
    uint64_t atomic_add_count "__atomic_fetch_add" (uint64_t *count, uint64_t by, int order) noexcept nogil
    uint64_t atomic_sub_count "__atomic_fetch_sub" (uint64_t *count, uint64_t by, int order) noexcept nogil
    void atomic_store_count "__atomic_store_n" (uint64_t *count, uint64_t value, int order) noexcept nogil
    bint atomic_swap_count "__atomic_compare_exchange_n" (
        uint64_t *count, uint64_t *old, uint64_t new, bint weak, int success, int failure) noexcept nogil
    void *atomic_load_pointer "__atomic_load_n" (void **where, int order) noexcept nogil
    void *atomic_exchange_pointer "__atomic_exchange_n" (void **where, void *new, int order) noexcept nogil
    bint atomic_swap_pointer "__atomic_compare_exchange_n" (
        void **where, void **old, void *new, bint weak, int success, int failure) noexcept nogil

cdef extern from *:
    void prefetch "__builtin_prefetch" (const void *where) noexcept nogil

cdef extern from "_compat.h":
    int IP_MULTICAST_ALL, IPV6_MULTICAST_ALL, SO_BINDTOIFINDEX, SO_MEMINFO
    int SOL_UDP, UDP_SEGMENT
    int MADV_POPULATE_WRITE
    int MULTICAST_MEMINFO_QUEUED, MULTICAST_MEMINFO_DROPS
    int MULTICAST_TIMESTAMPNS_OLD, MULTICAST_TIMESTAMPNS_NEW, MULTICAST_TIMESTAMPING_OLD, MULTICAST_TIMESTAMPING_NEW
    int MULTICAST_UDP_GRO
    enum:
        MULTICAST_MEMINFO_WORDS
    object multicast_view(object source, Py_ssize_t offset, Py_ssize_t length)
    void multicast_refuse_writers(object type) noexcept
    void multicast_plant_fault(char *end) noexcept nogil

cdef extern from *:
    const char *MULTICAST_VERSION
