# over: why a direction of a channel is over. Layer: _core, rung b; numbers only. docs/spec/session.md §2, §6.

cdef enum nc_over:                  # why a direction is over, as the application sees it
    OVER_NOT = 0
    OVER_FIN = 1                    # clean end at `final`
    OVER_ABORT_AFTER = 2            # aborted behind the data up to `final`
    OVER_ABORT = 3                  # aborted at once
    OVER_STOPPED = 4                # the receiver takes no more
    OVER_LOST = 5                   # session lost; what is here can be taken
    OVER_LEFT = 6                   # the other side left the session
