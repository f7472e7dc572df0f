"""Opens the shared-memory rungs of the core to the tests: leaf lock, atomics, pool, rings. Test-only, never in a wheel.

Layer: beside _core. Nothing of the package may import it. The ``hammer_*`` functions run without the GIL and are
called from several Python threads at once; they are also what the thread sanitizer looks at (tests/fuzz/tsan.sh).
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from netchan._core cimport leaf, pool, ring

POOL_HEADROOM = pool.POOL_HEADROOM
POOL_TAILROOM = pool.POOL_TAILROOM
POOL_PAYLOAD_MAX = pool.POOL_PAYLOAD_MAX
POOL_BLOCK_HEAD = pool.POOL_BLOCK_HEAD
POOL_DEBUG = pool.POOL_DEBUG
RING_SLOTS_MAX = ring.RING_SLOTS_MAX


cdef extern from "<sched.h>" nogil:
    int sched_yield()


cdef inline int64_t _now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


# --- leaf ---------------------------------------------------------------------------------------------------------

cdef class Leaf:
    """One leaf lock, with something to protect."""

    cdef leaf.nc_leaf l
    cdef uint64_t low
    cdef uint64_t high
    cdef uint8_t[4096] src
    cdef uint8_t[4096] dst

    def __cinit__(self):
        leaf.leaf_init(&self.l)

    def lock(self):
        with nogil:
            leaf.leaf_lock(&self.l)

    def trylock(self):
        return leaf.leaf_trylock(&self.l)

    def unlock(self):
        leaf.leaf_unlock(&self.l)

    @property
    def held(self):
        return leaf.leaf_is_held(&self.l)

    @property
    def word(self):
        return leaf.load_rlx_u32(&self.l.word)

    def hammer(self, long rounds, size_t copy_bytes):
        """Adds one to two plain counters under the lock; returns how often they were seen unequal (0 if it locks)."""
        cdef long _i
        cdef long torn = 0
        with nogil:
            for _i in range(rounds):
                leaf.leaf_lock(&self.l)
                if self.low != self.high:
                    torn += 1
                self.low += 1
                memcpy(self.dst, self.src, copy_bytes if copy_bytes < sizeof(self.dst) else sizeof(self.dst))
                self.high += 1
                leaf.leaf_unlock(&self.l)
        return torn

    @property
    def counts(self):
        return self.low, self.high

    def bench(self, long rounds):
        """Nanoseconds per uncontended lock and unlock."""
        cdef long _i
        cdef int64_t t0
        cdef int64_t t1
        with nogil:
            t0 = _now_ns()
            for _i in range(rounds):
                leaf.leaf_lock(&self.l)
                leaf.leaf_unlock(&self.l)
            t1 = _now_ns()
        return (t1 - t0) / <double>rounds


def atomics_u32(uint32_t start, uint32_t v):
    """Every u32 helper once, each from ``start``: (name -> (returned, value after))."""
    cdef uint32_t x
    cdef dict out = {}
    x = start
    r = leaf.fetch_add_u32(&x, v)
    out["add"] = (r, x)
    x = start
    r = leaf.fetch_sub_u32(&x, v)
    out["sub"] = (r, x)
    x = start
    r = leaf.fetch_or_u32(&x, v)
    out["or"] = (r, x)
    x = start
    r = leaf.fetch_and_u32(&x, v)
    out["and"] = (r, x)
    x = start
    r = leaf.xchg_u32(&x, v)
    out["xchg"] = (r, x)
    x = start
    r = leaf.cas_u32(&x, start, v)
    out["cas_hit"] = (r, x)
    x = start
    r = leaf.cas_u32(&x, start ^ 1, v)
    out["cas_miss"] = (r, x)
    leaf.store_rlx_u32(&x, v)
    out["rlx"] = (leaf.load_rlx_u32(&x), x)
    leaf.store_rel_u32(&x, start)
    out["rel"] = (leaf.load_acq_u32(&x), x)
    leaf.store_seq_u32(&x, v)
    out["seq"] = (leaf.load_seq_u32(&x), x)
    return out


def atomics_u64(uint64_t start, uint64_t v):
    """As atomics_u32, for u64."""
    cdef uint64_t x
    cdef dict out = {}
    x = start
    r = leaf.fetch_add_u64(&x, v)
    out["add"] = (r, x)
    x = start
    r = leaf.fetch_sub_u64(&x, v)
    out["sub"] = (r, x)
    x = start
    r = leaf.xchg_u64(&x, v)
    out["xchg"] = (r, x)
    x = start
    r = leaf.cas_u64(&x, start, v)
    out["cas_hit"] = (r, x)
    x = start
    r = leaf.cas_u64(&x, start ^ 1, v)
    out["cas_miss"] = (r, x)
    leaf.store_rlx_u64(&x, v)
    out["rlx"] = (leaf.load_rlx_u64(&x), x)
    leaf.store_rel_u64(&x, start)
    out["rel"] = (leaf.load_acq_u64(&x), x)
    leaf.store_seq_u64(&x, v)
    out["seq"] = (leaf.load_seq_u64(&x), x)
    return out


# --- pool ---------------------------------------------------------------------------------------------------------

cdef class Pool:
    """One pool. Blocks are named by small numbers here; a number is one holder's pointer."""

    cdef pool.nc_pool p
    cdef pool.nc_buf** slot
    cdef uint32_t n_slots
    cdef readonly int init_rc

    def __cinit__(self, uint64_t max_bytes, uint64_t cache_bytes, uint32_t n_slots=1024):
        self.slot = <pool.nc_buf**>malloc(n_slots * sizeof(void*))
        if self.slot == NULL:
            raise MemoryError
        memset(self.slot, 0, n_slots * sizeof(void*))
        self.n_slots = n_slots
        memset(&self.p, 0, sizeof(self.p))
        self.init_rc = pool.pool_init(&self.p, max_bytes, cache_bytes)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.n_slots):
            pool.pool_put(&self.slot[i])
        pool.pool_close(&self.p)
        free(self.slot)

    cdef pool.nc_buf* _at(self, uint32_t i) except NULL:
        if i >= self.n_slots or self.slot[i] == NULL:
            raise IndexError(i)
        return self.slot[i]

    def get(self, uint32_t i, uint32_t payload_bytes):
        """1 when slot i now holds a buffer, 0 when the pool refused."""
        if i >= self.n_slots or self.slot[i] != NULL:
            raise IndexError(i)
        self.slot[i] = pool.pool_get(&self.p, payload_bytes)
        return 1 if self.slot[i] != NULL else 0

    def ref(self, uint32_t i, uint32_t j):
        if j >= self.n_slots or self.slot[j] != NULL:
            raise IndexError(j)
        self.slot[j] = pool.buf_ref(self._at(i))

    def put(self, uint32_t i):
        """Releases slot i (which may be empty); True when the pointer is cleared afterwards."""
        if i >= self.n_slots:
            raise IndexError(i)
        pool.pool_put(&self.slot[i])
        return self.slot[i] == NULL

    def put_twice(self, uint32_t i):
        """A faulty holder: releases slot i and then once more through a pointer it kept."""
        cdef pool.nc_buf* kept = self._at(i)
        pool.pool_put(&self.slot[i])
        pool.pool_put(&kept)

    def close(self):
        return pool.pool_close(&self.p)

    def trim(self):
        return pool.pool_trim(&self.p)

    def stats(self):
        cdef pool.nc_pool_stats st
        pool.pool_stats(&self.p, &st)
        return dict(
            used=[st.used[k] for k in range(pool.POOL_CLASSES)],
            cached=[st.cached[k] for k in range(pool.POOL_CLASSES)],
            bytes=st.bytes, n_reused=st.n_reused, n_made=st.n_made, n_failed=st.n_failed, n_bad_puts=st.n_bad_puts,
        )

    def info(self, uint32_t i):
        cdef pool.nc_buf* b = self._at(i)
        return dict(
            refs=b.refs, sole=pool.buf_is_sole(b), len=b.len, head=pool.buf_headroom(b), tail=pool.buf_tailroom(b),
            cap=b.cap, cls=b.cls, next_is_null=b.next == NULL, aligned=<size_t>pool.buf_data(b) % 64 == 0,
        )

    def push_head(self, uint32_t i, bytes data):
        cdef uint8_t* at = pool.buf_push_head(self._at(i), <uint32_t>len(data))
        if at == NULL:
            return 0
        memcpy(at, <const uint8_t*>data, len(data))
        return 1

    def push_tail(self, uint32_t i, bytes data):
        cdef uint8_t* at = pool.buf_push_tail(self._at(i), <uint32_t>len(data))
        if at == NULL:
            return 0
        memcpy(at, <const uint8_t*>data, len(data))
        return 1

    def pull_head(self, uint32_t i, uint32_t n):
        return pool.buf_pull_head(self._at(i), n)

    def pull_tail(self, uint32_t i, uint32_t n):
        return pool.buf_pull_tail(self._at(i), n)

    def reset(self, uint32_t i):
        pool.buf_reset(self._at(i))

    def data(self, uint32_t i):
        cdef pool.nc_buf* b = self._at(i)
        return (<const char*>pool.buf_data(b))[:b.len]

    def hammer(self, long rounds, uint32_t payload_bytes, uint8_t mark):
        """Get, fill with ``mark``, share, release, look again; returns how often a foreign byte was seen."""
        cdef long _i
        cdef long bad = 0
        cdef pool.nc_buf* b
        cdef pool.nc_buf* c
        cdef uint8_t* at
        with nogil:
            for _i in range(rounds):
                b = pool.pool_get(&self.p, payload_bytes)
                if b == NULL:
                    continue
                at = pool.buf_push_tail(b, payload_bytes)
                memset(at, mark, payload_bytes)
                c = pool.buf_ref(b)
                pool.pool_put(&b)
                if at[0] != mark or at[payload_bytes - 1] != mark or not pool.buf_is_sole(c):
                    bad += 1
                pool.pool_put(&c)
        return bad

    def bench(self, long rounds, uint32_t payload_bytes):
        """Nanoseconds per get and put of a kept block."""
        cdef long _i
        cdef pool.nc_buf* b
        cdef int64_t t0
        cdef int64_t t1
        with nogil:
            t0 = _now_ns()
            for _i in range(rounds):
                b = pool.pool_get(&self.p, payload_bytes)
                pool.pool_put(&b)
            t1 = _now_ns()
        return (t1 - t0) / <double>rounds


# --- rings --------------------------------------------------------------------------------------------------------

cdef class Spsc:
    """One single-producer ring."""

    cdef ring.nc_spsc r
    cdef readonly int init_rc

    def __cinit__(self, uint32_t n_slots):
        self.init_rc = ring.spsc_init(&self.r, n_slots)

    def __dealloc__(self):
        ring.spsc_free(&self.r)

    def __len__(self):
        return ring.spsc_len(&self.r)

    def start_at(self, uint64_t index):
        """Moves the empty ring's indices, to see them wrap."""
        self.r.head = self.r.tail = self.r.head_seen = self.r.tail_seen = index

    def push(self, uint64_t a, uint64_t b):
        return ring.spsc_push(&self.r, a, b)

    def pop(self):
        cdef uint64_t a = 0
        cdef uint64_t b = 0
        cdef int rc = ring.spsc_pop(&self.r, &a, &b)
        return rc, a, b

    def hammer_push(self, uint64_t n):
        """Pushes (i, ~i) for i in 0..n-1, yielding while full."""
        cdef uint64_t i
        with nogil:
            for i in range(n):
                while ring.spsc_push(&self.r, i, ~i) != 0:
                    sched_yield()

    def hammer_pop(self, uint64_t n):
        """Pops n descriptors; returns how many were not the next one, whole."""
        cdef uint64_t i
        cdef uint64_t a = 0
        cdef uint64_t b = 0
        cdef uint64_t bad = 0
        with nogil:
            for i in range(n):
                while ring.spsc_pop(&self.r, &a, &b) != 0:
                    sched_yield()
                if a != i or b != ~i:
                    bad += 1
        return bad

    def bench(self, long rounds):
        """Nanoseconds per push and pop, one thread."""
        cdef long i
        cdef uint64_t a = 0
        cdef uint64_t b = 0
        cdef int64_t t0
        cdef int64_t t1
        with nogil:
            t0 = _now_ns()
            for i in range(rounds):
                ring.spsc_push(&self.r, <uint64_t>i, a)
                ring.spsc_pop(&self.r, &a, &b)
            t1 = _now_ns()
        return (t1 - t0) / <double>rounds


cdef class Mpsc:
    """One many-producer ring."""

    cdef ring.nc_mpsc r
    cdef readonly int init_rc

    def __cinit__(self, uint32_t n_slots):
        self.init_rc = ring.mpsc_init(&self.r, n_slots)

    def __dealloc__(self):
        ring.mpsc_free(&self.r)

    def __len__(self):
        return ring.mpsc_len(&self.r)

    def push(self, uint64_t a, uint64_t b):
        return ring.mpsc_push(&self.r, a, b)

    def pop(self):
        cdef uint64_t a = 0
        cdef uint64_t b = 0
        cdef int rc = ring.mpsc_pop(&self.r, &a, &b)
        return rc, a, b

    def claim_only(self):
        """What a producer that lost its processor between claim and fill leaves behind; returns its position."""
        cdef uint64_t pos = self.r.tail
        if self.r.cell[pos & self.r.mask].seq != pos:
            raise IndexError("full")
        self.r.tail = pos + 1
        return pos

    def fill(self, uint64_t pos, uint64_t a, uint64_t b):
        """The producer of claim_only goes on."""
        self.r.cell[pos & self.r.mask].a = a
        self.r.cell[pos & self.r.mask].b = b
        leaf.store_rel_u64(&self.r.cell[pos & self.r.mask].seq, pos + 1)

    def hammer_push(self, uint64_t who, uint64_t n):
        """Pushes (who, i) for i in 0..n-1, yielding while full."""
        cdef uint64_t i
        with nogil:
            for i in range(n):
                while ring.mpsc_push(&self.r, who, i) != 0:
                    sched_yield()

    def hammer_pop(self, uint64_t n_producers, uint64_t n_each):
        """Pops all; returns how many were not the next one of their producer."""
        cdef uint64_t[16] at
        cdef uint64_t _i
        cdef uint64_t a = 0
        cdef uint64_t b = 0
        cdef uint64_t bad = 0
        if n_producers > 16:
            raise ValueError("at most 16 producers")
        memset(at, 0, sizeof(at))
        with nogil:
            for _i in range(n_producers * n_each):
                while ring.mpsc_pop(&self.r, &a, &b) != 0:
                    sched_yield()
                if a >= n_producers or at[a] != b:
                    bad += 1
                else:
                    at[a] += 1
        return bad

    def bench(self, long rounds):
        """Nanoseconds per push and pop, one thread."""
        cdef long i
        cdef uint64_t a = 0
        cdef uint64_t b = 0
        cdef int64_t t0
        cdef int64_t t1
        with nogil:
            t0 = _now_ns()
            for i in range(rounds):
                ring.mpsc_push(&self.r, <uint64_t>i, a)
                ring.mpsc_pop(&self.r, &a, &b)
            t1 = _now_ns()
        return (t1 - t0) / <double>rounds
