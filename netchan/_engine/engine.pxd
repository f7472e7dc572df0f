# engine: one epoll set, one baton, the sessions assigned to it for life, and a guardian that stands in. Layer: _engine.
#
# Who may do what (core of the house; docs/explanation/ownership.md):
# 1. Only the holder of the *baton* touches core state or a descriptor. Nobody sleeps, takes the GIL or calls Python
#    while holding it. With the GIL held it is only tried (engine_try_flush); to wait for it one releases the GIL first.
# 2. Application code needs no baton: it appends to outboxes and takes from inboxes under leaf locks and puts the
#    session on the dirty list (engine_dirty). Baton free: the appender flushes itself. Taken: its holder re-reads the
#    list after unlocking.
# 3. Drivers: a loop's callback (engine_pump), blocked callers (engine_wait: one of them holds the *role* and sleeps in
#    the poller without the baton, the others on `generation`), or a C thread of the engine's own (THREADS). The first
#    two have a guardian, a C thread that stands in for them. Neither thread ever touches Python.
# 4. What happened to channel ends goes to lists under `app_lock`; whoever holds the GIL next empties them. A THREADS
#    engine leaves word of it at the desk (desk.pxd) before it gives the baton back.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from netchan._core.segment cimport nc_seg
from netchan._engine.state cimport nc_engine, nc_slot

cdef int fork_watch() noexcept                                                  # once: makes fork_count work
cdef uint64_t* node_drawn() noexcept nogil                      # bytes, atomic; for nc_budget
cdef uint64_t fork_count() noexcept nogil                                       # grows in every forked child
# Fills a struct that is zeroed but for `desk`: descriptors, buffers, thread. NC_OK, NC_ENOMEM, NC_ESYS. GIL side.
cdef int engine_open(nc_engine* g, int kind, int spin_allowed) noexcept nogil
# Stops the thread, closes all. GIL released by the caller.
cdef void engine_close(nc_engine* g) noexcept nogil
cdef void engine_release(nc_engine* g, nc_seg** pins) noexcept nogil

# Baton held; more in news.pxd and links.pxd -----------------------------------------------------------------------
cdef void baton_take(nc_engine* g) noexcept nogil                               # waits: never with the GIL
cdef void baton_give(nc_engine* g) noexcept nogil                               # flushes what became dirty meanwhile
# The engine knows the session from now on, which has no carrier yet. NC_OK; NC_ELIMIT, NC_ENOMEM.
cdef int engine_list(nc_engine* g, nc_slot* t) noexcept nogil
# The session is ready, and fd carries its path. NC_OK; NC_ELIMIT, NC_ENOMEM, NC_ESYS: fd and slot stay the caller's.
cdef int engine_add(nc_engine* g, nc_slot* t, int fd) noexcept nogil

# Anyone, without the baton ------------------------------------------------------------------------------------------
cdef void engine_dirty(nc_engine* g, nc_slot* t) noexcept nogil                 # after session dirty_any went 0 -> 1
cdef int engine_try_flush(nc_engine* g) noexcept nogil                          # 1 flushed, 0 the baton is taken
# Flush rule after n appended bytes. 1: the caller should flush now (engine_try_flush without the GIL); 0: a flush is
# due anyway; 2: due at the end of the loop's turn, which the caller arranges (LOOP, on its thread).
cdef int engine_appended(nc_engine* g, uint64_t n, int on_loop) noexcept nogil
# When the next pump is due though nothing comes; TIMER_NEVER. For whoever moves the clock of the engine.
cdef int64_t engine_deadline(nc_engine* g) noexcept nogil
# One turn of a loop's driver: everything that is ready, GIL released.
cdef void engine_pump(nc_engine* g) noexcept nogil
# A blocked caller: returns 1 when there is something for the application or g.wakes is not `wakes` any more (read it,
# then look whether you were woken, then wait), 0 at until_ns, NC_EAGAIN when a signal came.
cdef int engine_wait(nc_engine* g, int64_t until_ns, uint32_t wakes) noexcept nogil
# After the lists were emptied: lets the other blocked callers look.
cdef void engine_told(nc_engine* g) noexcept nogil
# The interpreter's lock is not fair: who passes it on for a moment has it back before a waiting thread wakes up. A
# thread that computes beside the channels asks here, in small steps, whether those that serve them want it.
cdef int engine_wanted(nc_engine* g) noexcept nogil                             # 1: a driver wants it, or just had it
cdef int64_t engine_yield(nc_engine* g, int64_t limit_ns) noexcept nogil        # waits while wanted; ns waited
cdef void engine_returned(nc_engine* g) noexcept nogil                          # a driver has it back
cdef void slot_free(nc_slot* t) noexcept nogil                                  # orphan and closed: engine's own
