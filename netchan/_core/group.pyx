"""Parity over the bytes of a stream, at its sender.

Layer: _core, rung j. Baton. See group.pxd.
Spec: docs/spec/parity.md §2.1.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from netchan._core cimport defs
from netchan._core.dealing cimport deal, dealt, late_add, late_drop, path_usable
from netchan._core.erasure cimport parity_add
from netchan._core.state cimport MODE_PARITY, mode_of, nc_end, nc_group, nc_path, nc_session, want_data
from netchan._core.timer cimport TIMER_NEVER

cdef enum:
    RECORD_EXTRA = 96                   # of a record: head, tag, the head of the frame, and what rides along
    SYMBOL_LEAST = 512


# Bytes of a symbol on all paths, how many there are, and the shortest round trip. 0: none of them loses anything but
# itself.
cdef uint32_t symbol_size(nc_session* s, int* n, int64_t* rtt) noexcept nogil:
    cdef nc_path* p = s.paths
    cdef uint64_t size = s.peer.max_record - RECORD_EXTRA
    cdef int loses = 0
    n[0] = 0
    rtt[0] = s.control.srtt
    if size > <uint64_t>(defs.PARITY_BYTES_MAX - RECORD_EXTRA):
        size = defs.PARITY_BYTES_MAX - RECORD_EXTRA
    while p is not NULL:
        if path_usable(p):
            n[0] += 1
            if p.srtt and p.srtt < rtt[0]:
                rtt[0] = p.srtt
            if p.d is not NULL:
                loses = 1
                if p.d.mtu - RECORD_EXTRA < size:
                    size = p.d.mtu - RECORD_EXTRA
        p = p.next
    return <uint32_t>size if loses or n[0] > 1 else 0


cdef int group_begin(nc_session* s, nc_end* e) noexcept nogil:
    cdef nc_group* g = e.group
    cdef uint32_t size
    cdef uint64_t bytes
    cdef int64_t rtt
    cdef int paths = 0
    cdef int k = e.parity_k if e.own else s.parity_k
    cdef int m = e.parity_m if e.own else s.parity_m
    if g is not NULL and g.open:
        if g.n:
            return 1
        g.open = 0                              # the paths may be others by now
    if s.group_orphans:
        sweep(s, 0)
    if not e.bound or e.out_done:               # still in the line, but nobody would give its group back
        return 0
    size = symbol_size(s, &paths, &rtt)
    bytes = <uint64_t>m * size
    if size < SYMBOL_LEAST or not s.mine.parity:
        return 0
    # At most m symbols on one path, so that one may vanish with all it carries (core-decisions 17).
    if paths > 1 and k > m * (paths - 1):
        k = m * (paths - 1)
    if g is NULL:
        g = <nc_group*>calloc(1, sizeof(nc_group))
        if g is NULL:
            return 0
        g.end = e
        g.next = s.groups
        g.quiet_at = TIMER_NEVER
        g.announce = GROUP_TOLD
        s.groups = g
        e.group = g
    if g.room != bytes:
        s.group_bytes -= g.room
        free(g.rows)
        g.rows = NULL
        g.room = 0
        while s.late is not NULL and s.group_bytes + bytes > <uint64_t>GROUP_BYTES_MAX:
            late_drop(s, s.late)
        if s.group_bytes + bytes > <uint64_t>GROUP_BYTES_MAX:
            return 0
        g.rows = <uint8_t*>calloc(1, <size_t>bytes)
        if g.rows is NULL:
            return 0
        g.room = bytes
        s.group_bytes += bytes
        if not g.later:
            g.announce = GROUP_TOLD
    elif g.used:
        memset(g.rows, 0, <size_t>bytes)
    g.used = 0
    g.open = 1
    g.closed = 0
    g.said = 0
    g.later = 0
    g.last = -1
    memset(g.carried, 0, sizeof(g.carried))
    g.stream = e.out.id
    g.start = e.out.sent
    g.n = 0
    g.size = size
    g.k = <uint8_t>k
    g.m = <uint8_t>m
    g.wait = rtt // 4
    return 1


cdef nc_path* group_path(nc_session* s, nc_end* e) noexcept nogil:
    cdef nc_group* g = e.group
    cdef nc_path* p
    while g is not NULL and g.open:
        p = deal(s, g)
        if p is not NULL:
            return p
        if not g.closed:
            close(s, g)                         # its symbols so far, and those of the next one, have enough paths
            continue
        late_add(s, g)
        finish(g)
        g.later = 1
        group_begin(s, e)
    return s.control


# All that is to be said of this group was said.
cdef void finish(nc_group* g) noexcept nogil:
    g.turn += 1                                 # so that the parity is not always that of the same path
    g.open = 0
    g.closed = 0


cdef void close(nc_session* s, nc_group* g) noexcept nogil:
    g.quiet_at = TIMER_NEVER
    g.closed = 1
    g.announce = 0                              # its symbols say what it is
    want_data(s, g.end)


cdef void group_put(nc_session* s, nc_end* e, const nc_path* path, const uint8_t* p, size_t n, int fin,
                    int64_t now) noexcept nogil:
    cdef nc_group* g = e.group
    cdef uint8_t* rows[31]              # PARITY_INDEX_MAX + 1
    cdef int64_t wait = g.wait // 2
    cdef int i
    if g.n == 0:
        g.old_at = now + (g.wait if g.wait > GROUP_QUIET_NS else GROUP_QUIET_NS)
    for i in range(g.m):
        rows[i] = g.rows + <size_t>i * g.size
    g.used = 1
    if n:
        dealt(g, path)
    parity_add(rows, NULL, g.m, g.size, <size_t>g.n, p, n)
    g.n += n
    if g.announce:
        g.announce -= 1
    if g.n == <uint64_t>g.k * g.size or (fin and g.n):
        close(s, g)
        return
    if g.n == 0:
        return
    # More comes all the time, perhaps, and slowly: what came first must not wait for all of that.
    g.quiet_at = now + (wait if wait > GROUP_QUIET_NS else GROUP_QUIET_NS)
    if g.quiet_at > g.old_at:
        g.quiet_at = g.old_at
    if g.quiet_at < s.group_at:
        s.group_at = g.quiet_at


cdef void group_said(nc_session* s, nc_group* g, const nc_path* p) noexcept nogil:
    dealt(g, p)
    g.said += 1
    s.stats.parity_sent += 1
    if g.said < g.m:
        return
    if g.end is NULL:
        late_drop(s, g)
    else:
        finish(g)


# Frees the groups whose ends are over, or all.
cdef void sweep(nc_session* s, int all) noexcept nogil:
    cdef nc_group** at = &s.groups
    cdef nc_group* g
    while at[0] is not NULL:
        g = at[0]
        if g.end is not NULL and not all:
            at = &g.next
            continue
        at[0] = g.next
        if g.end is not NULL:
            g.end.group = NULL
        s.group_bytes -= g.room
        free(g.rows)
        free(g)
    s.group_orphans = 0


cdef void groups_free(nc_session* s) noexcept nogil:
    while s.late is not NULL:
        late_drop(s, s.late)
    sweep(s, 1)
    s.group_at = TIMER_NEVER


cdef void groups_settle(nc_session* s) noexcept nogil:
    cdef nc_group* g = s.groups
    while s.late is not NULL:
        late_drop(s, s.late)
    while g is not NULL:
        if g.end is not NULL and mode_of(s, g.end) != MODE_PARITY:
            g.end.group = NULL
            g.end = NULL
        g = g.next
    sweep(s, 0)


cdef void groups_on_deadline(nc_session* s, int64_t now) noexcept nogil:
    cdef nc_group* g = s.groups
    if now < s.group_at:
        return
    s.group_at = TIMER_NEVER
    while g is not NULL:
        if g.end is NULL:
            pass
        elif g.quiet_at <= now:
            close(s, g)
        elif g.quiet_at < s.group_at:
            s.group_at = g.quiet_at
        g = g.next
