"""Which mode suits what is sent and what the paths are like.

Layer: _core, rung h. Baton. See auto.pxd.
Spec: docs/spec/session.md §5.3, Auto.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memset

from netchan._core.state cimport (
    MODE_FAILOVER, MODE_MIRROR, MODE_PARITY, MODE_STRIPE, nc_auto, nc_figures, nc_path, nc_session,
)

cdef int64_t STAY_NS = 2 * <int64_t>1000000000              # a mode stays that long at the least
cdef int64_t TROUBLE_NS = 30 * <int64_t>1000000000          # and so long a path that fell silent is remembered


cdef void auto_begin(nc_auto* a, int64_t now) noexcept nogil:
    memset(a, 0, sizeof(nc_auto))
    a.since = now


# Loss of a datagram path since the last look: grown at once, forgotten slowly.
cdef void look_at_loss(nc_path* p) noexcept nogil:
    cdef uint64_t lost = p.d.n_lost - p.d.n_found if p.d.n_lost > p.d.n_found else 0
    cdef uint64_t sent = p.tx_number - p.look_sent
    cdef uint64_t more = lost - p.look_lost if lost > p.look_lost else 0
    cdef uint32_t loss
    if sent < <uint64_t>AUTO_SAMPLE:
        return
    loss = <uint32_t>(more * 1000000 // sent) if more < sent else 1000000
    p.loss = loss if loss > p.loss else p.loss - ((p.loss - loss) >> 3)
    p.look_sent = p.tx_number
    p.look_lost = lost


cdef void auto_figures(nc_session* s, nc_figures* f, int64_t now) noexcept nogil:
    cdef nc_path* p = s.paths
    memset(f, 0, sizeof(nc_figures))
    while p is not NULL:
        if p.d is not NULL:
            look_at_loss(p)
            if p.loss > f.loss:
                f.loss = p.loss
        if p.alive and not p.aside:
            f.paths += 1
            if p.srtt and (f.rtt == 0 or p.srtt < f.rtt):
                f.rtt = p.srtt
        p = p.next
    f.trouble = 1 if s.trouble_at and now - s.trouble_at < TROUBLE_NS else 0


# 1: over its limit, which is lower where that has been so.
cdef inline int over(uint64_t figure, uint64_t limit, int has_been) noexcept nogil:
    return 1 if figure >= (limit // AUTO_KEEP if has_been else limit) else 0


cdef int pick(const nc_figures* f, int mode, uint8_t* why) noexcept nogil:
    cdef int striped = mode == MODE_STRIPE
    cdef int guarded = mode == MODE_MIRROR or mode == MODE_PARITY
    if f.paths < 2:
        why[0] = WHY_ONE_PATH
        return MODE_FAILOVER
    if over(f.rate, AUTO_BULK_RATE, striped) or over(f.waits, AUTO_BULK_WAITS, striped):
        why[0] = WHY_BULK
        return MODE_STRIPE
    if f.trouble or over(f.loss, AUTO_LOSS, guarded):
        why[0] = WHY_TROUBLE if f.trouble else WHY_LOSS
        if f.paths > 2 and over(f.rate, AUTO_MIRROR_RATE, mode == MODE_PARITY):
            return MODE_PARITY
        return MODE_MIRROR
    why[0] = WHY_SOUND
    return MODE_FAILOVER


cdef int auto_look(nc_auto* a, const nc_figures* f, uint64_t bytes, uint64_t messages, uint64_t waits, int mode,
                   int64_t now, int* moved) noexcept nogil:
    cdef uint64_t rate, size
    cdef uint64_t n = bytes - a.bytes
    cdef uint8_t why = 0
    cdef int wanted
    rate, size = a.seen.rate, a.seen.size
    if n or waits:
        moved[0] = 1
    if a.looked_at and now > a.looked_at:
        rate = (rate + <uint64_t>(<double>n * 1e9 / <double>(now - a.looked_at))) // 2
        if messages > a.messages:
            n //= messages - a.messages
            size = n if size == 0 else (size + n) // 2
    a.looked_at = now
    a.bytes = bytes
    a.messages = messages
    a.seen = f[0]
    a.seen.rate, a.seen.size, a.seen.waits = rate, size, waits
    wanted = pick(&a.seen, mode, &why)
    if wanted == mode:
        a.looks = 0
        if why != a.why:
            a.why = why
            a.decided = a.seen
        return mode
    if wanted != a.wanted or a.looks == 0:
        a.wanted = <uint8_t>wanted
        a.looks = 0
    a.looks += 1
    # With one path all modes do the same, so nothing is lost by saying so at once.
    if why != <uint8_t>WHY_ONE_PATH and (a.looks < <uint8_t>AUTO_LOOKS or now - a.since < STAY_NS):
        if a.looks == 0xFF:
            a.looks = AUTO_LOOKS
        return mode
    a.since = now
    a.looks = 0
    a.why = why
    a.decided = a.seen
    return wanted
