# handover: a session on its way to another process of the same host and user. Layer: _core, rung o.
# docs/spec/handover.md. Threads: baton, and for session_hold and session_unhold the GIL, too.
#
# 1. The old process holds the session: its application waits, its engine leaves it alone, and it is written.
# 2. The new process reads it. Until it is told that it may act both could go on; only one ever does.
# 3. The old one either unholds the session and goes on, or has moved it: its keys are wiped.
# What was written holds keys: it is wiped by whoever is done with it, and never goes to a disk.

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t

from netchan._core.keystore cimport nc_keystore
from netchan._core.state cimport nc_end, nc_session

cdef enum:
    HANDOVER_VERSION = 1
    HANDOVER_MOST = 0x10000000      # bytes of one session

# 1: it may be moved: it is up, or waits for a path. 0: it is being closed, or is over.
cdef int session_may_move(const nc_session* s) noexcept nogil
# What was asked is acted on, then the application's side of all ends waits. loose: ends that the session has forgotten
# and of which values are left to take.
cdef void session_hold(nc_session* s, nc_end** loose, uint32_t n_loose) noexcept nogil
cdef void session_unhold(nc_session* s, nc_end** loose, uint32_t n_loose) noexcept nogil
# Writes a session that is held. *out: owned by the caller. NC_OK; NC_ESTATE: session_may_move says no; NC_ELIMIT:
# longer than HANDOVER_MOST; NC_ENOMEM; NC_EFRAME: a fault of ours, it would not be read.
cdef int session_write(nc_session* s, nc_end** loose, uint32_t n_loose, int64_t now_ns, uint8_t** out,
                       size_t* n) noexcept nogil
# Reads it into a zeroed struct whose sealer.cache is set, with keys in `store`. mix32: random, for the epoch that is
# the first thing to be announced. node_used: as in nc_budget. Ends of channels are in s.adopted, those that came in a
# value are aborted. NC_OK; NC_EUNKNOWN: another version; NC_ESTATE: another clock; NC_EFRAME, NC_ETRUNC: not what
# session_write writes; NC_ENOMEM. After a failure the caller frees the session and its keys all the same.
cdef int session_read(nc_session* s, const uint8_t* p_untrusted, size_t n, nc_keystore* store, uint64_t* node_used,
                      uint64_t seed, const uint8_t* mix32, int64_t now_ns) noexcept nogil
# It lives in another process now: over here without a word, its keys wiped.
cdef void session_moved(nc_session* s) noexcept nogil
