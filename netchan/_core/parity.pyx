"""What the receiver of a stream keeps so that lost bytes can be made up for: past bytes, and parity symbols.

Layer: _core, rung d. Baton. See parity.pxd.
Spec: docs/spec/parity.md §2.2.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.budget cimport budget_draw, budget_return, nc_budget


cdef nc_parity_in* parity_new(uint64_t received) noexcept nogil:
    cdef nc_parity_in* q = <nc_parity_in*>calloc(1, sizeof(nc_parity_in))
    if q is not NULL:
        q.first = q.upto = received
    return q


cdef int draw(nc_budget* b, uint64_t n) noexcept nogil:
    if b.parity + n > <uint64_t>PARITY_SESSION_MAX or not budget_draw(b, n, 0):
        return 0
    b.parity += n
    return 1


cdef void give_back(nc_budget* b, uint64_t n) noexcept nogil:
    if b is not NULL:
        b.parity -= n
        budget_return(b, n)


cdef int parity_room(nc_parity_in* q, uint64_t bytes, nc_budget* b) noexcept nogil:
    cdef uint64_t cap = q.cap if q.cap else 1024
    cdef uint64_t at
    cdef const uint8_t* p
    cdef size_t n
    cdef uint8_t* ring
    while cap < bytes:
        cap <<= 1
    if cap == q.cap:
        return defs.NC_OK
    if not draw(b, cap - q.cap):
        return defs.NC_ENOMEM
    ring = <uint8_t*>malloc(cap)
    if ring is NULL:
        give_back(b, cap - q.cap)
        return defs.NC_ENOMEM
    at = q.first
    while at < q.upto:
        n = parity_span(q, at, q.upto, &p)
        if n > cap - (at & (cap - 1)):
            n = cap - (at & (cap - 1))
        memcpy(ring + (at & (cap - 1)), p, n)
        at += n
    free(q.past)
    q.past = ring
    q.drawn += cap - q.cap
    q.cap = cap
    return defs.NC_OK


cdef void parity_push(nc_parity_in* q, const uint8_t* p, size_t n) noexcept nogil:
    cdef size_t k
    if n > q.cap:                               # only the end of it stays
        q.upto += n - q.cap
        p += n - q.cap
        n = q.cap
    while n:
        k = q.cap - <size_t>(q.upto & (q.cap - 1))
        if k > n:
            k = n
        memcpy(q.past + (q.upto & (q.cap - 1)), p, k)
        q.upto += k
        p += k
        n -= k
    if q.upto - q.first > q.cap:
        q.first = q.upto - q.cap


cdef size_t parity_span(nc_parity_in* q, uint64_t at, uint64_t end, const uint8_t** p) noexcept nogil:
    cdef uint64_t n
    if at < q.first or at >= q.upto:
        return 0
    n = q.cap - (at & (q.cap - 1))
    if n > q.upto - at:
        n = q.upto - at
    if n > end - at:
        n = end - at
    p[0] = q.past + (at & (q.cap - 1))
    return <size_t>n


cdef nc_held* parity_hold(nc_parity_in* q, uint64_t start, uint64_t end, uint32_t size, int m, int j, const uint8_t* p,
                          size_t n, nc_budget* b) noexcept nogil:
    cdef nc_held** at = &q.held
    cdef nc_held* h
    cdef uint64_t bytes
    cdef int i
    while at[0] is not NULL and at[0].start < start:
        at = &at[0].next
    h = at[0]
    if h is not NULL and h.start == start:
        if h.end != end or h.size != size or h.n == h.room:
            return NULL
        for i in range(h.n):
            if h.index[i] == j:
                return NULL
    else:
        while q.n_held >= <uint32_t>PARITY_HELD_MAX:
            if at == &q.held:
                return NULL                     # older than all that are kept
            if at == &q.held.next:
                at = &q.held
            parity_let_go(q, q.held, b)
        if m > PARITY_ROWS_MAX:
            m = PARITY_ROWS_MAX
        bytes = sizeof(nc_held) + <uint64_t>m * n
        if not draw(b, bytes):
            return NULL
        h = <nc_held*>calloc(1, <size_t>bytes)
        if h is NULL:
            give_back(b, bytes)
            return NULL
        q.drawn += bytes
        h.rows = <uint8_t*>(h + 1)
        h.start = start
        h.end = end
        h.size = size
        h.stride = <uint32_t>n
        h.room = <uint8_t>m
        h.next = at[0]
        at[0] = h
        q.n_held += 1
    h.index[h.n] = <uint8_t>j
    memcpy(h.rows + <size_t>h.n * h.stride, p, n)
    h.n += 1
    return h


cdef void parity_let_go(nc_parity_in* q, nc_held* h, nc_budget* b) noexcept nogil:
    cdef nc_held** at = &q.held
    cdef uint64_t bytes = sizeof(nc_held) + <uint64_t>h.room * h.stride
    while at[0] != h:
        at = &at[0].next
    at[0] = h.next
    q.n_held -= 1
    q.drawn -= bytes
    free(h)
    give_back(b, bytes)


cdef void parity_end(nc_parity_in* q, nc_budget* b) noexcept nogil:
    if q is NULL:
        return
    while q.held is not NULL:
        parity_let_go(q, q.held, b)
    give_back(b, q.drawn)
    free(q.past)
    free(q)
