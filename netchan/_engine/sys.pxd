# sys: system calls of the engine. Layer: _engine; declarations only. Linux (epoll, eventfd, timerfd).

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef NC_SYS_H
    #define NC_SYS_H
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <limits.h>
    #include <linux/futex.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <netinet/udp.h>
    #include <pthread.h>
    #include <sched.h>
    #include <signal.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/resource.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <sys/timerfd.h>
    #include <time.h>
    #include <unistd.h>

    static inline int64_t nc_now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    /* Absolute CLOCK_MONOTONIC time; 0 disarms. */
    static inline int nc_timerfd_at(int fd, int64_t at_ns) {
        struct itimerspec t = {{0, 0}, {at_ns / 1000000000, at_ns % 1000000000}};
        return timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL);
    }
    /* Sleeps while *word is `expect`; 0 woken or changed, -1 with errno (EINTR, ETIMEDOUT). timeout_ns < 0: none. */
    static inline int nc_futex_wait(uint32_t *word, uint32_t expect, int64_t timeout_ns) {
        struct timespec t = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        long rc = syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expect, timeout_ns < 0 ? NULL : &t, NULL, 0);
        if (rc < 0 && errno == EAGAIN) return 0;
        return (int)rc;
    }
    static inline void nc_futex_wake(uint32_t *word, int n) {
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
    }
    static inline long nc_involuntary(void) {
        struct rusage u;
        getrusage(RUSAGE_THREAD, &u);
        return u.ru_nivcsw;
    }
    static inline void nc_sleep_ns(int64_t ns) {
        struct timespec t = {ns / 1000000000, ns % 1000000000};
        nanosleep(&t, NULL);
    }
    static inline int nc_errno(void) { return errno; }
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    #ifndef UDP_GRO
    #define UDP_GRO 104
    #endif
    /* n bytes as datagrams of seg bytes, the last one maybe shorter; seg 0: as one. */
    static inline long nc_send_segments(int fd, const uint8_t *p, size_t n, int seg) {
        struct iovec v = {(void *)p, n};
        char room[CMSG_SPACE(sizeof(uint16_t))];
        struct msghdr m;
        memset(&m, 0, sizeof(m));
        m.msg_iov = &v;
        m.msg_iovlen = 1;
        if (seg) {
            struct cmsghdr *c;
            uint16_t size = (uint16_t)seg;
            memset(room, 0, sizeof(room));
            m.msg_control = room;
            m.msg_controllen = sizeof(room);
            c = CMSG_FIRSTHDR(&m);
            c->cmsg_level = SOL_UDP;
            c->cmsg_type = UDP_SEGMENT;
            c->cmsg_len = CMSG_LEN(sizeof(uint16_t));
            memcpy(CMSG_DATA(c), &size, sizeof(size));
        }
        return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    /* What is there; *seg: size of the datagrams in it, 0: one; *traffic: their traffic class, as far as it is told. */
    static inline long nc_recv_segments(int fd, uint8_t *p, size_t n, int *seg, int *traffic) {
        struct iovec v = {p, n};
        char room[3 * CMSG_SPACE(sizeof(int))];
        struct msghdr m;
        struct cmsghdr *c;
        long got;
        memset(&m, 0, sizeof(m));
        m.msg_iov = &v;
        m.msg_iovlen = 1;
        m.msg_control = room;
        m.msg_controllen = sizeof(room);
        got = recvmsg(fd, &m, MSG_DONTWAIT);
        *seg = *traffic = 0;
        if (got > 0)
            for (c = CMSG_FIRSTHDR(&m); c != NULL; c = CMSG_NXTHDR(&m, c)) {
                if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) memcpy(seg, CMSG_DATA(c), sizeof(int));
                else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) *traffic = *(uint8_t *)CMSG_DATA(c);
                else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS)
                    memcpy(traffic, CMSG_DATA(c), sizeof(int));
            }
        return got;
    }
    /* Bytes of a socket's own address, or of its peer's; 0: it has none. */
    static inline int nc_socket_name(int fd, int peer, uint8_t *out, unsigned int cap) {
        socklen_t n = cap;
        int rc = peer ? getpeername(fd, (struct sockaddr *)out, &n) : getsockname(fd, (struct sockaddr *)out, &n);
        return rc < 0 || n > cap ? 0 : (int)n;
    }
    /* A thread that takes no signal: they belong to Python's main thread. */
    static inline int nc_thread_start(pthread_t *t, void *(*fn)(void *), void *arg) {
        sigset_t all, old;
        int rc;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        rc = pthread_create(t, NULL, fn, arg);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        return rc;
    }
    static inline int nc_thread_join(pthread_t t, int64_t timeout_ns) {
        struct timespec at;
        clock_gettime(CLOCK_REALTIME, &at);
        at.tv_sec += timeout_ns / 1000000000;
        at.tv_nsec += timeout_ns % 1000000000;
        if (at.tv_nsec >= 1000000000) { at.tv_sec++; at.tv_nsec -= 1000000000; }
        return pthread_timedjoin_np(t, NULL, &at);
    }
    #endif
    """
    ctypedef struct pthread_mutex_t "pthread_mutex_t":
        pass
    ctypedef unsigned long pthread_t
    int pthread_mutex_init(pthread_mutex_t* m, const void* attr) noexcept nogil
    int pthread_mutex_destroy(pthread_mutex_t* m) noexcept nogil
    int pthread_mutex_lock(pthread_mutex_t* m) noexcept nogil
    int pthread_mutex_trylock(pthread_mutex_t* m) noexcept nogil
    int pthread_mutex_unlock(pthread_mutex_t* m) noexcept nogil
    int pthread_atfork(
        void (*prepare)() noexcept nogil, void (*parent)() noexcept nogil, void (*child)() noexcept nogil
    )
    int thread_start "nc_thread_start"(pthread_t* t, void* (*fn)(void*) noexcept nogil, void* arg) noexcept nogil
    int thread_join "nc_thread_join"(pthread_t t, int64_t timeout_ns) noexcept nogil
    int sched_yield() noexcept nogil

    int64_t now_ns "nc_now_ns"() noexcept nogil
    void sleep_ns "nc_sleep_ns"(int64_t ns) noexcept nogil
    int timerfd_at "nc_timerfd_at"(int fd, int64_t at_ns) noexcept nogil
    int futex_wait "nc_futex_wait"(uint32_t* word, uint32_t expect, int64_t timeout_ns) noexcept nogil
    void futex_wake "nc_futex_wake"(uint32_t* word, int n) noexcept nogil
    long involuntary_switches "nc_involuntary"() noexcept nogil
    int last_errno "nc_errno"() noexcept nogil
    long send_segments "nc_send_segments"(int fd, const uint8_t* p, size_t n, int seg) noexcept nogil
    long recv_segments "nc_recv_segments"(int fd, uint8_t* p, size_t n, int* seg, int* traffic) noexcept nogil

    int socket_name "nc_socket_name"(int fd, int peer, uint8_t* out, unsigned int cap) noexcept nogil

    int EIO, EINVAL, ENOPROTOOPT, SOL_UDP, UDP_GRO
    int IP_TOS, IP_RECVTOS, IPV6_TCLASS, IPV6_RECVTCLASS
    int IPPROTO_IP, IPPROTO_IPV6, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE
    int EAGAIN, EINTR, EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR, EPOLLRDHUP, ETIMEDOUT, ECONNRESET
    uint32_t EPOLLONESHOT
    int EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    int EFD_CLOEXEC, EFD_NONBLOCK, TFD_CLOEXEC, TFD_NONBLOCK, CLOCK_MONOTONIC
    int MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_RDWR, SHUT_WR
    int SOL_SOCKET, SO_SNDBUF, SO_RCVBUF, SO_KEEPALIVE, IPPROTO_TCP, TCP_NODELAY, TCP_NOTSENT_LOWAT
    ctypedef union epoll_data:
        void* ptr
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_create1(int flags) noexcept nogil
    int epoll_ctl(int epfd, int op, int fd, epoll_event* e) noexcept nogil
    int epoll_wait(int epfd, epoll_event* e, int n, int timeout_ms) noexcept nogil
    int eventfd(unsigned int initial, int flags) noexcept nogil
    int timerfd_create(int clock, int flags) noexcept nogil
    ssize_t recv(int fd, void* p, size_t n, int flags) noexcept nogil
    ssize_t send(int fd, const void* p, size_t n, int flags) noexcept nogil
    ssize_t read(int fd, void* p, size_t n) noexcept nogil
    ssize_t write(int fd, const void* p, size_t n) noexcept nogil
    int close(int fd) noexcept nogil
    int shutdown(int fd, int how) noexcept nogil
    int setsockopt(int fd, int level, int name, const void* p, unsigned int n) noexcept nogil
