"""A session on its way to another process: all of its state as one string of bytes, and back.

Layer: _core, rung o. Sans-IO: randomness and the clock are arguments. One walk for both directions (walk.pxd): the
parameters of both sides, the keys, the session's own counts, its paths (handover_paths.pyx), offered channels and ends
(handover_ends.pyx). Lists that follow from what the ends say are made anew.
Spec: docs/spec/handover.md.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, qsort

from netchan._core cimport crypto, defs
from netchan._core.ctxcache cimport cache_forget
from netchan._core.ends cimport end_request, session_ended, take_dirty
from netchan._core.group cimport groups_free
from netchan._core.handover_ends cimport end_hold, end_unhold, walk_end, walk_offer
from netchan._core.handover_keys cimport walk_keys
from netchan._core.handover_paths cimport walk_order, walk_paths
from netchan._core.idmap cimport idmap_next, idmap_put
from netchan._core.inbox cimport in_free
from netchan._core.keys cimport keys_blank
from netchan._core.keystore cimport ks_forget_all, ks_note_use
from netchan._core.leaf cimport fetch_add_u64, leaf_lock, leaf_unlock, store_seq_u32
from netchan._core.parity cimport parity_end
from netchan._core.ratchet cimport session_bump
from netchan._core.session cimport session_bare
from netchan._core.state cimport (
    CTL_WANT, EV_ACK, EV_RECV, EV_SEND, EV_STATE, MODE_PARITY, NAME_BUCKETS, OWN_AUTO, OWN_MIRRORS, OWN_OTHER,
    OWN_SPREADS, REQ_ABORT, SESSION_SUSPENDED, SESSION_UP, nc_end, nc_offer, nc_params, nc_session, notify, want_ctl,
    want_data,
)
from netchan._core.walk cimport (
    nc_walk, walk_count, walk_drop, walk_fail, walk_flag, walk_flag32, walk_i64, walk_need, walk_pos, walk_raw,
    walk_read, walk_span, walk_time, walk_u32, walk_u64, walk_u8, walk_wipe, walk_write,
)

cdef enum:
    MAGIC = 0x6E63686F              # "ncho"
    END_SIZE = 400                  # bytes of an end, at least
    OFFER_SIZE = 300
    CHANNELS_MOST = 1 << 24
    STREAMS_MOST = 0x3FFFFFFF
    WHERE_BOUND = 0                 # an end with a stream id, in the table
    WHERE_QUEUED = 1                # one that waits for its id
    WHERE_LOOSE = 2                 # one that the session has forgotten, with values to take

cdef int64_t CLOCK_SLACK = <int64_t>3600 * 1000000000  # of two readings that belong to one clock


cdef int session_may_move(const nc_session* s) noexcept nogil:
    return 1 if s.state == SESSION_UP or s.state == SESSION_SUSPENDED else 0


# --- held -------------------------------------------------------------------------------------------------------------

cdef void session_hold(nc_session* s, nc_end** loose, uint32_t n_loose) noexcept nogil:
    cdef uint32_t i = 0
    cdef nc_end* e
    take_dirty(s)
    groups_free(s)                              # what they were to make up for comes again, if it has to
    while True:
        e = <nc_end*>idmap_next(&s.outs, &i)
        if e is NULL:
            break
        if e.in_ is not NULL:
            parity_end(e.in_.parity, &s.budget)
            e.in_.parity = NULL
        end_hold(e)
    leaf_lock(&s.open_lock)
    e = s.open_head
    leaf_unlock(&s.open_lock)
    while e is not NULL:
        end_hold(e)
        e = e.open_next
    for i in range(n_loose):
        end_hold(loose[i])


cdef void go_on(nc_session* s, nc_end* e) noexcept nogil:
    end_unhold(e)
    notify(s, e, EV_STATE | EV_RECV | EV_SEND | EV_ACK)


cdef void session_unhold(nc_session* s, nc_end** loose, uint32_t n_loose) noexcept nogil:
    cdef uint32_t i = 0
    cdef nc_end* e
    while True:
        e = <nc_end*>idmap_next(&s.outs, &i)
        if e is NULL:
            break
        go_on(s, e)
    leaf_lock(&s.open_lock)
    e = s.open_head
    leaf_unlock(&s.open_lock)
    while e is not NULL:
        go_on(s, e)
        e = e.open_next
    for i in range(n_loose):
        go_on(s, loose[i])


cdef void session_moved(nc_session* s) noexcept nogil:
    s.abrupt = 1
    s.close_code = defs.CLOSE_HANDED_OVER
    session_ended(s)
    cache_forget(s.sealer.cache, s.sealer.keys.owner.serial, crypto.NC_DIR_NONE, -1)
    ks_forget_all(s.sealer.keys.store, &s.sealer.keys.owner)
    walk_wipe(<uint8_t*>s.sealer.keys.x, sizeof(s.sealer.keys.x[0]))
    walk_wipe(s.ratchet_secret, 32)
    walk_wipe(s.rekey_mix, 32)
    walk_wipe(s.bump_mix, 32)


# --- the session's own ------------------------------------------------------------------------------------------------

cdef void walk_params(nc_walk* w, nc_params* p) noexcept nogil:
    walk_pos(w, &p.max_record)
    walk_pos(w, &p.ack_delay_ns)
    walk_pos(w, &p.ack_interval)
    walk_pos(w, &p.initial_msgs)
    walk_pos(w, &p.initial_bytes)
    walk_pos(w, &p.max_streams)
    walk_pos(w, &p.max_message)
    walk_pos(w, &p.max_channels)
    walk_flag(w, &p.trunk)
    walk_i64(w, &p.session_bytes)
    walk_u64(w, &p.node_bytes)
    walk_span(w, &p.heartbeat_ns)
    walk_span(w, &p.dead_ns)
    walk_u32(w, &p.max_paths)
    walk_flag(w, &p.datagrams)
    walk_flag(w, &p.parity)
    walk_u32(w, &p.max_datagram)
    walk_span(w, &p.lease_ns)


cdef void check_params(nc_walk* w, const nc_params* mine, const nc_params* peer) noexcept nogil:
    walk_need(w, 0 < mine.max_channels <= <uint64_t>CHANNELS_MOST and mine.max_streams <= <uint64_t>STREAMS_MOST)
    walk_need(w, 0 <= mine.session_bytes <= <int64_t>1 << 50 and mine.heartbeat_ns > 0 and mine.dead_ns > 0)
    walk_need(w, 1 <= mine.max_paths <= 64 and mine.ack_delay_ns < <uint64_t>1 << 40)
    walk_need(w, mine.initial_bytes <= <uint64_t>1 << 40 and peer.initial_bytes <= <uint64_t>1 << 40)


cdef void walk_stats(nc_walk* w, nc_session* s) noexcept nogil:
    walk_u64(w, &s.stats.records_sent)
    walk_u64(w, &s.stats.records_received)
    walk_u64(w, &s.stats.bytes_sent)
    walk_u64(w, &s.stats.bytes_received)
    walk_u64(w, &s.stats.messages_sent)
    walk_u64(w, &s.stats.messages_received)
    walk_u64(w, &s.stats.dropped_bytes)
    walk_u64(w, &s.stats.pings)
    walk_u64(w, &s.stats.acks)
    walk_u64(w, &s.stats.trunk_records)
    walk_u64(w, &s.stats.resumes)
    walk_u64(w, &s.stats.resent)
    walk_u64(w, &s.stats.parity_sent)
    walk_u64(w, &s.stats.rebuilt)
    walk_u64(w, &s.stats.data_sent)
    walk_u64(w, &s.stats.picks)
    walk_u64(w, &s.stats.resets)


# A message of a ratchet that waits to be sent, or to be looked at.
cdef void walk_noise(nc_walk* w, uint8_t** at, size_t* n) noexcept nogil:
    cdef uint32_t len_ = walk_count(w, <uint32_t>n[0], defs.RATCHET_MAX, 1)
    if w.reads and w.rc == defs.NC_OK:
        at[0] = <uint8_t*>malloc(defs.RATCHET_MAX)
        if at[0] is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        n[0] = len_
    if w.rc == defs.NC_OK:
        walk_raw(w, at[0], len_)


# A ticket that waits to be sent, or to be taken by the application.
cdef void walk_ticket(nc_walk* w, uint64_t* life, uint8_t** at, size_t* n) noexcept nogil:
    cdef uint32_t len_ = walk_count(w, <uint32_t>n[0] if at[0] is not NULL else 0, defs.TICKET_MAX, 1)
    walk_pos(w, life)
    if w.rc < 0 or len_ == 0:
        return
    if w.reads:
        at[0] = <uint8_t*>malloc(len_)
        if at[0] is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        n[0] = len_
    walk_raw(w, at[0], len_)


cdef void walk_ratchet(nc_walk* w, nc_session* s) noexcept nogil:
    cdef uint8_t sends = 1 if s.ratchet_out_step != 0xFF and s.ratchet_out is not NULL else 0
    cdef uint8_t came = 1 if s.ratchet_in_new and s.ratchet_in is not NULL else 0
    walk_u64(w, &s.ratchet_number)
    walk_raw(w, s.ratchet_secret, 32)
    walk_flag(w, &s.ratchet_have)
    walk_flag(w, &s.ratchet_theirs)
    walk_u8(w, &s.rekey_state)
    walk_need(w, s.rekey_state <= 2)
    walk_flag(w, &s.rekey_again)
    walk_flag(w, &s.rekey_bump)
    walk_raw(w, s.rekey_mix, 32)
    walk_u32(w, &s.rekey_told)
    walk_pos(w, &s.rekey_order)
    walk_u64(w, &s.ratchets)
    walk_u8(w, &s.ratchet_out_step)
    walk_u64(w, &s.ratchet_out_number)
    walk_flag(w, &sends)
    if sends:
        walk_need(w, s.ratchet_out_step <= 2)
        walk_noise(w, &s.ratchet_out, &s.ratchet_out_len)
    elif w.reads:
        s.ratchet_out_step = 0xFF
    walk_u8(w, &s.ratchet_in_step)
    walk_u64(w, &s.ratchet_in_number)
    walk_flag(w, &came)
    if came:
        walk_noise(w, &s.ratchet_in, &s.ratchet_in_len)
        s.ratchet_in_new = 1


cdef void walk_counts(nc_walk* w, nc_session* s) noexcept nogil:
    cdef uint64_t turn = s.budget.turn, asked = s.budget.asked, drawn = s.budget.drawn
    walk_u8(w, &s.mode)
    walk_u8(w, &s.parity_k)
    walk_u8(w, &s.parity_m)
    walk_need(w, s.mode <= MODE_PARITY and s.parity_k + s.parity_m <= defs.PARITY_SYMBOLS_MAX)
    walk_need(w, s.mode != MODE_PARITY or (s.parity_k > 0 and s.parity_m > 0))
    walk_flag(w, &s.picks)
    walk_u8(w, &s.own_modes)
    walk_need(w, s.own_modes <= (OWN_SPREADS | OWN_MIRRORS | OWN_OTHER | OWN_AUTO))
    walk_flag(w, &s.in_order)
    walk_flag(w, &s.max_streams_due)
    walk_pos(w, &s.next_out)
    walk_pos(w, &s.opened)
    walk_pos(w, &s.max_streams)
    walk_pos(w, &s.next_in)
    walk_pos(w, &s.peer_max)
    walk_pos(w, &s.peer_max_told)
    walk_flag32(w, &s.suspect)
    walk_time(w, &s.lease_until)
    walk_u64(w, &turn)
    walk_u64(w, &asked)
    walk_pos(w, &drawn)
    walk_span(w, &s.budget.rtt)
    if w.reads:
        walk_need(w, s.next_out >= 16 and (s.next_out & 1) == s.role and s.next_in >= 16)
        walk_need(w, (s.next_in & 1) != s.role and drawn <= <uint64_t>1 << 50)
        s.budget.turn = turn
        s.budget.asked = asked
        s.budget.drawn = drawn
        s.budget.left = s.mine.session_bytes - <int64_t>drawn


# --- channels ---------------------------------------------------------------------------------------------------------

cdef int by_id(const void* a, const void* b) noexcept nogil:
    cdef uint64_t x = (<nc_end**>a)[0].out.id
    cdef uint64_t y = (<nc_end**>b)[0].out.id
    return -1 if x < y else 1 if x > y else 0


cdef int by_stream(const void* a, const void* b) noexcept nogil:
    cdef uint64_t x = (<nc_offer**>a)[0].in_.id
    cdef uint64_t y = (<nc_offer**>b)[0].in_.id
    return -1 if x < y else 1 if x > y else 0


# Offers in order of their ids: the order of their names, and in which they are offered again.
cdef void walk_offers(nc_walk* w, nc_session* s) noexcept nogil:
    cdef nc_offer** list_ = NULL
    cdef nc_offer* o
    cdef uint32_t n = s.offers.len, i, at = 0
    cdef uint64_t before = 0
    if not w.reads:
        list_ = <nc_offer**>malloc((n + 1) * sizeof(nc_offer*))
        if list_ is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        for i in range(n):
            list_[i] = <nc_offer*>idmap_next(&s.offers, &at)
        qsort(list_, n, sizeof(nc_offer*), by_stream)
    n = walk_count(w, n, STREAMS_MOST, OFFER_SIZE)
    for i in range(n):
        o = list_[i] if list_ is not NULL else NULL
        walk_offer(w, s, &o)
        if w.reads:
            if w.rc == defs.NC_OK:
                walk_need(w, o.in_.id > before and o.in_.id < s.next_in and (o.in_.id & 1) != s.role)
                before = o.in_.id
            keep_offer(w, s, o)
        if w.rc < 0:
            break
    free(list_)


cdef void keep_offer(nc_walk* w, nc_session* s, nc_offer* o) noexcept nogil:
    cdef nc_offer** link
    if o is NULL:
        return
    if w.rc < 0 or idmap_put(&s.offers, o.in_.id, o) < 0:
        walk_fail(w, defs.NC_EFRAME)
        if o.in_ is not NULL:
            in_free(o.in_)
        free(o.in_)
        free(o)
        return
    s.n_offers += 1
    if o.pos_due:
        o.pos_next = s.offer_pos
        s.offer_pos = o
    if not o.in_.preface_done:
        return
    link = &s.offer_names[<uint32_t>o.name_hash % NAME_BUCKETS]
    while link[0] is not NULL:
        link = &link[0].next
    link[0] = o
    if o.kind == defs.PREFACE_TOKEN:
        o.seen = 1
        return
    if s.new_tail is NULL:
        s.new_head = o
    else:
        s.new_tail.queue_next = o
    s.new_tail = o
    s.n_new += 1


# An end that was read hangs where it did; whoever opens its name is to find it in s.adopted.
cdef void keep_end(nc_walk* w, nc_session* s, nc_end* e, uint8_t where) noexcept nogil:
    cdef nc_end** link
    if e is NULL:
        return
    s.adopted[s.n_adopted] = e                  # with the reference that it came with
    s.n_adopted += 1
    if w.rc < 0:
        return
    if where == WHERE_QUEUED:
        walk_need(w, e.in_ is NULL and not e.unpaired and e.out.id == 0)
        if w.rc < 0:
            return
        e.refs += 1
        if s.open_tail is NULL:
            s.open_head = e
        else:
            s.open_tail.open_next = e
        s.open_tail = e
        return
    if where == WHERE_LOOSE:
        walk_need(w, e.in_ is not NULL and not e.unpaired)
        return
    if idmap_put(&s.outs, e.out.id, e) < 0:
        walk_fail(w, defs.NC_EFRAME)
        return
    e.refs += 1
    e.bound = 1
    if e.in_ is not NULL and idmap_put(&s.ins, e.in_.id, e) < 0:
        walk_fail(w, defs.NC_EFRAME)
        return
    if e.unpaired:
        link = &s.end_names[<uint32_t>e.name_hash % NAME_BUCKETS]
        while link[0] is not NULL:
            link = &link[0].name_next
        link[0] = e
    want_data(s, e)
    if e.ctl:
        want_ctl(s, e, 0)
    if e.want_said and e.in_ is not NULL and not e.in_done:
        want_ctl(s, e, CTL_WANT)                # nobody here waits for a value yet


cdef void walk_where(nc_walk* w, nc_session* s, nc_end* e, uint8_t where, uint64_t* before) noexcept nogil:
    if not w.reads:
        walk_u8(w, &where)
        walk_end(w, s, &e)
        return
    walk_u8(w, &where)
    walk_need(w, where <= WHERE_LOOSE)
    walk_end(w, s, &e)
    if w.rc == defs.NC_OK and where == WHERE_BOUND:
        walk_need(w, e.out.id > before[0] and e.out.id >= 16 and e.out.id < s.next_out and (e.out.id & 1) == s.role)
        before[0] = e.out.id
    if w.rc == defs.NC_OK and e.in_ is not NULL:
        walk_need(w, e.in_.id >= 16 and e.in_.id < s.next_in and (e.in_.id & 1) != s.role)
    if e is not NULL:
        e.bound = 0
    keep_end(w, s, e, where)


cdef void walk_ends(nc_walk* w, nc_session* s, nc_end** loose, uint32_t n_loose) noexcept nogil:
    cdef nc_end** list_ = NULL
    cdef nc_end* e = s.open_head
    cdef uint32_t n = s.outs.len, queued = 0, at = 0, i, _i
    cdef uint64_t before = 0
    while e is not NULL:
        queued += 1
        e = e.open_next
    if not w.reads:
        list_ = <nc_end**>malloc((n + 1) * sizeof(nc_end*))
        if list_ is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        for i in range(n):
            list_[i] = <nc_end*>idmap_next(&s.outs, &at)
        qsort(list_, n, sizeof(nc_end*), by_id)
    n = walk_count(w, n + queued + n_loose, STREAMS_MOST, END_SIZE)
    if w.reads:
        s.adopted = <nc_end**>calloc(n + 1, sizeof(nc_end*))
        if s.adopted is NULL:
            walk_fail(w, defs.NC_ENOMEM)
            return
        for _i in range(n):
            if w.rc < 0:
                return
            walk_where(w, s, NULL, 0, &before)
        return
    for i in range(s.outs.len):
        walk_where(w, s, list_[i], WHERE_BOUND, NULL)
    e = s.open_head
    while e is not NULL:
        walk_where(w, s, e, WHERE_QUEUED, NULL)
        e = e.open_next
    for i in range(n_loose):
        walk_where(w, s, loose[i], WHERE_LOOSE, NULL)
    free(list_)


# --- all of it --------------------------------------------------------------------------------------------------------

cdef void walk_head(nc_walk* w, uint8_t* role, uint8_t* state, int64_t now_ns) noexcept nogil:
    cdef uint32_t magic = MAGIC, version = HANDOVER_VERSION
    cdef int64_t written = now_ns
    walk_u32(w, &magic)
    walk_u32(w, &version)
    if w.rc == defs.NC_OK and (magic != <uint32_t>MAGIC or version != <uint32_t>HANDOVER_VERSION):
        walk_fail(w, defs.NC_EUNKNOWN)
    walk_time(w, &written)
    if w.rc == defs.NC_OK and not (-CLOCK_SLACK < now_ns - written < CLOCK_SLACK):
        walk_fail(w, defs.NC_ESTATE)
    walk_flag(w, role)
    walk_u8(w, state)
    walk_need(w, state[0] == SESSION_UP or state[0] == SESSION_SUSPENDED)


cdef void walk_session(nc_walk* w, nc_session* s, nc_end** loose, uint32_t n_loose) noexcept nogil:
    walk_keys(w, s.sealer.keys)
    walk_counts(w, s)
    walk_stats(w, s)
    walk_ratchet(w, s)
    walk_ticket(w, &s.ticket_out_life, &s.ticket_out, &s.ticket_out_len)
    walk_ticket(w, &s.ticket_in_life, &s.ticket_in, &s.ticket_in_len)
    if w.rc == defs.NC_OK:
        walk_order(w, s)
    if w.rc == defs.NC_OK:
        walk_paths(w, s)
    if w.rc == defs.NC_OK:
        walk_offers(w, s)
    if w.rc == defs.NC_OK:
        walk_ends(w, s, loose, n_loose)


cdef int session_write(nc_session* s, nc_end** loose, uint32_t n_loose, int64_t now_ns, uint8_t** out,
                       size_t* n) noexcept nogil:
    cdef nc_walk w
    if not session_may_move(s):
        return defs.NC_ESTATE
    walk_write(&w, HANDOVER_MOST)
    ks_note_use(s.sealer.keys.store, &s.sealer.keys.owner, s.sealer.keys.send_dir)
    walk_head(&w, &s.role, &s.state, now_ns)
    walk_params(&w, &s.mine)
    walk_params(&w, &s.peer)
    walk_session(&w, s, loose, n_loose)
    if w.rc < 0:
        walk_drop(&w)
        return w.rc
    out[0] = w.buf
    n[0] = w.len
    return defs.NC_OK


# What the budget says is drawn is what the streams hold.
cdef void check_budget(nc_walk* w, nc_session* s) noexcept nogil:
    cdef uint64_t drawn = 0, waits = 0
    cdef uint32_t i = 0
    cdef nc_end* e
    while True:
        e = <nc_end*>idmap_next(&s.ins, &i)
        if e is NULL:
            break
        drawn += e.in_.grown + e.in_.lent
        waits += 1 if e.in_.waits else 0
    walk_need(w, drawn == s.budget.drawn)
    s.budget.waits = waits
    s.budget.freed = 1 if waits else 0


# The program here has not got the values with which they came.
cdef void drop_carried(nc_session* s) noexcept nogil:
    cdef uint32_t i
    cdef nc_end* e
    for i in range(s.n_adopted):
        e = s.adopted[i]
        if e.kind == defs.PREFACE_TOKEN and e.bound and not (e.out_done and e.in_done):
            e.abort_code = defs.CODE_HANDED_OVER
            end_request(e, REQ_ABORT)


cdef int session_read(nc_session* s, const uint8_t* p_untrusted, size_t n, nc_keystore* store, uint64_t* node_used,
                      uint64_t seed, const uint8_t* mix32, int64_t now_ns) noexcept nogil:
    cdef nc_walk w
    cdef nc_params mine, peer
    cdef uint8_t role = 0, state = 0
    if n > <size_t>HANDOVER_MOST:
        return defs.NC_ELIMIT
    walk_read(&w, p_untrusted, n)
    walk_head(&w, &role, &state, now_ns)
    walk_params(&w, &mine)
    walk_params(&w, &peer)
    check_params(&w, &mine, &peer)
    if w.rc < 0:
        return w.rc
    s.sealer.keys = keys_blank(store, role, NULL)
    if s.sealer.keys is NULL or session_bare(s, role, &mine, &peer, seed) < 0:
        return defs.NC_ENOMEM
    s.state = state
    store_seq_u32(&s.suspended, 1 if state == SESSION_SUSPENDED else 0)
    walk_session(&w, s, NULL, 0)
    walk_need(&w, w.p == w.end)
    check_budget(&w, s)
    if w.rc < 0:
        s.budget.drawn = 0
        return w.rc
    s.budget.node_used = node_used
    if node_used is not NULL:
        fetch_add_u64(node_used, s.budget.drawn)
    drop_carried(s)
    session_bump(s, mix32)
    s.ready_any = 1
    return defs.NC_OK
