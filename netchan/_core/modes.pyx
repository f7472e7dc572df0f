"""Which path carries the next bytes of a stream.

Layer: _core, rung i. Baton. See modes.pxd.
Spec: docs/spec/session.md §5.3.
"""

from libc.stdint cimport uint64_t

from netchan._core cimport defs
from netchan._core.group cimport group_begin, group_path
from netchan._core.rate cimport path_arrival, path_rate
from netchan._core.state cimport MODE_STRIPE, nc_end, nc_path, nc_session


# 1: another path would bring all that e has to send before this one brings a record: e waits for that path (earliest
# completion first, Lim et al. 2017). Nobody waits for ever: the path that would be first of all waits for none, and
# what fills it up is acknowledged.
cdef int another_first(const nc_session* s, const nc_path* p, const nc_end* e) noexcept nogil:
    cdef const nc_path* q = s.paths
    cdef uint64_t waits = e.out.appended - e.out.sent
    cdef uint64_t record = waits if waits < <uint64_t>defs.RECORD_BODY_DEFAULT else defs.RECORD_BODY_DEFAULT
    cdef double here = path_arrival(p, record)
    while q is not NULL:
        if q != p and not q.suspect and path_rate(q) > 0.0 and path_arrival(q, waits) < here:
            return 1
        q = q.next
    return 0


# 1: the next record of e goes on this path.
cdef int its_turn(nc_session* s, nc_path* p, nc_end* e) noexcept nogil:
    if s.mode == MODE_STRIPE:
        return 0 if another_first(s, p, e) else 1
    group_begin(s, e)
    return 1 if group_path(s, e) == p else 0
