# state: what an engine is made of: sessions with their carriers, lists, descriptors, its figures. Layer: _engine; types
# only.
# Who may touch what: the head of engine.pxd. news.pyx fills the lists for the application, links.pyx serves carriers.

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
    BLOCKED_NS = 1000000            # what is due on a carrier that takes nothing is looked at again after this
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
    uint8_t datagrams               # what it carries; `pend` then has two bytes of size before each
    uint8_t mark                    # nc_ecn_mark of what it sends
    uint8_t candidate               # an address of the peer that is not proved yet: only probes go there
    int64_t probed_at
    uint8_t answers                 # times that `answer` was said again
    uint8_t* answer                 # owned: the last word of the exchange that made the path, until something comes;
                                    # and of the session, a datagram with CLOSE
    size_t answer_len
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
    uint8_t held                    # it is about to move to another process, or has come from one and is not to act yet
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
    uint64_t ticket_life            # seconds
    size_t ticket_len
    uint8_t* ticket                 # owned, the newest that came; NULL: none waits for the application

cdef struct nc_engine:
    pthread_mutex_t baton
    uint32_t baton_owned            # debugging aid: 1 while somebody holds it
    int kind                        # nc_engine_kind
    int64_t clock_ns                # the time, moved by somebody; 0: the system's clock tells
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
