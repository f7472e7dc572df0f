"""Lists of what happened to channels and sessions, for whoever holds the GIL next.

Layer: _engine; C only. See news.pxd.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.ends cimport end_release, session_next_offer, session_next_ready
from netchan._core.leaf cimport leaf_lock, leaf_unlock, load_rlx_u64, store_rlx_u64, store_seq_u32, xchg_u32
from netchan._core.segment cimport nc_seg
from netchan._core.state cimport SESSION_OVER, nc_end, nc_offer
from netchan._core.ticket cimport session_ticket_take
from netchan._engine cimport sys
from netchan._engine.state cimport (
    PATHS_AGAIN, PATHS_MORE, PINS_SOFT, nc_engine, nc_offer_event, nc_slot,
)


cdef void kick(int fd) noexcept nogil:
    cdef uint64_t one = 1
    sys.write(fd, &one, 8)


cdef void engine_collect(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef uint32_t bits
    cdef nc_end* e
    cdef nc_offer* o
    cdef nc_offer_event* x
    cdef int known
    while True:
        e = session_next_ready(&t.session, &bits)
        if e is NULL:
            break
        leaf_lock(&g.app_lock)
        e.app_bits |= bits
        known = e.in_app
        if not known:
            e.in_app = 1
            e.app_next = g.app_ends
            g.app_ends = e
        leaf_unlock(&g.app_lock)
        if known:
            end_release(e, &t.session.pins)         # the list has its reference already
        store_seq_u32(&g.app_any, 1)
    while True:
        o = session_next_offer(&t.session)
        if o is NULL:
            break
        x = <nc_offer_event*>malloc(sizeof(nc_offer_event))
        if x is NULL:
            continue
        x.next = NULL
        x.codec = o.codec
        x.capacity_wanted = o.capacity_wanted
        memcpy(x.schema, o.schema, 16)
        x.flags = o.flags
        x.name_len = o.name_len
        memcpy(x.name, o.name, o.name_len)
        leaf_lock(&g.app_lock)
        if t.offers_tail is NULL:
            t.offers = x
        else:
            t.offers_tail.next = x
        t.offers_tail = x
        leaf_unlock(&g.app_lock)
        list_slot(g, t, 0)
    if t.session.ratchet_in_new:
        collect_ratchet(g, t)
    if t.session.ticket_in is not NULL:
        collect_ticket(g, t)
    t.session.ready_any = 0
    if t.session.events_new:
        t.session.events_new = 0
        list_slot(g, t, 0)
        if g.path_fd > 0:
            kick(g.path_fd)
    if t.session.state == SESSION_OVER and not t.told_over:
        t.told_over = 1
        list_slot(g, t, 1)
    if t.session.pins is not NULL:
        engine_collect_pins(g, t)
        if load_rlx_u64(&g.n_pins_bytes) > PINS_SOFT and xchg_u32(&g.pins_asked, 1) == 0:
            g.ask_pins(g)


cdef void collect_ratchet(nc_engine* g, nc_slot* t) noexcept nogil:
    if t.ratchet is NULL:
        t.ratchet = <uint8_t*>malloc(defs.RATCHET_MAX)
        if t.ratchet is NULL:
            return
    t.session.ratchet_in_new = 0
    leaf_lock(&g.app_lock)
    memcpy(t.ratchet, t.session.ratchet_in, t.session.ratchet_in_len)
    t.ratchet_len = t.session.ratchet_in_len
    t.ratchet_number = t.session.ratchet_in_number
    t.ratchet_step = t.session.ratchet_in_step
    t.ratchet_new = 1
    leaf_unlock(&g.app_lock)
    list_slot(g, t, 0)


cdef void collect_ticket(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef uint8_t* p = NULL
    cdef uint64_t life = 0
    cdef size_t n = session_ticket_take(&t.session, &life, &p)
    leaf_lock(&g.app_lock)
    p, t.ticket = t.ticket, p
    t.ticket_len = n
    t.ticket_life = life
    leaf_unlock(&g.app_lock)
    free(p)                                     # one that nobody has looked at yet
    list_slot(g, t, 0)


cdef void list_slot(nc_engine* g, nc_slot* t, int over) noexcept nogil:
    leaf_lock(&g.app_lock)
    if over:
        t.app_over = 1
    if not t.in_app:
        t.in_app = 1
        t.app_next = g.app_slots
        g.app_slots = t
    leaf_unlock(&g.app_lock)
    store_seq_u32(&g.app_any, 1)


cdef void engine_poke(nc_engine* g) noexcept nogil:
    if xchg_u32(&g.poked, 1) == 0:
        kick(g.poke_fd)


# For the application, and for whoever brings sessions back.
cdef void path_news(nc_engine* g, nc_slot* t, uint8_t what) noexcept nogil:
    leaf_lock(&g.app_lock)
    t.app_path = what
    leaf_unlock(&g.app_lock)
    list_slot(g, t, 0)
    if g.path_fd > 0 and what != PATHS_AGAIN and what != PATHS_MORE:
        kick(g.path_fd)


cdef void engine_collect_pins(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef nc_seg* tail = t.session.pins
    cdef uint64_t held
    if tail is NULL:
        return
    held = <uint64_t>tail.len
    while tail.next is not NULL:
        tail = tail.next
        held += <uint64_t>tail.len
    leaf_lock(&g.app_lock)
    tail.next = g.pins
    g.pins = t.session.pins
    store_rlx_u64(&g.n_pins_bytes, g.n_pins_bytes + held)
    leaf_unlock(&g.app_lock)
    t.session.pins = NULL
