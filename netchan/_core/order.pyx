"""Records with a number: which of them have arrived over there, and which wait here for their turn.

Layer: _core, rung d. No clock, no key, no frame. Contract in ``order.pxd``; spec: docs/spec/session.md §5.4.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from netchan._core cimport defs


cdef nc_order* order_new() noexcept nogil:
    return <nc_order*>calloc(1, sizeof(nc_order))


cdef void order_free(nc_order* o) noexcept nogil:
    cdef int i
    if o is NULL:
        return
    if o.kept is not NULL:
        for i in range(ORDER_WINDOW):
            free(o.kept[i].body)
        free(o.kept)
    free(o)


cdef void order_acked(nc_order* o, uint64_t n) noexcept nogil:
    if n < o.floor or n >= o.next:
        return
    o.acked[(n >> 6) & 15] |= <uint64_t>1 << (n & 63)
    while o.floor < o.next and o.acked[(o.floor >> 6) & 15] >> (o.floor & 63) & 1:
        o.acked[(o.floor >> 6) & 15] &= ~(<uint64_t>1 << (o.floor & 63))
        o.floor += 1


cdef int order_look(const nc_order* o, uint64_t n) noexcept nogil:
    if n < o.want:
        return 0
    if n - o.want >= <uint64_t>ORDER_WINDOW:
        return defs.NC_ELIMIT
    if n == o.want:
        return 1
    return 0 if o.kept is not NULL and o.kept[n & (ORDER_WINDOW - 1)].body is not NULL else defs.NC_EAGAIN


cdef int order_keep(nc_order* o, uint64_t n, uint64_t tag, const uint8_t* body, size_t len) noexcept nogil:
    cdef nc_kept* k
    if o.kept is NULL:
        o.kept = <nc_kept*>calloc(ORDER_WINDOW, sizeof(nc_kept))
        if o.kept is NULL:
            return defs.NC_ENOMEM
    k = &o.kept[n & (ORDER_WINDOW - 1)]
    k.body = <uint8_t*>malloc(len if len else 1)
    if k.body is NULL:
        return defs.NC_ENOMEM
    memcpy(k.body, body, len)
    k.tag = tag
    k.len = len
    o.n_kept += 1
    return defs.NC_OK


cdef nc_kept* order_due(const nc_order* o) noexcept nogil:
    cdef nc_kept* k
    if o.n_kept == 0:
        return NULL
    k = &o.kept[o.want & (ORDER_WINDOW - 1)]
    return k if k.body is not NULL else NULL


cdef void order_pass(nc_order* o) noexcept nogil:
    cdef nc_kept* k
    if o.kept is not NULL:
        k = &o.kept[o.want & (ORDER_WINDOW - 1)]
        if k.body is not NULL:
            free(k.body)
            k.body = NULL
            o.n_kept -= 1
    o.want += 1
