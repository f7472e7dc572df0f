# leaf: the lock under which nothing else happens, and the core's atomic helpers. Layer: _core, rung b; inline only.
#
# A leaf lock guards one stream's outbox or inbox, one pool, one list: held for a bounded copy (<= 32 KiB) and no more.
# Order: baton -> leaf, GIL -> leaf, nothing under a leaf: no Python call, no allocation, no second lock, no system
# call but the futex of the lock itself.
#
# Three states in one word: 0 free, 1 held, 2 held and someone may sleep. Uncontended: one compare-and-swap and one
# exchange. Contended: a short spin (longer than most holds), then a sleep in the kernel: a holder that lost its
# processor must get one to leave, and a waiter that spins or yields would stand in its way. Not recursive, not fair.
# Where there is no futex the sleep is sched_yield.
# Threads: any. Never destroyed: a word of 0 is a free lock, so zeroed memory needs no leaf_init.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef NC_LEAF_H
    #define NC_LEAF_H
    #include <stdint.h>
    #include <stdlib.h>
    #if defined(__linux__)
    #include <linux/futex.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #else
    #include <sched.h>
    #endif

    #ifndef NETCHAN_DEBUG
    #define NETCHAN_DEBUG 0
    #endif

    typedef struct { uint32_t word; } nc_leaf;

    #define NC_LEAF_SPIN 64         /* looks before sleeping: about 2-3 us, the time of a 32 KiB copy */

    static inline void nc_cpu_relax(void) {
    #if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ __volatile__("isb");
    #endif
    }

    static inline void nc_leaf_sleep(uint32_t *word) {
    #if defined(__linux__)
        /* every failure (EAGAIN, EINTR) means: look at the word again. errno stays that of the caller's call. */
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 2, (void *)0, (void *)0, 0);
    #else
        (void)word;
        sched_yield();
    #endif
    }

    static inline void nc_leaf_wake(uint32_t *word) {
    #if defined(__linux__)
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, (void *)0, (void *)0, 0);
    #else
        (void)word;
    #endif
    }

    static __attribute__((noinline, cold, unused)) void nc_leaf_lock_slow(nc_leaf *l) {
        uint32_t free_word;
        int i;
        for (i = 0; i < NC_LEAF_SPIN; i++) {
            nc_cpu_relax();
            free_word = 0;
            if (__atomic_load_n(&l->word, __ATOMIC_RELAXED) == 0 &&
                __atomic_compare_exchange_n(&l->word, &free_word, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
                return;
        }
        /* From here on we take the lock as 2: we cannot know whether another one sleeps. */
        while (__atomic_exchange_n(&l->word, 2, __ATOMIC_ACQUIRE) != 0)
            nc_leaf_sleep(&l->word);
    }

    static inline void nc_leaf_init(nc_leaf *l) { __atomic_store_n(&l->word, 0, __ATOMIC_RELEASE); }

    static inline int nc_leaf_trylock(nc_leaf *l) {
        uint32_t free_word = 0;
        return __atomic_compare_exchange_n(&l->word, &free_word, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    }

    static inline void nc_leaf_lock(nc_leaf *l) {
        if (__builtin_expect(!nc_leaf_trylock(l), 0)) nc_leaf_lock_slow(l);
    }

    static inline void nc_leaf_unlock(nc_leaf *l) {
        uint32_t was = __atomic_exchange_n(&l->word, 0, __ATOMIC_RELEASE);
        if (__builtin_expect(was == 2, 0)) nc_leaf_wake(&l->word);
    #if NETCHAN_DEBUG
        if (was == 0) abort();
    #endif
    }

    static inline int nc_leaf_is_held(nc_leaf *l) { return __atomic_load_n(&l->word, __ATOMIC_RELAXED) != 0; }

    static inline uint32_t nc_ld_rlx32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline uint64_t nc_ld_rlx64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline uint32_t nc_ld_acq32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline uint64_t nc_ld_acq64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline uint32_t nc_ld_seq32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline uint64_t nc_ld_seq64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline void nc_st_rlx32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline void nc_st_rlx64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline void nc_st_rel32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline void nc_st_rel64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline void nc_st_seq32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
    static inline void nc_st_seq64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
    static inline uint32_t nc_add32(uint32_t *p, uint32_t v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
    static inline uint64_t nc_add64(uint64_t *p, uint64_t v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
    static inline uint32_t nc_sub32(uint32_t *p, uint32_t v) { return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST); }
    static inline uint64_t nc_sub64(uint64_t *p, uint64_t v) { return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST); }
    static inline uint32_t nc_or32(uint32_t *p, uint32_t v) { return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST); }
    static inline uint32_t nc_and32(uint32_t *p, uint32_t v) { return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST); }
    static inline uint32_t nc_xchg32(uint32_t *p, uint32_t v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
    static inline uint64_t nc_xchg64(uint64_t *p, uint64_t v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
    static inline int nc_cas32(uint32_t *p, uint32_t expect, uint32_t v) {
        return __atomic_compare_exchange_n(p, &expect, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
    }
    static inline int nc_cas64(uint64_t *p, uint64_t expect, uint64_t v) {
        return __atomic_compare_exchange_n(p, &expect, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
    }
    #endif
    """
    # --- the lock ------------------------------------------------------------------------------------------------
    ctypedef struct nc_leaf:
        uint32_t word                                                   # 0 free, 1 held, 2 held and maybe awaited

    void leaf_init "nc_leaf_init"(nc_leaf* l) noexcept nogil            # before the first use, or in a forked child
    void leaf_lock "nc_leaf_lock"(nc_leaf* l) noexcept nogil            # waits; acquire
    int leaf_trylock "nc_leaf_trylock"(nc_leaf* l) noexcept nogil       # 1: we hold it now; 0: held by someone; acquire
    void leaf_unlock "nc_leaf_unlock"(nc_leaf* l) noexcept nogil        # release; not held: abort in a debug build
    int leaf_is_held "nc_leaf_is_held"(nc_leaf* l) noexcept nogil       # 1: somebody holds it. For checks and tests
    void cpu_relax "nc_cpu_relax"() noexcept nogil                      # one step of a spin

    # --- atomics: load (relaxed, acquire, seq_cst) ------------------------------------------------------------------
    uint32_t load_rlx_u32 "nc_ld_rlx32"(const uint32_t* p) noexcept nogil
    uint64_t load_rlx_u64 "nc_ld_rlx64"(const uint64_t* p) noexcept nogil
    uint32_t load_acq_u32 "nc_ld_acq32"(const uint32_t* p) noexcept nogil
    uint64_t load_acq_u64 "nc_ld_acq64"(const uint64_t* p) noexcept nogil
    uint32_t load_seq_u32 "nc_ld_seq32"(const uint32_t* p) noexcept nogil
    uint64_t load_seq_u64 "nc_ld_seq64"(const uint64_t* p) noexcept nogil
    # store (relaxed, release, seq_cst). "I write mine, then read yours" on both sides needs seq_cst for both steps;
    # there is no bare fence here, because the thread sanitizer cannot follow one.
    void store_rlx_u32 "nc_st_rlx32"(uint32_t* p, uint32_t v) noexcept nogil
    void store_rlx_u64 "nc_st_rlx64"(uint64_t* p, uint64_t v) noexcept nogil
    void store_rel_u32 "nc_st_rel32"(uint32_t* p, uint32_t v) noexcept nogil
    void store_rel_u64 "nc_st_rel64"(uint64_t* p, uint64_t v) noexcept nogil
    void store_seq_u32 "nc_st_seq32"(uint32_t* p, uint32_t v) noexcept nogil
    void store_seq_u64 "nc_st_seq64"(uint64_t* p, uint64_t v) noexcept nogil
    # read-modify-write, seq_cst, returns the value BEFORE; wraps round
    uint32_t fetch_add_u32 "nc_add32"(uint32_t* p, uint32_t v) noexcept nogil
    uint64_t fetch_add_u64 "nc_add64"(uint64_t* p, uint64_t v) noexcept nogil
    uint32_t fetch_sub_u32 "nc_sub32"(uint32_t* p, uint32_t v) noexcept nogil
    uint64_t fetch_sub_u64 "nc_sub64"(uint64_t* p, uint64_t v) noexcept nogil
    uint32_t fetch_or_u32 "nc_or32"(uint32_t* p, uint32_t v) noexcept nogil
    uint32_t fetch_and_u32 "nc_and32"(uint32_t* p, uint32_t v) noexcept nogil
    uint32_t xchg_u32 "nc_xchg32"(uint32_t* p, uint32_t v) noexcept nogil
    uint64_t xchg_u64 "nc_xchg64"(uint64_t* p, uint64_t v) noexcept nogil
    # 1: *p was expect and is v now; 0: *p was something else and is unchanged
    int cas_u32 "nc_cas32"(uint32_t* p, uint32_t expect, uint32_t v) noexcept nogil
    int cas_u64 "nc_cas64"(uint64_t* p, uint64_t expect, uint64_t v) noexcept nogil
