# desk: where THREADS engines leave word that there is news, and who comes for it. Layer: _engine; C only.
#
# The engine threads never hold the GIL, so what they have for Python objects waits in the engines' lists until a thread
# with the GIL collects it. All THREADS engines of a process share one desk, so whoever comes collects for all:
# 1. An engine whose list got something calls desk_ring, with the baton. Only the first ring since the last look does
#    anything: it writes to the bell of every loop that has answered its last one, and wakes one blocked thread.
# 2. Whoever comes takes the word away (desk_take) before it looks at the lists, so what is listed later rings again.
# 3. Nobody there, or nobody came for PATIENCE_NS: the descriptor aside is told (the worker collects).
# Threads: `lock` guards the lists of bells and sleepers. It is taken with or without the baton, never with the GIL, and
# held for a walk over them with writes that cannot block; a bell is closed under it, so no other file gets its bytes.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from netchan._engine.sys cimport pthread_mutex_t

cdef enum:
    PATIENCE_NS = 20000000          # then news goes to the worker as well: GUARD_LOOP_NS of a loop's own engine

cdef struct nc_bell:                # of one loop
    int fd                          # eventfd
    uint32_t rung                   # atomic: written to, and not yet answered
    nc_bell* following

cdef struct nc_sleeper:             # a blocked thread; on its own stack
    uint32_t word                   # futex: 0 asleep, 1 is to look
    nc_sleeper* before              # towards the one that came last
    nc_sleeper* behind

cdef struct nc_desk:
    pthread_mutex_t lock
    nc_bell* bells                  # under lock
    nc_sleeper* last                # under lock: who came last, so whose data is warm
    uint32_t news                   # atomic: rung, and nobody has come yet
    uint32_t passed_on              # atomic: the descriptor aside was told of it
    uint64_t rung_at                # atomic: when
    uint32_t aside_fd               # atomic: eventfd; 0: none
    uint64_t forks                  # of the process that made it

# The desk of this process, made on first use and never freed; forks: as of engine.pxd. NULL: no memory. GIL.
cdef nc_desk* desk_here(uint64_t forks) noexcept
cdef void desk_ring(nc_desk* d) noexcept nogil
cdef void desk_take(nc_desk* d) noexcept nogil
# What an engine thread does between pumps: passes news on that nobody came for; gives the ms that it may sleep, or -1.
cdef int desk_patience(nc_desk* d) noexcept nogil
cdef void desk_hang(nc_desk* d, nc_bell* b) noexcept nogil
cdef void desk_drop(nc_desk* d, nc_bell* b) noexcept nogil              # closes it
# Sleeps until word is 1, there is news, or until_ns. 1 look, 0 the time is over, NC_EAGAIN a signal or time for one.
cdef int desk_wait(nc_desk* d, nc_sleeper* s, int64_t until_ns) noexcept nogil
cdef void desk_wake(nc_sleeper* s) noexcept nogil                       # s is in desk_wait or before it
