"""Opens the lowest rungs of the core to the tests: cursor, ranges, timer, replay. Test-only, never in a wheel.

Layer: beside _core. Nothing of the package may import it. Functions return what the C function returned
(return codes as numbers), so that the tests see codes, not exceptions.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from netchan._core cimport cursor, defs, ranges, replay, timer

RC = {
    "OK": defs.NC_OK, "EAGAIN": defs.NC_EAGAIN, "ETRUNC": defs.NC_ETRUNC, "EFRAME": defs.NC_EFRAME,
    "ELIMIT": defs.NC_ELIMIT, "ECRYPTO": defs.NC_ECRYPTO, "EREPLAY": defs.NC_EREPLAY, "ENOMEM": defs.NC_ENOMEM,
    "EINVAL": defs.NC_EINVAL, "ESPACE": defs.NC_ESPACE, "ESTATE": defs.NC_ESTATE,
}
VARINT_MAX = cursor.VARINT_MAX
VARINT_SIZE_MAX = cursor.VARINT_SIZE_MAX
RANGES_END = ranges.RANGES_END
RANGES_MAX = ranges.RANGES_MAX
TIMER_NEVER = timer.TIMER_NEVER
TIMER_IDS = timer.TIMER_IDS
THEAP_MAX = timer.THEAP_MAX
REPLAY_BITS = replay.REPLAY_BITS
REPLAY_BITS_MAX = replay.REPLAY_BITS_MAX
REPLAY_LAST = replay.REPLAY_LAST


cdef inline int64_t _now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


# --- cursor -----------------------------------------------------------------------------------------------------

cdef class Reader:
    """A read cursor over its own exact copy of ``data``: a read past the end is past the allocation."""

    cdef cursor.nc_rd rd
    cdef uint8_t* base

    def __cinit__(self, bytes data):
        cdef const uint8_t* src = data
        cdef size_t n = <size_t>len(data)
        self.base = <uint8_t*>malloc(n if n else 1)
        if self.base == NULL:
            raise MemoryError
        memcpy(self.base, src, n)
        cursor.rd_init(&self.rd, self.base, n)

    def __dealloc__(self):
        free(self.base)

    @property
    def pos(self):
        return self.rd.p - self.base

    @property
    def left(self):
        return cursor.rd_left(&self.rd)

    def u8(self):
        cdef uint8_t v = 0
        cdef int rc = cursor.rd_u8(&self.rd, &v)
        return rc, v

    def u16(self):
        cdef uint16_t v = 0
        cdef int rc = cursor.rd_u16(&self.rd, &v)
        return rc, v

    def u32(self):
        cdef uint32_t v = 0
        cdef int rc = cursor.rd_u32(&self.rd, &v)
        return rc, v

    def u64(self):
        cdef uint64_t v = 0
        cdef int rc = cursor.rd_u64(&self.rd, &v)
        return rc, v

    def varint(self):
        cdef uint64_t v = 0
        cdef int rc = cursor.rd_varint(&self.rd, &v)
        return rc, v

    def take(self, uint64_t n):
        cdef const uint8_t* p = NULL
        cdef int rc = cursor.rd_bytes(&self.rd, n, &p)
        return rc, (<const char*>p)[:n] if rc == 0 else b""

    def vtake(self, uint64_t limit):
        cdef const uint8_t* p = NULL
        cdef size_t n = 0
        cdef int rc = cursor.rd_vbytes(&self.rd, limit, &p, &n)
        return rc, (<const char*>p)[:n] if rc == 0 else b""


cdef class Writer:
    """A write cursor over ``cap`` bytes of its own."""

    cdef cursor.nc_wr wr
    cdef uint8_t* base

    def __cinit__(self, size_t cap):
        self.base = <uint8_t*>malloc(cap if cap else 1)
        if self.base == NULL:
            raise MemoryError
        memset(self.base, 0xEE, cap)
        cursor.wr_init(&self.wr, self.base, cap)

    def __dealloc__(self):
        free(self.base)

    @property
    def left(self):
        return cursor.wr_left(&self.wr)

    def bytes(self):
        return (<const char*>self.base)[:self.wr.p - self.base]

    def u8(self, uint8_t v):
        return cursor.wr_u8(&self.wr, v)

    def u16(self, uint16_t v):
        return cursor.wr_u16(&self.wr, v)

    def u32(self, uint32_t v):
        return cursor.wr_u32(&self.wr, v)

    def u64(self, uint64_t v):
        return cursor.wr_u64(&self.wr, v)

    def varint(self, uint64_t v):
        return cursor.wr_varint(&self.wr, v)

    def put(self, bytes data):
        cdef const uint8_t* p = data
        return cursor.wr_bytes(&self.wr, p, <size_t>len(data))

    def vput(self, bytes data):
        cdef const uint8_t* p = data
        return cursor.wr_vbytes(&self.wr, p, <size_t>len(data))


def varint_len(uint64_t v):
    return cursor.varint_len(v)


def varint_write(uint64_t v):
    cdef uint8_t buf[8]
    cdef size_t n = cursor.varint_write(buf, v)
    return (<const char*>buf)[:n]


def varint_write_n(uint64_t v, size_t n):
    cdef uint8_t buf[8]
    cdef size_t done = cursor.varint_write_n(buf, v, n)
    return (<const char*>buf)[:done]


def bench_varint(bytes data, long rounds):
    """Nanoseconds per varint when all of ``data`` is read ``rounds`` times; also (count, sum) as a proof of work."""
    cdef const uint8_t* p = data
    cdef size_t n = <size_t>len(data)
    cdef cursor.nc_rd rd
    cdef uint64_t v = 0
    cdef uint64_t total = 0
    cdef uint64_t count = 0
    cdef long _i
    cdef int64_t t0
    cdef int64_t t1
    with nogil:
        t0 = _now_ns()
        for _i in range(rounds):
            cursor.rd_init(&rd, p, n)
            while cursor.rd_varint(&rd, &v) == 0:
                total += v
                count += 1
        t1 = _now_ns()
    return (t1 - t0) / <double>count, count, total


# --- ranges -----------------------------------------------------------------------------------------------------

cdef class Ranges:
    """One range set."""

    cdef ranges.nc_ranges r
    cdef readonly int init_rc

    def __cinit__(self, uint32_t max_ranges=ranges.RANGES_MAX):
        memset(&self.r, 0, sizeof(self.r))
        self.init_rc = ranges.ranges_init(&self.r, max_ranges)

    def __dealloc__(self):
        ranges.ranges_free(&self.r)

    def add(self, uint64_t lo, uint64_t hi):
        return ranges.ranges_add(&self.r, lo, hi)

    def remove(self, uint64_t lo, uint64_t hi):
        return ranges.ranges_remove(&self.r, lo, hi)

    def remove_below(self, uint64_t x):
        return ranges.ranges_remove_below(&self.r, x)

    def contains(self, uint64_t x):
        return ranges.ranges_contains(&self.r, x)

    def covered(self, uint64_t lo, uint64_t hi):
        return ranges.ranges_covered(&self.r, lo, hi)

    def first_gap(self, uint64_t x):
        return ranges.ranges_first_gap(&self.r, x)

    def find(self, uint64_t x):
        return ranges.ranges_find(&self.r, x)

    def reserve(self, uint32_t n):
        return ranges.ranges_reserve(&self.r, n)

    def clear(self):
        ranges.ranges_clear(&self.r)

    def free(self):
        ranges.ranges_free(&self.r)

    def drop_first(self):
        ranges.ranges_drop_first(&self.r)

    @property
    def min(self):
        return ranges.ranges_min(&self.r)

    @property
    def end(self):
        return ranges.ranges_end(&self.r)

    @property
    def total(self):
        return self.r.total

    @property
    def cap(self):
        return self.r.cap

    def list(self):
        return [(self.r.v[i].lo, self.r.v[i].hi) for i in range(self.r.len)]


def bench_ranges(long rounds):
    """Nanoseconds per add at the end: 1200 values each, in order."""
    cdef ranges.nc_ranges r
    cdef int64_t t0
    cdef int64_t t1
    cdef uint64_t at = 0
    cdef long _i
    ranges.ranges_init(&r, 16)
    with nogil:
        t0 = _now_ns()
        for _i in range(rounds):
            ranges.ranges_add(&r, at, at + 1200)
            at += 1200
        t1 = _now_ns()
    ranges.ranges_free(&r)
    return (t1 - t0) / <double>rounds


# --- timer ------------------------------------------------------------------------------------------------------

cdef class Timers:
    """One session's deadlines."""

    cdef timer.nc_timers t

    def __cinit__(self):
        timer.timer_init(&self.t)

    def set(self, uint32_t id, int64_t at_ns):
        return timer.timer_set(&self.t, id, at_ns)

    def clear(self, uint32_t id):
        return timer.timer_clear(&self.t, id)

    def at(self, uint32_t id):
        return timer.timer_at(&self.t, id)

    def next(self):
        return timer.timer_next(&self.t)

    def pop_due(self, int64_t now_ns):
        return timer.timer_pop_due(&self.t, now_ns)


cdef class Theap:
    """One engine's deadlines by session index."""

    cdef timer.nc_theap h
    cdef readonly int init_rc

    def __cinit__(self, uint32_t cap):
        memset(&self.h, 0, sizeof(self.h))
        self.init_rc = timer.theap_init(&self.h, cap)

    def __dealloc__(self):
        timer.theap_free(&self.h)

    def __len__(self):
        return self.h.n

    def reserve(self, uint32_t cap):
        return timer.theap_reserve(&self.h, cap)

    def set(self, uint32_t idx, int64_t at_ns):
        return timer.theap_set(&self.h, idx, at_ns)

    def clear(self, uint32_t idx):
        return timer.theap_clear(&self.h, idx)

    def at(self, uint32_t idx):
        return timer.theap_at(&self.h, idx)

    def next(self):
        return timer.theap_next(&self.h)

    def pop_due(self, int64_t now_ns):
        return timer.theap_pop_due(&self.h, now_ns)


def bench_timer(long rounds):
    """Nanoseconds per (set of one slot) and per (move of one of 1000 heap entries)."""
    cdef timer.nc_timers t
    cdef timer.nc_theap h
    cdef long i
    cdef int64_t t0
    cdef int64_t t1
    cdef int64_t t2
    timer.timer_init(&t)
    if timer.theap_init(&h, 1000) < 0:
        raise MemoryError
    with nogil:
        t0 = _now_ns()
        for i in range(rounds):
            timer.timer_set(&t, <uint32_t>(i & 7), i * 7919 % 1000003)
        t1 = _now_ns()
        for i in range(rounds):
            timer.theap_set(&h, <uint32_t>(i % 1000), i * 7919 % 1000003)
        t2 = _now_ns()
    timer.theap_free(&h)
    return (t1 - t0) / <double>rounds, (t2 - t1) / <double>rounds


# --- replay -----------------------------------------------------------------------------------------------------

cdef class Replay:
    """One anti-replay window."""

    cdef replay.nc_replay w
    cdef readonly int init_rc

    def __cinit__(self, uint32_t n_bits=replay.REPLAY_BITS):
        memset(&self.w, 0, sizeof(self.w))
        self.init_rc = replay.replay_init(&self.w, n_bits)

    def __dealloc__(self):
        replay.replay_free(&self.w)

    def check(self, uint64_t n):
        return replay.replay_check(&self.w, n)

    def commit(self, uint64_t n):
        return replay.replay_commit(&self.w, n)

    def grow(self, uint32_t n_bits):
        return replay.replay_grow(&self.w, n_bits)

    def free(self):
        replay.replay_free(&self.w)

    @property
    def next(self):
        return self.w.next

    @property
    def n_bits(self):
        return self.w.n_bits

    @property
    def counters(self):
        return self.w.n_too_old, self.w.n_seen, self.w.n_last


def bench_replay(long rounds):
    """Nanoseconds per check and commit of numbers in order."""
    cdef replay.nc_replay w
    cdef long i
    cdef long no = 0
    cdef int64_t t0
    cdef int64_t t1
    if replay.replay_init(&w, replay.REPLAY_BITS) < 0:
        raise MemoryError
    with nogil:
        t0 = _now_ns()
        for i in range(rounds):
            if not replay.replay_check(&w, <uint64_t>i) or replay.replay_commit(&w, <uint64_t>i) < 0:
                no += 1
        t1 = _now_ns()
    replay.replay_free(&w)
    return (t1 - t0) / <double>rounds, no
