# ends: opening, pairing and ending of channels, and of sessions. Layer: _core, rung h.
# docs/spec/session.md §2, §3, §6, §7.
#
# Threads: end_* are the application's (GIL, no baton), the rest belongs to the holder of the baton.

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from netchan._core.state cimport nc_end, nc_offer, nc_session
from netchan._core.segment cimport nc_seg

# 1: the session was not on the engine's list, the caller puts it there (s.dirty_any was 0).
cdef int end_mark(nc_end* e) noexcept nogil
cdef int end_request(nc_end* e, uint32_t bits) noexcept nogil            # sets request bits, then end_mark
# Drops one reference; the last one frees. Released pins are put on *pins.
cdef void end_release(nc_end* e, nc_seg** pins) noexcept nogil
cdef uint64_t hash_name(nc_session* s, const uint8_t* p, size_t n) noexcept nogil
# A new end with one reference for the application and one for the session; it opens when the engine next looks.
# NULL: out of memory. Preface is made here. kind: defs.nc_preface_kind, whether name is one or a token; overflow:
# defs.nc_overflow; ttl_ms: 0 none.
cdef nc_end* end_open(nc_session* s, uint8_t kind, const uint8_t* name, size_t name_len, uint64_t codec,
                      const uint8_t* schema16, uint64_t capacity_wanted, uint8_t overflow, uint64_t ttl_ms,
                      int trunk) noexcept nogil
# Next end with something to report; *bits what. NULL: none left. The end stays valid: the caller holds its reference.
cdef nc_end* session_next_ready(nc_session* s, uint32_t* bits) noexcept nogil
# Next offered stream that the application has not seen; NULL: none. Borrowed until opened.
cdef nc_offer* session_next_offer(nc_session* s) noexcept nogil
# 1: what one codec encodes the other decodes (wire.md §8).
cdef int codecs_fit(nc_end* e, nc_offer* o) noexcept nogil
cdef void pair(nc_session* s, nc_end* e, nc_offer* o) noexcept nogil
cdef void unqueue_offer(nc_session* s, nc_offer* o) noexcept nogil
# An offer of this name that nobody has opened, taken off its chain; NULL: none.
cdef nc_offer* take_offer(nc_session* s, nc_end* e) noexcept nogil
# Opened after the session has ended: what the other side had sent under this name can still be taken (api R19).
cdef void open_late(nc_session* s, nc_end* e) noexcept nogil
# An offer that has been opened: off the lists it may be on, and gone. Its stream lives on in the end.
cdef void drop_offer(nc_session* s, nc_offer* o) noexcept nogil
# A reference that its giver took back before the value was received: nobody will open it.
cdef void forget_offer(nc_session* s, nc_offer* o) noexcept nogil
# Gives ids to new ends, in the order in which they were opened, as far as the peer allows.
cdef void bind_opens(nc_session* s) noexcept nogil
# Reads the preface of an offered stream. NC_OK or NC_EFRAME, NC_EUNKNOWN (unknown odd field).
cdef int read_preface(nc_offer* o) noexcept nogil
# The preface of an offered stream is complete: pair it or put it before the application.
cdef void offer_ready(nc_session* s, nc_offer* o) noexcept nogil
cdef void drop_end_name(nc_session* s, nc_end* e) noexcept nogil
# A fault of the peer (or ours): the session ends with this code, said to the peer by the next session_send.
cdef void fail(nc_session* s, uint16_t code) noexcept nogil
# Cuts both directions of an end because the session is over.
cdef void end_cut(nc_session* s, nc_end* e) noexcept nogil
cdef void session_ended(nc_session* s) noexcept nogil
# Leave: SESSION_CLOSE with this code is written by the next session_send; every stream without an end is cut.
cdef void session_close(nc_session* s, uint16_t code, const uint8_t* reason, size_t n) noexcept nogil
# Both directions said all they have to say: the session forgets the end.
cdef void settle_end(nc_session* s, nc_end* e) noexcept nogil
# ABORT for the peer's stream of e (or of the whole channel).
cdef void peer_aborted(nc_session* s, nc_end* e, uint8_t flags, uint64_t code, const uint8_t* reason,
                       size_t n) noexcept nogil
# Acts on what the application asked of one end.
cdef void take_requests(nc_session* s, nc_end* e) noexcept nogil
cdef void take_dirty(nc_session* s) noexcept nogil
