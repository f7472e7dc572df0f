# dealing: which path carries which symbol of a parity group, and the symbols that come late. Layer: _core, rung i.
# docs/spec/parity.md §2.1. Threads: baton. Ownership: what comes late is the session's.
#
# A path that falls silent takes with it what it carried. So no path carries more than m symbols of a group while there
# is another one for them: what is due on a path that takes nothing now goes on the next one, as long as that has fewer;
# and a parity symbol that only such a path may have waits until it takes something, while the stream goes on.

from libc.stdint cimport uint64_t

from netchan._core.state cimport nc_group, nc_path, nc_session

# Which path carries the next record of a group. NULL: of an open one that it ends here, since only paths that take
# nothing now may have another symbol; of a closed one that its symbol comes late, for the same reason.
cdef nc_path* deal(nc_session* s, const nc_group* g) noexcept nogil
# A record with data from byte g.n on, or a parity symbol, went on p.
cdef void dealt(nc_group* g, const nc_path* p) noexcept nogil
# A group whose symbols come late takes over the rows of g; without memory for it they do not come.
cdef void late_add(nc_session* s, nc_group* g) noexcept nogil
# The group whose next symbol p may carry now; NULL: none. First ones that nobody needs any more, or that no path may
# carry, are let go.
cdef nc_group* late_for(nc_session* s, const nc_path* p) noexcept nogil
cdef void late_drop(nc_session* s, nc_group* x) noexcept nogil      # its place is needed, or all of it was said


cdef inline int path_usable(const nc_path* p) noexcept nogil:
    return 1 if p.alive and not p.aside else 0


# 0: late_for has none for p.
cdef inline int late_waits(const nc_session* s, const nc_path* p) noexcept nogil:
    return 1 if s.late is not NULL and not s.late_none >> p.key & 1 else 0
