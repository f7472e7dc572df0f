# ratchet: carries the messages of the in-band ratchet. Layer: _core, rung i. docs/spec/keys.md §2.1. Threads: baton.

from libc.stdint cimport uint64_t, uint8_t

from netchan._core.cursor cimport nc_wr
from netchan._core.frame cimport nc_frame
from netchan._core.keys cimport keys_may_update
from netchan._core.state cimport nc_session


# 1: an epoch with something mixed in is to be announced now.
cdef inline int rekey_due(const nc_session* s) noexcept nogil:
    return 1 if s.rekey_state != 2 and (s.rekey_state or s.bump_due) and keys_may_update(s.sealer.keys) else 0


# 1: an epoch that is announced, or about to be, comes before an ordinary one.
cdef inline int rekey_first(const nc_session* s) noexcept nogil:
    return 1 if s.rekey_state == 2 or rekey_due(s) else 0


cdef void cleanse(uint8_t* p, size_t n) noexcept nogil
# A message of a ratchet: step 0 asks the initiator to start, 1 and 2 are Noise messages. NC_OK, NC_EINVAL, NC_ENOMEM.
cdef int session_ratchet_send(nc_session* s, uint64_t number, int step, const uint8_t* p, size_t n) noexcept nogil
# The 32-byte result of a finished ratchet; the initiator announces it at once, the responder when it sees that.
cdef void session_ratchet_secret(nc_session* s, uint64_t number, const uint8_t* secret32) noexcept nogil
# Our next epoch gets 32 random bytes mixed in: the first thing that is said of a session from another process.
cdef void session_bump(nc_session* s, const uint8_t* mix32) noexcept nogil
cdef void rekey_done(nc_session* s) noexcept nogil       # the announcement was acknowledged, our epoch has changed
# The secret is wiped once neither direction needs it.
cdef void ratchet_settled(nc_session* s) noexcept nogil
cdef void on_ratchet(nc_session* s, nc_frame* f) noexcept nogil
cdef void on_rekey(nc_session* s, nc_frame* f) noexcept nogil
cdef void put_ratchet(nc_session* s, nc_wr* w, int* eliciting) noexcept nogil
