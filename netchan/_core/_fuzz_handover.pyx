"""The fuzz target over the state of a session from another process. Test-only, never in a wheel.

Layer: beside _core. What is read without an error is used in every way: values are taken and sent, each path has its
turn, time passes, and it is written again, which has to give what was read a second time.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from netchan._core cimport defs
from netchan._core.ctxcache cimport cache_new, nc_cache
from netchan._core.ends cimport end_mark, end_release, session_next_offer, session_next_ready
from netchan._core.handover cimport session_hold, session_may_move, session_read, session_unhold, session_write
from netchan._core.keys cimport keys_free
from netchan._core.keystore cimport ks_new, nc_keystore
from netchan._core.outbound cimport session_said, session_send, session_send_datagram
from netchan._core.outbox cimport out_append
from netchan._core.provider cimport Provider, cipher_id_of, provider_table
from netchan._core.resume cimport session_forget_gone, session_mode, session_path_lost
from netchan._core.segment cimport nc_seg
from netchan._core.session cimport session_deadline, session_free, session_on_deadline
from netchan._core.state cimport nc_end, nc_path, nc_session
from netchan._core.take cimport in_advance, in_claim, in_copy, in_expire, in_peek, nc_msg
from netchan._core.timer cimport TIMER_NEVER

from netchan._core import provider as provider_module

TARGETS = ("handover",)

cdef Provider PROVIDER = provider_module.load()
cdef nc_keystore* STORE = ks_new(provider_table(PROVIDER, cipher_id_of(PROVIDER.ciphers[0])), 256, 4, 7, 0)
cdef nc_cache* CACHE = cache_new(provider_table(PROVIDER, cipher_id_of(PROVIDER.ciphers[0])), 64, 7)
if STORE is NULL or CACHE is NULL:
    raise MemoryError("key store")

cdef int64_t NOW = 1_000_000_000        # the clock of the stored inputs
cdef enum:
    TX_ROOM = 70000
    VALUE_MAX = 1 << 20                 # longer ones are not taken
    TAKES = 200                         # of each end
    PATHS_MOST = 64


def run(str name, bytes data):
    """Runs the target on an exact copy of ``data``; returns 0 or the number of the check that failed."""
    cdef size_t n = <size_t>len(data)
    cdef const uint8_t* src = data
    cdef uint8_t* p = <uint8_t*>malloc(n if n else 1)
    cdef int rc
    if name != "handover":
        raise KeyError(name)
    if p == NULL:
        raise MemoryError
    memcpy(p, src, n)
    rc = fuzz_handover(p, n)
    free(p)
    return rc


def accepts(bytes data):
    """True if a session comes of it."""
    cdef nc_session s
    cdef uint8_t[32] mix
    memset(&s, 0, sizeof(s))
    memset(mix, 7, 32)
    s.sealer.cache = CACHE
    rc = session_read(&s, <const uint8_t*><const char*>data, len(data), STORE, NULL, 5, mix, NOW)
    session_free(&s)
    keys_free(s.sealer.keys, CACHE)
    return rc == 0


cdef int take_values(nc_end* e) noexcept nogil:
    cdef nc_msg m
    cdef uint8_t* to
    cdef int _i
    if not e.paired:
        return 0
    in_expire(e.in_, NOW)
    for _i in range(TAKES):
        if in_peek(e.in_, &m) != defs.NC_OK:
            return 0
        if m.len > <uint64_t>VALUE_MAX:
            return 0
        if in_claim(e.in_, &m) > 0:
            to = <uint8_t*>malloc(<size_t>m.len + 1)
            if to is NULL:
                return 0
            in_copy(e.in_, &m, to)
            free(to)
        in_advance(e.in_, &m)
        if e.in_.taken > e.in_.msgs or e.in_.take_off > e.in_.end:
            return 1
    return 0


cdef void say(nc_session* s, uint8_t* buf, int64_t now) noexcept nogil:
    cdef nc_path* paths[PATHS_MOST]
    cdef nc_path* p = s.paths
    cdef int n = 0, i, _turn
    while p is not NULL and n < PATHS_MOST:
        paths[n] = p
        n += 1
        p = p.next
    if n == 0:
        session_send(s, NULL, buf, TX_ROOM, now)
    for i in range(n):
        for _turn in range(8):
            if not paths[i].alive:
                break
            if paths[i].d is not NULL:
                if session_send_datagram(s, paths[i], buf, 1452, now) <= 0:
                    break
            elif session_send(s, paths[i], buf, TX_ROOM, now) <= 0:
                break
    session_said(s)


cdef int use(nc_session* s, uint8_t* buf, nc_seg** pins) noexcept nogil:
    cdef nc_end* e
    cdef int64_t at
    cdef uint32_t i, bits
    cdef int rc = 0, _round
    for i in range(s.n_adopted):
        e = s.adopted[i]
        rc = take_values(e)
        if rc:
            return rc
        out_append(&e.out, buf, 100, 0, NULL)
        end_mark(e)
    session_mode(s, 1, 2, 1, NOW)
    say(s, buf, NOW)
    for _round in range(6):
        at = session_deadline(s)
        if at == TIMER_NEVER or at > NOW + (<int64_t>1 << 50):
            break
        session_on_deadline(s, at if at > NOW else NOW)
        session_forget_gone(s)
        say(s, buf, at if at > NOW else NOW)
        session_mode(s, 2, 2, 1, NOW)
    if s.paths is not NULL:
        session_path_lost(s, s.paths, NOW)
        session_forget_gone(s)
        say(s, buf, NOW)
    while session_next_offer(s) is not NULL:
        pass
    while True:
        e = session_next_ready(s, &bits)
        if e is NULL:
            return 0
        end_release(e, pins)


# What was read is written, and read and written again: twice the same.
cdef int twice(nc_session* s, uint8_t* buf) noexcept nogil:
    cdef nc_session again
    cdef uint8_t* first = NULL
    cdef uint8_t* second = NULL
    cdef size_t n = 0, m = 0
    cdef int rc = 0
    session_hold(s, NULL, 0)
    if not session_may_move(s):
        return 0
    if session_write(s, NULL, 0, NOW, &first, &n) < 0:
        return 2
    memset(&again, 0, sizeof(again))
    again.sealer.cache = CACHE
    if session_read(&again, first, n, STORE, NULL, 5, buf, NOW) < 0:
        rc = 3
    else:
        session_hold(&again, NULL, 0)
        if session_may_move(&again):
            if session_write(&again, NULL, 0, NOW, &second, &m) < 0:
                rc = 4
            elif n != m or memcmp(first, second, n) != 0:
                rc = 5
    session_free(&again)
    keys_free(again.sealer.keys, CACHE)
    free(first)
    free(second)
    session_unhold(s, NULL, 0)
    return rc


cdef int fuzz_handover(const uint8_t* data, size_t n) noexcept nogil:
    cdef nc_session s
    cdef nc_seg* pins = NULL
    cdef uint8_t* buf = <uint8_t*>malloc(TX_ROOM)
    cdef int rc
    if buf is NULL:
        return 0
    memset(buf, 7, TX_ROOM)
    memset(&s, 0, sizeof(s))
    s.sealer.cache = CACHE
    rc = session_read(&s, data, n, STORE, NULL, 5, buf, NOW)
    if rc == 0:
        rc = twice(&s, buf)
        if rc == 0:
            rc = use(&s, buf, &pins)
    elif rc == defs.NC_ETRUNC or rc == defs.NC_EFRAME or rc == defs.NC_EUNKNOWN or rc == defs.NC_ESTATE \
            or rc == defs.NC_ENOMEM or rc == defs.NC_ELIMIT:
        rc = 0
    else:
        rc = 6
    session_free(&s)
    keys_free(s.sealer.keys, CACHE)
    free(buf)
    return rc
