"""Stream id to pointer: open addressing, linear probing, keyed hash, bounded.

Layer: _core, rung c; see idmap.pxd for the contract.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from netchan._core cimport defs


cdef inline uint32_t slot_of(const nc_idmap* m, uint64_t id) noexcept nogil:
    return <uint32_t>((id * m.seed) >> 32) & (m.cap - 1)


cdef void idmap_init(nc_idmap* m, uint32_t max_entries, uint64_t seed) noexcept nogil:
    m.slots = NULL
    m.cap = 0
    m.len = 0
    m.max = max_entries
    m.seed = seed | 1


cdef void idmap_free(nc_idmap* m) noexcept nogil:
    free(m.slots)
    m.slots = NULL
    m.cap = 0
    m.len = 0


cdef void* idmap_get(const nc_idmap* m, uint64_t id) noexcept nogil:
    cdef uint32_t i
    if m.cap == 0:
        return NULL
    i = slot_of(m, id)
    while m.slots[i].id:
        if m.slots[i].id == id:
            return m.slots[i].value
        i = (i + 1) & (m.cap - 1)
    return NULL


cdef int idmap_grow(nc_idmap* m) noexcept nogil:
    cdef nc_idslot* old = m.slots
    cdef uint32_t old_cap = m.cap
    cdef uint32_t cap = m.cap * 2 if m.cap else 8
    cdef uint32_t i, j
    cdef nc_idslot* fresh = <nc_idslot*>calloc(cap, sizeof(nc_idslot))
    if fresh is NULL:
        return defs.NC_ENOMEM
    m.slots = fresh
    m.cap = cap
    for i in range(old_cap):
        if old[i].id:
            j = slot_of(m, old[i].id)
            while fresh[j].id:
                j = (j + 1) & (cap - 1)
            fresh[j] = old[i]
    free(old)
    return defs.NC_OK


cdef int idmap_put(nc_idmap* m, uint64_t id, void* value) noexcept nogil:
    cdef uint32_t i
    cdef int rc
    if m.len >= m.max:
        return defs.NC_ELIMIT
    if (m.len + 1) * 4 > m.cap * 3:
        rc = idmap_grow(m)
        if rc < 0:
            return rc
    i = slot_of(m, id)
    while m.slots[i].id and m.slots[i].id != id:
        i = (i + 1) & (m.cap - 1)
    if m.slots[i].id == 0:
        m.len += 1
    m.slots[i].id = id
    m.slots[i].value = value
    return defs.NC_OK


cdef void* idmap_pop(nc_idmap* m, uint64_t id) noexcept nogil:
    cdef uint32_t i, j, home
    cdef void* value
    if m.cap == 0:
        return NULL
    i = slot_of(m, id)
    while m.slots[i].id != id:
        if m.slots[i].id == 0:
            return NULL
        i = (i + 1) & (m.cap - 1)
    value = m.slots[i].value
    # Close the hole: move back every follower whose home is not behind it.
    j = i
    while True:
        j = (j + 1) & (m.cap - 1)
        if m.slots[j].id == 0:
            break
        home = slot_of(m, m.slots[j].id)
        if ((j - home) & (m.cap - 1)) >= ((j - i) & (m.cap - 1)):
            m.slots[i] = m.slots[j]
            i = j
    m.slots[i].id = 0
    m.slots[i].value = NULL
    m.len -= 1
    return value


cdef void* idmap_next(const nc_idmap* m, uint32_t* i) noexcept nogil:
    cdef uint32_t at = i[0]
    while at < m.cap:
        if m.slots[at].id:
            i[0] = at + 1
            return m.slots[at].value
        at += 1
    i[0] = at
    return NULL
