# handover_paths: the paths of a session on their way to another process, with what is under way on them. Layer: _core,
# rung l. docs/spec/handover.md §4. Threads: baton.

from netchan._core.ranges cimport nc_ranges
from netchan._core.state cimport nc_session
from netchan._core.walk cimport nc_walk

cdef void walk_ranges(nc_walk* w, nc_ranges* r) noexcept nogil          # into an empty set

# The order of records that have a number, if the session has one. Before the paths.
cdef void walk_order(nc_walk* w, nc_session* s) noexcept nogil
# All paths, also the last one of a suspended session, and what waits to be sent again. What was read hangs on the
# session also after a failure. A datagram path begins its congestion control anew, and stays with the address it has.
cdef void walk_paths(nc_walk* w, nc_session* s) noexcept nogil
