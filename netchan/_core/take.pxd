# take: whole messages out of the inbox, for the application; which of them nobody is to get any more. Layer: _core,
# rung f. docs/spec/session.md §2, §4, §4.2; docs/spec/value.md.
#
# 1. The application looks (in_peek), says that the message is its (in_claim), copies it and passes it (in_advance).
#    Or many at once, where they lie: in_run … in_run_end.
# 2. Where messages may be dropped (nc_in.lossy) the engine passes some too (in_drop): each step that moves the head is
#    then under the leaf lock, and the head that is being copied is `held`. There the head is never a mark of SKIP.
# Threads and ownership: as in inbox.pxd.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from netchan._core.frame cimport plain_head
from netchan._core.inbox cimport nc_in
from netchan._core.segment cimport nc_seg

ctypedef struct nc_msg:
    nc_seg* seg                     # where the body starts
    size_t pos
    uint64_t len                    # bytes of the body
    uint64_t total                  # bytes to advance: head, ext, body
    uint64_t number
    uint64_t skip                   # messages for which this stands that will never come; 0: it is a message
    uint8_t deliver                 # 1: the sender waits for `taken`

ctypedef struct nc_run:             # messages that lie whole, one behind the other, in the head segment
    const uint8_t* start
    const uint8_t* at               # the next one
    const uint8_t* end              # of the bytes that lie together
    const uint8_t* behind           # of the next one
    uint64_t all                    # complete messages from `start` on, here or in later segments
    uint64_t left                   # of these, not passed

# Application: the next message, whole. NC_OK; NC_EAGAIN none yet; NC_ECLOSED none and over (see s.over).
cdef int in_peek(nc_in* s, nc_msg* m) noexcept nogil
cdef void in_copy(nc_in* s, const nc_msg* m, uint8_t* dst) noexcept nogil
# Application: message m, just peeked, is taken or passed over from now on: 1 it is ours, 0 its sender took it back,
# NC_EAGAIN it was dropped meanwhile: look again.
cdef int in_claim(nc_in* s, const nc_msg* m) noexcept nogil
# Application: the message m is taken. Bits: 1 POS is due now, 2 POS would help soon.
cdef int in_advance(nc_in* s, const nc_msg* m) noexcept nogil
# Application: many small messages in one step: in_run (1: there may be some), then for each run_next (1: its body is at
# *p, borrowed until in_run_end) and run_pass, then in_run_end (bits as in_advance). No lock is held: the GIL has to be,
# from first to last, and no Python code may run there.
cdef int in_run(nc_in* s, nc_run* r) noexcept nogil
cdef int in_run_end(nc_in* s, const nc_run* r) noexcept nogil


cdef inline int run_next(nc_run* r, const uint8_t** p, uint64_t* n) noexcept nogil:
    cdef size_t used = plain_head(r.at, <size_t>(r.end - r.at), n) if r.left else 0
    if used == 0:
        return 0
    p[0] = r.at + used
    r.behind = p[0] + n[0]
    return 1


cdef inline void run_pass(nc_run* r) noexcept nogil:
    r.at = r.behind
    r.left -= 1


cdef uint64_t in_pending(nc_in* s) noexcept nogil                       # complete messages not yet taken
cdef uint64_t in_discard(nc_in* s) noexcept nogil                       # application: throws all away, returns messages
# Engine: drops the oldest messages beyond nc_in.keep. Only where nc_in.lossy.
cdef void in_drop(nc_in* s) noexcept nogil
# Application: drops messages at the head whose time is over. Bits as in_advance.
cdef int in_expire(nc_in* s, int64_t now_ns) noexcept nogil
