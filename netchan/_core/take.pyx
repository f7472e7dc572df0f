"""Taking: whole messages out of the inbox, for the application; and which of them nobody is to get any more.

Layer: _core, rung f; no key, and the one clock reading is an argument. Threads and ownership: see the heads of
take.pxd and inbox.pxd. Segments that were drained go on a list and are freed when no lock is held.
Spec: docs/spec/session.md §2, §4, §4.2 and docs/spec/value.md (moments 7, 8).
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.cursor cimport nc_rd, rd_init, rd_left, rd_varint, rd_vbytes
from netchan._core.frame cimport message_head, plain_head
from netchan._core.inbox cimport DUE_NEVER, nc_in
from netchan._core.leaf cimport (
    leaf_lock, leaf_unlock, load_acq_u32, load_acq_u64, load_rlx_u64, load_seq_u32, load_seq_u64, store_rel_u64,
    store_seq_u64,
)
from netchan._core.over cimport OVER_ABORT, OVER_ABORT_AFTER, OVER_FIN, OVER_NOT, OVER_STOPPED
from netchan._core.rendezvous cimport claims_claim
from netchan._core.segment cimport SEG_FIRST, nc_seg, seg_free_list

cdef enum:
    LET_GO_MAX = 256                # messages that are dropped under one hold of the lock


# Reads one byte run of a message head that crosses segments; *at and *pos move.
cdef size_t in_gather(nc_seg* at, size_t pos, uint64_t have, uint8_t* dst, size_t n) noexcept nogil:
    cdef size_t got = 0
    cdef size_t k
    if n > have:
        n = <size_t>have
    while got < n and at is not NULL:
        k = <size_t>load_rlx_u64(&at.len) - pos
        if k > n - got:
            k = n - got
        memcpy(dst + got, at.data + pos, k)
        got += k
        pos += k
        if pos == load_rlx_u64(&at.len):
            at = at.next
            pos = 0
    return got


# The head segment is drained: it goes on the list of those to be freed.
cdef inline void in_leave_segment(nc_in* s, nc_seg** gone) noexcept nogil:
    cdef nc_seg* done = s.head
    s.head = done.next
    s.head_pos = 0
    done.next = gone[0]
    gone[0] = done


cdef inline void in_settle(nc_in* s, uint64_t have, nc_seg** gone) noexcept nogil:
    while s.head is not NULL and s.head_pos == load_rlx_u64(&s.head.len) and have and s.head.next is not NULL:
        in_leave_segment(s, gone)


# The fields of the message at the head, whose first n bytes are at p and whose head has `at` bytes. in_scan has checked
# them. Returns the bytes before the body; 0 only if they are not what in_scan saw.
cdef size_t in_fields(nc_in* s, const uint8_t* p, size_t n, size_t at, uint64_t have, nc_msg* m) noexcept nogil:
    cdef uint8_t[1040] buf          # the longest head, the longest length of a block, EXT_MAX
    cdef const uint8_t* value
    cdef uint64_t block, field
    cdef size_t k
    cdef nc_rd r
    cdef nc_rd number
    rd_init(&r, p + at, n - at)
    if rd_varint(&r, &block) < 0 or block > <uint64_t>rd_left(&r):
        n = in_gather(s.head, s.head_pos, have, buf, sizeof(buf))
        p = buf
        rd_init(&r, p + at, n - at)
        if rd_varint(&r, &block) < 0 or block > <uint64_t>rd_left(&r):
            return 0
    r.end = r.p + block
    while rd_left(&r):
        if rd_varint(&r, &field) < 0 or rd_vbytes(&r, defs.EXT_MAX, &value, &k) < 0:
            return 0
        if field == defs.FIELD_DELIVER:
            m.deliver = 1
        elif field == defs.FIELD_SKIPPED:
            rd_init(&number, value, k)
            if rd_varint(&number, &m.skip) < 0:
                return 0
    return <size_t>(r.p - p)


# The message at the head whatever the state; the caller knows that one is complete.
cdef int in_head(nc_in* s, nc_msg* m, nc_seg** gone) noexcept nogil:
    cdef uint64_t have = load_seq_u64(&s.end) - s.take_off
    cdef uint8_t[24] buf
    cdef const uint8_t* p
    cdef uint64_t body
    cdef size_t n, used
    cdef int ext, head
    cdef nc_seg* at
    cdef size_t pos
    in_settle(s, have, gone)
    if s.head is NULL:
        return defs.NC_ESTATE       # no message is complete: even an empty one has a byte here
    p = s.head.data + s.head_pos
    n = <size_t>load_rlx_u64(&s.head.len) - s.head_pos
    if n > have:
        n = <size_t>have
    if n < 24:
        n = in_gather(s.head, s.head_pos, have, buf, 24)
        p = buf
    head = message_head(p, n, &body, &ext)
    if head < 0:
        return defs.NC_EFRAME
    used = <size_t>head
    m.deliver = 0
    m.skip = 0
    m.len = body
    m.number = s.taken
    if ext:
        used = in_fields(s, p, n, used, have, m)
        if used == 0:
            return defs.NC_EFRAME
    m.total = body + <uint64_t>used
    at = s.head
    pos = s.head_pos + used
    while at is not NULL and pos >= load_rlx_u64(&at.len) and at.next is not NULL:
        pos -= <size_t>load_rlx_u64(&at.len)
        at = at.next
    m.seg = at
    m.pos = pos
    return defs.NC_OK


# Of a stream whose messages may be dropped. NC_EAGAIN: the last one was, since.
cdef int in_head_lossy(nc_in* s, nc_msg* m) noexcept nogil:
    cdef nc_seg* gone = NULL
    cdef int rc
    leaf_lock(&s.lock)
    rc = in_head(s, m, &gone) if s.msgs > s.taken else defs.NC_EAGAIN
    leaf_unlock(&s.lock)
    seg_free_list(gone)
    return rc


# Frees what was drained at the head.
cdef void in_settle_now(nc_in* s) noexcept nogil:
    cdef nc_seg* gone = NULL
    in_settle(s, load_seq_u64(&s.end) - s.take_off, &gone)
    seg_free_list(gone)


# As in_peek, whatever the state.
cdef int in_peek_any(nc_in* s, nc_msg* m) noexcept nogil:
    cdef uint32_t over, whole
    cdef int rc
    while True:
        over = load_acq_u32(&s.over)
        whole = load_acq_u32(&s.whole)
        if over == OVER_ABORT or over == OVER_STOPPED:
            return defs.NC_ECLOSED
        if load_seq_u64(&s.msgs) <= s.taken:
            break
        if not s.lossy:
            in_settle_now(s)
            return in_head(s, m, NULL)
        rc = in_head_lossy(s, m)
        if rc != defs.NC_EAGAIN:
            return rc
    if over == OVER_NOT:
        return defs.NC_EAGAIN
    # The state was read first: an end that is known has all its values before it, unless bytes are still on the way.
    if over == OVER_ABORT_AFTER and not whole:
        return defs.NC_EAGAIN
    return defs.NC_ECLOSED


# Readable bytes of the head segment.
cdef inline uint64_t in_together(nc_in* s) noexcept nogil:
    cdef uint64_t have = load_seq_u64(&s.end) - s.take_off
    cdef uint64_t n = load_rlx_u64(&s.head.len) - s.head_pos
    return n if n < have else have


# Called for every value: what is seldom is elsewhere, so that this one needs no stack.
cdef int in_peek(nc_in* s, nc_msg* m) noexcept nogil:
    cdef nc_seg* at = s.head
    cdef size_t used
    if s.lossy or load_acq_u32(&s.over) or load_seq_u64(&s.msgs) <= s.taken or at is NULL:
        return in_peek_any(s, m)
    used = plain_head(at.data + s.head_pos, <size_t>in_together(s), &m.len)
    if used == 0:
        return in_peek_any(s, m)
    m.seg = at
    m.pos = s.head_pos + used
    m.total = m.len + <uint64_t>used
    m.number = s.taken
    m.skip = 0
    m.deliver = 0
    return defs.NC_OK


cdef int in_run(nc_in* s, nc_run* r) noexcept nogil:
    cdef uint32_t over = load_acq_u32(&s.over)
    if s.lossy or s.rendezvous or over == OVER_ABORT or over == OVER_STOPPED:
        return 0
    r.all = r.left = load_seq_u64(&s.msgs) - s.taken
    if r.all == 0:
        return 0
    in_settle_now(s)
    if s.head is NULL:
        return 0
    r.start = r.at = s.head.data + s.head_pos
    r.end = r.at + in_together(s)
    return 1


cdef void in_copy(nc_in* s, const nc_msg* m, uint8_t* dst) noexcept nogil:
    cdef nc_seg* at = m.seg
    cdef size_t pos = m.pos
    cdef uint64_t left = m.len
    cdef size_t k
    while left and at is not NULL:
        k = <size_t>load_rlx_u64(&at.len) - pos
        if k > left:
            k = <size_t>left
        memcpy(dst, at.data + pos, k)
        dst += k
        left -= k
        pos = 0
        if left:
            at = at.next                                # of the last one it may be written just now


cdef int in_claim(nc_in* s, const nc_msg* m) noexcept nogil:
    cdef int rc
    if not s.rendezvous and not s.lossy:
        return 1
    leaf_lock(&s.lock)
    if s.rendezvous:
        rc = claims_claim(&s.claims, m.number)
    elif s.taken == m.number and s.msgs > s.taken:
        s.held = 1
        rc = 1
    else:
        rc = defs.NC_EAGAIN
    leaf_unlock(&s.lock)
    return rc


# Frees the drained last segment unless the engine writes into it now.
cdef void in_shrink(nc_in* s) noexcept nogil:
    cdef nc_seg* done = NULL
    leaf_lock(&s.lock)
    if s.tail is not NULL and s.tail == s.head and not s.copying and s.head_pos == s.tail.len \
            and load_acq_u64(&s.end) == s.take_off:
        if s.tail.cap > SEG_FIRST:
            done = s.tail
            s.head = s.tail = NULL
            s.head_pos = 0
        else:
            s.tail.len = 0
            s.head_pos = 0
    leaf_unlock(&s.lock)
    free(done)


# Moves the head by `total` bytes, which are `count` messages.
cdef inline void in_step(nc_in* s, uint64_t total, uint64_t count, nc_seg** gone) noexcept nogil:
    cdef uint64_t left = total
    cdef size_t k
    while left:
        k = <size_t>load_rlx_u64(&s.head.len) - s.head_pos
        if k > left:
            k = <size_t>left
        s.head_pos += k
        left -= k
        if left and s.head_pos == load_rlx_u64(&s.head.len):
            in_leave_segment(s, gone)
    store_rel_u64(&s.take_off, s.take_off + total)
    store_seq_u64(&s.taken, s.taken + count)


# The application stores `taken`, then looks whether the engine waits for it; the engine says what it waits for, then
# looks at `taken`. Both in sequential order, so one of them sees the other: else POS would never be said.
# `before`: `taken` before the step, which may have been over several.
cdef inline int in_due(nc_in* s, uint64_t before, uint8_t deliver) noexcept nogil:
    cdef int due = 0
    if deliver or s.taken >= load_rlx_u64(&s.pos_at_msgs) or s.take_off >= load_rlx_u64(&s.pos_at_bytes):
        due = 1
    elif load_seq_u32(&s.asked) and before < s.ask_taken:
        due = 1                                 # each one: callers before the last one asked for wait, too
    elif load_seq_u32(&s.over) == OVER_FIN and s.take_off == load_acq_u64(&s.end):
        due = 1
    elif load_seq_u32(&s.starved):
        due = 2
    if deliver:
        store_rel_u64(&s.pos_at_msgs, s.taken)
    return due


# Under lock: the message at the head is passed; a later one that gets the place of its deadline may have none.
cdef inline void in_pass(nc_in* s, uint64_t total, nc_seg** gone) noexcept nogil:
    if s.due is not NULL:
        s.due[s.taken & s.due_mask] = 0
    in_step(s, total, 1, gone)


cdef int in_advance(nc_in* s, const nc_msg* m) noexcept nogil:
    cdef nc_seg* gone = NULL
    cdef uint64_t before = s.taken
    cdef int more
    if s.lossy:
        leaf_lock(&s.lock)
        in_pass(s, m.total, &gone)
        s.held = 0
        more = in_let_go(s, DUE_NEVER, &gone)
        leaf_unlock(&s.lock)
        seg_free_list(gone)
        if more:
            in_drop(s)
    else:
        in_step(s, m.total, 1, &gone)
        seg_free_list(gone)
    if s.take_off == load_acq_u64(&s.end):
        in_shrink(s)
    return in_due(s, before, m.deliver)


cdef int in_run_end(nc_in* s, const nc_run* r) noexcept nogil:
    cdef nc_seg* gone = NULL
    cdef uint64_t before = s.taken
    if r.at == r.start:
        return 0
    in_step(s, <uint64_t>(r.at - r.start), r.all - r.left, &gone)   # all in the head segment
    if s.take_off == load_acq_u64(&s.end):
        in_shrink(s)
    return in_due(s, before, 0)


# Under lock: the oldest of so many untaken messages has to go. Not for its bytes while a caller waits for this many.
cdef inline int in_too_many(nc_in* s, uint64_t left) noexcept nogil:
    if s.keep == 0 or left <= s.keep:
        return s.keep and left > 1 and s.end - s.take_off > s.window and left > load_acq_u32(&s.wanted)
    return 1


# Under lock: passes what nobody is to get: marks of SKIP, the oldest beyond `keep`, and those that were due by now.
# 1: there is more, but the other side of the lock has waited long enough; the head is no mark all the same.
cdef int in_let_go(nc_in* s, int64_t now_ns, nc_seg** gone) noexcept nogil:
    cdef nc_msg m
    cdef int64_t due
    cdef uint64_t left
    cdef int n = 0
    while s.msgs > s.taken and not s.held and in_head(s, &m, gone) == defs.NC_OK:
        if m.skip:
            s.skip_ahead -= m.skip
            in_step(s, m.total, m.skip, gone)
            continue
        due = s.due[s.taken & s.due_mask] if s.due is not NULL else 0
        left = s.msgs - s.taken - s.skip_ahead
        if not (0 < due <= now_ns) and not in_too_many(s, left):
            break
        if n == LET_GO_MAX:
            return 1
        n += 1
        in_pass(s, m.total, gone)
        s.dropped += 1
    return 0


cdef void in_drop(nc_in* s) noexcept nogil:
    in_let_go_all(s, DUE_NEVER)


cdef void in_let_go_all(nc_in* s, int64_t now_ns) noexcept nogil:
    cdef nc_seg* gone
    cdef int more = 1
    while more:
        gone = NULL
        leaf_lock(&s.lock)
        more = in_let_go(s, now_ns, &gone)
        leaf_unlock(&s.lock)
        seg_free_list(gone)


cdef int in_expire(nc_in* s, int64_t now_ns) noexcept nogil:
    cdef uint64_t before = s.taken
    if not s.lossy or s.due is NULL:
        return 0
    in_let_go_all(s, now_ns)
    return in_due(s, before, 0) if s.taken != before else 0


cdef uint64_t in_pending(nc_in* s) noexcept nogil:
    cdef uint32_t over = load_acq_u32(&s.over)
    cdef uint64_t n
    if over == OVER_ABORT or over == OVER_STOPPED:
        return 0
    if not s.lossy:
        return load_acq_u64(&s.msgs) - s.taken
    leaf_lock(&s.lock)
    n = s.msgs - s.taken - s.skip_ahead
    leaf_unlock(&s.lock)
    return n


cdef uint64_t in_discard(nc_in* s) noexcept nogil:
    cdef nc_msg m
    cdef nc_seg* gone = NULL
    cdef uint64_t n = 0
    cdef int rc
    while True:
        if s.lossy:
            leaf_lock(&s.lock)
        rc = in_head(s, &m, &gone) if load_seq_u64(&s.msgs) > s.taken else defs.NC_EAGAIN
        if s.lossy:
            s.held = 1 if rc == defs.NC_OK else 0
            leaf_unlock(&s.lock)
        if rc != defs.NC_OK:
            break
        in_advance(s, &m)
        n += 1
    seg_free_list(gone)
    s.discarded += n
    return n
