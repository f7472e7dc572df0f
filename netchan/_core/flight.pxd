# flight: what a datagram path has on its way: acknowledgements both ways, loss, probe timeouts. Layer: _core, rung k.
# RFC 9002 for loss, RFC 9000 §13.2 for when to acknowledge; docs/spec/session.md §5.5. Threads: baton.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netchan._core.cursor cimport nc_wr
from netchan._core.frame cimport nc_frame
from netchan._core.state cimport nc_dgram, nc_path, nc_session

# What a datagram path has beside others; cids of 8 bytes; mtu within DATAGRAM_MTU and DATAGRAM_MOST, else the nearer of
# them. NULL: no memory.
cdef nc_dgram* flight_new(const uint8_t* cid, const uint8_t* own_cid, uint32_t mtu, uint64_t seed) noexcept nogil
cdef void flight_free(nc_dgram* d) noexcept nogil                               # NULL is allowed

# --- sender ---
# ACK of this path. NC_OK; NC_EFRAME: of a datagram that was never sent; NC_ENOMEM.
cdef int flight_acked(nc_session* s, nc_path* p, const nc_frame* f, int64_t now) noexcept nogil
# When it has something to do: a datagram counts as lost, a probe is due, the pace allows more.
cdef int64_t flight_deadline(const nc_session* s, const nc_path* p) noexcept nogil
# NC_OK or NC_ENOMEM.
cdef int flight_on_deadline(nc_session* s, nc_path* p, int64_t now) noexcept nogil
# May a datagram of n bytes that asks for an answer leave now? 1 yes. 0: the window or the pace says no, and what waits
# is noted.
cdef int flight_open(nc_path* p, uint64_t n, int64_t now) noexcept nogil
cdef void flight_number(nc_session* s, nc_path* p) noexcept nogil  # of the next datagram: some are left out

# How long a datagram is to be tried now; 0: none. And: the last one sent was that.
cdef uint32_t flight_probe(const nc_path* p, int64_t now) noexcept nogil
cdef void flight_probed(nc_path* p) noexcept nogil

cdef enum:
    CHALLENGED_NEVER = 3            # nc_dgram.challenged of a path that the other side asked for in one message

# Nothing has come from the address of the peer since it asked for this path, so it may be somebody else's.
cdef inline int flight_unproved(const nc_path* p) noexcept nogil:
    return 1 if p.d.challenged == <uint8_t>CHALLENGED_NEVER and p.rx_number == 0 else 0

# --- a peer that has forgotten the path ---
# NEW_CID waits to be said; not before the other side is known to have the path.
cdef inline int flight_token_due(const nc_path* p) noexcept nogil:
    return 1 if p.d is not NULL and p.d.token_due and not flight_unproved(p) else 0

# By which cid we want to be called, 8 bytes, and its token, 16: to be told.
cdef void flight_token(nc_dgram* d, const uint8_t* cid_token24) noexcept nogil
# NEW_CID of this path has come: the peer is called so from now on. NC_OK; NC_EFRAME: not its second cid, or another one
# than before.
cdef int flight_new_cid(nc_dgram* d, const nc_frame* f) noexcept nogil
# 1: the datagram ends with the token of the peer, and is nothing else. In constant time.
cdef int flight_is_reset(const nc_dgram* d, const uint8_t* buf_untrusted, size_t n) noexcept nogil

# A new address of the peer: these 8 random bytes have to come back from there.
cdef void flight_challenge(nc_dgram* d, const uint8_t* token8) noexcept nogil

# --- receiver ---
cdef void flight_challenged(nc_dgram* d, const uint8_t* token8) noexcept nogil  # PATH_CHALLENGE has come
cdef void flight_response(nc_dgram* d, const uint8_t* token8) noexcept nogil    # PATH_RESPONSE has come
# Datagram `number` was received, and asks for an answer or does not.
cdef void flight_received(nc_session* s, nc_path* p, uint64_t number, int eliciting, int64_t now) noexcept nogil
cdef int flight_put_ack(nc_session* s, nc_path* p, nc_wr* w, int64_t now) noexcept nogil        # 1, 0: nothing to say
