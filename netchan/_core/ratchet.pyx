"""The session's side of the in-band ratchet: carries its two messages and announces what came of them.

Layer: _core, rung i. Baton. The Noise messages are made above (net/ratchet.py). Spec: docs/spec/keys.md §2.1.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from netchan._core cimport defs
from netchan._core.cursor cimport nc_wr
from netchan._core.ends cimport fail
from netchan._core.frame cimport frame_put_ratchet, frame_put_rekey, nc_frame
from netchan._core.keys cimport keys_mix_announced
from netchan._core.state cimport nc_session


cdef void cleanse(uint8_t* p, size_t n) noexcept nogil:
    cdef volatile uint8_t* q = p
    cdef size_t i
    for i in range(n):
        q[i] = 0


cdef int session_ratchet_send(nc_session* s, uint64_t number, int step, const uint8_t* p, size_t n) noexcept nogil:
    if n > <size_t>defs.RATCHET_MAX or step < 0 or step > 2:
        return defs.NC_EINVAL
    if s.ratchet_out is NULL:
        s.ratchet_out = <uint8_t*>malloc(defs.RATCHET_MAX)
        if s.ratchet_out is NULL:
            return defs.NC_ENOMEM
    memcpy(s.ratchet_out, p, n)
    s.ratchet_out_len = n
    s.ratchet_out_number = number
    s.ratchet_out_step = <uint8_t>step
    return defs.NC_OK


cdef void session_ratchet_secret(nc_session* s, uint64_t number, const uint8_t* secret32) noexcept nogil:
    memcpy(s.ratchet_secret, secret32, 32)
    s.ratchet_number = number
    s.ratchet_have = 1
    s.ratchet_theirs = 0
    if s.role == 0 and s.rekey_state == 2:
        s.rekey_again = 1                       # what was announced before waits for its acknowledgement
    elif s.role == 0:
        s.rekey_state = 1


cdef void session_bump(nc_session* s, const uint8_t* mix32) noexcept nogil:
    memcpy(s.bump_mix, mix32, 32)
    s.bump_due = 1


# The announcement was acknowledged, and our epoch has changed.
cdef void rekey_done(nc_session* s) noexcept nogil:
    cleanse(s.rekey_mix, 32)
    s.ratchets += not s.rekey_bump
    s.rekey_bump = 0
    s.rekey_state = s.rekey_again
    s.rekey_again = 0


# The secret is wiped once neither direction needs it.
cdef void ratchet_settled(nc_session* s) noexcept nogil:
    if s.ratchet_theirs and s.rekey_state == 0:
        s.ratchet_have = 0
        cleanse(s.ratchet_secret, 32)


cdef void on_ratchet(nc_session* s, nc_frame* f) noexcept nogil:
    if s.ratchet_in is NULL:
        s.ratchet_in = <uint8_t*>malloc(defs.RATCHET_MAX)
        if s.ratchet_in is NULL:
            return
    # What was sent again on another path may come behind what was said later.
    if f.a < s.ratchet_in_number or (f.a == s.ratchet_in_number and f.flags < s.ratchet_in_step):
        return
    # The newest one counts: a second before the first was looked at takes its place.
    memcpy(s.ratchet_in, f.data, f.len)
    s.ratchet_in_len = f.len
    s.ratchet_in_number = f.a
    s.ratchet_in_step = f.flags
    s.ratchet_in_new = 1
    s.ready_any = 1


cdef void on_rekey(nc_session* s, nc_frame* f) noexcept nogil:
    cdef int rc
    if f.a <= s.sealer.keys.recv_epoch or (f.a == <uint64_t>s.sealer.keys.recv_epoch + 1 and s.sealer.keys.mix_len):
        return                                  # said again: it has had its effect
    if f.flags == 1:
        rc = keys_mix_announced(s.sealer.keys, s.sealer.cache, <uint32_t>f.a, f.data, 32)
    elif s.ratchet_have and f.b == s.ratchet_number:
        rc = keys_mix_announced(s.sealer.keys, s.sealer.cache, <uint32_t>f.a, s.ratchet_secret, 32)
        s.ratchet_theirs = 1
        if s.role == 1 and s.rekey_state == 0:
            s.rekey_state = 1
        elif s.role == 1 and s.rekey_state == 2:
            s.rekey_again = 1                   # the acknowledgement of the one before is on its way
        ratchet_settled(s)
    else:
        rc = defs.NC_ESTATE
    if rc < 0 or f.a >> 32:
        fail(s, defs.CLOSE_PROTOCOL)


cdef void put_ratchet(nc_session* s, nc_wr* w, int* eliciting) noexcept nogil:
    if s.ratchet_out_step != 0xFF and s.ratchet_out is not NULL:
        if frame_put_ratchet(w, s.ratchet_out_number, s.ratchet_out_step, s.ratchet_out, s.ratchet_out_len) >= 0:
            s.ratchet_out_step = 0xFF
            eliciting[0] = 1
    if s.bump_due and rekey_due(s):
        if frame_put_rekey(w, 1, <uint64_t>s.sealer.keys.owner.send_epoch + 1, 0, s.bump_mix) >= 0:
            s.rekey_again |= s.rekey_state          # a ratchet's secret waits for its turn
            s.rekey_state = 2
            s.rekey_bump = 1
            s.rekey_here = s.sealer.keys.owner.send_epoch + 1
            memcpy(s.rekey_mix, s.bump_mix, 32)
            cleanse(s.bump_mix, 32)
            s.bump_due = 0
            eliciting[0] = 1
    elif rekey_due(s):
        if frame_put_rekey(w, 2, <uint64_t>s.sealer.keys.owner.send_epoch + 1, s.ratchet_number, NULL) >= 0:
            s.rekey_state = 2
            s.rekey_here = s.sealer.keys.owner.send_epoch + 1
            memcpy(s.rekey_mix, s.ratchet_secret, 32)
            eliciting[0] = 1
