"""The inbox: reassembly and credit.

Layer: _core, rung e; no clock, no key, no frame of its own but POS. Threads and ownership: see the head of inbox.pxd.
Spec: docs/spec/session.md §2, §4, §6 and docs/spec/value.md (moment 6). The application's half is take.pyx.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from netchan._core.budget cimport budget_draw, budget_return, nc_budget
from netchan._core cimport defs
from netchan._core.cursor cimport VARINT_MAX, nc_rd, nc_wr, rd_init, rd_left, rd_varint
from netchan._core.frame cimport frame_put_pos, plain_head
from netchan._core.leaf cimport (
    leaf_init, leaf_lock, leaf_unlock, load_acq_u32, load_acq_u64, load_rlx_u64, load_seq_u32, load_seq_u64,
    store_rel_u32, store_rel_u64, store_rlx_u64, store_seq_u32, store_seq_u64,
)
from netchan._core.over cimport OVER_NOT, OVER_FIN, OVER_ABORT_AFTER, OVER_ABORT, OVER_STOPPED
from netchan._core.parity cimport parity_end, parity_push
from netchan._core.ranges cimport ranges_add, ranges_free, ranges_init, ranges_remove_below
from netchan._core.rendezvous cimport claims_withdraw
from netchan._core.segment cimport SEG_FIRST, SEG_MAX, nc_seg, seg_free_list, seg_new, seg_room

cdef uint64_t NOWHERE = ~<uint64_t>0
cdef uint64_t DEADLINE_MS_MAX = 1 << 40     # later is never
cdef enum:
    DROP_REPORT = 64                # messages taken or dropped between two POS where nobody waits for room


cdef void in_init(nc_in* s, uint64_t id) noexcept nogil:
    memset(s, 0, sizeof(nc_in))
    leaf_init(&s.lock)
    s.id = id
    s.next_cap = SEG_FIRST
    s.window = defs.INITIAL_BYTES
    s.granted_bytes = defs.INITIAL_BYTES
    s.granted_msgs = defs.INITIAL_MSGS
    s.pos_at_msgs = NOWHERE
    s.pos_at_bytes = NOWHERE
    ranges_init(&s.gaps, defs.GAPS_MAX)


# A varint of a message's head or block was completed. NC_OK or why the message is refused.
cdef int in_varint(nc_in* s, uint64_t v, uint64_t max_message) noexcept nogil:
    if s.stage == STAGE_HEAD:
        s.started += 1
        s.body_left = v >> 1
        if s.body_left > max_message:
            return defs.NC_ELIMIT
        s.stage = STAGE_BLOCK if v & 1 else STAGE_BODY
    elif s.stage == STAGE_BLOCK:
        if v > <uint64_t>defs.EXT_MAX:
            return defs.NC_EFRAME
        s.block_left = v
        s.stage = STAGE_FIELD if v else STAGE_BODY
    elif s.stage == STAGE_FIELD:
        s.field = v
        s.stage = STAGE_LENGTH
    else:
        if v > s.block_left:
            return defs.NC_EFRAME
        # Even types may be skipped; odd ones change what the message means (wire.md §9).
        if s.field & 1 and s.field != defs.FIELD_DELIVER:
            return defs.NC_EUNKNOWN
        if s.field == defs.FIELD_DEADLINE and (v == 0 or v > 8):
            return defs.NC_EFRAME
        # No preface of this version agrees to compress: skipped, it would give out bytes that are not the value.
        if (s.field == defs.FIELD_DELIVER and v) or s.field == defs.FIELD_COMPRESSION:
            return defs.NC_EFRAME
        s.field_left = v
        s.stage = STAGE_VALUE if v else (STAGE_FIELD if s.block_left else STAGE_BODY)
    return defs.NC_OK


# Whole messages without a block from p on, as many as are allowed: counts them and returns their bytes. What it leaves,
# also what is not allowed, is for the steps of in_scan.
cdef size_t in_scan_whole(nc_in* s, const uint8_t* p, size_t n, uint64_t max_message, uint64_t* done) noexcept nogil:
    cdef uint64_t most = s.granted_msgs - s.started if s.started < s.granted_msgs else 0
    cdef uint64_t count = 0
    cdef uint64_t body
    cdef const uint8_t* at = p
    cdef const uint8_t* end = p + n
    cdef size_t used
    while count < most:
        used = plain_head(at, <size_t>(end - at), &body)
        if used == 0 or body > max_message:
            break
        at += used + <size_t>body
        count += 1
    s.started += count
    done[0] += count
    return <size_t>(at - p)


# Counts messages in bytes that continue the stream; keeps the credit and size promises of the sender.
cdef int in_scan(nc_in* s, const uint8_t* p, size_t n, uint64_t max_message, uint64_t* done) noexcept nogil:
    cdef uint64_t body, k
    cdef int used, rc
    cdef nc_rd r
    while n:
        if s.stage == STAGE_BODY:
            k = s.body_left if s.body_left < n else n
            s.body_left -= k
            p += k
            n -= <size_t>k
        elif s.stage == STAGE_VALUE and s.field == defs.FIELD_DEADLINE:
            s.head_buf[s.head_len] = p[0]
            s.head_len += 1
            p += 1
            n -= 1
            s.field_left -= 1
            s.block_left -= 1
            if s.field_left == 0:
                rd_init(&r, s.head_buf, s.head_len)
                if rd_varint(&r, &s.deadline_ms) < 0 or rd_left(&r):
                    return defs.NC_EFRAME
                s.deadline_ms += 1              # 0 ms left is a deadline, too
                s.head_len = 0
                s.stage = STAGE_FIELD if s.block_left else STAGE_BODY
        elif s.stage == STAGE_VALUE:
            k = s.field_left if s.field_left < n else n
            s.field_left -= k
            s.block_left -= k
            p += k
            n -= <size_t>k
            if s.field_left == 0:
                s.stage = STAGE_FIELD if s.block_left else STAGE_BODY
        elif s.head_len == 0 and s.stage == STAGE_HEAD and p[0] < 0x80 and (p[0] < 0x40 or n >= 2):
            # Fast path: a whole one- or two-byte head.
            if s.due is NULL:
                k = in_scan_whole(s, p, n, max_message, done)
                if k == n:
                    return defs.NC_OK
                if k:
                    p += k
                    n -= <size_t>k
                    continue
            if s.started >= s.granted_msgs:
                return defs.NC_ECREDIT
            if p[0] < 0x40:
                body = p[0]
                used = 1
            else:
                body = ((<uint64_t>p[0] << 8) | p[1]) & 0x3FFF
                used = 2
            s.started += 1
            s.body_left = body >> 1
            if s.body_left > max_message:
                return defs.NC_ELIMIT
            p += used
            n -= used
            s.stage = STAGE_BLOCK if body & 1 else STAGE_BODY
        else:
            # A head or a part of the block that may be cut: collect it byte by byte.
            if s.stage == STAGE_HEAD and s.head_len == 0 and s.started >= s.granted_msgs:
                return defs.NC_ECREDIT
            if s.stage == STAGE_FIELD or s.stage == STAGE_LENGTH:
                if s.block_left == 0:
                    return defs.NC_EFRAME       # the block ends inside a field
                s.block_left -= 1
            s.head_buf[s.head_len] = p[0]
            s.head_len += 1
            p += 1
            n -= 1
            rd_init(&r, s.head_buf, s.head_len)
            if rd_varint(&r, &body) < 0:
                continue
            s.head_len = 0
            rc = in_varint(s, body, max_message)
            if rc < 0:
                return rc
        if s.stage == STAGE_BODY and s.body_left == 0:
            done[0] += 1
            s.stage = STAGE_HEAD
            if s.due is not NULL or s.deadline_ms:
                rc = in_note_due(s)
                if rc < 0:
                    return rc
    return defs.NC_OK


# The message that was just scanned has a deadline, or others have: notes when its time is over.
cdef int in_note_due(nc_in* s) noexcept nogil:
    cdef uint64_t number = s.started - 1
    cdef uint64_t n, i
    cdef int64_t due = 0
    cdef int64_t* bigger = NULL
    cdef int64_t* old
    if s.deadline_ms:
        due = s.now_ns + <int64_t>((s.deadline_ms - 1) * 1000000) if s.deadline_ms < DEADLINE_MS_MAX else 0
        s.deadline_ms = 0
    if not s.lossy or s.stopped:
        return defs.NC_OK                       # said by a peer that did not say it of the stream: no promise of ours
    n = number - load_acq_u64(&s.taken) + 1
    if s.due is NULL or n > s.due_mask + 1:
        if n > <uint64_t>DUE_MAX:
            return defs.NC_OK
        i = 16
        while i < n:
            i <<= 1
        bigger = <int64_t*>calloc(<size_t>i, sizeof(int64_t))
        if bigger is NULL:
            return defs.NC_ENOMEM
        leaf_lock(&s.lock)
        old = s.due
        if old is not NULL:
            n = s.taken
            while n < number:
                bigger[n & (i - 1)] = old[n & s.due_mask]
                n += 1
        s.due = bigger
        s.due_mask = i - 1
        leaf_unlock(&s.lock)
        free(old)
    leaf_lock(&s.lock)
    s.due[number & s.due_mask] = due
    leaf_unlock(&s.lock)
    return defs.NC_OK


cdef int in_number(nc_in* s, uint64_t offset, uint64_t number) noexcept nogil:
    if offset < s.received:
        if number == s.started and s.stage == STAGE_HEAD and offset + s.head_len == s.received:
            return defs.NC_OK                   # sent again, and no more than a part of its head has come
        return defs.NC_OK if number < s.started else defs.NC_EFRAME     # sent again: it had its turn
    if offset > s.received:
        return defs.NC_OK if number >= s.started else defs.NC_EFRAME    # before its turn
    if s.preface_done and s.stage == STAGE_HEAD and s.head_len == 0 and s.started == number:
        return defs.NC_OK
    return defs.NC_EFRAME


# Under lock: an empty segment behind the last one.
cdef inline void in_link(nc_in* s, nc_seg* fresh) noexcept nogil:
    if s.tail is NULL:
        s.head = fresh
        s.head_pos = 0
    else:
        s.tail.next = fresh
    s.tail = fresh


# Copies bytes that continue the stream into the inbox. Only the engine changes `tail`, but for detaching it.
cdef int in_store(nc_in* s, const uint8_t* p, size_t n) noexcept nogil:
    cdef nc_seg* t
    cdef nc_seg* fresh
    cdef size_t k, cap
    while n:
        leaf_lock(&s.lock)
        t = s.tail
        if t is not NULL and t.len < t.cap:
            s.copying = 1
            leaf_unlock(&s.lock)
            k = t.cap - <size_t>t.len
            if k > n:
                k = n
            memcpy(seg_room(t), p, k)
            leaf_lock(&s.lock)
            store_rlx_u64(&t.len, t.len + k)
            s.copying = 0
            leaf_unlock(&s.lock)
            p += k
            n -= k
            continue
        leaf_unlock(&s.lock)
        cap = s.next_cap
        if n > cap:
            cap = n if n < SEG_MAX else SEG_MAX
        if s.next_cap < SEG_MAX:
            s.next_cap <<= 1
        fresh = seg_new(cap, 0)
        if fresh is NULL:
            return defs.NC_ENOMEM
        leaf_lock(&s.lock)
        in_link(s, fresh)
        leaf_unlock(&s.lock)
    return defs.NC_OK


# Bytes of the preface from the front of p. Returns how many were used, or NC_EFRAME, NC_ENOMEM.
cdef int64_t in_preface(nc_in* s, const uint8_t* p, size_t n) noexcept nogil:
    cdef size_t used = 0
    cdef size_t k
    cdef uint64_t length
    cdef nc_rd r
    while s.preface is NULL and used < n:
        s.head_buf[s.head_len] = p[used]
        s.head_len += 1
        used += 1
        rd_init(&r, s.head_buf, s.head_len)
        if rd_varint(&r, &length) < 0:
            continue
        s.head_len = 0
        if length == 0 or length > <uint64_t>defs.PREFACE_MAX:
            return defs.NC_EFRAME
        s.preface = <uint8_t*>malloc(<size_t>length)
        if s.preface is NULL:
            return defs.NC_ENOMEM
        s.preface_len = <uint16_t>length
    k = s.preface_len - s.preface_got
    if k > n - used:
        k = n - used
    if k:
        memcpy(s.preface + s.preface_got, p + used, k)
        s.preface_got += <uint16_t>k
        used += k
    s.received += used
    if s.preface is not NULL and s.preface_got == s.preface_len:
        s.preface_done = 1
        store_rel_u64(&s.take_off, s.received)
        store_seq_u64(&s.end, s.received)
    return <int64_t>used


cdef int in_order(nc_in* s, const uint8_t* p, size_t n, uint64_t max_message) noexcept nogil:
    cdef uint64_t done = 0
    cdef int64_t used
    cdef int rc
    if not s.preface_done:
        used = in_preface(s, p, n)
        if used < 0:
            return <int>used
        p += used
        n -= <size_t>used
        if n == 0:
            return defs.NC_OK
    if s.stopped:
        s.dropped_bytes += n
        s.received += n
        return in_scan(s, p, n, max_message, &done)
    rc = in_scan(s, p, n, max_message, &done)
    if rc < 0:
        return rc
    rc = in_store(s, p, n)
    if rc < 0:
        return rc
    if s.parity is not NULL:
        parity_push(s.parity, p, n)
    s.received += n
    store_seq_u64(&s.end, s.end + n)
    if done:
        store_seq_u64(&s.msgs, s.msgs + done)
    return defs.NC_OK


# Keeps bytes that came before their turn: the parts not held yet, as segments in ascending order. What goes on where
# the last segment ends fills its room, so that a run after one gap takes few segments; EARLY_MAX bounds the others.
cdef int in_keep(nc_in* s, uint64_t offset, const uint8_t* p, size_t n) noexcept nogil:
    cdef nc_seg** link = &s.ooo
    cdef nc_seg* fresh
    cdef uint64_t end = offset + n
    cdef uint64_t upto
    cdef size_t k, cap
    cdef int64_t fresh_bytes
    if s.early_tail is not NULL and offset >= s.early_tail.start + s.early_tail.len:
        link = &s.early_tail.next                       # behind all: no walk
    while offset < end:
        while link[0] is not NULL and link[0].start + link[0].len <= offset:
            link = &link[0].next
        if link[0] is not NULL and link[0].start <= offset:
            upto = link[0].start + link[0].len
            if upto > end:
                upto = end
            p += upto - offset
            offset = upto
            continue
        upto = end if link[0] is NULL or link[0].start > end else link[0].start
        fresh = s.early_tail
        k = <size_t>(upto - offset)
        cap = k
        if fresh is not NULL and link == &fresh.next and fresh.start + fresh.len == offset:
            if fresh.len == fresh.cap:
                cap = fresh.cap * 2 if fresh.cap < SEG_MAX // 2 else SEG_MAX
                if cap < k:
                    cap = k
                fresh = NULL
            elif k > fresh.cap - <size_t>fresh.len:
                k = fresh.cap - <size_t>fresh.len
        else:
            fresh = NULL
        if fresh is NULL and s.n_early >= <uint32_t>defs.EARLY_MAX:
            return defs.NC_EAGAIN
        fresh_bytes = ranges_add(&s.gaps, offset, offset + k)
        if fresh_bytes < 0:
            return defs.NC_EAGAIN if fresh_bytes == defs.NC_ELIMIT else <int>fresh_bytes
        if fresh is NULL:
            fresh = seg_new(cap, offset)
            if fresh is NULL:
                return defs.NC_ENOMEM
            s.n_early += 1
            fresh.next = link[0]
            link[0] = fresh
            if fresh.next is NULL:
                s.early_tail = fresh
            link = &fresh.next
        memcpy(seg_room(fresh), p, k)
        fresh.len += k
        p += k
        offset += k
    return defs.NC_OK


# 1: the sender has used up what it may send. Once the capacity is known it keeps to that, whatever was granted before.
cdef inline uint32_t in_spent(nc_in* s) noexcept nogil:
    cdef uint64_t most = s.granted_msgs
    if s.capacity and s.keep == 0 and s.told_taken + s.capacity < most:
        most = s.told_taken + s.capacity
    return 1 if s.started >= most or s.received >= s.granted_bytes else 0


cdef int in_data(nc_in* s, uint64_t offset, const uint8_t* p, size_t n, int fin, uint64_t max_message) noexcept nogil:
    cdef uint64_t end = offset + n
    cdef uint64_t skip
    cdef nc_seg* held
    cdef int rc
    if end > s.granted_bytes:                   # after a stop, too: what comes too early would be kept
        return defs.NC_ECREDIT
    if s.has_final and (end > s.final or (fin and end != s.final)):
        return defs.NC_ESTATE
    if fin and not s.has_final:
        if end < s.received or (s.gaps.len and end < s.gaps.v[s.gaps.len - 1].hi):
            return defs.NC_ESTATE
        s.has_final = 1
        s.final = end
    if offset > s.received:
        rc = in_keep(s, offset, p, n)
        return rc
    skip = s.received - offset
    if skip < n:
        rc = in_order(s, p + skip, n - <size_t>skip, max_message)
        if rc < 0:
            return rc
        while s.ooo is not NULL and s.ooo.start <= s.received:
            held = s.ooo
            s.ooo = held.next
            s.n_early -= 1
            if s.ooo is NULL:
                s.early_tail = NULL
            skip = s.received - held.start
            rc = defs.NC_OK
            if skip < held.len:
                rc = in_order(s, held.data + skip, held.len - <size_t>skip, max_message)
            free(held)
            if rc < 0:
                return rc
        ranges_remove_below(&s.gaps, s.received)
    return in_reached(s)


# Bytes have come in order: is it the end, can the sender go on?
cdef int in_reached(nc_in* s) noexcept nogil:
    cdef uint32_t over = load_acq_u32(&s.over)
    if s.has_final and s.received == s.final:
        # What is thrown away may end anywhere: bytes of it come behind ABORT where there are several paths.
        if over != OVER_ABORT and over != OVER_STOPPED \
                and (s.stage != STAGE_HEAD or s.head_len != 0 or not s.preface_done):
            return defs.NC_EFRAME                       # the stream ends inside a message
        store_seq_u32(&s.whole, 1)
        if over == OVER_NOT:
            store_seq_u32(&s.over, OVER_FIN)
    store_seq_u32(&s.starved, in_spent(s))
    return defs.NC_OK


# Under lock: what SKIP replaces has its place among the messages: a mark that the application's half passes (take.pyx).
# It has the form of a message with a field that in_scan lets nobody send. What follows a mark directly grows it, so
# there is at most one for each message: nothing but SKIP fills no memory. NC_OK, or NC_EAGAIN: no room.
cdef int in_mark(nc_in* s, uint64_t first, uint64_t n) noexcept nogil:
    cdef nc_seg* t = s.tail
    cdef uint8_t* at
    cdef int i
    if s.mark_n and s.mark_first + s.mark_n == first and s.mark_first >= s.taken:
        s.mark_n += n
    else:
        if t is NULL or t.cap < t.len + MARK_SIZE:
            return defs.NC_EAGAIN
        at = seg_room(t)
        at[0] = 1                               # no body, a block
        at[1] = MARK_SIZE - 2
        at[2] = defs.FIELD_SKIPPED
        at[3] = MARK_SIZE - 4
        s.mark = at + 4
        s.mark_first = first
        s.mark_n = n
        store_rlx_u64(&t.len, t.len + MARK_SIZE)
        store_seq_u64(&s.end, s.end + MARK_SIZE)
    for i in range(8):
        s.mark[i] = <uint8_t>((s.mark_n | (<uint64_t>3 << 62)) >> (56 - 8 * i))
    return defs.NC_OK


cdef int in_skip(nc_in* s, uint64_t first, uint64_t n, uint64_t offset, uint64_t bytes) noexcept nogil:
    cdef nc_seg* fresh
    if n == 0 or bytes == 0 or n > VARINT_MAX - first or bytes > VARINT_MAX - offset:
        return defs.NC_EFRAME
    if offset + bytes <= s.received and first + n <= s.started:
        return defs.NC_OK                       # said again
    if s.has_final and offset + bytes > s.final:
        return defs.NC_ESTATE
    if offset != s.received or first != s.started or not s.preface_done or s.stage != STAGE_HEAD or s.head_len != 0 \
            or s.ooo is not NULL:
        return defs.NC_EFRAME
    if first + n > s.granted_msgs:
        return defs.NC_ECREDIT
    if not s.stopped:
        leaf_lock(&s.lock)
        if in_mark(s, first, n) != defs.NC_OK:
            leaf_unlock(&s.lock)
            fresh = seg_new(s.next_cap, 0)
            if fresh is NULL:
                return defs.NC_ENOMEM
            leaf_lock(&s.lock)
            in_link(s, fresh)
            in_mark(s, first, n)
        s.skip_ahead += n
        s.skipped += n
        store_seq_u64(&s.msgs, s.msgs + n)
        leaf_unlock(&s.lock)
    s.started += n
    s.received += bytes
    if s.granted_bytes < s.received:
        s.granted_bytes = s.received            # SKIP needs no credit for bytes: an end right behind it neither
    return in_reached(s)


cdef void in_over(nc_in* s, uint32_t over, uint64_t code, const uint8_t* reason, size_t n) noexcept nogil:
    cdef uint32_t now = load_acq_u32(&s.over)
    if now == OVER_ABORT or now == OVER_STOPPED:
        return
    # A complete stream stays as it ended when the session goes; only abort and stop throw values away.
    if over != OVER_ABORT and over != OVER_STOPPED and now != OVER_NOT:
        if now != OVER_ABORT_AFTER or (over != OVER_ABORT_AFTER and s.received >= s.final):
            return
    if n > <size_t>defs.REASON_MAX:
        n = defs.REASON_MAX
    s.abort_code = code
    if n:
        memcpy(s.reason, reason, n)
    s.reason_len = <uint16_t>n
    if s.has_final and s.received >= s.final:
        store_seq_u32(&s.whole, 1)
    store_seq_u32(&s.over, over)


# Bytes of the current message that are still to come, as far as is known.
cdef inline uint64_t in_rest(nc_in* s) noexcept nogil:
    return s.body_left + s.block_left


# A caller waits for more whole messages than the window holds: they are granted a window at a time, like a long value.
cdef inline int in_more_wanted(nc_in* s, uint64_t taken) noexcept nogil:
    cdef uint64_t n = load_acq_u32(&s.wanted)
    return n and load_acq_u64(&s.msgs) < taken + n and s.received + (s.window >> 1) >= s.granted_bytes


cdef inline uint64_t in_held(nc_in* s) noexcept nogil:
    return load_acq_u64(&s.end) - load_acq_u64(&s.take_off)


# The offset from which on bytes take up room: all before it were taken, dropped or never came.
cdef inline uint64_t in_freed(nc_in* s) noexcept nogil:
    cdef uint64_t held = in_held(s)
    return s.received - held if held < s.received else 0    # a mark of SKIP may be longer than what it stands for


cdef int in_pos_due(nc_in* s) noexcept nogil:
    cdef uint64_t taken = load_seq_u64(&s.taken)
    if s.capacity == 0 or s.stopped:
        return 0
    if taken >= load_rlx_u64(&s.pos_at_msgs) or load_acq_u64(&s.take_off) >= load_rlx_u64(&s.pos_at_bytes):
        return 1
    if load_acq_u32(&s.asked) and (s.told_received < s.ask_received <= s.received
                                   or (s.told_taken < s.ask_taken and taken > s.told_taken)):
        return 1
    if s.starved and (taken > s.told_taken or s.granted_bytes < in_freed(s) + s.window
                      or (s.keep and s.granted_bytes < s.received + s.window)):
        return 1
    # The head message is longer than the window: grant up to its end as it comes.
    if in_rest(s) and s.received + in_rest(s) > s.granted_bytes and s.received + (s.window >> 1) >= s.granted_bytes \
            and s.waits == 0:
        return 1
    if in_more_wanted(s, taken):
        return 1
    # The last message was taken: the sender may forget the stream.
    return 1 if s.over == OVER_FIN and load_acq_u64(&s.take_off) == load_acq_u64(&s.end) and s.told_taken < taken else 0


# Doubles the window if the budget allows it: 1, else 0.
cdef inline int in_widen(nc_in* s, nc_budget* budget) noexcept nogil:
    if not budget_draw(budget, s.window, 0):
        return 0
    s.grown += s.window
    s.window <<= 1
    return 1


# The value that arrives waits for the budget no more.
cdef inline void in_wait_no_more(nc_in* s, nc_budget* b) noexcept nogil:
    if s.waits:
        s.waits = 0
        b.waits -= 1


cdef void in_give_turn(nc_in* s, nc_budget* b) noexcept nogil:
    if b.turn == s.id:
        b.turn = 0
        if b.waits:
            b.freed = 1


# The stream is to hold `need` bytes beyond two windows. 1: they are drawn; 0: the value has to wait.
cdef int in_lend(nc_in* s, uint64_t need, nc_budget* b) noexcept nogil:
    if in_rest(s) == 0:
        in_give_turn(s, b)                      # its value is whole
    if need <= s.lent or budget_draw(b, need - s.lent, 0):
        if b.turn == s.id and need > s.lent:
            in_give_turn(s, b)                  # there is room without it
    elif b.turn == s.id or (b.turn == 0 and b.waits == (1 if s.waits else 0)):
        b.turn = s.id
        budget_draw(b, need - s.lent, 1)
    else:
        if s.waits == 0:
            b.asked += 1
            b.waits += 1
            s.waits = b.asked
        return 0
    if need < s.lent:
        budget_return(b, s.lent - need)
    s.lent = need
    in_wait_no_more(s, b)
    return 1


cdef void in_give_back(nc_in* s, nc_budget* budget) noexcept nogil:
    parity_end(s.parity, budget)
    s.parity = NULL
    in_wait_no_more(s, budget)
    in_give_turn(s, budget)
    budget_return(budget, s.lent)
    s.lent = 0


cdef void in_make_room(nc_in* s, nc_budget* budget) noexcept nogil:
    while s.window < <uint64_t>defs.STREAM_BYTES_MAX and in_held(s) > s.window:
        if not in_widen(s, budget):
            return


cdef int in_pos(nc_in* s, nc_wr* w, int force, nc_budget* budget) noexcept nogil:
    cdef uint64_t taken, off, bytes_to, want, msgs_to, often
    cdef double room
    cdef uint32_t over
    cdef int rc
    if s.stopped:
        in_give_back(s, budget)
        return 0
    if not force and not in_pos_due(s):
        return 0
    # Said first: what the application takes from here on it reports, though this POS does not know of it.
    store_seq_u32(&s.starved, 1)
    taken = load_seq_u64(&s.taken)
    over = load_seq_u32(&s.over)
    if over == OVER_STOPPED or over == OVER_ABORT:
        return 0                                # what is discarded moves `taken`, too, and the engine may not know yet
    off = in_freed(s)
    # The sender is about to run out of bytes while the application keeps up: the window is what limits it.
    if s.capacity and s.window < defs.STREAM_BYTES_MAX and s.received + (s.window >> 2) >= s.granted_bytes \
            and s.received - off < (s.window >> 1) + (s.window >> 2) and off > 0 \
            and s.granted_bytes > defs.INITIAL_BYTES:
        in_widen(s, budget)
    elif s.capacity and off >= s.turn_off + (s.window >> 1):
        # What is taken in two round trips does not fit in the window beside one more value, since that frees no room
        # before it is whole: the sender waits, though none of it is here yet.
        room = <double>s.window
        if taken > s.turn_taken:
            room -= <double>(off - s.turn_off) / <double>(taken - s.turn_taken)
        if room < <double>(s.window >> 2):
            room = <double>(s.window >> 2)      # where round trips are short longer values need no larger window
        if s.window < defs.STREAM_BYTES_MAX and <double>(off - s.turn_off) * 2.0 * <double>budget.rtt \
                > room * <double>(s.now_ns - s.turn_ns):
            in_widen(s, budget)
        s.turn_off = off
        s.turn_taken = taken
        s.turn_ns = s.now_ns
        s.beside = BESIDE_BEFORE if s.beside & <uint8_t>BESIDE_NEW else 0
    # Where the oldest make room for the newest nobody has to take any for the sender to go on.
    bytes_to = (s.received if s.keep else off) + s.window
    want = s.received + in_rest(s)
    # A value that ends beyond the window is granted a window at a time up to its end. One that begins within it and is
    # no longer needs no more room than a second window; what is beyond that is drawn first.
    if s.capacity and in_lend(s, want - bytes_to - s.window if want > bytes_to + s.window else 0, budget) \
            and in_rest(s) and want > bytes_to:
        bytes_to = s.received + s.window if s.received + s.window < want else want
    msgs_to = VARINT_MAX - 1 if s.keep else taken + s.capacity     # the newest push the others out: bytes are the limit
    if in_more_wanted(s, taken) and bytes_to < s.received + s.window:
        bytes_to = s.received + s.window
    if bytes_to < s.granted_bytes:
        bytes_to = s.granted_bytes
    if bytes_to > VARINT_MAX:
        bytes_to = VARINT_MAX                   # SKIP may have said that nearly all offsets are behind us
    if msgs_to < s.granted_msgs:
        msgs_to = s.granted_msgs                # what was granted before the capacity was known is not taken back
    rc = frame_put_pos(w, s.id, s.received, taken, msgs_to, bytes_to)
    if rc < 0:
        store_rel_u32(&s.starved, in_spent(s))
        return rc
    s.granted_msgs = msgs_to
    s.granted_bytes = bytes_to
    s.told_taken = taken
    s.told_received = s.received
    if s.capacity:
        often = 1 if s.rendezvous else (s.capacity + 3) // 4
        if s.keep and often < <uint64_t>DROP_REPORT:
            often = DROP_REPORT                 # nobody waits for room that each one would tell of
        store_rlx_u64(&s.pos_at_msgs, taken + often)
        store_rlx_u64(&s.pos_at_bytes, load_acq_u64(&s.take_off) + (s.window >> 2))
    if load_acq_u32(&s.asked) and s.received >= s.ask_received and taken >= s.ask_taken:
        store_rel_u32(&s.asked, 0)              # both were told just now
    store_rel_u32(&s.starved, in_spent(s))
    return 1


cdef int in_withdraw(nc_in* s, uint64_t n) noexcept nogil:
    cdef int rc
    leaf_lock(&s.lock)
    rc = claims_withdraw(&s.claims, n) if s.rendezvous else defs.NC_EFRAME
    leaf_unlock(&s.lock)
    return rc


cdef void in_free(nc_in* s) noexcept nogil:
    cdef nc_seg* a
    leaf_lock(&s.lock)
    a = s.head
    s.head = s.tail = NULL
    leaf_unlock(&s.lock)
    seg_free_list(a)
    seg_free_list(s.ooo)
    s.ooo = s.early_tail = NULL
    free(s.preface)
    s.preface = NULL
    free(s.due)
    s.due = NULL
    parity_end(s.parity, NULL)
    s.parity = NULL
    ranges_free(&s.gaps)
