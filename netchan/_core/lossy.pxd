# lossy: messages that were accepted and may be dropped before they are sent. Layer: _core, rung f.
# docs/spec/session.md §4.2.
#
# 1. The application appends (lossy_append); what has no place pushes out the oldest that nobody has begun to send.
# 2. The engine, under its baton, drops what is too old (lossy_expire), says what will never come (lossy_gap,
#    lossy_passed), and claims what it is about to read (lossy_claim).
# Threads and ownership: as in outbox.pxd.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from netchan._core.outbox cimport nc_out
from netchan._core.segment cimport nc_seg

# From now on messages may be dropped. keep: see nc_out.keep; ttl_ms: 0 none. Engine, or before the stream is known.
cdef void lossy_begin(nc_out* o, uint64_t keep, uint64_t ttl_ms) noexcept nogil
# One message, as out_append (no offers, no deliver); due: when it is over, 0 never. Pinned ones that were dropped come
# out on *pins.
cdef int lossy_append(nc_out* o, const uint8_t* p, size_t n, int flags, void* pin, int64_t due,
                      nc_seg** pins) noexcept nogil
cdef void lossy_expire(nc_out* o, int64_t now_ns, nc_seg** pins) noexcept nogil
# 1: SKIP of these is to be said now, before any more data; 0: nothing, or not yet.
cdef int lossy_gap(nc_out* o, uint64_t* first, uint64_t* n, uint8_t* reason, uint64_t* offset,
                   uint64_t* bytes) noexcept nogil
cdef void lossy_passed(nc_out* o, uint64_t n, uint64_t bytes) noexcept nogil    # it was said
# Up to n bytes are about to be read: how many may be. The messages that begin in them say how much of their time is
# left and are not to be dropped any more.
cdef size_t lossy_claim(nc_out* o, size_t n, int64_t now_ns) noexcept nogil
