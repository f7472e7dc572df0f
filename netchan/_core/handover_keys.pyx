"""The keys of a session on their way to another process.

Layer: _core, rung f. One walk for both directions (walk.pxd). What is read is checked as bytes of a stranger are,
although the process that wrote it runs as the same user. Spec: docs/spec/handover.md §4.
"""

from libc.stdint cimport int64_t, uint32_t, uint8_t

from netchan._core.keys cimport KEYS_MONO, KEYS_PATHS, nc_keys, nc_keys_mono, nc_keys_path
from netchan._core.walk cimport (
    nc_walk, walk_count, walk_flag, walk_i64, walk_need, walk_pos, walk_raw, walk_time, walk_u32, walk_u64, walk_u8,
)

cdef enum:
    PATH_SIZE = 26                  # bytes of one path
    MONO_SIZE = 24                  # of one entry of the recorder


cdef void walk_path_keys(nc_walk* w, nc_keys* k) noexcept nogil:
    cdef nc_keys_path* p
    cdef uint8_t place = 0
    cdef uint32_t n = 0, i, _i
    for i in range(<uint32_t>KEYS_PATHS):
        n += 1 if k.paths[i].kind else 0
    n = walk_count(w, n, KEYS_PATHS, PATH_SIZE)
    for _i in range(n):
        if not w.reads:
            while k.paths[place].kind == 0:
                place += 1
        walk_u8(w, &place)
        walk_need(w, place < KEYS_PATHS)
        if w.rc < 0:
            return
        p = &k.paths[place]
        walk_need(w, not w.reads or p.kind == 0)
        walk_u8(w, &p.kind)
        walk_need(w, p.kind == 1 or p.kind == 2)
        walk_u32(w, &p.path_id)
        walk_u32(w, &p.recv_epoch)
        walk_pos(w, &p.send_next)
        walk_i64(w, &p.old_until_ns)
        place += 1


# What the debug build knows of numbers that were used. Another build has no such table: it is passed over.
cdef void walk_recorder(nc_walk* w, nc_keys* k) noexcept nogil:
    cdef nc_keys_mono spare
    cdef nc_keys_mono* x
    cdef uint32_t n = 0, at = 0, i, _i
    if k.mono is not NULL:
        for i in range(<uint32_t>KEYS_MONO):
            n += k.mono[i].live
    n = walk_count(w, n, KEYS_MONO, MONO_SIZE + 4)
    for _i in range(n):
        if not w.reads:
            while not k.mono[at].live:
                at += 1
        walk_u32(w, &at)
        walk_need(w, at < <uint32_t>KEYS_MONO)
        if w.rc < 0:
            return
        x = &k.mono[at] if k.mono is not NULL else &spare
        walk_u64(w, &x.tag)
        walk_pos(w, &x.next_number)
        walk_u32(w, &x.epoch)
        walk_u32(w, &x.path_id)
        x.live = 1
        at += 1
    walk_u64(w, &k.mono_violations)


cdef void walk_keys(nc_walk* w, nc_keys* k) noexcept nogil:
    cdef int i
    walk_raw(w, k.x.send, 32)
    walk_raw(w, k.x.recv_prev, 32)
    walk_raw(w, k.x.recv, 32)
    walk_raw(w, k.x.mix, 32)
    for i in range(2):
        walk_raw(w, k.x.hp[i], 32)
    walk_raw(w, k.x.exporter, 32)
    walk_raw(w, k.x.join, 32)
    walk_raw(w, k.x.resumption, 32)
    walk_raw(w, k.x.reset, 32)
    walk_u64(w, &k.limits.soft_blocks)
    walk_u64(w, &k.limits.hard_blocks)
    walk_u64(w, &k.limits.failed_max)
    walk_u64(w, &k.limits.warn_messages)
    walk_time(w, &k.limits.use_ns)
    walk_u32(w, &k.owner.send_epoch)
    walk_u64(w, &k.owner.floor_blocks)
    walk_u64(w, &k.owner.floor_messages)
    walk_need(w, k.owner.floor_blocks <= k.limits.hard_blocks)
    walk_flag(w, &k.has_prev)
    walk_u8(w, &k.mix_len)
    walk_need(w, k.mix_len == 0 or k.mix_len == 32)
    walk_flag(w, &k.acked)
    walk_flag(w, &k.wants_update)
    walk_u8(w, &k.warned)
    walk_u32(w, &k.recv_epoch)
    walk_need(w, not k.has_prev or k.recv_epoch > 0)
    walk_i64(w, &k.first_use_ns)
    walk_need(w, -1 <= k.first_use_ns < <int64_t>1 << 61)
    walk_u64(w, &k.sealed)
    walk_u64(w, &k.refused)
    walk_u64(w, &k.updates)
    walk_u64(w, &k.st.sealed)
    walk_u64(w, &k.st.sealed_bytes)
    walk_u64(w, &k.st.opened)
    walk_u64(w, &k.st.opened_bytes)
    walk_u64(w, &k.st.failed)
    walk_u64(w, &k.st.errors)
    walk_u64(w, &k.warning.session_messages)
    walk_u64(w, &k.warning.key_messages)
    walk_u64(w, &k.warning.tag)
    walk_u32(w, &k.warning.epoch)
    walk_path_keys(w, k)
    for i in range(2):
        walk_i64(w, &k.path_top[i])
        walk_need(w, -1 <= k.path_top[i] < <int64_t>1 << 31)
        walk_u64(w, &k.path_seen[i])
    walk_recorder(w, k)
