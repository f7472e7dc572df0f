# auto: which mode suits what is sent and what the paths are like. Layer: _core, rung h. docs/spec/session.md §5.3.
#
# 1. auto_figures says what the paths are like, auto_look is told at each look what was sent, and gives the mode that is
#    in force from then on. It acts on nothing: session.pyx looks while something moves, and applies what comes out.
# 2. A mode changes when several looks in a row want the same other one, and not soon after the last change; limits are
#    lower for what is in force. So traffic that goes to and fro around a limit changes nothing.
# Threads: baton. No clock: instants are arguments, so the same looks give the same modes.

from libc.stdint cimport int64_t, uint64_t

from netchan._core.state cimport nc_auto, nc_figures, nc_session

cdef enum:
    AUTO_LOOK_NS = 250000000        # between two looks
    AUTO_LOOKS = 3                  # that want the same, until it is done
    AUTO_PARITY_K = 8               # of parity(k, 1): lowered to the number of paths less 1
    AUTO_LOSS = 1000                # of a million datagrams
    AUTO_SAMPLE = 32                # datagrams in a sample of that
    AUTO_BULK_RATE = 4194304        # bytes of values a second that are bulk
    AUTO_BULK_WAITS = 32768         # bytes that wait, too
    AUTO_MIRROR_RATE = 262144       # bytes a second up to which copies on all of three or more paths are cheap
    AUTO_KEEP = 4                   # what is in force is kept down to this part of its limit

cdef enum nc_auto_why:
    WHY_NEW = 0                     # nothing was looked at yet
    WHY_ONE_PATH = 1
    WHY_SOUND = 2                   # paths lose nothing, values are small: nothing to gain
    WHY_BULK = 3                    # more than one path brings
    WHY_LOSS = 4                    # datagrams are lost
    WHY_TROUBLE = 5                 # a path fell silent or was lost

cdef void auto_begin(nc_auto* a, int64_t now) noexcept nogil
# What the paths are like; loss is brought up to date on the way.
cdef void auto_figures(nc_session* s, nc_figures* f, int64_t now) noexcept nogil
# A look: bytes and messages that were sent since the beginning, bytes that wait, the mode in force. moved[0] = 1:
# something was sent, or waits. The mode that is in force now.
cdef int auto_look(nc_auto* a, const nc_figures* f, uint64_t bytes, uint64_t messages, uint64_t waits, int mode,
                   int64_t now, int* moved) noexcept nogil
