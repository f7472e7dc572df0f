# clock: what time it is for an engine. Layer: _engine; inline functions only.
#
# A real engine asks the system. One in virtual time (netchan.testing) has a clock that somebody moves, arms no timer
# and has no thread of its own: whoever moves the clock pumps it when its next deadline has come.
# Threads: clock_ns is written with the GIL held, by the one thread that runs the engine.

from libc.stdint cimport int64_t

from netchan._engine cimport sys
from netchan._engine.state cimport nc_engine

cdef inline int64_t engine_now(nc_engine* g) noexcept nogil:
    return g.clock_ns if g.clock_ns else sys.now_ns()

# Absolute time of the engine's clock; 0 disarms. Nothing where whoever moves the clock looks by himself.
cdef inline void engine_alarm(nc_engine* g, int fd, int64_t at) noexcept nogil:
    if g.clock_ns == 0:
        sys.timerfd_at(fd, at)
