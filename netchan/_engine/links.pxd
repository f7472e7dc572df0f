# links: the carriers of a session: reading, sealing, writing, and what becomes of a session whose carriers end. Layer:
# _engine. Threads: the holder of the baton. Ownership: a link owns its descriptor; dead ones wait for the sweep.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from netchan._core.state cimport nc_path
from netchan._engine.state cimport nc_engine, nc_link, nc_slot

# The descriptor carries this path of the session from now on. NC_OK; NC_ESYS, NC_ENOMEM: it stays the caller's.
cdef int slot_link(nc_engine* g, nc_slot* t, nc_path* p, int fd) noexcept nogil
# A datagram of n bytes for this path has come from another address of the peer, to which fd is connected: if it is
# sound and the newest one, that address is proved, and takes the place of the old one. NC_OK: fd is the engine's. Else
# it stays the caller's.
cdef int slot_move(nc_engine* g, nc_slot* t, nc_path* p, int fd, uint8_t* data_untrusted, size_t n,
                   const uint8_t* token8) noexcept nogil
# What this side said last in the exchange that made a datagram path: said again when the other side asks again, until
# something has come on the path. Copied. NC_OK, NC_ENOMEM.
cdef int link_answer(nc_link* k, const uint8_t* p, size_t n) noexcept nogil
cdef void link_close(nc_engine* g, nc_link* k) noexcept nogil
cdef void link_ready(nc_engine* g, nc_link* k, uint32_t bits, int64_t now) noexcept nogil      # as the poller reports
cdef nc_link* broken_link(nc_slot* t) noexcept nogil
cdef int64_t broken_until(nc_link* k) noexcept nogil
cdef void slot_deadline(nc_engine* g, nc_slot* t) noexcept nogil
cdef void slot_flush(nc_engine* g, nc_slot* t, int64_t now) noexcept nogil      # all that may go now, on each carrier
cdef void slot_lose(nc_engine* g, nc_slot* t, nc_path* p, int64_t now) noexcept nogil   # the session gives a path up
cdef void slot_lose_all(nc_engine* g, nc_slot* t, int64_t now) noexcept nogil
# Lets go of the carriers of paths that are over. After each call of the core that may end one.
cdef void slot_reap(nc_engine* g, nc_slot* t) noexcept nogil
# The peer has shown with a ticket that the session is over there. What it had said before is read first, since it may
# have left in the ordinary way; else the session is lost. 1: it is lost by this.
cdef int slot_replaced(nc_engine* g, nc_slot* t, int64_t now) noexcept nogil
cdef void slot_shut(nc_engine* g, nc_slot* t) noexcept nogil                    # no carriers any more, for good

# --- to another process and back (docs/spec/handover.md) ---
# Nothing is read, written or due any more; descriptors stay open. An address that was being proved is given up.
cdef void slot_hold(nc_engine* g, nc_slot* t) noexcept nogil
cdef int slot_unhold(nc_engine* g, nc_slot* t) noexcept nogil                   # NC_OK, NC_ESYS
# The session lives in another process: over, its descriptors closed without a word to the peer.
cdef void slot_moved(nc_engine* g, nc_slot* t) noexcept nogil
# Sealed bytes that were not written yet go out before all else. Copied. NC_OK, NC_ENOMEM.
cdef int link_keep(nc_link* k, const uint8_t* p, size_t n) noexcept nogil
