"""Congestion control of a datagram path: CUBIC, HyStart++ and pacing.

Layer: _core, rung c. Arithmetic alone; contract in ``congestion.pxd``, spec: docs/spec/session.md §5.5.
Names follow RFC 9438 (W_max, W_est, K, C, beta) and RFC 9406 (CSS: conservative slow start).
"""

from libc.math cimport cbrt
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

cdef double C = 0.4                             # RFC 9438 §5.1, datagrams a cubic second
cdef double BETA = 0.7                          # §4.6
cdef double ALPHA = 3.0 * (1.0 - 0.7) / (1.0 + 0.7)     # §4.3: as fast as Reno
cdef int64_t RTT_STEP_LEAST = 4000000           # RFC 9406 §4.3: MIN_RTT_THRESH
cdef int64_t RTT_STEP_MOST = 16000000           # MAX_RTT_THRESH
cdef uint64_t UNLIMITED = ~<uint64_t>0

cdef enum:
    HYSTART_SAMPLES = 8
    CSS_DIVISOR = 4
    CSS_ROUNDS = 5


cdef void cc_init(nc_cc* c, uint32_t mtu) noexcept nogil:
    memset(c, 0, sizeof(nc_cc))
    c.mtu = mtu
    c.cwnd = CC_INITIAL * <uint64_t>mtu
    c.ssthresh = UNLIMITED
    c.budget = <double>(PACE_BURST * <uint64_t>mtu)


cdef void avoid(nc_cc* c, uint64_t n, int64_t now, int64_t srtt) noexcept nogil:
    cdef double w = <double>c.cwnd / c.mtu
    cdef double t, target
    if c.epoch_at == 0:
        c.epoch_at = now
        c.w_est = w
        if c.w_max <= w:
            c.k = 0.0
            c.w_max = w
    # §4.2: the window that will be right one round trip from now
    t = <double>(now - c.epoch_at + srtt) * 1e-9
    target = C * (t - c.k) * (t - c.k) * (t - c.k) + c.w_max
    if target > 1.5 * w:
        target = 1.5 * w
    c.w_est += (ALPHA if c.w_est < c.w_max else 1.0) * (<double>n / <double>c.cwnd)
    if c.w_est > target:
        target = c.w_est
    if target > w:
        c.cwnd += <uint64_t>((target - w) / w * <double>n)


cdef void cc_acked(nc_cc* c, uint64_t n, int64_t at, int64_t now, int64_t srtt) noexcept nogil:
    cdef uint64_t before = c.in_flight
    cc_gone(c, n)
    if c.recovery_at and at <= c.recovery_at:
        return
    # A window that is not used up says nothing about the path (RFC 9002 §7.8).
    if not c.limited and before + 3 * <uint64_t>c.mtu < c.cwnd:
        if c.epoch_at:
            c.epoch_at = 0                      # time that passes unused is not time of growth
            c.w_max = <double>c.cwnd / c.mtu if c.w_max < <double>c.cwnd / c.mtu else c.w_max
            c.k = cbrt((c.w_max - <double>c.cwnd / c.mtu) / C)
        return
    if c.cwnd < c.ssthresh:
        c.cwnd += n // CSS_DIVISOR if c.css_rtt else n
        return
    avoid(c, n, now, srtt)


cdef void cc_round_trip(nc_cc* c, int64_t rtt, uint64_t number, uint64_t next) noexcept nogil:
    cdef int64_t step
    if c.cwnd >= c.ssthresh:
        return
    if number >= c.round_end:
        c.round_end = next
        c.last_rtt = c.round_rtt
        c.round_rtt = 0
        c.round_samples = 0
        if c.css_rtt:
            c.css_rounds += 1
            if c.css_rounds >= CSS_ROUNDS:
                c.ssthresh = c.cwnd
                return
    if c.round_rtt == 0 or rtt < c.round_rtt:
        c.round_rtt = rtt
    c.round_samples += 1
    if c.round_samples < HYSTART_SAMPLES or c.last_rtt == 0:
        return
    if c.css_rtt:
        if c.round_rtt < c.css_rtt:             # it was no queue
            c.css_rtt = 0
            c.css_rounds = 0
        return
    step = c.last_rtt // 8
    if step < RTT_STEP_LEAST:
        step = RTT_STEP_LEAST
    elif step > RTT_STEP_MOST:
        step = RTT_STEP_MOST
    if c.round_rtt >= c.last_rtt + step:
        c.css_rtt = c.round_rtt
        c.css_rounds = 0


cdef void cc_event(nc_cc* c, int64_t at, int64_t now) noexcept nogil:
    cdef double w
    if c.recovery_at and at <= c.recovery_at:
        return
    c.undo_cwnd = c.cwnd
    c.undo_ssthresh = c.ssthresh
    c.undo_w_max = c.w_max
    c.undo_k = c.k
    c.undo_epoch = c.epoch_at
    c.undo_from = c.recovery_at
    c.losses = 0
    c.marked = 0
    c.recovery_at = now
    w = <double>c.cwnd / c.mtu
    c.w_max = w * (1.0 + BETA) / 2.0 if w < c.w_max else w          # §4.7: fast convergence
    c.cwnd = <uint64_t>(<double>c.cwnd * BETA)
    if c.cwnd < CC_LEAST * <uint64_t>c.mtu:
        c.cwnd = CC_LEAST * <uint64_t>c.mtu
    c.ssthresh = c.cwnd
    w = <double>c.cwnd / c.mtu
    c.k = cbrt((c.w_max - w) / C) if c.w_max > w else 0.0
    c.epoch_at = 0


cdef void cc_marked(nc_cc* c, int64_t at, int64_t now) noexcept nogil:
    cc_event(c, at, now)
    c.marked = 1


cdef void cc_lost(nc_cc* c, int64_t at) noexcept nogil:
    if c.undo_from < at <= c.recovery_at:
        c.losses += 1


cdef int cc_found(nc_cc* c, int64_t at) noexcept nogil:
    if c.losses == 0 or at > c.recovery_at or at <= c.undo_from:
        return 0
    c.losses -= 1
    if c.losses or c.marked or c.undo_cwnd <= c.cwnd:
        return 0
    c.cwnd = c.undo_cwnd
    c.ssthresh = c.undo_ssthresh
    c.w_max = c.undo_w_max
    c.k = c.undo_k
    c.epoch_at = c.undo_epoch
    return 1


cdef void cc_collapse(nc_cc* c) noexcept nogil:
    c.cwnd = CC_LEAST * <uint64_t>c.mtu
    c.recovery_at = 0
    c.epoch_at = 0
    c.losses = 0
    c.css_rtt = 0                               # slow start begins anew, and so does the look at its round trips
    c.css_rounds = 0
    c.last_rtt = 0
    c.round_end = 0


cdef int64_t cc_pace(nc_cc* c, uint64_t n, int64_t srtt, int64_t now) noexcept nogil:
    cdef double rate, burst
    cdef int64_t wait
    if srtt <= 0:
        return now                              # the first window may leave at once
    # §7.7 of RFC 9002 with N = 1.25; twice in slow start, or it would slow itself down
    rate = <double>c.cwnd / <double>srtt * (2.0 if c.cwnd < c.ssthresh else 1.25)
    burst = rate * PACE_BURST_NS
    if burst < <double>(PACE_BURST * <uint64_t>c.mtu):
        burst = <double>(PACE_BURST * <uint64_t>c.mtu)
    if now > c.budget_at:
        c.budget += rate * <double>(now - c.budget_at)
        c.budget_at = now
    if c.budget > burst:
        c.budget = burst
    if c.budget >= <double>n:
        return now
    wait = <int64_t>((<double>n - c.budget) / rate) + 1
    return now + (wait if wait > PACE_STEP_NS else PACE_STEP_NS)
