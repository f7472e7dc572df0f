"""Bounded rings of descriptors between threads: one producer (SPSC) or many (MPSC), one consumer.

Layer: _core, rung c. Push and pop are inline in ``ring.pxd``; here is what allocates.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from netchan._core cimport defs


cdef inline bint _size_ok(uint32_t n) noexcept nogil:
    return RING_SLOTS_MIN <= n <= RING_SLOTS_MAX and (n & (n - 1)) == 0


cdef int spsc_init(nc_spsc* r, uint32_t n_slots) noexcept nogil:
    memset(r, 0, sizeof(nc_spsc))
    if not _size_ok(n_slots):
        return defs.NC_EINVAL
    r.slot = <nc_slot*>calloc(n_slots, sizeof(nc_slot))
    if r.slot == NULL:
        return defs.NC_ENOMEM
    r.mask = n_slots - 1
    return defs.NC_OK


cdef void spsc_free(nc_spsc* r) noexcept nogil:
    free(r.slot)
    memset(r, 0, sizeof(nc_spsc))


cdef int mpsc_init(nc_mpsc* r, uint32_t n_slots) noexcept nogil:
    cdef uint64_t i
    memset(r, 0, sizeof(nc_mpsc))
    if not _size_ok(n_slots):
        return defs.NC_EINVAL
    r.cell = <nc_cell*>calloc(n_slots, sizeof(nc_cell))
    if r.cell == NULL:
        return defs.NC_ENOMEM
    r.mask = n_slots - 1
    for i in range(n_slots):
        r.cell[i].seq = i
    return defs.NC_OK


cdef void mpsc_free(nc_mpsc* r) noexcept nogil:
    free(r.cell)
    memset(r, 0, sizeof(nc_mpsc))
