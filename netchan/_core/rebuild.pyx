"""Lost bytes of a stream, made up for out of parity symbols.

Layer: _core, rung f. Baton. Flow: rebuild_symbol -> parity_hold -> solve -> in_data; rebuild_held -> solve.
Spec: docs/spec/parity.md §2.2.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from netchan._core cimport defs
from netchan._core.budget cimport nc_budget
from netchan._core.erasure cimport parity_add, parity_gaps, parity_invert, parity_solve
from netchan._core.frame cimport nc_frame
from netchan._core.inbox cimport in_data, nc_in
from netchan._core.parity cimport (
    PARITY_TRIES_MAX, nc_held, nc_parity_in, parity_hold, parity_let_go, parity_new, parity_room, parity_span,
)
from netchan._core.segment cimport nc_seg


# 1: enough symbols are here for every column of the group.
cdef int solvable(nc_in* s, nc_held* h) noexcept nogil:
    cdef uint8_t[31] missing
    cdef size_t column = 0
    cdef int e
    while column < h.size:
        e = parity_gaps(&s.gaps, s.received, h.start, h.end, h.size, column, missing, &column)
        if e < 0 or e > h.n:
            return 0
    return 1


# What is here of the group comes off the symbols: they become sums of what is missing.
cdef void take_off(nc_in* s, nc_held* h, uint8_t** rows) noexcept nogil:
    cdef uint64_t at = h.start
    cdef uint64_t end
    cdef const uint8_t* p
    cdef size_t n
    cdef nc_seg* seg = s.ooo
    end = s.received if s.received < h.end else h.end
    while at < end:
        n = parity_span(s.parity, at, end, &p)
        parity_add(rows, h.index, h.n, h.size, <size_t>(at - h.start), p, n)
        at += n
    while seg is not NULL and seg.start < h.end:
        at = seg.start if seg.start > h.start else h.start
        end = seg.start + seg.len if seg.start + seg.len < h.end else h.end
        if at < end:
            parity_add(rows, h.index, h.n, h.size, <size_t>(at - h.start), seg.data + (at - seg.start),
                       <size_t>(end - at))
        seg = seg.next


# 1: the group is whole now; 0: too little is here; or a negative code.
cdef int solve(nc_in* s, nc_held* h, uint64_t max_message) noexcept nogil:
    cdef uint8_t* rows[16]              # PARITY_ROWS_MAX
    cdef uint8_t* here[16]
    cdef uint8_t[256] inverse           # PARITY_MISSING_MAX squared
    cdef uint8_t[31] missing            # PARITY_INDEX_MAX + 1
    cdef size_t column = 0, stop = 0, n
    cdef uint64_t at
    cdef int i, e, rc
    if not solvable(s, h):
        return 0
    for i in range(h.n):
        rows[i] = h.rows + <size_t>i * h.stride
    take_off(s, h, rows)
    # Columns do not touch each other, so what one brings may be given away before the next is looked at.
    while column < h.size:
        e = parity_gaps(&s.gaps, s.received, h.start, h.end, h.size, column, missing, &stop)
        if e > 0:
            for i in range(e):
                here[i] = rows[i] + column
            if parity_invert(missing, h.index, e, inverse) < 0 or parity_solve(here, inverse, e, stop - column) < 0:
                return defs.NC_EFRAME
            for i in range(e):
                at = h.start + <uint64_t>missing[i] * h.size + column
                n = stop - column
                rc = in_data(s, at, here[i], n, 0, max_message)
                if rc < 0:
                    return rc if rc != defs.NC_EAGAIN else 1       # no room: it has to come again
        column = stop
    return 1


cdef int rebuild_held(nc_in* s, uint64_t at, uint64_t upto, nc_budget* b, uint64_t max_message) noexcept nogil:
    cdef nc_parity_in* q = s.parity
    cdef nc_held* h = q.held
    cdef nc_held* following
    cdef int rc
    cdef int any = 0
    while h is not NULL and h.start < upto:
        following = h.next
        rc = 1
        if at >= h.end > s.received:
            rc = 0                              # nothing new
        elif h.end > s.received and h.start >= q.first and not s.stopped:
            rc = solve(s, h, max_message)
            h.tries += 1
            if rc > 0:
                any = 1
            elif rc == 0 and h.tries == <uint8_t>PARITY_TRIES_MAX:
                rc = 1
        if rc:
            parity_let_go(q, h, b)
            if rc < 0:
                return rc
        h = following
    return any


cdef int rebuild_symbol(nc_in* s, const nc_frame* f, nc_budget* b, uint64_t max_message) noexcept nogil:
    cdef uint64_t end = f.a + f.c
    if f.len and end > s.granted_bytes:
        return defs.NC_ECREDIT
    if f.len and s.has_final and end > s.final:
        return defs.NC_ESTATE
    if s.stopped or not s.preface_done:
        return 0
    if s.parity is NULL:
        s.parity = parity_new(s.received)
        if s.parity is NULL:
            return defs.NC_ENOMEM
    # Of the groups that are under way the oldest may begin two behind the newest.
    if parity_room(s.parity, 2 * f.c, b) < 0 or f.len == 0 or end <= s.received:
        return 0
    if parity_hold(s.parity, f.a, end, <uint32_t>f.b, <int>f.d, <int>f.n, f.data, f.len, b) is NULL:
        return 0
    return rebuild_held(s, f.a, end, b, max_message)
