# modes: what several paths are used for, and so which of them carries the bytes of a stream. Layer: _core, rung k.
# docs/spec/session.md §5.3. Threads: baton.

from libc.stdint cimport int64_t, uint64_t, uint8_t

from netchan._core.group cimport group_open
from netchan._core.leaf cimport load_acq_u32
from netchan._core.state cimport (
    CTL_POS, MODE_MIRROR, MODE_PARITY, MODE_STRIPE, OWN_MIRRORS, OWN_SPREADS, SESSION_UP, copies_all,
    nc_end, nc_path, nc_session,
)

cdef enum:
    TRUNK_SHARE = 1024              # most that a stream has waiting when it rides in a record of the trunk

# 1: the next record of e, which may be striped, goes on this path.
cdef int its_turn(nc_session* s, nc_path* p, nc_end* e) noexcept nogil
# A stream's own mode from now on; -1: the session's. NC_OK or NC_ENOMEM.
cdef int stream_mode(nc_session* s, nc_end* e, int mode, int k, int m, int64_t now_ns) noexcept nogil
cdef void stream_use(nc_session* s, nc_end* e, int mode, int k, int m) noexcept nogil   # what was picked for it


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
    return 1 if s.mode == MODE_STRIPE or s.mode == MODE_PARITY or s.own_modes & <uint8_t>OWN_SPREADS else 0


# 1: they have copies.
cdef inline int mirrors(const nc_session* s) noexcept nogil:
    return 1 if copies_all(s) or s.own_modes & <uint8_t>OWN_MIRRORS else 0


# 1: what one path has said may give another one its turn.
cdef inline int takes_turns(const nc_session* s) noexcept nogil:
    return 1 if s.mode == MODE_PARITY or s.own_modes & <uint8_t>OWN_SPREADS else 0


# 1: what is said of e's incoming stream in any order goes on paths beside the one that carries control, too: its data
# come on one of them. Where all is mirrored it goes there anyway.
cdef inline int heard_beside(const nc_session* s, nc_end* e) noexcept nogil:
    if s.n_paths < 2 or e.in_ is NULL or not e.in_.beside or e.in_done or e.in_.rendezvous:
        return 0
    return 1 if s.mode != MODE_MIRROR and s.state == SESSION_UP and not load_acq_u32(&e.in_.over) else 0


# 1: so does the POS that is to be said.
cdef inline int goes_beside(const nc_session* s, nc_end* e) noexcept nogil:
    return 1 if e.ctl & <uint8_t>CTL_POS and heard_beside(s, e) else 0


# 1: p, which does not carry control, may have copies to make of what the one that does has said.
cdef inline int copies_due(const nc_session* s, const nc_path* p) noexcept nogil:
    return 1 if mirrors(s) or p.copied < s.control.beside_upto else 0
