# group: parity over the bytes of a stream at its sender: where a group begins and ends, and what is added up meanwhile.
# Layer: _core, rung j. docs/spec/parity.md §2.1.
#
# 1. group_begin opens a group for the next bytes of an end; group_path says which path carries its next record,
#    group_left how much of the stream that may hold; group_put adds what was sealed.
# 2. A group is closed when it is full, at the end of the stream, or when the stream was quiet (groups_on_deadline);
#    then its m symbols are said (group_waits, group_said), and the next one may begin.
# 3. Where only a path that takes nothing now may have a symbol, its group moves on to the list of those that come late.
# Threads: baton. Ownership: an end owns its group (nc_end.group), which is on the list of its session while it exists.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netchan._core.state cimport nc_end, nc_group, nc_path, nc_session

cdef enum:
    GROUP_BYTES_MAX = 1048576           # rows of all groups of a session
    GROUP_TOLD = 32                     # records at the beginning of a stream's first group that announce it
    GROUP_QUIET_NS = 1000000            # a stream was quiet: this, or an eighth of the best round trip; a group is
                                        # no older than this, or a quarter

# A group for the next bytes of e. 1: there is one; 0: parity is of no use here, or there is no room for it.
cdef int group_begin(nc_session* s, nc_end* e) noexcept nogil
# Which path carries the next record of e; the path of control where there is no group. Symbols whose path takes nothing
# now come late, and the next group begins.
cdef nc_path* group_path(nc_session* s, nc_end* e) noexcept nogil
# n bytes went on `path`.
cdef void group_put(nc_session* s, nc_end* e, const nc_path* path, const uint8_t* p, size_t n, int fin,
                    int64_t now) noexcept nogil
# A parity symbol of a closed group was said on p, or could not be; g is on the list of those that come late, or not.
cdef void group_said(nc_session* s, nc_group* g, const nc_path* p) noexcept nogil
cdef void groups_free(nc_session* s) noexcept nogil
# A mode has changed: groups of streams that make none are given up, whatever they were about to say.
cdef void groups_settle(nc_session* s) noexcept nogil
cdef void groups_on_deadline(nc_session* s, int64_t now) noexcept nogil


# 1: symbols of a closed group wait to be said.
cdef inline int group_waits(const nc_end* e) noexcept nogil:
    return 1 if e.group is not NULL and e.group.closed else 0


# 1: a group was begun and not said to its end.
cdef inline int group_open(const nc_end* e) noexcept nogil:
    return 1 if e.group is not NULL and e.group.open else 0


# Bytes that still belong to the data symbol that is being sent.
cdef inline uint64_t group_left(const nc_end* e) noexcept nogil:
    return e.group.size - e.group.n % e.group.size


# Bytes of a parity symbol of a closed group.
cdef inline size_t group_length(const nc_group* g) noexcept nogil:
    return g.size if g.n > g.size else <size_t>g.n
