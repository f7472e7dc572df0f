"""Opens congestion control and the order of a session to pytest; test-only, never in wheels.

Layer: beside _core; nothing imports it but tests. ``Cc`` is the congestion controller of one datagram path in virtual
time, ``Order`` both ends of the numbers of a session.
Threads: everything on the caller's, with the GIL.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netchan._core.congestion cimport (
    cc_acked, cc_collapse, cc_event, cc_found, cc_gone, cc_init, cc_lost, cc_open, cc_pace, cc_paced, cc_round_trip,
    cc_sent, nc_cc,
)
from netchan._core.order cimport (
    nc_kept, nc_order, order_acked, order_arrived, order_due, order_free, order_keep, order_look, order_new, order_pass,
    order_room,
)


cdef class Cc:
    """The congestion controller of one path. All sizes are bytes, all times ns."""

    cdef nc_cc c

    def __cinit__(self, uint32_t mtu=1200):
        cc_init(&self.c, mtu)

    def sent(self, uint64_t n):
        cc_sent(&self.c, n)

    def gone(self, uint64_t n):
        cc_gone(&self.c, n)

    def acked(self, uint64_t n, int64_t at, int64_t now, int64_t srtt):
        cc_acked(&self.c, n, at, now, srtt)

    def round_trip(self, int64_t rtt, uint64_t number, uint64_t next_):
        cc_round_trip(&self.c, rtt, number, next_)

    def event(self, int64_t at, int64_t now):
        cc_event(&self.c, at, now)

    def lost(self, int64_t at):
        cc_lost(&self.c, at)

    def found(self, int64_t at):
        return cc_found(&self.c, at) == 1

    def collapse(self):
        cc_collapse(&self.c)

    def open(self, uint64_t n):
        return cc_open(&self.c, n) == 1

    def pace(self, uint64_t n, int64_t srtt, int64_t now):
        return cc_pace(&self.c, n, srtt, now)

    def paced(self, uint64_t n):
        cc_paced(&self.c, n)

    def limit(self, bint limited=True):
        """The window held data back since the last look."""
        self.c.limited = limited

    def set(self, uint64_t cwnd, uint64_t ssthresh):
        self.c.cwnd = cwnd
        self.c.ssthresh = ssthresh

    def state(self):
        return {"cwnd": self.c.cwnd, "ssthresh": self.c.ssthresh, "in_flight": self.c.in_flight,
                "w_max": self.c.w_max, "w_est": self.c.w_est, "k": self.c.k, "epoch_at": self.c.epoch_at,
                "recovery_at": self.c.recovery_at, "losses": self.c.losses, "css": self.c.css_rtt,
                "css_rounds": self.c.css_rounds, "budget": self.c.budget}


cdef class Order:
    """Numbers as one side says them, and as it receives them."""

    cdef nc_order* o

    def __cinit__(self):
        self.o = order_new()
        if self.o is NULL:
            raise MemoryError

    def __dealloc__(self):
        order_free(self.o)

    def say(self):
        """The next number, None: no room."""
        if not order_room(self.o):
            return None
        self.o.next += 1
        return self.o.next - 1

    def acked(self, uint64_t n):
        order_acked(self.o, n)

    def arrived(self, uint64_t n):
        return order_arrived(self.o, n) == 1

    def look(self, uint64_t n):
        return order_look(self.o, n)

    def keep(self, uint64_t n, uint64_t tag, bytes body):
        return order_keep(self.o, n, tag, <const uint8_t*><const char*>body, len(body))

    def due(self):
        """(tag, body) of the record whose turn it is, if it was kept."""
        cdef nc_kept* k = order_due(self.o)
        return None if k is NULL else (k.tag, (<const char*>k.body)[:k.len])

    def pass_(self):
        order_pass(self.o)

    def state(self):
        return self.o.next, self.o.floor, self.o.want, self.o.n_kept
