# sent: records that the other side has not acknowledged, what they said, and sealing them anew on a later path.
# Layer: _core, rung j. docs/spec/session.md §5, §5.2; docs/decisions/0005. Threads: baton.
#
# Where the session may be resumed (lease_ns), a path keeps for each of its records the frames as they were sealed, in
# a ring of bytes. Of the data of one stream it keeps only how much there was: the outbox holds it until it is
# acknowledged. A path that is suspect or lost while another one lives hands all that to the replay (sent_move).
# Ownership: all rings and the replay belong to the session.

from libc.stdint cimport int64_t, uint64_t, uint8_t

from netchan._core.congestion cimport cc_gone
from netchan._core.datagram cimport dgram_head_size
from netchan._core.record cimport record_head_size
from netchan._core.state cimport nc_path, nc_sent, nc_session

cdef enum:
    KEEP_MAX = 512                  # payloads of a data record up to this are kept with its frames, longer ones are not
    LOG_FIRST = 256                 # bytes of a log at first
    LOG_IDLE = 65536                # a larger one is given back when it is empty
    LOG_RECORD = 69632              # room that one more record may need
    LOG_RESERVE = 131072            # of defs.LOG_MAX, kept for control: acknowledgements must go when data may not
    SENT_RESERVE = 1024             # of defs.SENT_MAX, for the same

cdef enum nc_sent_copy:              # nc_sent.copy
    SENT_OWN = 0                    # its path answers for it; copied where the session mirrors
    SENT_COPY = 1                   # of one that another path carries, which answers for it
    SENT_ONCE = 2                   # neither sent again nor copied, and not in the log
    SENT_ALONE = 3                  # as SENT_OWN, never copied: its stream has another mode than a session that mirrors
    SENT_MIRRORED = 4               # as SENT_OWN, copied in any case: its stream mirrors

# The first record that the path still answers for: behind those that were acknowledged or that others took over.
cdef inline uint64_t sent_own(const nc_path* p) noexcept nogil:
    return p.moved if p.moved > p.acked else p.acked


# 1: its path has to see that it arrives.
cdef inline int sent_answers(const nc_sent* x) noexcept nogil:
    return 1 if x.copy == <uint8_t>SENT_OWN or x.copy >= <uint8_t>SENT_ALONE else 0


# Size of what stands before the frames of a record of this tag that is sent on this path now.
cdef inline size_t path_head(const nc_path* p, uint64_t tag) noexcept nogil:
    return record_head_size(tag) if p.d is NULL else dgram_head_size(p.d.number_size, tag)


# A datagram is not in flight any more.
cdef inline void sent_off(nc_path* p, const nc_sent* x) noexcept nogil:
    cc_gone(&p.d.cc, x.size)
    if x.eliciting:
        p.d.eliciting -= 1


# Seals the record that was built in place (frames of `body` bytes behind the head, then `tail_len` bytes from `tail`)
# and notes it as sent. kept: so many leading bytes are frames to keep; the rest is data that ends at `upto`.
# len: bytes of the stream before `upto` that it brings or passes. Returns its size or a negative code.
cdef int64_t finish_record(nc_session* s, nc_path* p, uint8_t* rec, uint64_t tag, size_t body, const uint8_t* tail,
                           size_t tail_len, size_t kept, uint64_t upto, uint64_t len_, int eliciting,
                           int64_t now) noexcept nogil
# Room in the list of sent records beside `spare` entries: 1 yes, 0 no (sending waits for an ACK).
cdef int sent_room(nc_path* p, uint64_t spare) noexcept nogil
# Room for one more part of a trunk record: 1 yes, 0 no.
cdef int trunk_room(nc_path* p) noexcept nogil
# A part of the next record, which is one of the trunk.
cdef void trunk_note(nc_path* p, uint64_t stream, uint64_t upto, uint64_t len_) noexcept nogil
# Record x of the path arrived over there: what it brought needs no other path.
cdef void sent_arrived(nc_session* s, nc_path* p, nc_sent* x) noexcept nogil
# All that could be concluded from a batch of them: keys change, ends are over.
cdef void sent_settled(nc_session* s) noexcept nogil
# A datagram is given up: what it said waits to be sent again. NC_OK or NC_ENOMEM.
cdef int sent_again(nc_session* s, nc_path* p, const nc_sent* x) noexcept nogil
# Datagrams: forgets what the list begins with, as far as nothing is open about it.
cdef void sent_pop(nc_path* p, int64_t before) noexcept nogil
# The records up to `number` were received over there. When the last one of them that elicits was sent; -1: none does.
cdef int64_t sent_acked(nc_session* s, nc_path* p, uint64_t number, int64_t now) noexcept nogil
# What was sent on the path before record `upto` and for which it answers waits to be sent anew, before what waits
# already. NC_OK or NC_ENOMEM.
cdef int sent_move(nc_session* s, nc_path* p, uint64_t upto) noexcept nogil
# The same, but others answer for all of these that were copied.
cdef int sent_give(nc_session* s, nc_path* p, uint64_t upto) noexcept nogil
# The next record of those, sealed anew. Its size; 0: none left, or no room in `cap`; or a negative code.
cdef int64_t send_again(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil
# Mirror: the next record of the path that carries control which p is to have and has not, sealed on p as well. As
# send_again.
cdef int64_t send_copy(nc_session* s, nc_path* p, uint8_t* out, size_t cap, int64_t now) noexcept nogil
# Our newest epoch begins: something of it is to be acknowledged on each path.
cdef void epoch_begun(nc_session* s) noexcept nogil
# The next epoch may begin once that has happened on all that are not suspect.
cdef void epoch_settled(nc_session* s) noexcept nogil
cdef void sent_free(nc_path* p) noexcept nogil                                          # gives the rings of a path back
cdef void replay_free(nc_session* s) noexcept nogil
