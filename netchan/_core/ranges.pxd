# ranges: a sorted set of disjoint half-open ranges [lo, hi): acks, gaps, received offsets. Layer: _core, rung c.
#
# Neighbours that touch are one range, so v[i].hi < v[i+1].lo always. Values are offsets or numbers <= 2^62 - 1, hence
# every hi <= RANGES_END = 2^62. The number of ranges is bounded per set (the peer decides how many gaps there are):
# the step that would exceed the bound gives NC_ELIMIT and leaves the set as it was.
# Find is O(log n), appending or extending at the end O(1), inserting in the middle one memmove of <= 16 KiB.
# Threads: a set belongs to its owner (the holder of the baton); no lock inside.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define NC_RANGES_END ((uint64_t)1 << 62)
    """
    const uint64_t RANGES_END "NC_RANGES_END"       # largest hi: one past the largest offset

cdef enum:
    RANGES_MAX = 1024                                # ranges in one set: bounds memory (16 KiB) and cost of a memmove
    RANGES_FIRST = 4                                 # ranges allotted first; then doubled

ctypedef struct nc_range:
    uint64_t lo                                      # first value inside
    uint64_t hi                                      # first value behind; lo < hi

ctypedef struct nc_ranges:
    nc_range* v                                      # owned; NULL until the first range; read it up to len
    uint32_t len                                     # ranges in use
    uint32_t cap                                     # ranges allotted
    uint32_t max                                     # bound of this set, 1..RANGES_MAX
    uint64_t total                                   # values covered: sum of hi - lo

# Empty set of at most max_ranges (1..RANGES_MAX, else NC_EINVAL); allocates nothing.
cdef int ranges_init(nc_ranges* r, uint32_t max_ranges) noexcept nogil
# Gives the memory back; the set is empty and usable afterwards. Harmless on a zeroed struct.
cdef void ranges_free(nc_ranges* r) noexcept nogil
# Memory for n ranges now, so that no add up to n allocates. NC_OK, NC_EINVAL (n > max), NC_ENOMEM.
cdef int ranges_reserve(nc_ranges* r, uint32_t n) noexcept nogil

# Covers [lo, hi). Returns how many values are new (0 when all were there or lo == hi).
# NC_EINVAL: lo > hi or hi > RANGES_END. NC_ELIMIT: one range too many. NC_ENOMEM.
cdef int64_t ranges_add(nc_ranges* r, uint64_t lo, uint64_t hi) noexcept nogil
# Uncovers [lo, hi). Returns how many values were covered. Codes as ranges_add (a cut in the middle makes one more).
cdef int64_t ranges_remove(nc_ranges* r, uint64_t lo, uint64_t hi) noexcept nogil
# Uncovers all below x (any x). Returns how many values were covered.
cdef uint64_t ranges_remove_below(nc_ranges* r, uint64_t x) noexcept nogil
# Index of the first range with hi > x: the one that holds x or the next one above; len if there is none.
cdef uint32_t ranges_find(const nc_ranges* r, uint64_t x) noexcept nogil
# 1: every value of [lo, hi) is inside (also when lo >= hi: nothing is asked).
cdef int ranges_covered(const nc_ranges* r, uint64_t lo, uint64_t hi) noexcept nogil
# Smallest value >= x that is not inside.
cdef uint64_t ranges_first_gap(const nc_ranges* r, uint64_t x) noexcept nogil


# 1: x is inside.
cdef inline int ranges_contains(const nc_ranges* r, uint64_t x) noexcept nogil:
    cdef uint32_t i
    if r.len == 0 or x >= r.v[r.len - 1].hi:
        return 0
    i = ranges_find(r, x)
    return 1 if r.v[i].lo <= x else 0


# Forget everything, keep the memory.
cdef inline void ranges_clear(nc_ranges* r) noexcept nogil:
    r.len = 0
    r.total = 0


# Drop the lowest range (nothing on an empty set): what an ACK list does when it is full.
cdef inline void ranges_drop_first(nc_ranges* r) noexcept nogil:
    if r.len:
        ranges_remove_below(r, r.v[0].hi)


# Smallest value inside; RANGES_END when empty.
cdef inline uint64_t ranges_min(const nc_ranges* r) noexcept nogil:
    return r.v[0].lo if r.len else RANGES_END


# One past the largest value inside; 0 when empty.
cdef inline uint64_t ranges_end(const nc_ranges* r) noexcept nogil:
    return r.v[r.len - 1].hi if r.len else 0
