# timer: earliest-deadline tables. Layer: _core, rung c. Knows no clock: every instant is an argument, int64 ns.
#
# Two sizes of the same thing:
# 1. nc_timers: one session's deadlines, TIMER_IDS fixed slots by small id, the earliest kept at hand.
# 2. nc_theap: an engine's sessions by index, a binary heap with positions; grows up to THEAP_MAX entries.
# A deadline that is not set is TIMER_NEVER. Setting TIMER_NEVER clears. A deadline is due when at_ns <= now_ns.
# Threads: the holder of the baton; no lock inside.

from libc.stdint cimport int64_t, uint32_t

cdef extern from *:
    """
    #define NC_TIMER_NEVER INT64_MAX
    """
    const int64_t TIMER_NEVER "NC_TIMER_NEVER"

cdef enum:
    TIMER_IDS = 8                       # deadlines of one session; ids are given names by the session
    THEAP_MAX = 65536                   # sessions of one engine: bounds the heap at 1.25 MiB

ctypedef struct nc_timers:
    int64_t next_ns                     # earliest of at_ns; TIMER_NEVER when none is set
    int64_t at_ns[TIMER_IDS]

ctypedef struct nc_tnode:
    int64_t at_ns
    uint32_t idx                        # session index

ctypedef struct nc_theap:
    nc_tnode* node                      # owned; node[0] is the earliest; n in use
    uint32_t* pos                       # owned; by idx: place in node plus 1, 0 = not set
    uint32_t n                          # deadlines set
    uint32_t cap                        # indices 0..cap-1 may be used

# All clear.
cdef void timer_init(nc_timers* t) noexcept nogil
# Sets or moves the deadline of id. NC_EINVAL: id >= TIMER_IDS.
cdef int timer_set(nc_timers* t, uint32_t id, int64_t at_ns) noexcept nogil
# The earliest due id (smallest id among equals), cleared as it is returned; NC_EAGAIN when nothing is due.
cdef int timer_pop_due(nc_timers* t, int64_t now_ns) noexcept nogil


cdef inline int timer_clear(nc_timers* t, uint32_t id) noexcept nogil:
    return timer_set(t, id, TIMER_NEVER)


# Deadline of id; TIMER_NEVER when it is clear or id is out of range.
cdef inline int64_t timer_at(const nc_timers* t, uint32_t id) noexcept nogil:
    return t.at_ns[id] if id < <uint32_t>TIMER_IDS else TIMER_NEVER


# Earliest deadline; TIMER_NEVER when none is set.
cdef inline int64_t timer_next(const nc_timers* t) noexcept nogil:
    return t.next_ns


# Empty heap for indices below cap (1..THEAP_MAX). NC_OK, NC_EINVAL, NC_ENOMEM.
cdef int theap_init(nc_theap* h, uint32_t cap) noexcept nogil
# Indices below cap from now on (never shrinks). NC_OK, NC_EINVAL (above THEAP_MAX), NC_ENOMEM (nothing changed).
cdef int theap_reserve(nc_theap* h, uint32_t cap) noexcept nogil
# Gives the memory back; harmless on a zeroed struct.
cdef void theap_free(nc_theap* h) noexcept nogil
# Sets or moves the deadline of idx, O(log n). NC_EINVAL: idx >= cap.
cdef int theap_set(nc_theap* h, uint32_t idx, int64_t at_ns) noexcept nogil
# The earliest due index, cleared as it is returned; NC_EAGAIN when nothing is due. Order among equals is not stated.
cdef int theap_pop_due(nc_theap* h, int64_t now_ns) noexcept nogil


cdef inline int theap_clear(nc_theap* h, uint32_t idx) noexcept nogil:
    return theap_set(h, idx, TIMER_NEVER)


cdef inline int64_t theap_next(const nc_theap* h) noexcept nogil:
    return h.node[0].at_ns if h.n else TIMER_NEVER


# Deadline of idx; TIMER_NEVER when it is clear or out of range.
cdef inline int64_t theap_at(const nc_theap* h, uint32_t idx) noexcept nogil:
    return h.node[h.pos[idx] - 1].at_ns if idx < h.cap and h.pos[idx] else TIMER_NEVER
