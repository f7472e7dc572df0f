"""The channels of a session on their way to another process.

Layer: _core, rung m. One walk for both directions (walk.pxd). What is read is checked as bytes of a stranger are: the
application's half of an inbox walks over messages without asking again whether they are whole, and a lossy outbox over
segments, so both are gone through here.
Spec: docs/spec/handover.md §2, §4.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, malloc
from libc.string cimport memcpy, memset

from netchan._core cimport defs
from netchan._core.cursor cimport nc_rd, rd_init, rd_left, rd_varint, rd_vbytes
from netchan._core.ends cimport hash_name
from netchan._core.frame cimport message_head
from netchan._core.handover_paths cimport walk_ranges
from netchan._core.inbox cimport DUE_MAX, STAGE_BODY, STAGE_LENGTH, STAGE_VALUE, in_init, in_scan, nc_in
from netchan._core.leaf cimport leaf_lock, leaf_unlock, store_seq_u32, store_seq_u64
from netchan._core.outbox cimport nc_out, out_init
from netchan._core.over cimport OVER_LEFT, OVER_NOT
from netchan._core.ranges cimport nc_ranges, ranges_add, ranges_init
from netchan._core.rendezvous cimport offers_let_go
from netchan._core.segment cimport SEG_MAX, nc_seg, seg_new, seg_room
from netchan._core.state cimport MODE_PARITY, REQ_STOP, nc_auto, nc_end, nc_offer, nc_session
from netchan._core.walk cimport (
    nc_walk, walk_count, walk_fail, walk_flag, walk_flag32, walk_need, walk_next, walk_pos, walk_raw,
    walk_size, walk_time, walk_u16, walk_u32, walk_u64, walk_u8,
)

cdef enum:
    SEG_SIZE = 36                   # bytes of a segment beside what is in it
    PIECE_SIZE = 12                 # of an early piece
    SEGS_MOST = 4194304             # segments of one stream: where messages may be dropped each has its own
    BYTES_MOST = 0x7FFFFFFF         # of one segment, or of what was received and not taken
    STAMP_SIZE = 7                  # behind the head of a message that has a deadline (lossy.pyx)

cdef uint64_t NOWHERE = ~<uint64_t>0


# --- held -------------------------------------------------------------------------------------------------------------

cdef void end_hold(nc_end* e) noexcept nogil:
    cdef nc_in* i = e.in_
    leaf_lock(&e.out.lock)
    e.out.held = 1
    leaf_unlock(&e.out.lock)
    if i is NULL or i.hidden:
        return
    leaf_lock(&i.lock)
    i.hidden = 1
    i.hidden_msgs = i.msgs
    i.hidden_over = i.over
    i.hidden_whole = i.whole
    store_seq_u32(&i.over, OVER_NOT)
    store_seq_u32(&i.whole, 0)
    store_seq_u64(&i.msgs, i.taken)
    leaf_unlock(&i.lock)


cdef void end_unhold(nc_end* e) noexcept nogil:
    cdef nc_in* i = e.in_
    if i is not NULL and i.hidden:
        leaf_lock(&i.lock)
        i.hidden = 0
        store_seq_u64(&i.msgs, i.hidden_msgs)
        store_seq_u32(&i.whole, i.hidden_whole)
        # What the application ended meanwhile stays ended.
        if i.over == OVER_NOT:
            store_seq_u32(&i.over, i.hidden_over)
        leaf_unlock(&i.lock)
    leaf_lock(&e.out.lock)
    e.out.held = 0
    leaf_unlock(&e.out.lock)


# --- outbox -----------------------------------------------------------------------------------------------------------

# Bytes of a message's head, then the stamp, which is written to when the message is sealed.
cdef int room_for_stamp(const nc_seg* x) noexcept nogil:
    return 1 if x.len and (<uint64_t>1 << (x.data[0] >> 6)) + STAMP_SIZE <= x.len else 0


cdef void walk_segment(nc_walk* w, nc_out* o, nc_seg** link) noexcept nogil:
    cdef nc_seg* x = link[0]
    cdef uint64_t start = 0, off = NOWHERE, num = 0
    cdef int64_t due = 0
    cdef uint32_t n = 0
    if x is not NULL:
        start = x.start
        off = x.first_off
        num = x.first_num
        due = x.due
        n = <uint32_t>x.len
    walk_pos(w, &start)
    walk_u64(w, &off)
    walk_u64(w, &num)
    walk_time(w, &due)
    n = walk_count(w, n, BYTES_MOST, 1)
    if w.rc < 0:
        return
    if not w.reads:
        walk_raw(w, <void*>x.data, n)
        return
    x = seg_new(n, start)
    if x is NULL:
        walk_fail(w, defs.NC_ENOMEM)
        return
    link[0] = o.tail = x
    x.first_off = off
    x.first_num = num
    x.due = due
    x.len = n
    walk_raw(w, seg_room(x) - n, n)
    walk_need(w, off == NOWHERE or (start <= off < start + n))
    walk_need(w, due == 0 or (o.lossy and off != NOWHERE and room_for_stamp(x)))


# A hole from `end` to `start`: of what was dropped. SKIP has said it up to `sent`; what it is to say lies right before
# `fresh`, or at the end if there is none. 1: so it is.
cdef int hole_fits(const nc_out* o, uint64_t end, uint64_t start, int before_fresh) noexcept nogil:
    cdef uint64_t gap = o.gap_bytes if o.gap_msgs and before_fresh else 0
    if not o.lossy or start < end or start - end < gap:
        return 0
    return 1 if start - gap <= o.sent or start - gap == end else 0


# Bytes lie together but for what was dropped, and what is to be read next is here.
cdef void check_segments(nc_walk* w, nc_out* o, uint32_t n_before) noexcept nogil:
    cdef nc_seg* x = o.head
    cdef uint64_t end = x.start if x is not NULL and x.start < o.sent else o.sent
    cdef uint64_t gap = o.gap_bytes if o.gap_msgs else 0
    cdef uint64_t fresh = 0
    cdef uint32_t i = 0
    cdef int found = 1 if x is NULL or o.sent == o.appended else 0
    while x is not NULL and w.rc == defs.NC_OK:
        if i == n_before:
            o.fresh = x
            walk_need(w, x.first_off != NOWHERE)
        if o.fresh is NULL:
            o.before = x
        elif x.first_off != NOWHERE:
            fresh += 1
        if x.start != end:
            walk_need(w, hole_fits(o, end, x.start, x == o.fresh))
        if x.start <= o.sent < x.start + x.len or o.sent == end or (x == o.fresh and o.sent == x.start - gap):
            found = 1
        end = x.start + x.len
        x = x.next
        i += 1
    if end != o.appended:
        walk_need(w, hole_fits(o, end, o.appended, o.fresh is NULL))
        found |= 1 if o.sent == end or (o.fresh is NULL and o.sent == o.appended - gap) else 0
    walk_need(w, found)
    walk_need(w, fresh == o.n_fresh and (not o.gap_msgs or o.lossy) and o.gap_msgs <= o.fresh_num)


cdef void walk_segments(nc_walk* w, nc_out* o) noexcept nogil:
    cdef nc_seg** link = &o.head
    cdef nc_seg* x = o.head
    cdef uint32_t n = 0, _i
    cdef uint32_t before = 0xFFFFFFFF           # segments before `fresh`
    while x is not NULL:
        if x == o.fresh:
            before = n
        n += 1
        x = x.next
    n = walk_count(w, n, SEGS_MOST, SEG_SIZE)
    walk_u32(w, &before)
    for _i in range(n):
        walk_segment(w, o, link)
        if w.rc < 0:
            return
        link = &link[0].next
    if w.reads and w.rc == defs.NC_OK:
        check_segments(w, o, before)


cdef void walk_early(nc_walk* w, nc_out* o) noexcept nogil:
    cdef uint8_t has = 1 if o.early is not NULL else 0
    walk_flag(w, &has)
    if w.reads and has and w.rc == defs.NC_OK:
        o.early = <nc_ranges*>calloc(1, sizeof(nc_ranges))
        if o.early is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        ranges_init(o.early, defs.GAPS_MAX)
    if has and w.rc == defs.NC_OK:
        walk_ranges(w, o.early)


cdef void walk_offers(nc_walk* w, nc_out* o) noexcept nogil:
    cdef uint64_t n
    walk_pos(w, &o.offers.low)
    walk_u32(w, &o.offers.let_go)
    walk_u32(w, &o.offers.wanted)
    walk_u32(w, &o.offers.told)
    walk_u32(w, &o.offers.answered)
    walk_u32(w, &o.offers.taken)
    if not w.reads or not o.rendezvous or w.rc < 0:
        return
    walk_need(w, o.offers.low <= o.accepted and o.accepted - o.offers.low <= <uint64_t>defs.OFFERS_MAX)
    if w.rc == defs.NC_OK:
        for n in range(o.offers.low, o.accepted):
            offers_let_go(&o.offers, n)         # nobody here waits for what becomes of them
        walk_need(w, o.offers.low <= o.accepted)


cdef void walk_out(nc_walk* w, nc_out* o) noexcept nogil:
    walk_u64(w, &o.id)
    walk_pos(w, &o.appended)
    walk_pos(w, &o.accepted)
    walk_pos(w, &o.max_msgs)
    walk_pos(w, &o.max_bytes)
    walk_pos(w, &o.capacity)
    walk_pos(w, &o.fin_at)
    walk_flag32(w, &o.closing)
    walk_u32(w, &o.over)
    walk_size(w, &o.next_cap)
    walk_flag32(w, &o.rendezvous)
    walk_flag32(w, &o.lossy)
    walk_pos(w, &o.keep)
    walk_pos(w, &o.ttl_ms)
    walk_pos(w, &o.n_fresh)
    walk_pos(w, &o.fresh_num)
    walk_pos(w, &o.gap_msgs)
    walk_pos(w, &o.gap_bytes)
    walk_u8(w, &o.gap_reason)
    walk_u64(w, &o.dropped)
    walk_u64(w, &o.parked)
    walk_pos(w, &o.want_version)
    walk_pos(w, &o.received)
    walk_pos(w, &o.taken)
    walk_pos(w, &o.sent)
    walk_pos(w, &o.seen_msgs)
    walk_pos(w, &o.sent_msgs)
    walk_pos(w, &o.acked)
    walk_u64(w, &o.credit_stalls)
    walk_flag(w, &o.at_boundary)
    walk_flag(w, &o.fin_sent)
    walk_flag(w, &o.fin_acked)
    if w.reads:
        walk_need(w, o.over <= OVER_LEFT and 0 < o.next_cap <= 2 * <size_t>SEG_MAX)
        walk_need(w, o.acked <= o.sent <= o.appended and o.received <= o.sent and o.taken <= o.accepted)
        walk_need(w, o.seen_msgs <= o.accepted and o.sent_msgs <= o.accepted and o.fin_at <= o.appended)
    walk_offers(w, o)
    walk_early(w, o)
    if w.rc == defs.NC_OK:
        walk_segments(w, o)


# --- inbox ------------------------------------------------------------------------------------------------------------

# Messages for which the head at p stands: 1, or those of a mark of SKIP; its bytes. 0: not whole; NC_EFRAME.
cdef int64_t whole_message(const uint8_t* p, size_t n, uint64_t* bytes) noexcept nogil:
    cdef uint64_t body, block, field
    cdef uint64_t stands = 1
    cdef const uint8_t* value
    cdef size_t k
    cdef int ext
    cdef int used = message_head(p, n, &body, &ext)
    cdef nc_rd r
    cdef nc_rd number
    if used < 0:
        return 0
    rd_init(&r, p + used, n - <size_t>used)
    if ext:
        if rd_varint(&r, &block) < 0:
            return 0
        if block > <uint64_t>defs.EXT_MAX:
            return defs.NC_EFRAME
        if block > <uint64_t>rd_left(&r):
            return 0
        bytes[0] = <uint64_t>(r.p - p) + block
        r.end = r.p + block
        while rd_left(&r):
            if rd_varint(&r, &field) < 0 or rd_vbytes(&r, defs.EXT_MAX, &value, &k) < 0:
                return defs.NC_EFRAME
            if field == defs.FIELD_SKIPPED:
                rd_init(&number, value, k)
                if rd_varint(&number, &stands) < 0 or stands == 0 or body:
                    return defs.NC_EFRAME
    else:
        bytes[0] = <uint64_t>used
    if body > <uint64_t>n - bytes[0]:
        return 0
    bytes[0] += body
    return <int64_t>stands


# The bytes that were received and not taken are the messages that are counted, and a part of the next one that stands
# where the reader of heads does.
cdef void check_messages(nc_walk* w, const nc_in* s, const uint8_t* p, size_t n) noexcept nogil:
    cdef nc_in tail
    cdef uint64_t count = 0, bytes = 0, skips = 0, done = 0
    cdef int64_t stands
    if not s.preface_done:
        walk_need(w, n == 0 and s.msgs == s.taken)
        return
    while True:
        stands = whole_message(p, n, &bytes) if n else 0
        if stands <= 0:
            break
        if stands > 1 or (bytes == 12 and p[0] == 1 and p[2] == defs.FIELD_SKIPPED):
            skips += <uint64_t>stands
        count += <uint64_t>stands
        p += bytes
        n -= <size_t>bytes
        if count > s.msgs:
            break
    walk_need(w, stands == 0 and count == s.msgs - s.taken and skips == s.skip_ahead)
    if w.rc < 0 or s.stopped:
        return
    in_init(&tail, s.id)
    tail.granted_msgs = NOWHERE
    tail.stopped = 1
    walk_need(w, in_scan(&tail, p, n, NOWHERE, &done) == defs.NC_OK and done == 0)
    walk_need(w, tail.stage == s.stage and tail.head_len == s.head_len and tail.body_left == s.body_left)
    walk_need(w, tail.block_left == s.block_left and tail.field_left == s.field_left)
    walk_need(w, (s.stage != STAGE_LENGTH and s.stage != STAGE_VALUE) or tail.field == s.field)


cdef void walk_untaken(nc_walk* w, nc_in* s) noexcept nogil:
    cdef uint32_t n = walk_count(w, <uint32_t>(s.end - s.take_off), BYTES_MOST, 1)
    cdef const uint8_t* at
    cdef nc_seg* x = s.head
    cdef size_t pos = s.head_pos, k
    if not w.reads:
        while n and x is not NULL:
            k = <size_t>x.len - pos
            if k > n:
                k = n
            walk_raw(w, <void*>(x.data + pos), k)
            n -= <uint32_t>k
            x = x.next
            pos = 0
        return
    walk_need(w, n == s.end - s.take_off)
    at = walk_next(w, n)
    if at is NULL:
        return
    check_messages(w, s, at, n)
    while n and w.rc == defs.NC_OK:
        k = n if n < <uint32_t>SEG_MAX else SEG_MAX
        x = seg_new(k, 0)
        if x is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        memcpy(seg_room(x), at, k)
        x.len = k
        if s.tail is NULL:
            s.head = x
        else:
            s.tail.next = x
        s.tail = x
        at += k
        n -= <uint32_t>k


cdef void walk_pieces(nc_walk* w, nc_in* s) noexcept nogil:
    cdef uint32_t n = walk_count(w, s.n_early, defs.EARLY_MAX, PIECE_SIZE)
    cdef nc_seg* x = s.ooo
    cdef uint64_t start = 0, end = s.received
    cdef uint32_t k = 0, i
    for i in range(n):
        if not w.reads:
            start = x.start
            k = <uint32_t>x.len
        walk_pos(w, &start)
        k = walk_count(w, k, BYTES_MOST, 1)
        if w.rc < 0:
            return
        if not w.reads:
            walk_raw(w, <void*>x.data, k)
            x = x.next
            continue
        walk_need(w, start >= end and start + k <= s.granted_bytes)
        if w.rc < 0:
            return
        x = seg_new(k, start)
        if x is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        if s.early_tail is NULL:
            s.ooo = x
        else:
            s.early_tail.next = x
        s.early_tail = x
        s.n_early = i + 1
        x.len = k
        walk_raw(w, seg_room(x) - k, k)
        end = start + k
        if k and ranges_add(&s.gaps, start, end) < 0:
            walk_fail(w, defs.NC_EFRAME)


cdef void walk_due(nc_walk* w, nc_in* s) noexcept nogil:
    cdef uint64_t many = s.started - s.taken
    cdef uint8_t has = 1 if s.due is not NULL else 0
    cdef uint64_t cap = 16, number
    cdef uint32_t n
    walk_flag(w, &has)
    if w.rc < 0 or not has:
        return
    if not w.reads and many > s.due_mask + 1:
        many = s.due_mask + 1
    n = walk_count(w, <uint32_t>many, DUE_MAX, 8)
    if w.reads and w.rc == defs.NC_OK:
        while cap < n:
            cap *= 2
        s.due = <int64_t*>calloc(<size_t>cap, sizeof(int64_t))
        if s.due is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        s.due_mask = cap - 1
    for number in range(s.taken, s.taken + n):
        walk_time(w, &s.due[number & s.due_mask])


cdef void walk_preface(nc_walk* w, nc_in* s) noexcept nogil:
    cdef uint8_t has = 1 if s.preface is not NULL else 0
    walk_u16(w, &s.preface_len)
    walk_u16(w, &s.preface_got)
    walk_flag(w, &s.preface_done)
    walk_flag(w, &has)
    walk_need(w, not has or (0 < s.preface_len <= defs.PREFACE_MAX and s.preface_got <= s.preface_len))
    walk_need(w, has or s.preface_done or s.preface_len == 0)
    if not has or w.rc < 0:
        return
    if w.reads:
        s.preface = <uint8_t*>malloc(s.preface_len)
        if s.preface is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        memset(s.preface, 0, s.preface_len)
    walk_raw(w, s.preface, s.preface_got)


# msgs, over, whole: of a stream that is hidden what they were.
cdef void walk_counts(nc_walk* w, nc_in* s) noexcept nogil:
    cdef uint64_t msgs = s.hidden_msgs if s.hidden else s.msgs
    cdef uint32_t over = s.hidden_over if s.hidden else s.over
    cdef uint32_t whole = s.hidden_whole if s.hidden else s.whole
    walk_pos(w, &msgs)
    walk_u32(w, &over)
    walk_flag32(w, &whole)
    walk_need(w, over <= OVER_LEFT)
    if w.reads:
        s.msgs = msgs
        s.over = over
        s.whole = whole


cdef void walk_in(nc_walk* w, nc_in* s) noexcept nogil:
    walk_u64(w, &s.id)
    walk_pos(w, &s.end)
    walk_counts(w, s)
    walk_pos(w, &s.final)
    walk_u64(w, &s.abort_code)
    walk_flag32(w, &s.starved)
    walk_flag32(w, &s.asked)
    walk_pos(w, &s.ask_received)
    walk_pos(w, &s.ask_taken)
    walk_u64(w, &s.pos_at_msgs)
    walk_u64(w, &s.pos_at_bytes)
    walk_flag32(w, &s.rendezvous)
    walk_pos(w, &s.claims.passed)
    walk_u32(w, &s.claims.withdrawn)
    walk_u32(w, &s.claims.asked)
    walk_flag32(w, &s.lossy)
    walk_pos(w, &s.keep)
    walk_pos(w, &s.skip_ahead)
    walk_u64(w, &s.skipped)
    walk_u64(w, &s.dropped)
    walk_pos(w, &s.take_off)
    walk_pos(w, &s.taken)
    walk_u64(w, &s.discarded)
    walk_pos(w, &s.received)
    walk_pos(w, &s.started)
    walk_pos(w, &s.granted_msgs)
    walk_pos(w, &s.granted_bytes)
    walk_pos(w, &s.told_taken)
    walk_pos(w, &s.told_received)
    walk_pos(w, &s.window)
    walk_pos(w, &s.grown)
    walk_pos(w, &s.lent)
    walk_pos(w, &s.waits)
    walk_pos(w, &s.capacity)
    walk_pos(w, &s.body_left)
    walk_pos(w, &s.block_left)
    walk_pos(w, &s.field_left)
    walk_pos(w, &s.field)
    walk_pos(w, &s.deadline_ms)
    walk_pos(w, &s.turn_off)
    walk_pos(w, &s.turn_taken)
    walk_time(w, &s.turn_ns)
    walk_time(w, &s.now_ns)
    walk_u64(w, &s.dropped_bytes)
    walk_size(w, &s.next_cap)
    walk_u8(w, &s.head_len)
    walk_u8(w, &s.stage)
    walk_flag(w, &s.stopped)
    walk_flag(w, &s.has_final)
    walk_raw(w, s.head_buf, 8)
    walk_preface(w, s)
    walk_u16(w, &s.reason_len)
    walk_need(w, s.reason_len <= defs.REASON_MAX)
    if w.rc == defs.NC_OK:
        walk_raw(w, s.reason, s.reason_len)
    if w.reads:
        walk_need(w, 0 < s.next_cap <= 2 * <size_t>SEG_MAX and s.stage <= STAGE_BODY and s.head_len < 8)
        walk_need(w, s.stage != STAGE_VALUE or s.field != defs.FIELD_DEADLINE or s.head_len + s.field_left <= 8)
        walk_need(w, s.block_left <= <uint64_t>defs.EXT_MAX and s.field_left <= s.block_left)
        walk_need(w, s.take_off <= s.end and s.taken <= s.msgs <= s.started and s.skip_ahead <= s.msgs)
        walk_need(w, s.window > 0 and s.window <= <uint64_t>1 << 40 and s.grown <= s.window)
        walk_need(w, s.received <= s.granted_bytes and (not s.has_final or s.final >= s.received))
    if w.rc == defs.NC_OK:
        walk_untaken(w, s)
    if w.rc == defs.NC_OK:
        walk_pieces(w, s)
    if w.rc == defs.NC_OK:
        walk_due(w, s)


cdef void walk_in_of(nc_walk* w, nc_in** at) noexcept nogil:
    if w.reads:
        at[0] = <nc_in*>malloc(sizeof(nc_in))
        if at[0] is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        in_init(at[0], 0)
    walk_in(w, at[0])


# --- ends and offers --------------------------------------------------------------------------------------------------

cdef void walk_name(nc_walk* w, uint8_t* kind, uint16_t* n, uint8_t* name) noexcept nogil:
    walk_u8(w, kind)
    walk_u16(w, n)
    walk_need(w, kind[0] <= defs.PREFACE_TOKEN and n[0] <= defs.NAME_MAX)
    if w.rc == defs.NC_OK:
        walk_raw(w, name, n[0])


cdef void walk_end(nc_walk* w, nc_session* s, nc_end** at) noexcept nogil:
    cdef nc_end* e = at[0]
    cdef uint8_t has_in, picks
    if w.reads:
        e = at[0] = <nc_end*>calloc(1, sizeof(nc_end))
        if e is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        e.session = s
        e.refs = 1
        out_init(&e.out, 0)
    walk_name(w, &e.kind, &e.name_len, e.name)
    walk_flag(w, &e.bound)
    walk_flag(w, &e.unpaired)
    walk_u32(w, &e.requests)
    walk_u32(w, &e.over)
    walk_u64(w, &e.abort_code)
    walk_u64(w, &e.end_code)
    walk_pos(w, &e.ask_received)
    walk_pos(w, &e.ask_taken)
    walk_u16(w, &e.reason_len)
    walk_need(w, e.reason_len <= defs.REASON_MAX and e.over <= OVER_LEFT)
    if w.rc == defs.NC_OK:
        walk_raw(w, e.reason, e.reason_len)
    walk_pos(w, &e.capacity_wanted)
    walk_u64(w, &e.codec)
    walk_raw(w, e.schema, 16)
    walk_flag(w, &e.trunk_wanted)
    walk_u8(w, &e.overflow_wanted)
    walk_pos(w, &e.ttl_wanted)
    walk_pos(w, &e.capacity)
    walk_u8(w, &e.overflow)
    walk_flag(w, &e.trunk)
    walk_u64(w, &e.peer_codec)
    walk_raw(w, e.peer_schema, 16)
    walk_u64(w, &e.over_code)
    walk_flag(w, &e.over_by_us)
    walk_u8(w, &e.ctl)
    walk_flag(w, &e.out_done)
    walk_flag(w, &e.in_done)
    walk_u8(w, &e.abort_flags)
    walk_pos(w, &e.named_at)
    walk_u8(w, &e.own)
    walk_u8(w, &e.parity_k)
    walk_u8(w, &e.parity_m)
    walk_need(w, e.own <= MODE_PARITY + 1 and e.parity_k + e.parity_m <= defs.PARITY_SYMBOLS_MAX)
    walk_need(w, e.own != MODE_PARITY + 1 or (e.parity_k > 0 and e.parity_m > 0))
    picks = 1 if e.auto is not NULL else 0
    walk_flag(w, &picks)
    walk_need(w, e.own or not picks)
    if w.reads and picks and w.rc == defs.NC_OK:
        e.auto = <nc_auto*>calloc(1, sizeof(nc_auto))       # it looks anew; what it had picked stays meanwhile
        if e.auto is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
    walk_pos(w, &e.want_version)
    walk_u32(w, &e.want_said)
    walk_u32(w, &e.answers)
    walk_u32(w, &e.outcomes)
    has_in = 1 if e.in_ is not NULL else 0
    walk_flag(w, &has_in)
    if w.rc < 0:
        return
    if w.reads:
        e.requests &= REQ_STOP                  # what is to wait until there is a stream; all else was acted on
        e.name_hash = hash_name(s, e.name, e.name_len)
        walk_need(w, not e.unpaired or not has_in)
    walk_out(w, &e.out)
    if has_in and w.rc == defs.NC_OK:
        walk_in_of(w, &e.in_)
    if w.reads and w.rc == defs.NC_OK:
        e.paired = has_in
        walk_need(w, not e.trunk or has_in)
        # In the lists of control there are frames for the stream of the other side, too.
        walk_need(w, has_in or not e.ctl & <uint8_t>(1 | 2 | 64))


cdef void walk_offer(nc_walk* w, nc_session* s, nc_offer** at) noexcept nogil:
    cdef nc_offer* o = at[0]
    if w.reads:
        o = at[0] = <nc_offer*>calloc(1, sizeof(nc_offer))
        if o is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
    walk_name(w, &o.kind, &o.name_len, o.name)
    walk_u64(w, &o.codec)
    walk_pos(w, &o.capacity_wanted)
    walk_raw(w, o.schema, 16)
    walk_u8(w, &o.overflow)
    walk_pos(w, &o.ttl_ms)
    walk_u8(w, &o.flags)
    walk_u8(w, &o.aborted)
    walk_flag(w, &o.pos_due)
    walk_u64(w, &o.abort_code)
    if w.rc == defs.NC_OK:
        walk_in_of(w, &o.in_)
    if w.reads and w.rc == defs.NC_OK:
        o.name_hash = hash_name(s, o.name, o.name_len)
