# order: numbers for the records of a session that have to be acted on in the order in which they were said, whatever
# paths they take and in whatever order they arrive. Layer: _core, rung d. docs/spec/session.md §5.4. Threads: baton.
#
# Only a session that may have datagram paths has it: on stream paths the order comes by itself. Data of streams that
# the inbox puts in order anyway has no number, so a lost datagram holds up nothing but what has one.
# Sender: next, floor, acked. Receiver: want, kept; what comes before its turn is copied and acknowledged.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    ORDER_WINDOW = 1024             # numbers from the oldest that is not acknowledged on: what a receiver may keep
    ORDER_BODY = 1100               # bytes of frames of a record with a number: it fits into a datagram on every path

ctypedef struct nc_kept:            # a record that came before its turn
    uint8_t* body                   # owned; NULL: none
    uint64_t tag
    size_t len

ctypedef struct nc_order:
    uint64_t next                   # number of the next record that gets one
    uint64_t floor                  # all below it were acknowledged
    uint64_t acked[16]              # ring of bits: numbers from floor on that were
    uint64_t want                   # number of the next record to act on
    nc_kept* kept                   # owned ring of ORDER_WINDOW; NULL: never needed yet
    uint32_t n_kept

cdef nc_order* order_new() noexcept nogil                       # owned; NULL: no memory
cdef void order_free(nc_order* o) noexcept nogil                # NULL is allowed

# --- sender ---
cdef inline int order_room(const nc_order* o) noexcept nogil:   # 1: another record may have a number
    return 1 if o.next - o.floor < <uint64_t>ORDER_WINDOW else 0


cdef inline int order_arrived(const nc_order* o, uint64_t n) noexcept nogil:    # 1: record n was acknowledged
    if n < o.floor:
        return 1
    return <int>(o.acked[(n >> 6) & 15] >> (n & 63)) & 1


cdef void order_acked(nc_order* o, uint64_t n) noexcept nogil

# --- receiver ---
# Record n has come: 1 act on it now, 0 it was here before, NC_EAGAIN keep it, NC_ELIMIT beyond what may be on its way.
cdef int order_look(const nc_order* o, uint64_t n) noexcept nogil
# Keeps a copy. NC_OK, NC_ENOMEM.
cdef int order_keep(nc_order* o, uint64_t n, uint64_t tag, const uint8_t* body, size_t len) noexcept nogil
# The record whose turn it is, if it was kept; NULL: not here.
cdef nc_kept* order_due(const nc_order* o) noexcept nogil
cdef void order_pass(nc_order* o) noexcept nogil                # it was acted on
