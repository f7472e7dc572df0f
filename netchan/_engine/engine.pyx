"""The engine: one epoll set, one baton, sessions, and the guardian that keeps them alive while the program is busy.

Layer: _engine; C only, no Python object anywhere below. Ownership and threads: the head of engine.pxd.
Flow of a pump: poller -> link_ready (links.pyx) -> deadlines -> dirty sessions -> slot_flush -> lists for the
application (news.pyx). docs/explanation/ownership.md tells why.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc

from netchan._core cimport defs
from netchan._core.ctxcache cimport cache_free
from netchan._core.keys cimport keys_free
from netchan._core.keystore cimport ks_free
from netchan._core.leaf cimport (
    cas_u32, cas_u64, fetch_add_u32, fetch_sub_u32, leaf_init, leaf_lock, leaf_unlock, load_acq_u32, load_acq_u64,
    load_rlx_u64, load_seq_u32, load_seq_u64, store_rel_u32, store_rel_u64, store_rlx_u64, store_seq_u32, xchg_u64,
)
from netchan._core.ends cimport end_release, session_close
from netchan._core.session cimport session_free, session_on_deadline
from netchan._core.state cimport SESSION_SUSPENDED, SESSION_UP, nc_end
from netchan._core.timer cimport (
    TIMER_NEVER, theap_clear, theap_free, theap_init, theap_next, theap_pop_due, theap_reserve,
    theap_set,
)
from netchan._engine cimport sys
from netchan._engine.clock cimport engine_alarm, engine_now
from netchan._engine.desk cimport desk_patience, desk_ring
from netchan._engine.links cimport (
    broken_link, broken_until, link_close, link_ready, slot_deadline, slot_flush, slot_link, slot_lose, slot_shut,
)
from netchan._engine.news cimport engine_collect, engine_collect_pins, engine_poke, kick, path_news
from netchan._engine.poller cimport (
    POLL_BATCH, POLL_IN, POLL_ONCE, nc_report, poller_add, poller_change, poller_open, poller_wait,
)
from netchan._engine.state cimport (
    BLOCKED_NS, CIPHERS, ENGINE_CALLER, ENGINE_THREADS, FLUSH_BYTES, FLUSH_FRESH_NS, FLUSH_GAP_NS, FLUSH_TAIL_NS,
    GUARD_CALLER_NS, GUARD_LOOP_NS, GUARD_QUIET, PATHS_SILENT, PUMP_NS, RX_BYTES, SLICE_NS, SLOTS_MAX, SPIN_NS, TRIALS,
    TRIAL_BELOW_NS, TRIAL_FIRST, TRIAL_GAP, TX_BYTES, YIELD_FRESH_NS, YIELD_NS, nc_engine, nc_link, nc_offer_event,
    nc_slot,
)

# Places in the pollers that are no slot.
cdef uint8_t MARK_TIMER = 0
cdef uint8_t MARK_POKE = 0
cdef uint8_t MARK_INNER = 0
cdef uint8_t MARK_TAIL = 0
cdef uint8_t MARK_KICK = 0

cdef uint64_t forks = 0
cdef uint64_t drawn = 0             # by the sessions of the process, beyond the floors of their streams


cdef void on_fork_child() noexcept nogil:
    # Only marks: locks may be held for ever here, and every facade looks at this number before it takes one.
    global forks, drawn
    forks += 1
    drawn = 0                           # the child has no sessions


cdef int fork_watch() noexcept:
    return sys.pthread_atfork(NULL, NULL, on_fork_child)


cdef uint64_t fork_count() noexcept nogil:
    return forks


cdef uint64_t* node_drawn() noexcept nogil:
    return &drawn


# --- life -------------------------------------------------------------------------------------------------------------

cdef int engine_open(nc_engine* g, int kind, int spin_allowed) noexcept nogil:
    g.kind = kind
    g.poller = g.timer_fd = g.poke_fd = g.guard_poller = g.guard_kick = g.tail_fd = -1
    g.fork_count = forks
    g.spin_allowed = spin_allowed
    g.spin_ns = SPIN_NS
    g.trial_at = TRIAL_FIRST
    g.seed = <uint64_t>engine_now(g) | 1
    sys.pthread_mutex_init(&g.baton, NULL)
    leaf_init(&g.app_lock)
    g.rx = <uint8_t*>malloc(RX_BYTES)
    g.tx = <uint8_t*>malloc(TX_BYTES)
    if g.rx is NULL or g.tx is NULL or theap_init(&g.heap, 64) < 0:
        return defs.NC_ENOMEM
    g.poller = poller_open()
    g.guard_poller = poller_open()
    g.timer_fd = sys.timerfd_create(sys.CLOCK_MONOTONIC, sys.TFD_CLOEXEC | sys.TFD_NONBLOCK)
    g.tail_fd = sys.timerfd_create(sys.CLOCK_MONOTONIC, sys.TFD_CLOEXEC | sys.TFD_NONBLOCK)
    g.poke_fd = sys.eventfd(0, sys.EFD_CLOEXEC | sys.EFD_NONBLOCK)
    g.guard_kick = sys.eventfd(0, sys.EFD_CLOEXEC | sys.EFD_NONBLOCK)
    if g.poller < 0 or g.guard_poller < 0 or g.timer_fd < 0 or g.tail_fd < 0 or g.poke_fd < 0 or g.guard_kick < 0:
        return defs.NC_ESYS
    if (poller_add(g.poller, g.timer_fd, POLL_IN, &MARK_TIMER) < 0
            or poller_add(g.poller, g.poke_fd, POLL_IN, &MARK_POKE) < 0):
        return defs.NC_ESYS
    if kind == ENGINE_THREADS:
        if poller_add(g.poller, g.tail_fd, POLL_IN, &MARK_TAIL) < 0:
            return defs.NC_ESYS
    elif poller_add(g.guard_poller, g.poller, POLL_IN | POLL_ONCE, &MARK_INNER) < 0 \
            or poller_add(g.guard_poller, g.tail_fd, POLL_IN, &MARK_TAIL) < 0 \
            or poller_add(g.guard_poller, g.guard_kick, POLL_IN, &MARK_KICK) < 0:
        return defs.NC_ESYS
    if g.clock_ns:
        g.joined = 1                            # nobody stands in for a program in virtual time
    elif sys.thread_start(&g.guardian, thread_main if kind == ENGINE_THREADS else guardian_main, g) != 0:
        return defs.NC_ESYS
    g.guarded = 1
    return defs.NC_OK


cdef void drain(int fd) noexcept nogil:
    cdef uint64_t got
    sys.read(fd, &got, 8)


cdef void close_fd(int* fd) noexcept nogil:
    if fd[0] >= 0:
        sys.close(fd[0])
    fd[0] = -1


cdef void engine_close(nc_engine* g) noexcept nogil:
    cdef nc_slot* t
    cdef nc_link* k
    cdef nc_slot* following
    if g.guarded and g.clock_ns == 0:
        store_seq_u32(&g.stopping, 1)
        kick(g.poke_fd if g.kind == ENGINE_THREADS else g.guard_kick)
        g.joined = 1 if sys.thread_join(g.guardian, 1000000000) == 0 else 0
    g.guarded = 0
    t = g.slots
    while t is not NULL:
        following = t.all_next
        while t.links is not NULL:
            k = t.links
            t.links = k.next
            link_close(g, k)
        t.closed = 1
        t = following
    while g.dead_links is not NULL:
        k = g.dead_links
        g.dead_links = k.next
        free(k)
    close_fd(&g.poller)
    close_fd(&g.guard_poller)
    close_fd(&g.timer_fd)
    close_fd(&g.tail_fd)
    close_fd(&g.poke_fd)
    close_fd(&g.guard_kick)


# GIL, after engine_close: its handle is gone. What nobody refers to any more is given back and wiped; the struct stays,
# and so does a session whose object has yet to be collected (it names both), with the memory that it may still touch.
cdef void engine_release(nc_engine* g, nc_seg** pins) noexcept nogil:
    cdef nc_slot* t = g.slots
    cdef nc_slot* following
    cdef nc_end* e
    cdef nc_seg* pin
    cdef int i
    if g.guarded or not g.joined:
        return
    g.graves = NULL
    xchg_u64(<uint64_t*>&g.dirty_head, 0)
    while g.app_ends is not NULL:
        e = g.app_ends
        g.app_ends = e.app_next
        end_release(e, pins)
    while t is not NULL:
        following = t.all_next
        if load_seq_u32(&t.orphan):
            slot_drop(g, t)
        t = following
    while g.pins is not NULL:
        pin = g.pins
        g.pins = pin.next
        pin.next = pins[0]
        pins[0] = pin
    if g.slots is not NULL:
        return
    free(g.rx)
    free(g.tx)
    free(g.by_index)
    free(g.free_index)
    g.rx = g.tx = NULL
    g.by_index = NULL
    g.free_index = NULL
    theap_free(&g.heap)
    for i in range(CIPHERS):
        cache_free(g.caches[i])
        ks_free(g.stores[i])
        g.caches[i] = NULL
        g.stores[i] = NULL


# --- baton ------------------------------------------------------------------------------------------------------------

cdef void baton_take(nc_engine* g) noexcept nogil:
    sys.pthread_mutex_lock(&g.baton)


cdef void baton_give(nc_engine* g) noexcept nogil:
    while True:
        if g.desk is not NULL and load_seq_u32(&g.app_any):
            desk_ring(g.desk)                   # all news comes about with the baton
        sys.pthread_mutex_unlock(&g.baton)
        if load_seq_u64(<uint64_t*>&g.dirty_head) == 0:
            return
        if sys.pthread_mutex_trylock(&g.baton) != 0:
            return
        flush_dirty(g)


# --- callers that wait ------------------------------------------------------------------------------------------------

cdef void engine_told(nc_engine* g) noexcept nogil:
    if load_seq_u32(&g.sleepers):
        fetch_add_u32(&g.generation, 1)
        sys.futex_wake(&g.generation, 0x7FFFFFFF)


# Closed slots that the application has let go, too: nothing refers to them any more. The same for closed carriers.
cdef void sweep(nc_engine* g) noexcept nogil:
    cdef nc_slot** link = &g.graves
    cdef nc_slot* t
    cdef nc_link* k
    while g.dead_links is not NULL:
        k = g.dead_links
        g.dead_links = k.next
        free(k)
    while link[0] is not NULL:
        t = link[0]
        if load_seq_u32(&t.orphan) == 2 and not load_seq_u32(&t.session.dirty_any):
            link[0] = t.grave_next
            slot_drop(g, t)
        else:
            link = &t.grave_next


# --- pump -------------------------------------------------------------------------------------------------------------

# The timer rings for what is due first.
cdef inline void arm_timer(nc_engine* g, int64_t now) noexcept nogil:
    cdef int64_t at = theap_next(&g.heap)
    if at != TIMER_NEVER and (g.timer_at == 0 or at < g.timer_at or g.timer_at <= now):
        engine_alarm(g, g.timer_fd, at if at > 0 else 1)
        g.timer_at = at
    elif at == TIMER_NEVER and g.timer_at and g.timer_at <= now:
        g.timer_at = 0


cdef void flush_dirty(nc_engine* g) noexcept nogil:
    cdef nc_slot* t
    cdef nc_slot* following
    cdef int64_t now = engine_now(g)
    store_rel_u32(&g.armed, 0)
    store_rlx_u64(&g.pending, 0)
    g.pumps += 1
    t = <nc_slot*>xchg_u64(<uint64_t*>&g.dirty_head, 0)
    while t is not NULL:
        following = t.dirty_next
        if load_seq_u32(&t.orphan) and (t.session.state == SESSION_UP or t.session.state == SESSION_SUSPENDED):
            session_close(&t.session, defs.CLOSE_EXCEPTION, NULL, 0)
        # Cleared before it is looked at: what comes later lists it anew.
        store_seq_u32(&t.session.dirty_any, 0)
        slot_flush(g, t, now)
        t = following
    # The time of its end: a flush that itself took long must not make the next message look like the first of a burst.
    now = engine_now(g)
    store_rel_u64(<uint64_t*>&g.flushed_at, <uint64_t>now)
    # Nobody may look for long after a program that has said its last: what it waits for has its time all the same.
    arm_timer(g, now)
    if g.graves is not NULL or g.dead_links is not NULL:
        sweep(g)


cdef void run_deadlines(nc_engine* g, int64_t now) noexcept nogil:
    cdef uint32_t suspect
    cdef nc_link* broken
    cdef int64_t idx
    cdef nc_slot* t
    while True:
        idx = theap_pop_due(&g.heap, now)
        if idx < 0:
            break
        t = g.by_index[idx]
        if t is NULL:
            continue
        t.deadline = TIMER_NEVER
        if t.linger_at and t.linger_at <= now:
            slot_shut(g, t)
            engine_collect(g, t)
            continue
        broken = broken_link(t)
        if broken is not NULL:
            if broken_until(broken) <= now:
                slot_lose(g, t, broken.path, now)
            else:
                slot_deadline(g, t)
            engine_collect(g, t)
            continue
        suspect = load_acq_u32(&t.session.suspect)
        session_on_deadline(&t.session, now)
        if not suspect and load_acq_u32(&t.session.suspect):
            path_news(g, t, PATHS_SILENT)
        slot_flush(g, t, now)
        if t.deadline <= now:
            # What is due cannot be said: the carrier takes nothing. It is said when it does; nobody waits for it here.
            t.deadline = now + BLOCKED_NS
            theap_set(&g.heap, t.index, t.deadline)
    arm_timer(g, now)


# Baton held. What is ready now, once, within the budget.
cdef void pump(nc_engine* g) noexcept nogil:
    cdef nc_report[64] reports
    cdef int n, i
    cdef int64_t now
    cdef void* mark
    n = poller_wait(g.poller, reports, POLL_BATCH, 0)
    now = engine_now(g)
    g.pumps += 1
    store_rlx_u64(&g.reads, g.reads + 1)
    for i in range(n if n > 0 else 0):
        mark = reports[i].slot
        if mark == &MARK_TIMER:
            drain(g.timer_fd)
            g.timer_at = 0
        elif mark == &MARK_POKE:
            drain(g.poke_fd)                    # first: a poke between the two would set the flag with nothing to read
            store_seq_u32(&g.poked, 0)
        elif mark == &MARK_TAIL:
            drain(g.tail_fd)                    # what waits is flushed below
        else:
            link_ready(g, <nc_link*>mark, reports[i].bits, now)
            if (i & 7) == 7 and engine_now(g) - now > PUMP_NS:
                break                           # level-triggered: the rest is reported again
    if load_seq_u64(<uint64_t*>&g.dirty_head):
        flush_dirty(g)
    run_deadlines(g, now)
    if g.graves is not NULL or g.dead_links is not NULL:
        sweep(g)


cdef int64_t engine_deadline(nc_engine* g) noexcept nogil:
    cdef int64_t at = theap_next(&g.heap)
    cdef int64_t tail = g.flushed_at + FLUSH_TAIL_NS
    return tail if load_seq_u64(<uint64_t*>&g.dirty_head) and tail < at else at


cdef void engine_pump(nc_engine* g) noexcept nogil:
    baton_take(g)
    pump(g)
    baton_give(g)


# --- giving way -------------------------------------------------------------------------------------------------------

cdef void engine_returned(nc_engine* g) noexcept nogil:
    store_rel_u64(<uint64_t*>&g.returned_at, <uint64_t>engine_now(g))
    store_rel_u32(&g.returning, 0)


cdef int engine_wanted(nc_engine* g) noexcept nogil:
    cdef nc_report[1] report
    if g.clock_ns:
        return 0                                # one thread runs all of it
    if load_acq_u32(&g.returning):
        return 1
    if g.kind == ENGINE_CALLER and load_acq_u32(&g.role) == 0:
        return 0                                # nobody is inside
    if load_acq_u32(&g.app_any):
        return 1
    if g.kind == ENGINE_THREADS:
        return 0                                # its thread never wants it
    if engine_now(g) - <int64_t>load_acq_u64(<uint64_t*>&g.returned_at) < YIELD_FRESH_NS:
        return 1
    return 1 if poller_wait(g.poller, report, 1, 0) > 0 else 0


cdef int64_t engine_yield(nc_engine* g, int64_t limit_ns) noexcept nogil:
    cdef int64_t began = engine_now(g)
    cdef int64_t waited = 0
    while waited < limit_ns and engine_wanted(g):
        sys.sleep_ns(YIELD_NS)
        waited = engine_now(g) - began
    return waited


# --- appending and flushing -------------------------------------------------------------------------------------------

cdef void engine_dirty(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef uint64_t head
    while True:
        head = load_acq_u64(<uint64_t*>&g.dirty_head)
        t.dirty_next = <nc_slot*>head
        if cas_u64(<uint64_t*>&g.dirty_head, head, <uint64_t>t):
            return


cdef int engine_try_flush(nc_engine* g) noexcept nogil:
    if sys.pthread_mutex_trylock(&g.baton) != 0:
        return 0                                # its holder looks at the dirty list once more when it lets go
    flush_dirty(g)
    baton_give(g)
    return 1


cdef int engine_appended(nc_engine* g, uint64_t n, int on_loop) noexcept nogil:
    cdef int64_t now
    n += load_rlx_u64(&g.pending)
    store_rlx_u64(&g.pending, n)
    if n >= FLUSH_BYTES:
        return 1
    if load_acq_u32(&g.armed):
        return 0
    now = engine_now(g)
    if now - <int64_t>load_acq_u64(<uint64_t*>&g.flushed_at) >= FLUSH_GAP_NS:
        return 1
    store_rel_u32(&g.armed, 1)
    if on_loop:
        return 2
    engine_alarm(g, g.tail_fd, now + FLUSH_TAIL_NS)
    return 0


# --- blocked callers --------------------------------------------------------------------------------------------------

# The spin before a sleep: looks and yields. 1: something is ready.
cdef int spin(nc_engine* g, int64_t now) noexcept nogil:
    cdef nc_report[4] report
    cdef int64_t until
    cdef long switches
    if not g.spin_allowed or g.spin_ns < 1000 or now < g.spin_off_until:
        return 0
    until = now + g.spin_ns
    switches = sys.involuntary_switches()
    while True:
        if poller_wait(g.poller, report, 1, 0) > 0:
            return 1
        sys.sched_yield()
        if engine_now(g) >= until:
            break
    if not g.spin_trials:
        g.spin_ns >>= 1                         # found nothing
    if sys.involuntary_switches() > switches:
        g.spin_off_until = engine_now(g) + 100000000
    return 0


# Twice the moving average of recent waits; nothing once that is longer than the longest spin.
#
# Two sides that both sleep see waits of 50 us, two that both spin see 5: each state keeps itself, and neither side can
# leave the slow one alone. So while waits are short enough to be such a pair's, some in a row are spun through now and
# then; the first time soon, so that both sides of a new exchange try at once, later at random distances.
cdef void learn(nc_engine* g, int64_t waited) noexcept nogil:
    cdef int64_t sample = waited if waited < 4 * SPIN_NS else 4 * SPIN_NS
    g.wait_avg_ns += (sample - g.wait_avg_ns) // 8
    if waited >= TRIAL_BELOW_NS:
        g.waits_short = 0
        g.spin_trials = 0
        g.trial_at = TRIAL_FIRST
    else:
        g.waits_short += 1
    if g.wait_avg_ns <= SPIN_NS:
        g.spin_ns = 2 * g.wait_avg_ns if 2 * g.wait_avg_ns < SPIN_NS else SPIN_NS
        g.spin_trials = 0
        g.trial_at = g.waits_short + TRIAL_FIRST
    elif g.spin_trials > 1:
        g.spin_trials -= 1
    elif g.waits_short >= g.trial_at:
        g.seed ^= g.seed << 13
        g.seed ^= g.seed >> 7
        g.seed ^= g.seed << 17
        g.trial_at = g.waits_short + TRIAL_GAP + (g.seed & (TRIAL_GAP - 1))
        g.spin_trials = TRIALS
        g.spin_ns = SPIN_NS
    else:
        g.spin_trials = 0
        g.spin_ns = 0


cdef int role_run(nc_engine* g, int64_t until_ns, uint32_t wakes) noexcept nogil:
    cdef nc_report[4] report
    cdef int64_t now, began, left
    cdef int ms
    cdef int rc
    began = engine_now(g)
    store_seq_u32(&g.role_wakes, wakes)
    while True:
        baton_take(g)
        pump(g)
        baton_give(g)
        now = engine_now(g)
        if load_seq_u32(&g.app_any):
            learn(g, now - began)
            return 1
        if load_seq_u32(&g.wakes) != wakes:
            return 1
        if now >= until_ns:
            return 0
        if spin(g, now):
            continue
        left = until_ns - now
        ms = <int>((left + 999999) // 1000000) if left < SLICE_NS else 1000
        if load_seq_u32(&g.app_any) or load_seq_u32(&g.wakes) != wakes:
            continue
        rc = poller_wait(g.poller, report, 1, ms)
        if rc == defs.NC_EAGAIN or (rc == 0 and left >= SLICE_NS):
            return defs.NC_EAGAIN               # a signal, or time to look for one


cdef int engine_wait(nc_engine* g, int64_t until_ns, uint32_t wakes) noexcept nogil:
    cdef uint32_t seen
    cdef int64_t now, left
    cdef int rc
    if g.kind == ENGINE_CALLER and cas_u32(&g.role, 0, 1):
        rc = role_run(g, until_ns, wakes)
        store_seq_u32(&g.role, 0)
        if load_seq_u32(&g.sleepers):
            fetch_add_u32(&g.generation, 1)
            sys.futex_wake(&g.generation, 1)    # one of them takes the role
        return rc
    seen = load_seq_u32(&g.generation)
    fetch_add_u32(&g.sleepers, 1)
    rc = 0
    if load_seq_u32(&g.wakes) != wakes or (load_seq_u32(&g.app_any) and g.kind == ENGINE_CALLER):
        rc = 1
    elif load_seq_u32(&g.role) or g.kind != ENGINE_CALLER:
        now = engine_now(g)
        left = until_ns - now
        if left > 0:
            if left > SLICE_NS:
                left = SLICE_NS
            if sys.futex_wait(&g.generation, seen, left) != 0:
                rc = defs.NC_EAGAIN
            else:
                rc = 1
    else:
        rc = 1                                  # the role is free: try again
    fetch_sub_u32(&g.sleepers, 1)
    return rc


# --- the driver of a THREADS engine ----------------------------------------------------------------------------------

# No Python, no allocation of crypto objects, all signals blocked; asleep without limit while nothing happens.
cdef void* thread_main(void* arg) noexcept nogil:
    cdef nc_engine* g = <nc_engine*>arg
    cdef nc_report[1] report
    while not load_seq_u32(&g.stopping):
        poller_wait(g.poller, report, 1, desk_patience(g.desk))
        if not load_seq_u32(&g.stopping):
            engine_pump(g)
    return NULL


# --- guardian ---------------------------------------------------------------------------------------------------------

# Stands in for a program that is elsewhere. No Python, no allocation of crypto objects, all signals blocked.
cdef void* guardian_main(void* arg) noexcept nogil:
    cdef nc_engine* g = <nc_engine*>arg
    cdef nc_report[8] reports
    cdef uint64_t seen = 0
    cdef int quiet = 0
    cdef int traffic = 0
    cdef int n, i, inner, tail
    cdef int64_t gap, now
    cdef int64_t looked = 0
    while not load_seq_u32(&g.stopping):
        gap = GUARD_CALLER_NS if g.kind == ENGINE_CALLER else GUARD_LOOP_NS
        n = poller_wait(g.guard_poller, reports, 8, <int>(gap // 1000000) if traffic else -1)
        inner = tail = 0
        for i in range(n if n > 0 else 0):
            if reports[i].slot == &MARK_INNER:
                inner = 1
            elif reports[i].slot == &MARK_TAIL:
                tail = 1
            else:
                drain(g.guard_kick)
        if tail:
            drain(g.tail_fd)
            serve_tail(g)
        if inner:
            # Something is ready after a quiet time: whoever drives gets the first chance.
            traffic = 1
            quiet = 0
            seen = load_rlx_u64(&g.reads)
            continue
        # Tails come every 100 us from a program that only sends: what it does not read is looked at all the same.
        now = engine_now(g)
        if not traffic or (n > 0 and now - looked < gap):
            continue
        looked = now
        if load_rlx_u64(&g.reads) != seen:      # a flush does not count: a program that only sends reads nothing
            quiet = 0
            seen = load_rlx_u64(&g.reads)
            continue
        if poller_wait(g.poller, reports, 8, 0) > 0 or load_seq_u64(<uint64_t*>&g.dirty_head):
            quiet = 0
            baton_take(g)
            if g.reads == seen:
                pump(g)
                g.guardian_pumps += 1
            baton_give(g)
            seen = load_rlx_u64(&g.reads)
            tell(g)
            continue
        quiet += 1
        if quiet >= GUARD_QUIET:
            traffic = 0
            poller_change(g.guard_poller, g.poller, POLL_IN | POLL_ONCE, &MARK_INNER)
    return NULL


# A holder of the GIL must look: whoever sleeps in the poller, or the loop that watches it.
cdef void tell(nc_engine* g) noexcept nogil:
    # the guardian may have taken the poke that was meant for the sleeper
    if load_seq_u32(&g.app_any) or (load_seq_u32(&g.role) and load_seq_u32(&g.wakes) != load_seq_u32(&g.role_wakes)):
        engine_poke(g)
    if g.aside_fd > 0 and load_seq_u32(&g.app_any):
        kick(g.aside_fd)


cdef void serve_tail(nc_engine* g) noexcept nogil:
    cdef int64_t flushed = <int64_t>load_acq_u64(<uint64_t*>&g.flushed_at)
    if load_seq_u64(<uint64_t*>&g.dirty_head) == 0:
        store_rel_u32(&g.armed, 0)
        return
    if engine_now(g) - flushed < FLUSH_FRESH_NS:
        # The program is at it: what waits now is younger than the tail allows.
        g.guardian_looks += 1
        engine_alarm(g, g.tail_fd, flushed + FLUSH_TAIL_NS)
        return
    baton_take(g)
    flush_dirty(g)
    g.guardian_flushes += 1
    baton_give(g)
    tell(g)


# --- slots ------------------------------------------------------------------------------------------------------------

# Room for one more index in the tables.
cdef int index_grow(nc_engine* g) noexcept nogil:
    cdef uint32_t cap = g.index_cap * 2 if g.index_cap else 64
    cdef void* bigger
    if g.index_cap >= SLOTS_MAX:
        return defs.NC_ELIMIT
    bigger = realloc(g.by_index, cap * sizeof(nc_slot*))
    if bigger is NULL:
        return defs.NC_ENOMEM
    g.by_index = <nc_slot**>bigger
    bigger = realloc(g.free_index, cap * sizeof(uint32_t))
    if bigger is NULL or theap_reserve(&g.heap, cap) < 0:
        return defs.NC_ENOMEM
    g.free_index = <uint32_t*>bigger
    g.index_cap = cap
    return defs.NC_OK


cdef int engine_list(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef int rc
    if g.n_free:
        g.n_free -= 1
        t.index = g.free_index[g.n_free]
    else:
        if g.n_index == g.index_cap:
            rc = index_grow(g)
            if rc < 0:
                return rc
        t.index = g.n_index
        g.n_index += 1
    g.by_index[t.index] = t
    t.engine = g
    t.deadline = TIMER_NEVER
    t.all_prev = NULL
    t.all_next = g.slots
    if g.slots is not NULL:
        g.slots.all_prev = t
    g.slots = t
    g.n_slots += 1
    return defs.NC_OK


cdef int engine_add(nc_engine* g, nc_slot* t, int fd) noexcept nogil:
    cdef int rc = engine_list(g, t)
    if rc < 0:
        return rc
    rc = slot_link(g, t, t.session.control, fd)
    if rc < 0:
        slot_unlist(g, t)
    return rc


# The tables of the engine name the slot no more.
cdef void slot_unlist(nc_engine* g, nc_slot* t) noexcept nogil:
    if t.all_prev is not NULL:
        t.all_prev.all_next = t.all_next
    else:
        g.slots = t.all_next
    if t.all_next is not NULL:
        t.all_next.all_prev = t.all_prev
    theap_clear(&g.heap, t.index)
    g.by_index[t.index] = NULL
    g.free_index[g.n_free] = t.index
    g.n_free += 1
    g.n_slots -= 1


# The application has let go and the carriers are closed: nobody refers to the slot any more.
cdef void slot_drop(nc_engine* g, nc_slot* t) noexcept nogil:
    cdef nc_slot** link
    slot_unlist(g, t)
    session_free(&t.session)
    engine_collect_pins(g, t)
    leaf_lock(&g.app_lock)
    link = &g.app_slots
    while link[0] is not NULL and link[0] != t:
        link = &link[0].app_next
    if link[0] == t:
        link[0] = t.app_next
    leaf_unlock(&g.app_lock)
    slot_free(t)


cdef void slot_free(nc_slot* t) noexcept nogil:
    cdef nc_offer_event* x
    if t.session.sealer.keys is not NULL:
        keys_free(t.session.sealer.keys, t.session.sealer.cache)
    while t.offers is not NULL:
        x = t.offers
        t.offers = x.next
        free(x)
    free(t.ratchet)
    free(t.ticket)
    free(t)
