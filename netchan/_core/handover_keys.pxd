# handover_keys: the keys of a session on their way to another process. Layer: _core, rung f. docs/spec/handover.md §4.
# Threads: baton.

from netchan._core.keys cimport nc_keys
from netchan._core.walk cimport nc_walk

# Writes all secrets, epochs, limits and counts, or reads them into keys_blank; ks_note_use comes before. Keys that were
# derived for the peer's next epoch are derived again.
cdef void walk_keys(nc_walk* w, nc_keys* k) noexcept nogil
