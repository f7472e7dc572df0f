# ring: bounded rings of descriptors (two u64 per slot) between threads. Layer: _core, rung c.
#
# nc_spsc: one producer, one consumer, lock-free: free-running indices, each on its own cache line, each side keeping
#   the last index it saw of the other, so that a push or pop touches the other side's line only when it must.
# nc_mpsc: many producers, one consumer: every slot carries a sequence number that says whose turn it is.
#   A producer that has claimed a slot and not yet filled it makes the ring look empty from there on.
# A full ring is NC_EAGAIN, never a wait. Nothing is allocated after init. What a descriptor points to is owned by the
# producer before push returns NC_OK and by the consumer after pop returned it.
# push and pop are inline: they are crossed per message. Threads: as named per function.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from netchan._core cimport defs
from netchan._core.leaf cimport cas_u64, load_acq_u64, load_rlx_u64, store_rel_u64

cdef enum:
    RING_SLOTS_MIN = 2
    RING_SLOTS_MAX = 65536                           # slots of one ring: bounds it at 1 MiB (SPSC), 1.5 MiB (MPSC)

ctypedef struct nc_slot:
    uint64_t a
    uint64_t b

ctypedef struct nc_spsc:
    nc_slot* slot                                    # owned
    uint64_t mask                                    # slots - 1
    uint8_t _pad0[48]
    uint64_t tail                                    # next to write; the producer writes it, release
    uint64_t head_seen                               # producer's: last head it read
    uint8_t _pad1[48]
    uint64_t head                                    # next to read; the consumer writes it, release
    uint64_t tail_seen                               # consumer's: last tail it read
    uint8_t _pad2[48]

ctypedef struct nc_cell:
    uint64_t seq                                     # == pos: free for position pos; == pos + 1: filled
    uint64_t a
    uint64_t b

ctypedef struct nc_mpsc:
    nc_cell* cell                                    # owned
    uint64_t mask                                    # slots - 1
    uint8_t _pad0[48]
    uint64_t tail                                    # next position to claim; producers, by compare-and-swap
    uint8_t _pad1[56]
    uint64_t head                                    # next to read; the consumer only
    uint8_t _pad2[56]

# Empty ring of n_slots (power of two, RING_SLOTS_MIN..RING_SLOTS_MAX). NC_OK, NC_EINVAL, NC_ENOMEM.
cdef int spsc_init(nc_spsc* r, uint32_t n_slots) noexcept nogil
cdef int mpsc_init(nc_mpsc* r, uint32_t n_slots) noexcept nogil
# Gives the memory back when no thread uses the ring any more; harmless on a zeroed struct.
cdef void spsc_free(nc_spsc* r) noexcept nogil
cdef void mpsc_free(nc_mpsc* r) noexcept nogil


# The producer thread. NC_OK, NC_EAGAIN (full).
cdef inline int spsc_push(nc_spsc* r, uint64_t a, uint64_t b) noexcept nogil:
    cdef uint64_t tail = r.tail
    cdef nc_slot* s
    if tail - r.head_seen > r.mask:
        r.head_seen = load_acq_u64(&r.head)
        if tail - r.head_seen > r.mask:
            return defs.NC_EAGAIN
    s = &r.slot[tail & r.mask]
    s.a = a
    s.b = b
    store_rel_u64(&r.tail, tail + 1)
    return defs.NC_OK


# The consumer thread. NC_OK, NC_EAGAIN (empty; *a and *b untouched).
cdef inline int spsc_pop(nc_spsc* r, uint64_t* a, uint64_t* b) noexcept nogil:
    cdef uint64_t head = r.head
    cdef nc_slot* s
    if head == r.tail_seen:
        r.tail_seen = load_acq_u64(&r.tail)
        if head == r.tail_seen:
            return defs.NC_EAGAIN
    s = &r.slot[head & r.mask]
    a[0] = s.a
    b[0] = s.b
    store_rel_u64(&r.head, head + 1)
    return defs.NC_OK


# Any thread; exact for producer and consumer when the other rests, else a moment's value, 0..slots.
cdef inline uint32_t spsc_len(const nc_spsc* r) noexcept nogil:
    cdef uint64_t head = load_acq_u64(&r.head)
    cdef uint64_t n = load_acq_u64(&r.tail) - head  # head first: a later tail is never behind it
    return <uint32_t>(n if n <= r.mask else r.mask + 1)


# Any thread. NC_OK, NC_EAGAIN (full).
cdef inline int mpsc_push(nc_mpsc* r, uint64_t a, uint64_t b) noexcept nogil:
    cdef uint64_t pos = load_rlx_u64(&r.tail)
    cdef uint64_t seq
    cdef nc_cell* c
    while True:
        c = &r.cell[pos & r.mask]
        seq = load_acq_u64(&c.seq)
        if seq == pos:
            if cas_u64(&r.tail, pos, pos + 1):
                break
            pos = load_rlx_u64(&r.tail)
        elif seq < pos:                              # not yet read since the round before: full
            return defs.NC_EAGAIN
        else:                                        # another producer was faster
            pos = load_rlx_u64(&r.tail)
    c.a = a
    c.b = b
    store_rel_u64(&c.seq, pos + 1)
    return defs.NC_OK


# The consumer thread. NC_OK, NC_EAGAIN (empty, or the next slot is claimed and not filled yet).
cdef inline int mpsc_pop(nc_mpsc* r, uint64_t* a, uint64_t* b) noexcept nogil:
    cdef uint64_t pos = r.head
    cdef nc_cell* c = &r.cell[pos & r.mask]
    if load_acq_u64(&c.seq) != pos + 1:
        return defs.NC_EAGAIN
    a[0] = c.a
    b[0] = c.b
    store_rel_u64(&c.seq, pos + r.mask + 1)
    store_rel_u64(&r.head, pos + 1)
    return defs.NC_OK


# Any thread; counts claimed slots; a moment's value, 0..slots.
cdef inline uint32_t mpsc_len(const nc_mpsc* r) noexcept nogil:
    cdef uint64_t head = load_acq_u64(&r.head)
    cdef uint64_t n = load_acq_u64(&r.tail) - head
    return <uint32_t>(n if n <= r.mask else r.mask + 1)
