# handover_ends: the channels of a session on their way to another process: what was accepted, what has come and was
# not taken, positions. Layer: _core, rung m. docs/spec/handover.md §2, §4. Threads: baton; end_hold and end_unhold with
# the GIL, too.

from netchan._core.state cimport nc_end, nc_offer, nc_session
from netchan._core.walk cimport nc_walk

# From now on the application's side of the end accepts nothing and finds nothing, as if it had to wait.
cdef void end_hold(nc_end* e) noexcept nogil
cdef void end_unhold(nc_end* e) noexcept nogil
# An end that is held. What was read is the caller's also after a failure: *at, with one reference, on no list.
cdef void walk_end(nc_walk* w, nc_session* s, nc_end** at) noexcept nogil
# A channel that nobody has opened here; as walk_end.
cdef void walk_offer(nc_walk* w, nc_session* s, nc_offer** at) noexcept nogil
