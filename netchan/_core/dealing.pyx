"""Which path carries which symbol of a parity group.

Layer: _core, rung i. Baton. See dealing.pxd.
Spec: docs/spec/parity.md §2.1.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc

from netchan._core.idmap cimport idmap_get
from netchan._core.keys cimport KEYS_PATHS
from netchan._core.rate cimport path_full
from netchan._core.state cimport nc_end, nc_group, nc_path, nc_session


# 1: p may carry what is due: fewer than m symbols so far, or the beginning of this one.
cdef inline int may_carry(const nc_group* g, const nc_path* p) noexcept nogil:
    if g.carried[p.key] < g.m:
        return 1
    return 1 if not g.closed and g.n % g.size and p.key == g.last else 0


cdef nc_path* deal(nc_session* s, const nc_group* g) noexcept nogil:
    cdef nc_path* p = s.paths
    cdef nc_path* due
    cdef nc_path* takes = NULL          # it takes something now, but has m symbols
    cdef uint64_t at = g.turn
    cdef int n = 0
    cdef int waits = 0
    while p is not NULL:
        n += path_usable(p)
        p = p.next
    if n == 0:
        return s.control
    at += ((g.n - 1) // g.size + 1 + g.said) if g.closed else g.n // g.size
    at %= <uint64_t>n
    p = s.paths
    while not path_usable(p) or at:
        at -= path_usable(p)
        p = p.next
    due = p
    while n > 1:
        if not path_full(p):
            if may_carry(g, p):
                return p
            if takes is NULL:
                takes = p
        elif may_carry(g, p):
            waits = 1
        while True:
            p = p.next if p.next is not NULL else s.paths
            if path_usable(p):
                break
        if p == due:
            break
    if takes is NULL:
        return due                              # all of them are full, or it is the only one
    return NULL if waits or not g.closed else takes


cdef void dealt(nc_group* g, const nc_path* p) noexcept nogil:
    if not g.closed and g.n % g.size and g.last == p.key:
        return                                  # a further piece of a symbol
    g.last = p.key
    g.carried[p.key] += 1


cdef void late_add(nc_session* s, nc_group* g) noexcept nogil:
    cdef nc_group* x = <nc_group*>malloc(sizeof(nc_group))
    cdef int key
    if x is NULL:
        return
    x[0] = g[0]
    g.rows = NULL
    g.room = 0
    x.end = NULL
    x.next = NULL
    x.before = s.late_tail
    if s.late is NULL:
        s.late = x
    else:
        s.late_tail.next = x
    s.late_tail = x
    for key in range(KEYS_PATHS):
        if x.carried[key] < x.m:
            s.late_none &= ~(<uint64_t>1 << key)


cdef void late_drop(nc_session* s, nc_group* x) noexcept nogil:
    if x.before is NULL:
        s.late = x.next
    else:
        x.before.next = x.next
    if x.next is NULL:
        s.late_tail = x.before
    else:
        x.next.before = x.before
    s.group_bytes -= x.room
    free(x.rows)
    free(x)


# 1: the other side has said that it has all of it, or no path may carry what is left.
cdef int needless(nc_session* s, const nc_group* x) noexcept nogil:
    cdef const nc_end* e = <nc_end*>idmap_get(&s.outs, x.stream)
    cdef const nc_path* p = s.paths
    if e is NULL or e.out_done or e.out.received >= x.start + x.n:
        return 1
    while p is not NULL and not (path_usable(p) and x.carried[p.key] < x.m):
        p = p.next
    return 1 if p is NULL else 0


cdef nc_group* late_for(nc_session* s, const nc_path* p) noexcept nogil:
    cdef nc_group* x
    cdef nc_group* following
    while s.late is not NULL and needless(s, s.late):
        late_drop(s, s.late)
    if not late_waits(s, p) or not path_usable(p) or path_full(p):
        return NULL
    x = s.late
    while x is not NULL:
        following = x.next
        if x.carried[p.key] < x.m:
            if not needless(s, x):
                return x
            late_drop(s, x)                     # its stream may be over, while one before it is not
        x = following
    s.late_none |= <uint64_t>1 << p.key
    return NULL
