# modes: what several paths are used for, and so which of them carries the bytes of a stream. Layer: _core, rung i.
# docs/spec/session.md §5.3. Threads: baton.

from libc.stdint cimport uint64_t

from netchan._core.group cimport group_open
from netchan._core.leaf cimport load_acq_u32
from netchan._core.state cimport MODE_PARITY, MODE_STRIPE, nc_end, nc_path, nc_session

cdef enum:
    TRUNK_SHARE = 1024              # most that a stream has waiting when it rides in a record of the trunk

# 1: the next record of e, which may be striped, goes on this path.
cdef int its_turn(nc_session* s, nc_path* p, nc_end* e) noexcept nogil


# 1: what this end has to send now may ride in a record of the trunk.
cdef inline int fits_trunk(nc_end* e) noexcept nogil:
    return e.trunk and e.bound and not e.out_done and not e.out.lossy and e.out.sent > 0 \
        and e.out.appended - e.out.sent <= <uint64_t>TRUNK_SHARE


# 1: bytes of e may overtake those before them, and what is said of them: no more than the inbox puts right again.
cdef inline int may_stripe(const nc_session* s, nc_end* e) noexcept nogil:
    if not load_acq_u32(&e.paired) or not e.out.acked or e.out.lossy or e.out.rendezvous \
            or (fits_trunk(e) and not group_open(e)):
        return 0
    return 1 if s.order is NULL or s.order.floor > e.named_at else 0


# 1: paths beside the one that carries control have data of their own.
cdef inline int spreads(const nc_session* s) noexcept nogil:
    return 1 if s.mode == MODE_STRIPE or s.mode == MODE_PARITY else 0
