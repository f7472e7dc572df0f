# outbox: the sender's half of a stream: what was accepted and may still have to be sent. Layer: _core, rung e.
# docs/spec/session.md §2, §4, §6; docs/spec/value.md.
#
# 1. The application appends messages (out_append).
# 2. The engine, under its baton, pulls bytes into records (out_ready, out_read), and moves the positions when POS says
#    so.
# Threads: "app" fields are written by application threads one at a time (the GIL, or the caller's own lock); "engine"
# fields only under the baton; "shared" fields are written under the leaf lock of the struct or are atomics as said.
# Ownership: segments are owned by the outbox; pinned ones leave through `pins` (segment.pxd).

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from netchan._core.leaf cimport nc_leaf
from netchan._core.ranges cimport nc_ranges
from netchan._core.rendezvous cimport nc_offers
from netchan._core.segment cimport nc_seg

cdef enum nc_append:                # bits of out_append
    APPEND_DELIVER = 1              # the sender waits for `taken`
    APPEND_OFFER = 2                # capacity 0: an offer
    APPEND_RESERVED = 4             # takes a place of out_reserve, given up when this succeeds: room was found then

ctypedef struct nc_out:
    nc_leaf lock
    uint64_t id                     # stream id; fixed
    # shared, under lock
    nc_seg* tail                    # where the application appends
    uint64_t appended               # bytes, preface included
    uint64_t accepted               # messages
    uint64_t reserved               # places promised to callers that do not have their value yet
    uint64_t max_msgs               # credit from POS
    uint64_t max_bytes
    uint64_t capacity               # of the channel, which the sender keeps to besides max_msgs; 0: not known yet
    uint64_t fin_at                 # end of the stream, valid when closing
    uint32_t closing                # 1: close() was called, FIN follows the last byte
    uint32_t over                   # nc_over: sends raise
    uint32_t held                   # 1: the session is about to move to another process: nothing is accepted meanwhile
    size_t next_cap                 # size of the next own segment
    uint32_t rendezvous             # 1: capacity 0: messages are offers
    nc_offers offers                # of a rendezvous
    # Where messages may be dropped before they are sent (lossy.pyx), under lock: each has segments of its own.
    uint32_t lossy
    uint64_t keep                   # unsent messages that stay when more come, the newest; 0: all, and send waits
    uint64_t ttl_ms                 # 0: none
    nc_seg* fresh                   # first message of which no byte was claimed to be sealed; NULL: none
    nc_seg* before                  # the segment before it; NULL: none held
    uint64_t n_fresh                # messages from there on
    uint64_t fresh_num              # number of the first
    uint64_t gap_msgs               # dropped before `fresh`, not said yet; their numbers end at fresh_num
    uint64_t gap_bytes
    uint8_t gap_reason              # nc_skip of the last one
    uint64_t dropped
    uint64_t parked                 # receivers that wait over there, as WANT said; a hint
    uint64_t want_version
    # engine writes, application reads as atomics
    uint64_t received               # from POS
    uint64_t taken                  # from POS, messages
    # engine
    nc_seg* head                    # oldest byte still held
    nc_seg* cur                     # segment that holds offset `sent`; NULL: head
    uint64_t sent                   # bytes sealed at least once
    uint64_t seen_msgs              # of accepted, when out_ready last looked
    uint64_t sent_msgs              # messages begun in what was sealed; exact when at_boundary
    uint64_t acked                  # bytes that need no other path
    nc_ranges* early                # owned: runs behind them that need none either; NULL: none
    uint64_t credit_stalls          # times that data waited for credit
    uint8_t at_boundary             # 1: offset `sent` is a message boundary and sent_msgs its number
    uint8_t fin_sent
    uint8_t fin_acked

cdef void out_init(nc_out* o, uint64_t id) noexcept nogil
cdef void out_link(nc_out* o, nc_seg* s) noexcept nogil                 # puts s behind the tail; under lock
cdef uint64_t out_limit_bytes(nc_out* o) noexcept nogil                 # offset up to which may be sealed; under lock
cdef void out_begun(nc_out* o) noexcept nogil                           # `fresh` is about to be sealed; under lock
cdef int out_gate(nc_out* o, uint32_t offer) noexcept nogil             # why nothing is accepted, or NC_OK; under lock
# Raw bytes that are no message (the preface). NC_OK, NC_ENOMEM.
cdef int out_preface(nc_out* o, const uint8_t* p, size_t n) noexcept nogil
# One message. flags: APPEND_ bits. pin: NULL, then p is copied; else the object that owns p (the caller took a
# reference for us; on failure it keeps it). Any thread that holds the GIL. NC_OK accepted; NC_EAGAIN no credit;
# NC_ECLOSED; NC_ENOMEM.
cdef int out_append(nc_out* o, const uint8_t* p, size_t n, int flags, void* pin) noexcept nogil
# Several messages in one step, each at most COPY_MAX, together too. How many were accepted (> 0), or why none was, as
# out_append; *total grows by the bytes appended.
cdef int out_append_run(nc_out* o, const uint8_t** p, const size_t* n, int count, uint64_t* total) noexcept nogil
# A place for one message whose value is not there yet: NC_OK, or as out_append. Given back right before the append.
cdef int out_reserve(nc_out* o) noexcept nogil
cdef void out_unreserve(nc_out* o) noexcept nogil
cdef int out_has_room(nc_out* o) noexcept nogil                         # 1: out_append would not say NC_EAGAIN
cdef int out_close(nc_out* o) noexcept nogil                            # NC_OK; NC_ECLOSED: was over already
cdef void out_end(nc_out* o, uint32_t over) noexcept nogil              # sends raise from now on
# Engine: bytes that may be sealed now (0: none), *fin = 1 when they reach the end of a closed stream.
cdef uint64_t out_ready(nc_out* o, int* fin) noexcept nogil
# Engine: pointer to unsent bytes that lie together (at most n); 0 = none. Borrowed until acked.
cdef size_t out_span(nc_out* o, const uint8_t** p, size_t n) noexcept nogil
cdef void out_read(nc_out* o, uint8_t* dst, size_t n) noexcept nogil    # copies n ready bytes and passes them
cdef void out_pass(nc_out* o, size_t n) noexcept nogil                  # passes n bytes that were read through out_span
# Engine: n bytes from offset `at` on, sealed before and not acknowledged. 1 copied, 0: they are not here.
cdef int out_peek(nc_out* o, uint64_t at, uint8_t* dst, size_t n) noexcept nogil
cdef void out_ack(nc_out* o, uint64_t upto, nc_seg** pins) noexcept nogil
# The same for the bytes from `first` on; what lies before them may still be under way on another path.
cdef void out_ack_part(nc_out* o, uint64_t first, uint64_t upto, nc_seg** pins) noexcept nogil
# Engine: credit and positions from POS. 1: something moved; 0: nothing new; NC_EFRAME: beyond what was sent.
cdef int out_pos(nc_out* o, uint64_t received, uint64_t taken, uint64_t max_msgs, uint64_t max_bytes,
                 nc_seg** pins) noexcept nogil
# Engine: the channel's capacity has become known: what was not accepted yet keeps to it (session.md §4).
cdef void out_narrow(nc_out* o, uint64_t capacity) noexcept nogil
cdef uint64_t out_limit(nc_out* o) noexcept nogil                       # messages that may be accepted by now
# Engine: the capacity is 0: what is accepted from now on are offers. Before out_narrow.
cdef void out_rendezvous(nc_out* o) noexcept nogil
# Engine: WANT, WITHDRAWN. 1: something moved; 0: nothing new; NC_EFRAME.
cdef int out_want(nc_out* o, uint64_t version, uint64_t parked) noexcept nogil
cdef int out_answer(nc_out* o, uint64_t n, int taken) noexcept nogil
cdef int out_next_withdraw(nc_out* o, uint64_t* n) noexcept nogil       # engine: 1: WITHDRAW(*n) is to be said
cdef void out_withdraw_said(nc_out* o, uint64_t n) noexcept nogil
# Application: what is known of its offer, nc_offer_state; asks for it back (1: the engine has to say so); is done
# with it.
cdef int out_offer_state(nc_out* o, uint64_t n) noexcept nogil
cdef int out_offer_want(nc_out* o, uint64_t n) noexcept nogil
cdef void out_offer_let_go(nc_out* o, uint64_t n) noexcept nogil
cdef int out_offer_room(nc_out* o) noexcept nogil                       # 1: an offer would not meet NC_EAGAIN
cdef void out_free(nc_out* o, nc_seg** pins) noexcept nogil
