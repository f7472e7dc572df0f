"""Earliest-deadline tables: one session's fixed slots, and an engine's heap of sessions.

Layer: _core, rung c. No clock: instants are arguments (int64 ns). Contract in ``timer.pxd``.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from netchan._core cimport defs


cdef void timer_init(nc_timers* t) noexcept nogil:
    cdef int i
    t.next_ns = TIMER_NEVER
    for i in range(TIMER_IDS):
        t.at_ns[i] = TIMER_NEVER


cdef inline void _find_next(nc_timers* t) noexcept nogil:
    cdef int64_t best = TIMER_NEVER
    cdef int i
    for i in range(TIMER_IDS):
        if t.at_ns[i] < best:
            best = t.at_ns[i]
    t.next_ns = best


cdef int timer_set(nc_timers* t, uint32_t id, int64_t at_ns) noexcept nogil:
    cdef int64_t was
    if id >= <uint32_t>TIMER_IDS:
        return defs.NC_EINVAL
    was = t.at_ns[id]
    t.at_ns[id] = at_ns
    if at_ns <= t.next_ns:
        t.next_ns = at_ns
    elif was == t.next_ns:                          # the earliest moved back: look for the new one
        _find_next(t)
    return defs.NC_OK


cdef int timer_pop_due(nc_timers* t, int64_t now_ns) noexcept nogil:
    cdef int i
    if t.next_ns > now_ns or t.next_ns == TIMER_NEVER:
        return defs.NC_EAGAIN
    for i in range(TIMER_IDS):
        if t.at_ns[i] == t.next_ns:
            t.at_ns[i] = TIMER_NEVER
            _find_next(t)
            return i
    return defs.NC_EAGAIN


cdef int theap_init(nc_theap* h, uint32_t cap) noexcept nogil:
    memset(h, 0, sizeof(nc_theap))
    if cap == 0:
        return defs.NC_EINVAL
    return theap_reserve(h, cap)


cdef int theap_reserve(nc_theap* h, uint32_t cap) noexcept nogil:
    cdef void* p
    if cap > THEAP_MAX:
        return defs.NC_EINVAL
    if cap <= h.cap:
        return defs.NC_OK
    p = realloc(h.node, cap * sizeof(nc_tnode))
    if p == NULL:
        return defs.NC_ENOMEM
    h.node = <nc_tnode*>p
    p = realloc(h.pos, cap * sizeof(uint32_t))
    if p == NULL:
        return defs.NC_ENOMEM
    h.pos = <uint32_t*>p
    memset(&h.pos[h.cap], 0, (cap - h.cap) * sizeof(uint32_t))
    h.cap = cap
    return defs.NC_OK


cdef void theap_free(nc_theap* h) noexcept nogil:
    free(h.node)
    free(h.pos)
    memset(h, 0, sizeof(nc_theap))


# Carries x up from the hole at i to its place.
cdef inline void _sift_up(nc_theap* h, uint32_t i, nc_tnode x) noexcept nogil:
    cdef uint32_t up
    while i:
        up = (i - 1) >> 1
        if h.node[up].at_ns <= x.at_ns:
            break
        h.node[i] = h.node[up]
        h.pos[h.node[i].idx] = i + 1
        i = up
    h.node[i] = x
    h.pos[x.idx] = i + 1


# Carries x down from the hole at i to its place.
cdef inline void _sift_down(nc_theap* h, uint32_t i, nc_tnode x) noexcept nogil:
    cdef uint32_t kid
    while True:
        kid = 2 * i + 1
        if kid >= h.n:
            break
        if kid + 1 < h.n and h.node[kid + 1].at_ns < h.node[kid].at_ns:
            kid += 1
        if h.node[kid].at_ns >= x.at_ns:
            break
        h.node[i] = h.node[kid]
        h.pos[h.node[i].idx] = i + 1
        i = kid
    h.node[i] = x
    h.pos[x.idx] = i + 1


cdef inline void _place(nc_theap* h, uint32_t i, nc_tnode x) noexcept nogil:
    if i and h.node[(i - 1) >> 1].at_ns > x.at_ns:
        _sift_up(h, i, x)
    else:
        _sift_down(h, i, x)


cdef int theap_set(nc_theap* h, uint32_t idx, int64_t at_ns) noexcept nogil:
    cdef nc_tnode x
    cdef uint32_t i
    if idx >= h.cap:
        return defs.NC_EINVAL
    x.idx = idx
    x.at_ns = at_ns
    i = h.pos[idx]
    if at_ns != TIMER_NEVER:
        if i:
            _place(h, i - 1, x)
        else:
            h.n += 1
            _sift_up(h, h.n - 1, x)
        return defs.NC_OK
    if i:
        h.pos[idx] = 0
        h.n -= 1
        if i - 1 < h.n:                             # the last one fills the hole
            _place(h, i - 1, h.node[h.n])
    return defs.NC_OK


cdef int theap_pop_due(nc_theap* h, int64_t now_ns) noexcept nogil:
    cdef uint32_t idx
    if h.n == 0 or h.node[0].at_ns > now_ns:
        return defs.NC_EAGAIN
    idx = h.node[0].idx
    theap_set(h, idx, TIMER_NEVER)
    return <int>idx
