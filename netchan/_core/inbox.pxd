# inbox: the receiver's half of a stream: what has come and was not taken. Layer: _core, rung e.
# docs/spec/session.md §2, §4, §6; docs/spec/value.md.
#
# 1. The engine, under its baton, pushes bytes of records (in_data) and grants credit (in_pos).
# 2. The application takes whole messages: take.pxd.
# Threads and ownership: as in outbox.pxd.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netchan._core.budget cimport nc_budget
from netchan._core.cursor cimport nc_wr
from netchan._core.leaf cimport nc_leaf
from netchan._core.parity cimport nc_parity_in
from netchan._core.ranges cimport nc_ranges
from netchan._core.rendezvous cimport nc_claims
from netchan._core.segment cimport nc_seg

cdef enum nc_stage:                 # what the next byte of the stream belongs to
    STAGE_HEAD = 0
    STAGE_BLOCK = 1                 # length of the block of fields
    STAGE_FIELD = 2                 # type of a field
    STAGE_LENGTH = 3                # length of its value
    STAGE_VALUE = 4
    STAGE_BODY = 5

cdef enum:
    DUE_MAX = 65536                 # deadlines of untaken messages that are kept; later ones have none
    MARK_SIZE = 12                  # bytes of a mark of SKIP; its count in the last 8, so that it can grow

cdef enum nc_beside:                # bits: data came on a path that does not carry control
    BESIDE_NEW = 1                  # since half a window was taken
    BESIDE_BEFORE = 2               # in the half before that

cdef enum:
    DUE_NEVER = 0                   # a clock reading before every deadline

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
    uint32_t whole                  # atomic: 1: all bytes up to a known end are here; set after `msgs`
    uint32_t copying                # under lock: the engine writes into tail now
    uint32_t starved                # atomic: 1: the sender can send no more until the next POS
    uint32_t wanted                 # atomic: messages that a waiting caller wants to see here untaken; 0: none
    uint32_t asked                  # atomic: 1: ASK outstanding, see ask_received, ask_taken
    uint64_t ask_received
    uint64_t ask_taken
    uint64_t pos_at_msgs            # atomic: POS is due when taken reaches this
    uint64_t pos_at_bytes           # atomic: or when take_off reaches this
    uint32_t rendezvous             # 1: capacity 0: messages are offers; set before `paired`
    nc_claims claims                # of a rendezvous, under lock
    uint32_t lossy                  # 1: messages may be dropped; steps of the head are under lock; set before `paired`
    uint32_t held                   # under lock: the application copies the head: it stays
    uint64_t keep                   # messages that stay here untaken when more come, the newest, at least one and no
                                    # more than fit into the window; 0: all
    uint64_t skip_ahead             # under lock: messages of SKIP marks that are not passed yet
    uint8_t* mark                   # under lock: the count in the last mark; there until taken passes mark_first
    uint64_t mark_first             # number of the first message of that mark
    uint64_t mark_n                 # how many it stands for; 0: there was no mark yet
    uint64_t skipped                # messages that SKIP told of
    uint64_t dropped                # messages dropped here
    int64_t* due                    # owned, ring by number: when a message is over; 0: never; NULL: none has a deadline
    uint64_t due_mask
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
    uint64_t grown                  # bytes of window above the floor, drawn from the budget
    uint64_t lent                   # bytes beyond two windows, drawn for a value that is longer
    uint64_t waits                  # number of its request if such a value waits for the budget; 0: it does not
    uint64_t capacity               # messages granted beyond taken; 0: not opened here yet
    uint64_t body_left              # bytes of the current message's body still to come
    uint64_t block_left             # bytes of its block of fields still to come
    uint64_t field_left             # bytes of the value of the current field still to come
    uint64_t field                  # its type
    uint64_t deadline_ms            # of the current message; 0: none
    int64_t now_ns                  # when the bytes that are scanned came
    uint64_t turn_off               # where the half window that is watched began, with which message, and when
    uint64_t turn_taken
    int64_t turn_ns
    uint64_t dropped_bytes          # arrived after stop
    nc_ranges gaps                  # received out of order beyond `received`
    nc_seg* ooo                     # their bytes, ascending, disjoint
    nc_seg* early_tail              # the last of these; NULL: none
    uint32_t n_early                # how many
    nc_parity_in* parity            # owned; NULL: the sender has not said any
    size_t next_cap
    uint8_t head_len                # bytes of an incomplete message head held in head_buf
    uint8_t stage                   # nc_stage
    uint8_t stopped                 # STOP was said
    uint8_t has_final
    uint8_t beside                  # nc_beside; not handed over: the next data tell
    uint8_t[8] head_buf
    uint8_t* preface                # owned; the preface as it came, without its length; NULL: none yet
    uint16_t preface_len            # bytes of the preface
    uint16_t preface_got            # bytes of it that are here, its length field not counted
    uint8_t preface_done            # 1: complete
    uint16_t reason_len
    uint8_t[256] reason            # REASON_MAX
    # while the session is about to move to another process the application sees an empty stream (handover_ends.pyx)
    uint8_t hidden
    uint64_t hidden_msgs            # what `msgs`, `over` and `whole` were
    uint32_t hidden_over
    uint32_t hidden_whole

cdef void in_init(nc_in* s, uint64_t id) noexcept nogil
# Counts messages in bytes that continue the stream; keeps the credit and size promises of the sender.
cdef int in_scan(nc_in* s, const uint8_t* p, size_t n, uint64_t max_message, uint64_t* done) noexcept nogil
# Engine: bytes of DATA at offset; the first ones are the preface, which stays in s.preface (preface_done).
# NC_OK; NC_ECREDIT, NC_ELIMIT (message too long), NC_ESTATE (final size), NC_EFRAME, NC_ENOMEM,
# NC_EUNKNOWN (a field of a message that must be understood),
# NC_EAGAIN (too many gaps or pieces: the record must not be acknowledged).
cdef int in_data(nc_in* s, uint64_t offset, const uint8_t* p, size_t n, int fin, uint64_t max_message) noexcept nogil
# Engine, before in_data: a frame at this offset says that it begins message `number`. NC_OK; NC_EFRAME: it does not, as
# far as can be seen by now.
cdef int in_number(nc_in* s, uint64_t offset, uint64_t number) noexcept nogil
cdef void in_over(nc_in* s, uint32_t over, uint64_t code, const uint8_t* reason, size_t n) noexcept nogil
# Engine: where the oldest are dropped: the window follows what is held, as far as the budget of the session goes.
cdef void in_make_room(nc_in* s, nc_budget* budget) noexcept nogil
# Engine: SKIP: messages first … first + n - 1 will never come, nor will their bytes. NC_OK; NC_ECREDIT, NC_ESTATE,
# NC_EFRAME (not what comes next in order), NC_ENOMEM.
cdef int in_skip(nc_in* s, uint64_t first, uint64_t n, uint64_t offset, uint64_t bytes) noexcept nogil
# Engine: writes POS when it is due or `force`; 1 written, 0 not due, NC_ESPACE.
cdef int in_pos(nc_in* s, nc_wr* w, int force, nc_budget* budget) noexcept nogil
# Engine: the value that had the turn is whole, or nobody wants it.
cdef void in_give_turn(nc_in* s, nc_budget* b) noexcept nogil
# Engine: the stream will take no more: what it drew goes back.
cdef void in_give_back(nc_in* s, nc_budget* budget) noexcept nogil
cdef int in_pos_due(nc_in* s) noexcept nogil                            # 1: in_pos would write without force
# Engine: WITHDRAW(n). 0 withdrawn, 1 taken, NC_EFRAME.
cdef int in_withdraw(nc_in* s, uint64_t n) noexcept nogil
cdef void in_free(nc_in* s) noexcept nogil
