# idmap: stream id -> pointer, open addressing with a random multiplier. Layer: _core, rung c.
#
# The peer chooses ids, so the hash is keyed: it cannot choose collisions. Grows by doubling up to `max` entries, then
# NC_ELIMIT; key 0 is not a key. Threads: belongs to its owner.

from libc.stdint cimport uint32_t, uint64_t

ctypedef struct nc_idslot:
    uint64_t id                     # 0: empty
    void* value

ctypedef struct nc_idmap:
    nc_idslot* slots                # owned; NULL until the first put
    uint32_t cap                    # power of two, 0 at first
    uint32_t len
    uint32_t max                    # entries at most
    uint64_t seed                   # odd

cdef void idmap_init(nc_idmap* m, uint32_t max_entries, uint64_t seed) noexcept nogil
cdef void idmap_free(nc_idmap* m) noexcept nogil
cdef void* idmap_get(const nc_idmap* m, uint64_t id) noexcept nogil            # NULL: not there
cdef int idmap_put(nc_idmap* m, uint64_t id, void* value) noexcept nogil       # NC_OK, NC_ELIMIT, NC_ENOMEM
cdef void* idmap_pop(nc_idmap* m, uint64_t id) noexcept nogil                  # NULL: was not there
# Walks all entries: i starts at 0; NULL at the end. No put or pop while walking.
cdef void* idmap_next(const nc_idmap* m, uint32_t* i) noexcept nogil
