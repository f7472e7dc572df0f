"""Messages that were accepted and may be dropped before they are sent: overflow of the sender's side, time to live.

Layer: _core, rung f; no key, clock readings are arguments. Threads and ownership: see the head of lossy.pxd. The oldest
that nobody has begun to send are dropped, so what was dropped is one run of messages and bytes, right before `fresh`.
Spec: docs/spec/session.md §4.2, docs/spec/wire.md §6.2, §7.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.cursor cimport varint_write
from netchan._core.leaf cimport leaf_lock, leaf_unlock
from netchan._core.outbox cimport APPEND_RESERVED, nc_out, out_begun, out_gate, out_limit_bytes, out_link
from netchan._core.segment cimport nc_seg, seg_new, seg_release, seg_room

cdef enum:
    STAMP_SIZE = 7                  # length of the block, type, length, and the deadline as a varint of 4 bytes
    STAMP_AT = 3                    # where the deadline begins in it
    DEADLINE_MAX = 0x3FFFFFFF       # ms that 4 bytes can say


cdef void lossy_begin(nc_out* o, uint64_t keep, uint64_t ttl_ms) noexcept nogil:
    leaf_lock(&o.lock)
    if not o.lossy:
        o.fresh_num = o.accepted
        o.before = o.tail
    o.lossy = 1
    o.keep = keep
    o.ttl_ms = ttl_ms
    leaf_unlock(&o.lock)


# Under lock: takes the oldest message not begun to be sent out of the list.
cdef void drop_oldest(nc_out* o, uint8_t reason, nc_seg** gone) noexcept nogil:
    cdef nc_seg* first = o.fresh
    cdef nc_seg* last = first
    if first.next is not NULL and first.next.first_off == ~<uint64_t>0:
        last = first.next
    if o.before is NULL:
        o.head = last.next
    else:
        o.before.next = last.next
    if o.tail == last:
        o.tail = o.before
    if o.cur == first or o.cur == last:
        o.cur = NULL
    o.fresh = last.next
    o.n_fresh -= 1
    o.fresh_num += 1
    o.gap_msgs += 1
    o.gap_bytes += first.len + (last.len if last != first else 0)
    o.gap_reason = reason
    o.dropped += 1
    last.next = gone[0]
    gone[0] = first


cdef void release_all(nc_seg* gone, nc_seg** pins) noexcept nogil:
    cdef nc_seg* following
    while gone is not NULL:
        following = gone.next
        seg_release(gone, pins)
        gone = following


cdef int lossy_append(nc_out* o, const uint8_t* p, size_t n, int flags, void* pin, int64_t due,
                      nc_seg** pins) noexcept nogil:
    cdef uint8_t[16] head
    cdef size_t head_len = varint_write(head, (<uint64_t>n << 1) | (1 if due else 0))
    cdef size_t small
    cdef nc_seg* own
    cdef nc_seg* pinned = NULL
    cdef nc_seg* gone = NULL
    cdef int rc
    if due:
        head[head_len] = STAMP_SIZE - 1
        head[head_len + 1] = defs.FIELD_DEADLINE
        head[head_len + 2] = 4
        head[head_len + 3] = 0x80
        head[head_len + 4] = head[head_len + 5] = head[head_len + 6] = 0
        head_len += STAMP_SIZE
    small = head_len if pin is not NULL else head_len + n
    own = seg_new(small, 0)
    if pin is not NULL:
        pinned = seg_new(0, 0)
    if own is NULL or (pin is not NULL and pinned is NULL):
        free(own)
        free(pinned)
        return defs.NC_ENOMEM
    memcpy(seg_room(own), head, head_len)
    if pin is NULL:
        memcpy(seg_room(own) + head_len, p, n)
    own.due = due
    leaf_lock(&o.lock)
    if o.held and not o.over and not o.closing:
        rc = defs.NC_EAGAIN
    elif o.keep and not o.over and not o.closing:
        rc = defs.NC_OK
        while o.n_fresh >= o.keep:
            drop_oldest(o, defs.SKIP_REPLACED if o.keep == 1 else defs.SKIP_OVERFLOW, &gone)
    elif flags & APPEND_RESERVED and not o.over and not o.closing:
        rc = defs.NC_OK
    else:
        rc = out_gate(o, 0)
    if rc < 0:
        leaf_unlock(&o.lock)
        free(own)
        free(pinned)
        return rc
    own.first_off = o.appended
    own.first_num = o.accepted
    if o.fresh is NULL:
        o.before = o.tail
        o.fresh = own
        o.fresh_num = o.accepted
    out_link(o, own)
    own.len = small
    o.appended += small
    if pin is not NULL:
        pinned.data = p
        pinned.len = n
        pinned.pin = pin
        out_link(o, pinned)
        o.appended += n
    o.n_fresh += 1
    if flags & APPEND_RESERVED:
        o.reserved -= 1
    o.accepted += 1
    leaf_unlock(&o.lock)
    release_all(gone, pins)
    return defs.NC_OK


cdef void lossy_expire(nc_out* o, int64_t now_ns, nc_seg** pins) noexcept nogil:
    cdef nc_seg* gone = NULL
    if o.ttl_ms == 0:
        return
    leaf_lock(&o.lock)
    while o.fresh is not NULL and 0 < o.fresh.due <= now_ns:
        drop_oldest(o, defs.SKIP_TTL, &gone)
    leaf_unlock(&o.lock)
    release_all(gone, pins)


cdef int lossy_gap(nc_out* o, uint64_t* first, uint64_t* n, uint8_t* reason, uint64_t* offset,
                   uint64_t* bytes) noexcept nogil:
    cdef uint64_t at
    cdef int due = 0
    leaf_lock(&o.lock)
    if o.gap_msgs:
        at = (o.fresh.start if o.fresh is not NULL else o.appended) - o.gap_bytes
        # Numbers beyond the credit wait for it, like messages.
        if o.sent == at and o.fresh_num <= o.max_msgs:
            first[0] = o.fresh_num - o.gap_msgs
            n[0] = o.gap_msgs
            reason[0] = o.gap_reason
            offset[0] = at
            bytes[0] = o.gap_bytes
            due = 1
    leaf_unlock(&o.lock)
    return due


# The gap may have grown since lossy_gap looked: the rest is a gap of its own.
cdef void lossy_passed(nc_out* o, uint64_t n, uint64_t bytes) noexcept nogil:
    leaf_lock(&o.lock)
    o.sent += bytes
    o.gap_msgs -= n
    o.gap_bytes -= bytes
    o.at_boundary = 1
    o.sent_msgs = o.fresh_num - o.gap_msgs
    leaf_unlock(&o.lock)


cdef inline void stamp(nc_seg* s, int64_t now_ns) noexcept nogil:
    cdef uint8_t* at = <uint8_t*>(s + 1)
    cdef uint64_t left = <uint64_t>(s.due - now_ns) // 1000000 if s.due > now_ns else 0
    if left > DEADLINE_MAX:
        left = DEADLINE_MAX
    at += (<size_t>1 << (at[0] >> 6)) + STAMP_AT                # behind the head, a varint
    at[0] = <uint8_t>(0x80 | (left >> 24))
    at[1] = <uint8_t>(left >> 16)
    at[2] = <uint8_t>(left >> 8)
    at[3] = <uint8_t>left


# From here on the application drops none of them, so they can be read without the lock.
cdef size_t lossy_claim(nc_out* o, size_t n, int64_t now_ns) noexcept nogil:
    cdef uint64_t upto
    leaf_lock(&o.lock)
    upto = out_limit_bytes(o)
    if upto - o.sent < n:
        n = <size_t>(upto - o.sent)
    while o.fresh is not NULL and o.fresh.start < o.sent + n:
        if o.fresh.due:
            stamp(o.fresh, now_ns)
        out_begun(o)
    leaf_unlock(&o.lock)
    return n
