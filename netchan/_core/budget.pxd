# budget: bytes that the streams of a session may hold beyond their floors. Layer: _core, rung c; inline.
# docs/spec/session.md §4.3.
#
# Two things draw on it: windows that grow, and a value longer than its window. A draw must find room in the session and
# in the process (core-decisions 18). One stream of a session, the first that asked in vain, is granted what it lacks
# all the same, so that a value longer than everything left gets through: it has the turn until its value is whole.
# Threads: the holder of the baton; `node_used` is shared by all engines of the process, atomic.

from libc.stdint cimport int64_t, uint64_t, uint8_t

from netchan._core.leaf cimport fetch_add_u64, fetch_sub_u64

ctypedef struct nc_budget:
    int64_t left                    # of the session; below 0: what the turn was granted beyond
    uint64_t* node_used             # borrowed; drawn by all sessions of the process; NULL: not counted
    uint64_t node_most
    uint64_t drawn                  # by this session
    uint64_t parity                 # of that, to make up for losses (parity.pxd)
    uint64_t turn                   # id of the stream whose value is granted to its end; 0: none has the turn
    uint64_t waits                  # streams whose value waits for room
    uint64_t asked                  # how often one had to wait: numbers them
    int64_t rtt                     # ns, of the longest path: how long a window has to last; 0: not known
    uint8_t freed                   # something came back while streams wait


cdef inline void budget_init(nc_budget* b, int64_t session_bytes) noexcept nogil:
    b.left = session_bytes
    b.node_used = NULL
    b.node_most = 0
    b.drawn = b.parity = b.turn = b.waits = b.asked = 0
    b.rtt = 0
    b.freed = 0


# 1: n bytes are drawn, 0: there is no room for them. `force`: drawn in any case.
cdef inline int budget_draw(nc_budget* b, uint64_t n, int force) noexcept nogil:
    if not force and b.left < <int64_t>n:
        return 0
    if b.node_used is not NULL and fetch_add_u64(b.node_used, n) + n > b.node_most and not force:
        fetch_sub_u64(b.node_used, n)
        return 0
    b.left -= <int64_t>n
    b.drawn += n
    return 1


cdef inline void budget_return(nc_budget* b, uint64_t n) noexcept nogil:
    if n == 0:
        return
    if b.node_used is not NULL:
        fetch_sub_u64(b.node_used, n)
    b.left += <int64_t>n
    b.drawn -= n
    if b.waits:
        b.freed = 1


# The session is over: what its streams still hold is not counted for the process any more.
cdef inline void budget_leave(nc_budget* b) noexcept nogil:
    if b.node_used is not NULL:
        fetch_sub_u64(b.node_used, b.drawn)
    b.node_used = NULL
