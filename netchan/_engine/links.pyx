"""The carriers of a session: reading, sealing, writing, and what becomes of a session whose carriers end.

Layer: _engine; C only. See links.pxd. Flow of what came: link_ready -> link_read -> session_recv; of what goes:
slot_flush -> links_flush -> link_flush -> session_send -> carrier_write.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.ends cimport session_close
from netchan._core.cursor cimport load_u16, store_u16
from netchan._core.datagram cimport DATAGRAM_MOST
from netchan._core.ecn cimport MARK_ECT0, MARK_NONE, ecn_turn
from netchan._core.flight cimport flight_challenge
from netchan._core.handover cimport session_moved
from netchan._core.inbound cimport session_recv, session_recv_datagram
from netchan._core.modes cimport takes_turns
from netchan._core.outbound cimport session_said, session_send, session_send_datagram, session_send_probe
from netchan._core.resume cimport session_forget_gone, session_pass, session_path_lost
from netchan._core.session cimport session_deadline
from netchan._core.state cimport (
    MODE_MIRROR, SESSION_CLOSING, SESSION_OVER, SESSION_SUSPENDED, SESSION_UP, nc_path,
)
from netchan._core.ticket cimport session_replaced
from netchan._core.timer cimport TIMER_NEVER, theap_set
from netchan._engine cimport sys
from netchan._engine.batch cimport BATCH, BATCH_MOST, BATCH_ROOM, batch_mark, batch_recv, batch_send
from netchan._engine.clock cimport engine_now
from netchan._engine.carrier cimport carrier_close, carrier_leave, carrier_read, carrier_write
from netchan._engine.news cimport engine_collect, path_news
from netchan._engine.poller cimport POLL_IN, POLL_OUT, poller_add, poller_change, poller_remove
from netchan._engine.state cimport (
    LINGER_NS, PATHS_FEWER, PATHS_NONE, RX_BYTES, TX_BYTES, nc_engine, nc_link, nc_slot,
)

cdef enum:
    IDLE_PEND = 4096                # a larger buffer of unsent bytes is given back when empty
    READS = 4                       # calls of one turn that read datagrams
    LAST_READS = 64                 # what a session that is replaced may have waiting: 4 MiB
    PROBE_NS = 100000000            # a challenge that was not answered is said again after this
    PROBE_MOST = 1200               # bytes of one
    ANSWERS_MAX = 16                # times that an answer is said again


cdef void link_poll(nc_engine* g, nc_link* k, int bits) noexcept nogil:
    if bits != k.poll_bits:
        poller_change(g.poller, k.fd, bits, k)
        k.poll_bits = bits


cdef int slot_link(nc_engine* g, nc_slot* t, nc_path* p, int fd) noexcept nogil:
    cdef nc_link* k = <nc_link*>calloc(1, sizeof(nc_link))
    if k is NULL:
        return defs.NC_ENOMEM
    k.slot = t
    k.path = p
    k.fd = fd
    k.datagrams = 1 if p.d is not NULL else 0
    k.poll_bits = POLL_IN
    if poller_add(g.poller, fd, POLL_IN, k) < 0:
        free(k)
        return defs.NC_ESYS
    p.carrier = k
    k.next = t.links
    t.links = k
    t.parted = 0
    slot_deadline(g, t)
    return defs.NC_OK


# Its place among those of the slot is the caller's to close.
cdef void link_close(nc_engine* g, nc_link* k) noexcept nogil:
    carrier_close(g.poller, k.fd)
    link_drop(g, k)


# Nothing of the link is left but the struct, until the sweep.
cdef void link_drop(nc_engine* g, nc_link* k) noexcept nogil:
    free(k.pend)                                # it is sealed for a path that is no more
    free(k.answer)
    k.pend = NULL
    k.answer = NULL
    k.slot = NULL
    if k.path.carrier == k:
        k.path.carrier = NULL
    k.path = NULL
    k.next = g.dead_links
    g.dead_links = k


# Nothing can be said on the only path any more, also when it is due: what is left to read is read, then it is lost.
cdef nc_link* broken_link(nc_slot* t) noexcept nogil:
    if t.links is NULL or t.links.next is not NULL or not t.links.broken or t.session.state == SESSION_OVER:
        return NULL
    return t.links


cdef int64_t broken_until(nc_link* k) noexcept nogil:
    return (k.broken_at if k.broken_at > k.path.rx_at else k.path.rx_at) + LINGER_NS


cdef void slot_deadline(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef nc_link* broken = broken_link(t)
    cdef int64_t at = broken_until(broken) if broken is not NULL else session_deadline(&t.session)
    if t.held:
        at = TIMER_NEVER
    if t.linger_at and t.linger_at < at:
        at = t.linger_at
    if at != t.deadline:
        t.deadline = at
        theap_set(&g.heap, t.index, at)


cdef void slot_shut(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef nc_link* k
    if t.closed:
        return
    while t.links is not NULL:
        k = t.links
        t.links = k.next
        link_close(g, k)
    t.closed = 1
    t.linger_at = 0
    slot_deadline(g, t)
    t.grave_next = g.graves
    g.graves = t


cdef void slot_reap(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef nc_link** at = &t.links
    cdef nc_link* k
    cdef int fewer = 0
    while at[0] is not NULL:
        k = at[0]
        if k.path.alive:
            at = &k.next
            continue
        at[0] = k.next
        link_close(g, k)
        fewer = 1
    session_forget_gone(&t.session)
    if not fewer or t.closed:
        return
    if t.links is NULL:
        if t.session.state == SESSION_SUSPENDED:
            t.parted = 1
            path_news(g, t, PATHS_NONE)
        else:
            slot_shut(g, t)                     # the session is over with its last carrier
            return
    elif t.session.state == SESSION_UP:
        path_news(g, t, PATHS_FEWER)
    slot_deadline(g, t)


cdef void slot_lose(nc_engine* g, nc_slot* t, nc_path* p, int64_t now) noexcept nogil:
    session_path_lost(&t.session, p, now)
    slot_reap(g, t)


cdef void slot_lose_all(nc_engine* g, nc_slot* t, int64_t now) noexcept nogil:
    while t.session.paths is not NULL:
        session_path_lost(&t.session, t.session.paths, now)
    slot_reap(g, t)


# The session is over: let the last bytes go, read on for a while so that a reset does not destroy them.
cdef void slot_over(nc_engine* g, nc_slot* t, int64_t now) noexcept nogil:
    cdef nc_link* k
    cdef int whole = 0
    if t.closed:
        return
    k = t.links
    while k is not NULL:
        if not k.broken:
            whole = 1
            if k.pend_len == 0 and not k.datagrams:
                sys.shutdown(k.fd, sys.SHUT_WR)
        k = k.next
    if t.linger_at:
        return
    if not whole or not t.session.close_by_us:
        slot_shut(g, t)
        return
    t.linger_at = now + LINGER_NS


cdef int link_write_pending(nc_link* k) noexcept nogil:
    cdef int64_t n
    if k.pend_len == 0:
        return 1
    if k.datagrams:
        return link_write_datagrams(k)
    n = carrier_write(k.fd, k.pend + k.pend_off, k.pend_len)
    if n < 0:
        k.broken = 1
        return 0
    k.pend_off += <size_t>n
    k.pend_len -= <size_t>n
    if k.pend_len:
        return 0
    k.pend_off = 0
    if k.pend_cap > IDLE_PEND:
        free(k.pend)
        k.pend = NULL
        k.pend_cap = 0
    return 1


cdef int link_keep(nc_link* k, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint8_t* bigger
    if k.pend_cap < n:
        bigger = <uint8_t*>realloc(k.pend, n)
        if bigger is NULL:
            return defs.NC_ENOMEM
        k.pend = bigger
        k.pend_cap = n
    memcpy(k.pend, p, n)
    k.pend_off = 0
    k.pend_len = n
    return defs.NC_OK


# The datagrams that the kernel did not take. 1: none is left.
cdef int link_write_datagrams(nc_link* k) noexcept nogil:
    cdef int size
    while k.pend_len:
        size = load_u16(k.pend + k.pend_off)
        if batch_send(k.fd, k.pend + k.pend_off + 2, &size, 1) == 0:
            return 0
        k.pend_off += <size_t>size + 2
        k.pend_len -= <size_t>size + 2
    free(k.pend)
    k.pend = NULL
    k.pend_off = k.pend_cap = 0
    return 1


cdef int link_keep_datagrams(nc_link* k, const uint8_t* p, const int* sizes, int n) noexcept nogil:
    cdef size_t total = 0
    cdef int i
    for i in range(n):
        total += <size_t>sizes[i] + 2
    k.pend = <uint8_t*>malloc(total)
    if k.pend is NULL:
        return defs.NC_ENOMEM                   # they are lost
    k.pend_cap = k.pend_len = total
    total = 0
    for i in range(n):
        store_u16(k.pend + total, sizes[i])
        memcpy(k.pend + total + 2, p, <size_t>sizes[i])
        p += sizes[i]
        total += <size_t>sizes[i] + 2
    return defs.NC_OK


# What is sealed next leaves with this mark; nothing waits that was sealed before.
cdef void link_mark(nc_link* k) noexcept nogil:
    cdef uint8_t mark = MARK_ECT0 if ecn_turn(&k.path.d.ecn, k.path.tx_number, k.path.d.pto_count) else MARK_NONE
    if mark != k.mark:
        batch_mark(k.fd, mark)
        k.mark = mark


cdef int flush_datagrams(nc_engine* g, nc_slot* t, nc_link* k, int64_t now) noexcept nogil:
    cdef int[BATCH] sizes
    cdef int64_t size = 1
    cdef size_t used
    cdef const uint8_t* rest
    cdef int n, sent, i
    if k.candidate:
        return defs.NC_OK
    while size > 0 and link_write_pending(k):
        n = 0
        used = 0
        link_mark(k)
        # No more than leave in one call: a rest of them would be a call of its own, and one for who receives.
        while n < BATCH and used + DATAGRAM_MOST <= <size_t>BATCH_MOST:
            size = session_send_datagram(&t.session, k.path, g.tx + used, DATAGRAM_MOST, now)
            if size <= 0:
                break
            sizes[n] = <int>size
            used += <size_t>size
            n += 1
        if n == 0:
            break
        if t.session.close_sent:                # the last of them says so; it may be lost
            link_answer(k, g.tx + used - sizes[n - 1], <size_t>sizes[n - 1])
            k.answers = 0
        sent = batch_send(k.fd, g.tx, sizes, n)
        if sent < n:
            rest = g.tx
            for i in range(sent):
                rest += sizes[i]
            link_keep_datagrams(k, rest, &sizes[sent], n - sent)
            break
    link_poll(g, k, POLL_IN | (POLL_OUT if k.pend_len else 0))
    return <int>size if size < 0 and size != defs.NC_ECLOSED else defs.NC_OK


# All that this carrier takes now. NC_OK, or the keys are used up.
cdef int link_flush(nc_engine* g, nc_slot* t, nc_link* k, int64_t now) noexcept nogil:
    cdef int64_t n, written
    if k.datagrams:
        return flush_datagrams(g, t, k, now)
    while not k.broken:
        if not link_write_pending(k):
            break
        n = session_send(&t.session, k.path, g.tx, TX_BYTES, now)
        if n == 0 or n == defs.NC_ECLOSED:
            break
        if n < 0:
            return <int>n
        written = carrier_write(k.fd, g.tx, <size_t>n)
        if written < 0:
            k.broken = 1
        elif written < n and link_keep(k, g.tx + written, <size_t>(n - written)) < 0:
            k.broken = 1
    if k.broken and k.broken_at == 0:
        k.broken_at = now
    link_poll(g, k, POLL_IN | (POLL_OUT if k.pend_len and not k.broken else 0))
    return defs.NC_OK


# The carrier of control first: the others take what it leaves.
cdef int links_flush(nc_engine* g, nc_slot* t, int64_t now) noexcept nogil:
    cdef uint64_t before
    cdef int rc = defs.NC_OK
    while rc == defs.NC_OK:
        before = t.session.stats.records_sent
        rc = links_flush_once(g, t, now)
        if not takes_turns(&t.session) or t.session.stats.records_sent == before:
            break                               # else what one has sent may have given the next its turn
    return rc


cdef int links_flush_once(nc_engine* g, nc_slot* t, int64_t now) noexcept nogil:
    cdef nc_link* first = <nc_link*>t.session.control.carrier if t.session.control is not NULL else NULL
    cdef nc_link* k = t.links
    cdef int rc = defs.NC_OK
    if first is not NULL:
        rc = link_flush(g, t, first, now)
    while k is not NULL and rc == defs.NC_OK:
        if k != first:
            rc = link_flush(g, t, k, now)
        k = k.next
    if rc == defs.NC_OK and first is not NULL and first.pend_len and t.session.mode == MODE_MIRROR:
        k = t.links
        while k is not NULL:
            # A path that takes nothing now does not hold up one that has all that it has.
            if not k.pend_len and not k.broken and session_pass(&t.session, k.path):
                return link_flush(g, t, k, now)
            k = k.next
    return rc


# A carrier that can send no more, of which nothing more is expected: others carry on, nobody is left to say farewell
# to, or there is nothing to wait for.
cdef nc_link* broken_for_good(nc_slot* t) noexcept nogil:
    cdef nc_link* k = t.links
    if t.session.state == SESSION_OVER:
        return NULL
    while k is not NULL:
        if k.broken and (t.links.next is not NULL or t.session.state == SESSION_CLOSING or not k.poll_bits & POLL_IN):
            return k
        k = k.next
    return NULL


cdef void slot_flush(nc_engine* g, nc_slot* t, int64_t now) noexcept nogil:
    cdef nc_link* k
    if t.held:
        return
    slot_reap(g, t)                             # what was silent too long
    if t.closed or t.parted:
        session_send(&t.session, NULL, g.tx, TX_BYTES, now)     # only acts on what was asked, cuts what came too late
        if t.session.state == SESSION_OVER:
            slot_shut(g, t)
        slot_deadline(g, t)
        engine_collect(g, t)
        return
    while True:
        if links_flush(g, t, now) < 0:
            # No key for another record: the limit was reached and no new epoch could come.
            session_close(&t.session, defs.CLOSE_KEYS, NULL, 0)
            slot_lose_all(g, t, now)
        session_said(&t.session)
        k = broken_for_good(t)
        if k is NULL:
            break
        slot_lose(g, t, k.path, now)            # what it held goes over the others now
    if t.session.state == SESSION_OVER:
        slot_over(g, t, now)
    slot_deadline(g, t)
    engine_collect(g, t)


cdef int link_answer(nc_link* k, const uint8_t* p, size_t n) noexcept nogil:
    free(k.answer)
    k.answer_len = 0
    k.answer = <uint8_t*>malloc(n if n else 1)
    if k.answer is NULL:
        return defs.NC_ENOMEM
    memcpy(k.answer, p, n)
    k.answer_len = n
    return defs.NC_OK


# The other side has not got our last word of the exchange that made the path.
cdef void say_again(nc_link* k) noexcept nogil:
    cdef int size = <int>k.answer_len
    if k.answer_len == 0 or k.path.rx_number or k.answers >= ANSWERS_MAX:
        return
    k.answers += 1
    batch_send(k.fd, k.answer, &size, 1)


# The session is over, and the other side still talks: our CLOSE was lost. It goes again, as it was sealed, in answer to
# the 1st, 2nd, 4th ... datagram that comes (RFC 9000 §10.2.1).
cdef void close_again(nc_link* k) noexcept nogil:
    cdef int size = <int>k.answer_len
    if k.answer_len == 0 or k.candidate or k.answers == 255:
        return
    k.answers += 1
    if k.answers & (k.answers - 1) == 0:
        batch_send(k.fd, k.answer, &size, 1)


# The peer has another address, and it is proved: the path goes there.
cdef void link_proved(nc_engine* g, nc_slot* t, nc_link* k) noexcept nogil:
    cdef nc_path* p = k.path
    cdef nc_link* old = <nc_link*>p.carrier
    cdef nc_link** at = &t.links
    p.d.challenged = 0
    while at[0] != old:
        at = &at[0].next
    at[0] = old.next
    link_close(g, old)
    p.carrier = k
    k.candidate = 0


cdef void link_probe(nc_engine* g, nc_slot* t, nc_link* k, size_t most, int64_t now) noexcept nogil:
    cdef int size = <int>session_send_probe(&t.session, k.path, g.tx, most, now)
    k.probed_at = now
    if size > 0:
        batch_send(k.fd, g.tx, &size, 1)


cdef int slot_move(nc_engine* g, nc_slot* t, nc_path* p, int fd, uint8_t* data_untrusted, size_t n,
                   const uint8_t* token8) noexcept nogil:
    cdef nc_link* k
    cdef nc_link** at = &t.links
    cdef void* carrier = p.carrier
    cdef int64_t now = engine_now(g)
    cdef uint64_t newest = p.d.window.next
    p.d.ecn.here = MARK_ECT0 if p.d.ecn.got[0] else MARK_NONE      # read by others, its mark is not known
    cdef int rc = session_recv_datagram(&t.session, p, data_untrusted, n, now)
    if rc == defs.NC_OK and p.alive and p.d.window.next == newest:
        rc = defs.NC_EREPLAY                    # an old one that was late, or that somebody sends again
    if rc == defs.NC_OK and p.alive and t.session.state == SESSION_UP:
        while at[0] is not NULL:                # of several new addresses the last one counts
            k = at[0]
            if k.candidate and k.path == p:
                at[0] = k.next
                link_close(g, k)
                p.carrier = carrier
            else:
                at = &k.next
        flight_challenge(p.d, token8)
        rc = slot_link(g, t, p, fd)
        if rc == defs.NC_OK:
            k = t.links
            k.candidate = 1
            p.carrier = carrier
            # No more than three times what has come from there, or anybody could make us flood a third party.
            link_probe(g, t, k, 3 * n if 3 * n < <size_t>PROBE_MOST else PROBE_MOST, now)
    elif rc == defs.NC_OK:
        rc = defs.NC_ESTATE
    slot_flush(g, t, now)
    return rc


cdef void read_datagrams(nc_engine* g, nc_slot* t, nc_link* k, int64_t now) noexcept nogil:
    cdef int64_t n
    cdef uint8_t* at
    cdef int size = 0, _call
    for _call in range(READS):
        n = batch_recv(k.fd, g.rx, BATCH_ROOM, &size, &k.path.d.ecn.here)
        if n == defs.NC_EAGAIN:
            return
        if n <= 0:
            continue                            # an ICMP message, which anybody can forge, or an empty datagram
        at = g.rx
        while n > 0:
            if size > n:
                size = <int>n
            if t.session.state == SESSION_OVER:
                close_again(k)                  # lingering: the rest is forgotten
                break
            if (at[0] & 0xC0) == 0x40:
                session_recv_datagram(&t.session, k.path, at, <size_t>size, now)
            else:
                say_again(k)
            at += size
            n -= size
            if not k.path.alive:
                slot_reap(g, t)
                return
        if k.candidate:
            if k.path.d.challenged == 2:
                link_proved(g, t, k)
            elif now - k.probed_at >= PROBE_NS:
                link_probe(g, t, k, PROBE_MOST, now)


cdef void link_read(nc_engine* g, nc_slot* t, nc_link* k, int64_t now) noexcept nogil:
    cdef int64_t n
    if k.datagrams:
        read_datagrams(g, t, k, now)
        return
    n = carrier_read(k.fd, g.rx, RX_BYTES)
    if n == defs.NC_EAGAIN:
        return
    if n <= 0:
        slot_lose(g, t, k.path, now)
        return
    if t.session.state == SESSION_OVER:
        return                                  # lingering: read and forget
    if session_recv(&t.session, k.path, g.rx, <size_t>n, now) < 0:
        slot_reap(g, t)


cdef void link_ready(nc_engine* g, nc_link* k, uint32_t bits, int64_t now) noexcept nogil:
    cdef nc_slot* t = k.slot
    if t is NULL or t.held:
        return                                  # closed, or held, by a report before this one
    if bits & POLL_IN:
        link_read(g, t, k, now)
        if t.closed:
            engine_collect(g, t)
            return
    slot_flush(g, t, now)


cdef int slot_replaced(nc_engine* g, nc_slot* t, int64_t now) noexcept nogil:
    cdef nc_link* k
    cdef nc_link* following
    cdef uint64_t had
    cdef int _turn
    for _turn in range(LAST_READS):
        had = t.session.stats.records_received
        k = t.links
        while k is not NULL:
            following = k.next
            link_read(g, t, k, now)
            if t.closed or (following is not NULL and following.slot is NULL):
                break                           # one that was lost may have taken others with it
            k = following
        if t.session.stats.records_received == had:
            break
    if t.session.state == SESSION_CLOSING or t.session.state == SESSION_OVER:
        slot_flush(g, t, now)
        return 0
    session_replaced(&t.session)
    slot_flush(g, t, now)                       # an old process that runs on after all hears why
    if t.session.state == SESSION_CLOSING:
        slot_lose_all(g, t, now)
    engine_collect(g, t)
    return 1


# --- to another process and back --------------------------------------------------------------------------------------

cdef void slot_hold(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef nc_link** at = &t.links
    cdef nc_link* k
    t.held = 1
    while at[0] is not NULL:
        k = at[0]
        if k.candidate:                         # the peer is heard of at the old address, or moves once more
            at[0] = k.next
            k.path.d.challenged = 0
            link_close(g, k)
            continue
        poller_remove(g.poller, k.fd)
        at = &k.next
    slot_deadline(g, t)


cdef int slot_unhold(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef nc_link* k = t.links
    cdef int rc = defs.NC_OK
    t.held = 0
    while k is not NULL:
        k.poll_bits = POLL_IN | (POLL_OUT if k.pend_len and not k.broken else 0)
        if poller_add(g.poller, k.fd, k.poll_bits, k) < 0:
            rc = defs.NC_ESYS
        k = k.next
    slot_deadline(g, t)
    return rc


cdef void slot_moved(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef nc_link* k
    session_moved(&t.session)
    while t.links is not NULL:
        k = t.links
        t.links = k.next
        carrier_leave(k.fd)
        link_drop(g, k)
    slot_shut(g, t)
    t.held = 0                                  # what is opened from now on is cut, as on any session that is over
    engine_collect(g, t)
