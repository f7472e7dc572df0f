# rendezvous: offers of a capacity-0 direction, at the sender and at the receiver. Layer: _core, rung b; inline.
# docs/spec/session.md §4.1.
#
# An offered message stays its sender's until the application over there takes it. At most OFFERS_MAX numbers are open
# at once, so 32 bits by number & 31 hold what is known of each: at the receiver the open ones and as many before them.
# Threads: each struct is guarded by the leaf lock of its outbox or inbox.

from libc.stdint cimport uint32_t, uint64_t

from netchan._core cimport defs

cdef enum nc_offer_state:
    OFFER_OUT = 0                   # nobody knows yet
    OFFER_TAKEN = 1
    OFFER_WITHDRAWN = 2

ctypedef struct nc_offers:          # the sender's
    uint64_t low                    # lowest number that its caller has not let go
    uint32_t let_go
    uint32_t wanted                 # to be withdrawn
    uint32_t told                   # WITHDRAW was said
    uint32_t answered
    uint32_t taken                  # the answer was: taken

ctypedef struct nc_claims:          # the receiver's
    uint64_t passed                 # messages below were taken or passed over as withdrawn
    uint32_t withdrawn
    uint32_t asked                  # WITHDRAW came: it is answered once


cdef inline uint32_t offer_bit(uint64_t n) noexcept nogil:
    return <uint32_t>1 << (n & 31)


# --- sender ---

cdef inline int offers_room(const nc_offers* x, uint64_t accepted) noexcept nogil:
    return 1 if accepted < x.low + <uint64_t>defs.OFFERS_MAX else 0


# `taken`: the position of POS. It passes withdrawn messages too, so it says nothing of one that was to be withdrawn.
cdef inline int offers_state(const nc_offers* x, uint64_t n, uint64_t taken) noexcept nogil:
    cdef uint32_t bit = offer_bit(n)
    if not x.wanted & bit:
        return OFFER_TAKEN if taken > n else OFFER_OUT
    if not x.answered & bit:
        return OFFER_OUT
    return OFFER_TAKEN if x.taken & bit else OFFER_WITHDRAWN


# 1: WITHDRAW is to be said, once. 0: settled, or asked before.
cdef inline int offers_want(nc_offers* x, uint64_t n, uint64_t taken) noexcept nogil:
    if x.wanted & offer_bit(n) or taken > n:
        return 0
    x.wanted |= offer_bit(n)
    return 1


# The next number of which WITHDRAW is to be said; 0: none.
cdef inline int offers_next(const nc_offers* x, uint64_t* n) noexcept nogil:
    cdef uint64_t i
    if not x.wanted & ~x.told:
        return 0
    for i in range(x.low, x.low + <uint64_t>defs.OFFERS_MAX):
        if x.wanted & ~x.told & offer_bit(i):
            n[0] = i
            return 1
    return 0


# Numbers that were let go and whose fate is known make room for others.
cdef inline void offers_slide(nc_offers* x) noexcept nogil:
    cdef uint32_t bit = offer_bit(x.low)
    while x.let_go & bit and (not x.wanted & bit or x.answered & bit):
        x.let_go &= ~bit
        x.wanted &= ~bit
        x.told &= ~bit
        x.answered &= ~bit
        x.taken &= ~bit
        x.low += 1
        bit = offer_bit(x.low)


# WITHDRAWN(n). 1: known now; 0: was known; NC_EFRAME: never asked.
cdef inline int offers_answer(nc_offers* x, uint64_t n, int taken) noexcept nogil:
    cdef uint32_t bit = offer_bit(n)
    if n < x.low:
        return 0
    if n >= x.low + <uint64_t>defs.OFFERS_MAX or not x.told & bit:
        return defs.NC_EFRAME
    if x.answered & bit:
        return 0
    x.answered |= bit
    if taken:
        x.taken |= bit
    offers_slide(x)
    return 1


# The caller of the send has gone: what becomes of the number is nobody's business but the wire's.
cdef inline void offers_let_go(nc_offers* x, uint64_t n) noexcept nogil:
    x.let_go |= offer_bit(n)
    offers_slide(x)


# --- receiver ---

cdef inline void claims_pass(nc_claims* x, uint64_t n) noexcept nogil:
    while x.passed <= n:
        x.withdrawn &= ~offer_bit(x.passed + <uint64_t>defs.OFFERS_MAX)
        x.asked &= ~offer_bit(x.passed + <uint64_t>defs.OFFERS_MAX)
        x.passed += 1


# The application is about to take message n, the next one. 1: it is its; 0: withdrawn, to be passed over.
cdef inline int claims_claim(nc_claims* x, uint64_t n) noexcept nogil:
    cdef int free = 0 if x.withdrawn & offer_bit(n) else 1
    claims_pass(x, n)
    return free


# WITHDRAW(n). 0 withdrawn, 1 taken; NC_EAGAIN: it came before, or is settled so long ago that it is forgotten;
# NC_EFRAME: a number that cannot be open.
cdef inline int claims_withdraw(nc_claims* x, uint64_t n) noexcept nogil:
    if n >= x.passed + <uint64_t>defs.OFFERS_MAX:
        return defs.NC_EFRAME
    if n + <uint64_t>defs.OFFERS_MAX < x.passed or x.asked & offer_bit(n):
        return defs.NC_EAGAIN
    x.asked |= offer_bit(n)
    if n < x.passed:
        return 0 if x.withdrawn & offer_bit(n) else 1
    x.withdrawn |= offer_bit(n)
    return 0
