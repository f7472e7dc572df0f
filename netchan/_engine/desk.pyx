"""The desk of the THREADS engines: bells of loops, sleeping threads, and one flag that coalesces them.

Layer: _engine; C only, no Python object. Who does what when: the head of desk.pxd; docs/explanation/ownership.md.
The flag works like this: an engine lists first and rings second, a collector takes the flag first and looks at the
lists second, both sequentially consistent, so one of the two sees the other.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc

from netchan._core cimport defs
from netchan._core.leaf cimport (
    load_acq_u64, load_seq_u32, store_rel_u64, store_seq_u32, xchg_u32,
)
from netchan._engine cimport sys

cdef enum:
    SLICE_NS = 1000000000           # a sleeper looks for signals at least this often

cdef nc_desk* current = NULL


cdef nc_desk* desk_here(uint64_t forks) noexcept:
    global current
    cdef nc_desk* d = current
    if d is NULL or d.forks != forks:
        d = <nc_desk*>calloc(1, sizeof(nc_desk))
        if d is NULL:
            return NULL
        d.forks = forks
        sys.pthread_mutex_init(&d.lock, NULL)
        current = d
    return d


cdef void kick(int fd) noexcept nogil:
    cdef uint64_t one = 1
    sys.write(fd, &one, 8)


cdef void tell_aside(nc_desk* d) noexcept nogil:
    cdef uint32_t fd = load_seq_u32(&d.aside_fd)
    if fd and xchg_u32(&d.passed_on, 1) == 0:
        kick(<int>fd)


cdef void desk_ring(nc_desk* d) noexcept nogil:
    cdef nc_bell* b
    cdef nc_sleeper* s
    if xchg_u32(&d.news, 1):
        return
    store_rel_u64(&d.rung_at, <uint64_t>sys.now_ns())
    store_seq_u32(&d.passed_on, 0)
    sys.pthread_mutex_lock(&d.lock)
    b = d.bells
    while b is not NULL:
        if xchg_u32(&b.rung, 1) == 0:
            kick(b.fd)
        b = b.following
    s = d.last
    while s is not NULL and load_seq_u32(&s.word):
        s = s.behind                            # on its way already, and may be looking before this news
    if s is not NULL:
        desk_wake(s)
    if d.bells is NULL and s is NULL:
        tell_aside(d)
    sys.pthread_mutex_unlock(&d.lock)


cdef void desk_take(nc_desk* d) noexcept nogil:
    store_seq_u32(&d.news, 0)


cdef int desk_patience(nc_desk* d) noexcept nogil:
    cdef int64_t left
    if load_seq_u32(&d.news) == 0 or load_seq_u32(&d.passed_on):
        return -1
    left = <int64_t>load_acq_u64(&d.rung_at) + PATIENCE_NS - sys.now_ns()
    if left > 0:
        return <int>((left + 999999) // 1000000)
    tell_aside(d)
    return -1


cdef void desk_hang(nc_desk* d, nc_bell* b) noexcept nogil:
    sys.pthread_mutex_lock(&d.lock)
    b.following = d.bells
    d.bells = b
    sys.pthread_mutex_unlock(&d.lock)


cdef void desk_drop(nc_desk* d, nc_bell* b) noexcept nogil:
    cdef nc_bell** link
    sys.pthread_mutex_lock(&d.lock)
    link = &d.bells
    while link[0] is not NULL and link[0] != b:
        link = &link[0].following
    if link[0] == b:
        link[0] = b.following
    sys.close(b.fd)
    b.fd = -1
    sys.pthread_mutex_unlock(&d.lock)


cdef int desk_wait(nc_desk* d, nc_sleeper* s, int64_t until_ns) noexcept nogil:
    cdef int64_t left
    cdef int rc = 1
    sys.pthread_mutex_lock(&d.lock)
    s.before = NULL
    s.behind = d.last
    if d.last is not NULL:
        d.last.before = s
    d.last = s
    sys.pthread_mutex_unlock(&d.lock)
    if load_seq_u32(&d.news) == 0 and load_seq_u32(&s.word) == 0:
        left = until_ns - sys.now_ns()
        if left <= 0:
            rc = 0
        elif sys.futex_wait(&s.word, 0, left if left < SLICE_NS else SLICE_NS) != 0:
            rc = defs.NC_EAGAIN
    sys.pthread_mutex_lock(&d.lock)
    if s.before is not NULL:
        s.before.behind = s.behind
    else:
        d.last = s.behind
    if s.behind is not NULL:
        s.behind.before = s.before
    sys.pthread_mutex_unlock(&d.lock)
    return rc


cdef void desk_wake(nc_sleeper* s) noexcept nogil:
    store_seq_u32(&s.word, 1)
    sys.futex_wake(&s.word, 1)
