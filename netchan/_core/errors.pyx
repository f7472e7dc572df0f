"""Return codes of the core become exceptions here and nowhere else.

Layer: _core, rung b. Cold and out of line, so that the hot path carries no raise.
"""

from netchan._core cimport defs


class CoreError(Exception):
    """A failure of the protocol core; ``rc`` is the ``NC_E…`` number of ``defs.pxd``."""

    def __init__(self, rc: int, text: str) -> None:
        super().__init__(text)
        self.rc = rc


_TEXT = {
    defs.NC_EAGAIN: "nothing to do now",
    defs.NC_ETRUNC: "input ends too early",
    defs.NC_EFRAME: "malformed input",
    defs.NC_ELIMIT: "a stated limit is exceeded",
    defs.NC_ECRYPTO: "authentication failed or key not available",
    defs.NC_EREPLAY: "number already seen or too old",
    defs.NC_ECLOSED: "this direction is over",
    defs.NC_ENOMEM: "out of memory",
    defs.NC_EINVAL: "argument out of range",
    defs.NC_ESPACE: "output buffer too small",
    defs.NC_ESTATE: "not allowed in this state",
    defs.NC_ECREDIT: "the peer sent beyond its credit",
    defs.NC_EEXHAUSTED: "key usage limit reached",
    defs.NC_ESYS: "system call failed",
    defs.NC_EFORK: "used in a forked child",
    defs.NC_EUNKNOWN: "an item that must be understood has an unknown type",
}


cdef int check(long long rc) except -1:
    if rc >= 0:
        return 0
    if rc == defs.NC_ENOMEM:
        raise MemoryError("netchan core: out of memory")
    raise CoreError(<int>rc, _TEXT.get(<int>rc, f"unknown return code {rc}"))
