# parity: what the receiver of a stream keeps to make up for bytes that are lost: those that came last, and parity
# symbols whose group is not whole. Layer: _core, rung d. docs/spec/parity.md §2.2.
#
# 1. parity_room makes the ring of past bytes longer; parity_push puts in what has come in order.
# 2. parity_hold keeps a symbol. Solving is above the inbox (rebuild.pxd).
# Threads: baton. Ownership: nc_parity_in owns its ring and groups. Bytes are drawn on the budget of the session and
# return with parity_end.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from netchan._core.budget cimport nc_budget

cdef enum:
    PARITY_SESSION_MAX = 1048576    # bytes of all streams of a session: a short frame may ask for much
    PARITY_HELD_MAX = 256           # groups whose symbols wait for data; the oldest goes
    PARITY_TRIES_MAX = 64           # looks at one group: each may cost as much as it has holes
    PARITY_ROWS_MAX = 16            # symbols of one group that are of use: erasure.PARITY_MISSING_MAX

# Parity symbols of one group.
ctypedef struct nc_held:
    nc_held* next                   # of a later one
    uint64_t start                  # offset of the group in the stream
    uint64_t end
    uint32_t size                   # of a symbol
    uint32_t stride                 # of a row: no longer than the group
    uint8_t room                    # rows there are
    uint8_t n                       # symbols that are here
    uint8_t tries
    uint8_t[16] index              # PARITY_ROWS_MAX: which
    uint8_t* rows                   # owned; behind one another

ctypedef struct nc_parity_in:
    uint8_t* past                   # owned ring
    uint64_t cap                    # power of two; 0: none
    uint64_t first                  # offsets of the stream that are in it
    uint64_t upto
    nc_held* held                   # owned, oldest first
    uint32_t n_held
    uint64_t drawn                  # on the budget

# received: how far the stream has come. NULL: no memory.
cdef nc_parity_in* parity_new(uint64_t received) noexcept nogil
# Room for so many past bytes. NC_OK; NC_ENOMEM: also when the budget has no room.
cdef int parity_room(nc_parity_in* q, uint64_t bytes, nc_budget* b) noexcept nogil
cdef void parity_push(nc_parity_in* q, const uint8_t* p, size_t n) noexcept nogil
# Past bytes from offset `at` on that lie together, up to `end`; 0: they are not here. Borrowed until the next push.
cdef size_t parity_span(nc_parity_in* q, uint64_t at, uint64_t end, const uint8_t** p) noexcept nogil
# Symbol j of m over the group from start to end. The group, or NULL: nothing new, another layout, or no room for it.
cdef nc_held* parity_hold(nc_parity_in* q, uint64_t start, uint64_t end, uint32_t size, int m, int j, const uint8_t* p,
                          size_t n, nc_budget* b) noexcept nogil
cdef void parity_let_go(nc_parity_in* q, nc_held* h, nc_budget* b) noexcept nogil
cdef void parity_end(nc_parity_in* q, nc_budget* b) noexcept nogil     # frees q; b NULL: nobody counts any more
