# stream: one direction of one channel: what the sender keeps (nc_out) and what the receiver keeps (nc_in).
# Layer: _core, rung e. docs/spec/session.md §2, §4, §6; docs/spec/value.md.
#
# 1. The application appends messages to nc_out (out_append) and takes them from nc_in (in_peek, in_copy, in_advance).
# 2. The engine, under its baton, pulls bytes of nc_out into records (out_ready, out_read) and pushes bytes of records
#    into nc_in (in_data). It moves the positions of both when frames say so.
# Threads: "app" fields are written by application threads one at a time (the GIL, or the caller's own lock); "engine"
# fields only under the baton; "shared" fields are written under the leaf lock of the struct or are atomics as said.
# Ownership: segments are owned by their struct. A pinned segment holds a reference to its owner object, which no C
# thread may drop: out_ack and out_free hand such segments out through `pins` for a holder of the GIL.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netchan._core.cursor cimport nc_wr
from netchan._core.leaf cimport nc_leaf
from netchan._core.ranges cimport nc_ranges

cdef enum:
    SEG_FIRST = 512                 # bytes of a stream's first segment; doubled for each full one
    SEG_MAX = 65536                 # up to this
    COPY_MAX = 32768                # longest copy under a leaf lock; longer values get a segment of their own

cdef enum nc_over:                  # why a direction is over, as the application sees it
    OVER_NOT = 0
    OVER_FIN = 1                    # clean end at `final`
    OVER_ABORT_AFTER = 2            # aborted behind the data up to `final`
    OVER_ABORT = 3                  # aborted at once
    OVER_STOPPED = 4                # the receiver takes no more
    OVER_LOST = 5                   # session lost; what is here can be taken
    OVER_LEFT = 6                   # the other side left the session

ctypedef struct nc_seg:
    nc_seg* next
    uint64_t start                  # stream offset of data[0]
    uint64_t first_off              # offset at which the first message of this segment starts; ~0: none starts here
    uint64_t first_num              # its number
    uint64_t len                    # bytes in use; the inbox's is an atomic
    size_t cap                      # bytes allotted (0 for a pinned segment)
    const uint8_t* data             # own bytes right behind this struct, or borrowed from `pin`
    void* pin                       # object that owns data; NULL: own bytes

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
    size_t next_cap                 # size of the next own segment
    # engine writes, application reads as atomics
    uint64_t received               # from POS
    uint64_t taken                  # from POS, messages
    # engine
    nc_seg* head                    # oldest byte still held
    nc_seg* cur                     # segment that holds offset `sent`; NULL: head
    uint64_t sent                   # bytes sealed at least once
    uint64_t sent_msgs              # messages begun in what was sealed; exact when at_boundary
    uint64_t acked                  # bytes that need no other path
    uint64_t credit_stalls          # times that data waited for credit
    uint8_t at_boundary             # 1: offset `sent` is a message boundary and sent_msgs its number
    uint8_t fin_sent
    uint8_t fin_acked

ctypedef struct nc_in:
    nc_leaf lock
    uint64_t id
    # shared
    nc_seg* tail                    # engine; may be detached by the application under lock when drained
    uint64_t end                    # atomic: offset up to which bytes are in order and readable
    uint64_t msgs                   # atomic: complete messages in order
    uint64_t final                  # end of the stream, valid when over says so
    uint64_t abort_code
    uint32_t over                   # atomic nc_over; set last
    uint32_t copying                # under lock: the engine writes into tail now
    uint32_t starved                # atomic: 1: the sender can send no more until the next POS
    uint32_t wanted                 # atomic: messages that a waiting caller wants to see here untaken; 0: none
    uint32_t asked                  # atomic: 1: ASK outstanding, see ask_received, ask_taken
    uint64_t ask_received
    uint64_t ask_taken
    uint64_t pos_at_msgs            # atomic: POS is due when taken reaches this
    uint64_t pos_at_bytes           # atomic: or when take_off reaches this
    # application
    nc_seg* head                    # atomic pointer set once by the engine, then the application's
    size_t head_pos                 # bytes of head already taken
    uint64_t take_off               # atomic: offset of the next untaken byte
    uint64_t taken                  # atomic: messages taken
    uint64_t discarded              # messages thrown away by stop or abort
    # engine
    uint64_t received               # bytes in order, preface included
    uint64_t started                # messages begun
    uint64_t granted_msgs           # largest max_msgs said to the sender
    uint64_t granted_bytes
    uint64_t told_taken             # taken of the last POS
    uint64_t told_received
    uint64_t window                 # bytes granted beyond take_off
    uint64_t grown                  # bytes of window above STREAM_BYTES_MIN, drawn from the session's budget
    uint64_t capacity               # messages granted beyond taken; 0: not opened here yet
    uint64_t body_left              # bytes of the current message still to come
    uint64_t dropped_bytes          # arrived after stop
    nc_ranges gaps                  # received out of order beyond `received`
    nc_seg* ooo                     # their bytes, ascending, disjoint
    size_t next_cap
    uint8_t head_len                # bytes of an incomplete message head held in head_buf
    uint8_t stage                   # 0 head, 1 ext length, 3 ext block and body
    uint8_t stopped                 # STOP was said
    uint8_t has_final
    uint8_t head_ext
    uint8_t[8] head_buf
    uint8_t* preface                # owned; the preface as it came, without its length; NULL: none yet
    uint16_t preface_len            # bytes of the preface
    uint16_t preface_got            # bytes of it that are here, its length field not counted
    uint8_t preface_done            # 1: complete
    uint16_t reason_len
    uint8_t[256] reason            # REASON_MAX

ctypedef struct nc_msg:
    nc_seg* seg                     # where the body starts
    size_t pos
    uint64_t len                    # bytes of the body
    uint64_t total                  # bytes to advance: head, ext, body
    uint64_t number
    uint8_t deliver                 # 1: the sender waits for `taken`

# --- sender ---------------------------------------------------------------------------------------------------
cdef void out_init(nc_out* o, uint64_t id) noexcept nogil
# Raw bytes that are no message (the preface). NC_OK, NC_ENOMEM.
cdef int out_preface(nc_out* o, const uint8_t* p, size_t n) noexcept nogil
# One message. pin: NULL, then p is copied; else the object that owns p (the caller took a reference for us; on
# failure it keeps it). Any thread that holds the GIL. NC_OK accepted; NC_EAGAIN no credit; NC_ECLOSED; NC_ENOMEM.
cdef int out_append(nc_out* o, const uint8_t* p, size_t n, int deliver, void* pin) noexcept nogil
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
cdef void out_ack(nc_out* o, uint64_t upto, nc_seg** pins) noexcept nogil
# Engine: credit and positions from POS. 1: something moved; 0: nothing new; NC_EFRAME: beyond what was sent.
cdef int out_pos(nc_out* o, uint64_t received, uint64_t taken, uint64_t max_msgs, uint64_t max_bytes,
                 nc_seg** pins) noexcept nogil
# Engine: the channel's capacity has become known: what was not accepted yet keeps to it (session.md §4).
cdef void out_narrow(nc_out* o, uint64_t capacity) noexcept nogil
cdef uint64_t out_limit(nc_out* o) noexcept nogil                       # messages that may be accepted by now
cdef void out_free(nc_out* o, nc_seg** pins) noexcept nogil

# --- receiver -------------------------------------------------------------------------------------------------
cdef void in_init(nc_in* s, uint64_t id) noexcept nogil
# Engine: bytes of DATA at offset; the first ones are the preface, which stays in s.preface (preface_done).
# NC_OK; NC_ECREDIT, NC_ELIMIT (message or preface too long), NC_ESTATE (final size), NC_EFRAME, NC_ENOMEM,
# NC_EAGAIN (gap table full: the record must not be acknowledged).
cdef int in_data(nc_in* s, uint64_t offset, const uint8_t* p, size_t n, int fin, uint64_t max_message) noexcept nogil
cdef void in_over(nc_in* s, uint32_t over, uint64_t code, const uint8_t* reason, size_t n) noexcept nogil
# Engine: writes POS when it is due or `force`; 1 written, 0 not due, NC_ESPACE. budget: session bytes left for growth.
cdef int in_pos(nc_in* s, nc_wr* w, int force, int64_t* budget) noexcept nogil
cdef int in_pos_due(nc_in* s) noexcept nogil                            # 1: in_pos would write without force
# Application: the next message, whole. NC_OK; NC_EAGAIN none yet; NC_ECLOSED none and over (see s.over).
cdef int in_peek(nc_in* s, nc_msg* m) noexcept nogil
cdef void in_copy(nc_in* s, const nc_msg* m, uint8_t* dst) noexcept nogil
# Application: the message m is taken. Bits: 1 POS is due now, 2 POS would help soon.
cdef int in_advance(nc_in* s, const nc_msg* m) noexcept nogil
cdef uint64_t in_pending(nc_in* s) noexcept nogil                       # complete messages not yet taken
cdef uint64_t in_discard(nc_in* s) noexcept nogil                       # application: throws all away, returns messages
cdef void in_free(nc_in* s) noexcept nogil

cdef void seg_free_list(nc_seg* s) noexcept nogil                       # own segments only
