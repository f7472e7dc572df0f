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

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netchan._core.ctxcache cimport nc_cache
from netchan._core.keystore cimport nc_keystore
from netchan._core.leaf cimport nc_leaf
from netchan._core.state cimport nc_end, nc_path, nc_session
from netchan._core.segment cimport nc_seg
from netchan._core.timer cimport nc_theap
from netchan._engine.desk cimport nc_desk
from netchan._engine.sys cimport pthread_mutex_t, pthread_t

cdef enum:
    TX_BYTES = 262144               # sealed bytes of one write
    RX_BYTES = 262144               # bytes of one read: PUMP_BYTES of docs/spec/limits.md
    PUMP_NS = 500000                # a pump ends after this time
    FLUSH_GAP_NS = 20000            # a send flushes in place when nothing was flushed for this long
    FLUSH_TAIL_NS = 150000          # else its bytes leave after this at the latest
    FLUSH_FRESH_NS = 50000          # the tail timer leaves a program alone that has flushed so recently
    FLUSH_BYTES = 49152             # or as soon as so much waits
    SPIN_NS = 20000                 # a blocked caller looks this long before it sleeps
    TRIAL_BELOW_NS = 200000         # waits that may belong to an exchange which spinning would shorten
    TRIAL_FIRST = 16                # so many of them in a row before the first trial
    TRIAL_GAP = 128                 # between trials: this, and up to this once more; a power of two
    TRIALS = 32                     # waits of one trial
    SLICE_NS = 1000000000           # the main thread looks for signals at least this often
    GUARD_CALLER_NS = 2000000       # under traffic the guardian looks this often
    GUARD_LOOP_NS = 20000000
    YIELD_NS = 50000                # a thread that gives way looks again after this
    YIELD_FRESH_NS = 150000         # a driver that had the GIL so recently will want it again: one round trip
    GUARD_QUIET = 25                # looks without anything before it sleeps until the next event
    LINGER_NS = 1000000000          # a closed session reads on this long
    PINS_SOFT = 1048576             # held bytes that may wait for the program's next call
    SLOTS_MAX = 65536               # sessions of one engine
    CIPHERS = 3                     # caches by cipher id, 1 and 2 used

cdef enum nc_engine_kind:
    ENGINE_CALLER = 0
    ENGINE_LOOP = 1
    ENGINE_THREADS = 2

cdef enum nc_path_news:             # nc_slot.app_path
    PATHS_NONE = 1                  # the session has lost its last path
    PATHS_AGAIN = 2                 # it has one again
    PATHS_SILENT = 3                # all are silent where they should not be
    PATHS_FEWER = 4                 # one was lost, others live
    PATHS_MORE = 5

cdef struct nc_engine
cdef struct nc_slot

cdef struct nc_offer_event:         # an offered channel, for the application; owned by its list
    nc_offer_event* next
    uint64_t codec
    uint64_t capacity_wanted
    uint8_t schema[16]
    uint8_t flags
    size_t name_len
    uint8_t name[256]

# The carrier of one path. Freed at the end of a pump, when no report can name it any more.
cdef struct nc_link:
    nc_link* next                   # of its slot; then of the engine's dead ones
    nc_slot* slot                   # NULL: closed
    nc_path* path                   # borrowed: the core keeps it until slot_reap has let go
    int fd
    int poll_bits                   # as registered with the poller
    uint8_t* pend                   # owned: sealed bytes that the kernel did not take
    size_t pend_off
    size_t pend_len
    size_t pend_cap
    uint8_t broken                  # it can send no more
    int64_t broken_at               # since when; valid once it was flushed

# One session with its carriers.
cdef struct nc_slot:
    nc_session session              # first: a session pointer is a slot pointer
    nc_engine* engine
    nc_slot* dirty_next
    nc_slot* app_next
    nc_slot* all_next               # all slots of the engine
    nc_slot* all_prev
    nc_slot* grave_next
    nc_link* links
    uint32_t index                  # in the heap of deadlines
    int64_t deadline                # as in the heap
    int64_t linger_at               # when reading on after the end stops
    uint8_t closed                  # its descriptors are closed, for good
    uint8_t parted                  # they are closed, and the session waits for another
    uint8_t told_over               # the application was told that the session is over
    uint32_t orphan                 # atomic: 1 the application lets go, 2 it has and touches nothing here any more
    # under app_lock
    nc_offer_event* offers
    nc_offer_event* offers_tail
    uint8_t in_app
    uint8_t app_over
    uint8_t app_path                # nc_path_news, the last
    uint8_t ratchet_new             # a message of a ratchet waits for the application
    uint8_t ratchet_step
    uint64_t ratchet_number
    size_t ratchet_len
    uint8_t* ratchet                # owned, RATCHET_MAX; NULL until the first

cdef struct nc_engine:
    pthread_mutex_t baton
    uint32_t baton_owned            # debugging aid: 1 while somebody holds it
    int kind                        # nc_engine_kind
    int poller                      # what a loop watches
    int timer_fd                    # next deadline of any session; in the poller
    int poke_fd                     # wakes whoever sleeps in the poller; in the poller
    int64_t timer_at                # as armed; 0: not
    uint8_t* rx                     # owned, RX_BYTES
    uint8_t* tx                     # owned, TX_BYTES
    nc_theap heap
    nc_slot** by_index              # owned; NULL: free
    uint32_t* free_index            # owned stack of indices
    uint32_t index_cap
    uint32_t n_free
    uint32_t n_index
    nc_slot* slots
    nc_slot* graves                 # closed ones that the application may still hold
    nc_link* dead_links
    uint32_t n_slots
    nc_cache* caches[CIPHERS]       # contexts by cipher id
    nc_keystore* stores[CIPHERS]
    # shared
    nc_slot* dirty_head             # atomic stack
    uint64_t pending                # application (GIL): bytes appended since the last flush, about
    uint32_t armed                  # atomic: the tail timer is set
    int64_t flushed_at              # atomic: time of the last flush
    uint64_t pumps                  # atomic count of pumps and flushes, for the guardian
    uint64_t reads                  # of these, those that looked at the carriers
    nc_leaf app_lock
    nc_end* app_ends
    nc_slot* app_slots
    uint32_t app_any                # atomic: something for a holder of the GIL
    uint32_t returning              # atomic: a driver pumps or flushes without the GIL and wants it back
    int64_t returned_at             # atomic: when a driver last had it back
    uint32_t poked                  # atomic: poke_fd is readable
    uint32_t wakes                  # atomic: counts blocked callers that others have woken
    uint32_t role                   # atomic: 1: a blocked caller sits in the poller
    uint32_t role_wakes             # atomic: what that caller has seen of wakes
    uint32_t generation             # futex of the other blocked callers
    uint32_t sleepers               # how many sleep there
    uint32_t stopping               # atomic
    uint64_t fork_count             # of the process that made it
    # spin of the role holder
    int spin_allowed                # 1: two processors or more are ours, also by quota
    int64_t spin_ns
    int64_t wait_avg_ns
    int64_t spin_off_until
    uint64_t waits_short            # waits in a row below TRIAL_BELOW_NS
    uint64_t trial_at               # waits_short at which the next trial begins
    uint32_t spin_trials            # waits that are spun through although the average says no
    uint64_t seed
    nc_desk* desk                   # THREADS: where it says that there is news; else NULL
    # guardian; of a THREADS engine the driver itself, which needs none of the other descriptors here
    pthread_t guardian
    uint8_t guarded                 # thread runs
    uint8_t joined                  # it ended in time
    int guard_poller                # its own set: the poller (one-shot), the tail timer, its kick
    int guard_kick
    int tail_fd                     # timerfd of the flush rule
    uint64_t guardian_looks         # times that the tail timer found the program flushing by itself
    int aside_fd                    # eventfd of whoever collects news that nobody inside does; 0: none
    int path_fd                     # eventfd of whoever brings sessions back; 0: none
    uint64_t guardian_pumps
    uint64_t guardian_flushes
    # pins to drop with the GIL, under app_lock
    nc_seg* pins
    uint64_t n_pins_bytes
    uint32_t pins_asked             # atomic: ask_pins was called and has not run yet
    void (*ask_pins)(nc_engine* g) noexcept nogil       # many bytes are held and the program is silent: from any thread

cdef int fork_watch() noexcept                                                  # once: makes fork_count work
cdef uint64_t* node_drawn() noexcept nogil                      # bytes, atomic; for nc_budget
cdef uint64_t fork_count() noexcept nogil                                       # grows in every forked child
# Fills a struct that is zeroed but for `desk`: descriptors, buffers, thread. NC_OK, NC_ENOMEM, NC_ESYS. GIL side.
cdef int engine_open(nc_engine* g, int kind, int spin_allowed) noexcept nogil
# Stops the thread, closes all. GIL released by the caller.
cdef void engine_close(nc_engine* g) noexcept nogil
cdef void engine_release(nc_engine* g, nc_seg** pins) noexcept nogil

# Baton held ------------------------------------------------------------------------------------------------------
cdef void baton_take(nc_engine* g) noexcept nogil                               # waits: never with the GIL
cdef void baton_give(nc_engine* g) noexcept nogil                               # flushes what became dirty meanwhile
# The session is ready, and fd carries its path. NC_OK; NC_ELIMIT, NC_ENOMEM, NC_ESYS: fd and slot stay the caller's.
cdef int engine_add(nc_engine* g, nc_slot* t, int fd) noexcept nogil
cdef void engine_collect(nc_engine* g, nc_slot* t) noexcept nogil
# The descriptor carries this path of the session from now on. NC_OK; NC_ESYS, NC_ENOMEM: it stays the caller's.
cdef int slot_link(nc_engine* g, nc_slot* t, nc_path* p, int fd) noexcept nogil
cdef void slot_lose(nc_engine* g, nc_slot* t, nc_path* p, int64_t now) noexcept nogil   # the session gives a path up
cdef void slot_lose_all(nc_engine* g, nc_slot* t, int64_t now) noexcept nogil
# Lets go of the carriers of paths that are over. After each call of the core that may end one.
cdef void slot_reap(nc_engine* g, nc_slot* t) noexcept nogil
cdef void path_news(nc_engine* g, nc_slot* t, uint8_t what) noexcept nogil      # nc_path_news

# Anyone, without the baton ------------------------------------------------------------------------------------------
cdef void engine_dirty(nc_engine* g, nc_slot* t) noexcept nogil                 # after session dirty_any went 0 -> 1
cdef int engine_try_flush(nc_engine* g) noexcept nogil                          # 1 flushed, 0 the baton is taken
# Flush rule after n appended bytes. 1: the caller should flush now (engine_try_flush without the GIL); 0: a flush is
# due anyway; 2: due at the end of the loop's turn, which the caller arranges (LOOP, on its thread).
cdef int engine_appended(nc_engine* g, uint64_t n, int on_loop) noexcept nogil
# One turn of a loop's driver: everything that is ready, GIL released.
cdef void engine_pump(nc_engine* g) noexcept nogil
# A blocked caller: returns 1 when there is something for the application or g.wakes is not `wakes` any more (read it,
# then look whether you were woken, then wait), 0 at until_ns, NC_EAGAIN when a signal came.
cdef int engine_wait(nc_engine* g, int64_t until_ns, uint32_t wakes) noexcept nogil
# After the lists were emptied: lets the other blocked callers look.
cdef void engine_told(nc_engine* g) noexcept nogil
cdef void engine_poke(nc_engine* g) noexcept nogil
# The interpreter's lock is not fair: who passes it on for a moment has it back before a waiting thread wakes up. A
# thread that computes beside the channels asks here, in small steps, whether those that serve them want it.
cdef int engine_wanted(nc_engine* g) noexcept nogil                             # 1: a driver wants it, or just had it
cdef int64_t engine_yield(nc_engine* g, int64_t limit_ns) noexcept nogil        # waits while wanted; ns waited
cdef void engine_returned(nc_engine* g) noexcept nogil                          # a driver has it back
cdef void slot_free(nc_slot* t) noexcept nogil                                  # orphan and closed: engine's own
