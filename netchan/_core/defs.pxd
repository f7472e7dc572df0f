# Wire numbers, limits and return codes: the only place where a wire number is written (docs/spec/wire.md).
# Layer: _core, rung a. No code here, constants only.

# --- return codes: >= 0 is a size or "done"; failures are negative (checked by errors.check) -----------------
cdef enum nc_rc:
    NC_OK = 0
    NC_EAGAIN = -1          # nothing to do now, or a bounded resource is used up for the moment
    NC_ETRUNC = -2          # bytes end before the item does
    NC_EFRAME = -3          # bytes that no conforming peer sends (malformed frame, field or length)
    NC_ELIMIT = -4          # a stated limit is exceeded by the peer
    NC_ECRYPTO = -5         # tag does not hold, key not available
    NC_EREPLAY = -6         # number already seen or too old
    NC_ECLOSED = -7         # this direction is over
    NC_ENOMEM = -8          # allocation failed
    NC_EINVAL = -9          # argument out of its stated range (our own mistake)
    NC_ESPACE = -10         # output buffer is too small
    NC_ESTATE = -11         # call not allowed in this state
    NC_ECREDIT = -12        # the peer sent beyond its credit
    NC_EEXHAUSTED = -13     # key usage limit reached: the epoch must change first
    NC_ESYS = -14           # a system call failed; errno is kept beside the code
    NC_EFORK = -15          # used in a forked child
