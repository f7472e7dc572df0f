# beat: when a path on which nothing is heard is tried with PING. Layer: _core, rung h; inline, baton. Spec:
# docs/spec/session.md §5.8.
#
# 1. What is heard puts the next beat off (beat_heard), so under traffic there is none.
# 2. Beats of one machine fall on the same moments, one a second: a thousand idle sessions wake their engine once for
#    all that are due. Those of the side that was dialled lie between: it hears the other one's first, and has none to
#    send.
# 3. In a session that is used a path beside others beats by its round trip, so that it is known to be good when it is
#    needed; in one that rests beats become rare.

from libc.stdint cimport int64_t

from netchan._core.state cimport nc_path, nc_session

cdef enum:
    BEAT_TRIPS = 8                  # round trips between two beats
    BEAT_GRID_NS = 1000000000       # beats fall on multiples of this, and are no closer than this beside other paths


# Between two beats while the session is used.
cdef inline int64_t beat_base(const nc_session* s, const nc_path* p) noexcept nogil:
    cdef int64_t gap = s.mine.heartbeat_ns
    cdef int64_t trips = BEAT_TRIPS * (p.srtt + 4 * p.rttvar)
    if trips > gap:                             # else a beat would go out before the last one's answer may be missed
        return trips if trips < 60 * <int64_t>BEAT_GRID_NS else 60 * <int64_t>BEAT_GRID_NS
    if s.n_paths < 2 or p.srtt == 0 or gap <= BEAT_GRID_NS:
        return gap
    return trips if trips > BEAT_GRID_NS else BEAT_GRID_NS


cdef inline int64_t beat_due(const nc_session* s, int64_t now, int64_t gap) noexcept nogil:
    cdef int64_t at = now + gap
    cdef int64_t late = BEAT_GRID_NS // 2 if s.role else 0
    if gap < BEAT_GRID_NS:
        return at
    return (at - late + BEAT_GRID_NS // 2) // BEAT_GRID_NS * BEAT_GRID_NS + late


cdef inline void beat_heard(const nc_session* s, nc_path* p, int64_t now) noexcept nogil:
    p.ping_at = beat_due(s, now, p.ping_gap)


# A beat was sent, or one of the other side was heard: both count as one.
cdef inline void beat_over(const nc_session* s, nc_path* p, int64_t now) noexcept nogil:
    cdef int64_t gap = beat_base(s, p)
    if now - s.used_at + BEAT_GRID_NS // 2 >= p.ping_gap:       # all of it rests; beats may come early
        gap = 2 * p.ping_gap
        if gap > 60 * <int64_t>BEAT_GRID_NS:
            gap = 60 * <int64_t>BEAT_GRID_NS
    p.ping_gap = gap
    p.ping_at = beat_due(s, now, gap)


# Something came that is neither PING nor an answer: the session is used.
cdef inline void beat_used(nc_session* s, int64_t now) noexcept nogil:
    cdef nc_path* p = s.paths
    cdef int64_t base, at
    if s.used_at == 0 or now - s.used_at >= BEAT_GRID_NS:
        while p is not NULL:
            base = beat_base(s, p)
            if p.ping_gap > base:
                p.ping_gap = base
                at = beat_due(s, now, base)
                if at < p.ping_at:
                    p.ping_at = at
            p = p.next
    s.used_at = now
