"""Fuzz targets over cursor, ranges, replay, names and the shape of MessagePack, each against a slow and simple oracle.

Test-only, never in a wheel.

Layer: beside _core. ``run(name, data)`` is for the corpus test; libFuzzer reaches the C functions directly.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from netchan._core cimport cursor, defs, ranges, replay
from netchan._core.frame cimport name_is_valid
from netchan._core.msgshape cimport shape_check

TARGETS = ("varint", "cursor", "ranges", "replay", "name", "msgshape")


def run(str name, bytes data):
    """Runs one target on an exact copy of ``data``; returns 0 or the number of the check that failed."""
    cdef size_t n = <size_t>len(data)
    cdef const uint8_t* src = data
    cdef uint8_t* p = <uint8_t*>malloc(n if n else 1)
    cdef int rc
    if p == NULL:
        raise MemoryError
    memcpy(p, src, n)
    try:
        if name == "varint":
            rc = fuzz_varint(p, n)
        elif name == "cursor":
            rc = fuzz_cursor(p, n)
        elif name == "ranges":
            rc = fuzz_ranges(p, n)
        elif name == "replay":
            rc = fuzz_replay(p, n)
        elif name == "name":
            rc = fuzz_name(p, n)
        elif name == "msgshape":
            rc = fuzz_msgshape(p, n)
        else:
            raise KeyError(name)
    finally:
        free(p)
    return rc


# Reads all as varints; every one must write back to the same bytes and to its shortest form.
cdef int fuzz_varint(const uint8_t* data, size_t n) noexcept nogil:
    cdef cursor.nc_rd rd
    cdef cursor.nc_rd again
    cdef cursor.nc_wr wr
    cdef const uint8_t* at
    cdef uint8_t[8] buf
    cdef uint64_t v = 0
    cdef uint64_t w = 0
    cdef size_t step
    cdef size_t want
    cdef int rc
    cursor.rd_init(&rd, data, n)
    while True:
        at = rd.p
        rc = cursor.rd_varint(&rd, &v)
        if rc < 0:
            if rc != defs.NC_ETRUNC or rd.p != at:
                return 1
            want = <size_t>1 << (at[0] >> 6) if at != rd.end else 1
            return 0 if want > cursor.rd_left(&rd) else 2
        step = <size_t>(rd.p - at)
        if v > cursor.VARINT_MAX or step != <size_t>1 << (at[0] >> 6) or rd.p > rd.end:
            return 3
        if cursor.varint_write_n(buf, v, step) != step or memcmp(buf, at, step) != 0:
            return 4
        want = cursor.varint_len(v)
        if want > step or cursor.varint_write(buf, v) != want:
            return 5
        cursor.rd_init(&again, buf, want)
        if cursor.rd_varint(&again, &w) != 0 or w != v or again.p != again.end:
            return 6
        cursor.wr_init(&wr, buf, want - 1)
        if cursor.wr_varint(&wr, v) != defs.NC_ESPACE or wr.p != buf:
            return 7


# First byte of a step says what to read next; the oracle counts bytes.
cdef int fuzz_cursor(const uint8_t* data, size_t n) noexcept nogil:
    cdef cursor.nc_rd rd
    cdef const uint8_t* at
    cdef const uint8_t* got
    cdef uint8_t op = 0
    cdef uint8_t a = 0
    cdef uint16_t b = 0
    cdef uint32_t c = 0
    cdef uint64_t d = 0
    cdef uint64_t v
    cdef size_t left
    cdef size_t need
    cdef size_t i
    cdef size_t len_out
    cdef int rc
    cursor.rd_init(&rd, data, n)
    while cursor.rd_u8(&rd, &op) == 0:
        at = rd.p
        left = cursor.rd_left(&rd)
        if left > n or rd.p > rd.end:
            return 1
        v = 0
        need = <size_t>1 << (op & 3)
        if op < 0x80:
            if (op & 3) == 0:
                rc = cursor.rd_u8(&rd, &a)
                d = a
            elif (op & 3) == 1:
                rc = cursor.rd_u16(&rd, &b)
                d = b
            elif (op & 3) == 2:
                rc = cursor.rd_u32(&rd, &c)
                d = c
            else:
                rc = cursor.rd_u64(&rd, &d)
            if rc == 0:
                for i in range(need):
                    v = (v << 8) | at[i]
                if v != d:
                    return 2
            if (rc == 0) != (need <= left):
                return 3
        elif op < 0xC0:                             # raw bytes; the low bits spread over all of u64
            v = (<uint64_t>(op & 0x0F)) << (4 * ((op >> 4) & 3) * 5)
            rc = cursor.rd_bytes(&rd, v, &got)
            if (rc == 0) != (v <= left) or (rc == 0 and got != at):
                return 4
            need = <size_t>v
        else:                                       # length and bytes, limit from the op
            rc = cursor.rd_vbytes(&rd, op & 0x3F, &got, &len_out)
            if rc == 0:
                if len_out > (op & 0x3F) or got < at or got + len_out != rd.p:
                    return 5
                need = <size_t>(got - at) + len_out
            elif rc != defs.NC_ETRUNC and rc != defs.NC_ELIMIT:
                return 6
        if rc == 0:
            if rd.p != at + need or rd.p > rd.end:
                return 7
        elif rd.p != at:
            return 8
    return 0 if cursor.rd_left(&rd) == 0 else 9


# Steps of three bytes (op, x, y) on a set bounded to 8 ranges, or to 3, which are soon used up; the oracle is one byte
# per value, 256 values at either end of the number space.
cdef int fuzz_ranges(const uint8_t* data, size_t n) noexcept nogil:
    cdef ranges.nc_ranges r
    cdef int rc
    if n == 0 or ranges.ranges_init(&r, 3 if data[0] & 2 else 8) < 0:
        return 0
    rc = _ranges_steps(&r, ranges.RANGES_END - 256 if data[0] & 1 else 0, data + 1, n - 1)
    ranges.ranges_free(&r)
    return rc


cdef int _ranges_steps(ranges.nc_ranges* r, uint64_t base, const uint8_t* data, size_t n) noexcept nogil:
    cdef uint8_t[257] was
    cdef uint8_t[257] now
    cdef uint32_t i
    cdef uint32_t x
    cdef uint32_t y
    cdef uint32_t runs
    cdef uint32_t count
    cdef uint32_t k
    cdef int64_t got
    cdef int64_t want
    cdef uint8_t op
    memset(was, 0, 257)                             # the 257th is always 0: a run ends there
    while n >= 3:
        op = data[0] & 7
        x = data[1]
        y = data[2] + <uint32_t>(data[0] >> 7)      # up to 256: the end of the space
        data += 3
        n -= 3
        memcpy(now, was, 257)
        want = 0
        if op < 4:
            for i in range(x, y):
                want += 1 - now[i]
                now[i] = 1
            got = ranges.ranges_add(r, base + x, base + y)
        elif op < 6:
            for i in range(x, y):
                want += now[i]
                now[i] = 0
            got = ranges.ranges_remove(r, base + x, base + y)
        elif op == 6:
            for i in range(y):
                want += now[i]
                now[i] = 0
            got = <int64_t>ranges.ranges_remove_below(r, base + y)
        else:
            want = 1
            for i in range(x, y):
                want &= now[i]
            got = ranges.ranges_covered(r, base + x, base + y)
            if ranges.ranges_contains(r, base + x) != now[x]:
                return 1
            k = x
            while k < 256 and now[k]:
                k += 1
            if ranges.ranges_first_gap(r, base + x) != base + k:
                return 2
        if op < 6 and x > y:
            if got != defs.NC_EINVAL:
                return 3
            continue
        runs = 0
        count = 0
        for i in range(256):
            count += now[i]
            if now[i] and not now[i + 1]:
                runs += 1
        if runs > r.max:
            if got != defs.NC_ELIMIT:
                return 4
            count = 0
            for i in range(256):
                count += was[i]
        else:
            if got != want:
                return 5
            memcpy(was, now, 257)
        if r.total != count or r.len > r.max:
            return 6
        k = 0
        for i in range(r.len):                      # order, no touching neighbours, and the very values
            if r.v[i].lo >= r.v[i].hi or (i and r.v[i].lo <= r.v[i - 1].hi):
                return 7
            while k < 256 and base + k < r.v[i].lo:
                if was[k]:
                    return 8
                k += 1
            while k < 256 and base + k < r.v[i].hi:
                if not was[k]:
                    return 9
                k += 1
            if base + k != r.v[i].hi:
                return 10
        while k < 256:
            if was[k]:
                return 11
            k += 1
    return 0


# Steps of two bytes (op, d) or nine (op, u64) on a window of 64; the oracle keeps every committed number.
cdef int fuzz_replay(const uint8_t* data, size_t n) noexcept nogil:
    cdef replay.nc_replay w
    cdef int rc
    if replay.replay_init(&w, 63) != defs.NC_EINVAL or replay.replay_init(&w, 64) < 0:
        return 7
    rc = _replay_steps(&w, data, n)
    replay.replay_free(&w)
    return rc


cdef int _replay_steps(replay.nc_replay* w, const uint8_t* data, size_t n) noexcept nogil:
    cdef cursor.nc_rd rd
    cdef uint64_t[256] done
    cdef uint32_t n_done = 0
    cdef uint32_t i
    cdef uint64_t x
    cdef uint64_t top = 0                           # one above the largest committed
    cdef uint64_t low = 0                           # below: refused
    cdef uint64_t keep
    cdef uint32_t bits = 64
    cdef uint8_t op = 0
    cdef uint8_t d = 0
    cdef int ok
    cursor.rd_init(&rd, data, n)
    while n_done < 256 and cursor.rd_u8(&rd, &op) == 0:
        if (op & 7) == 7:                           # larger window
            bits = <uint32_t>64 << ((op >> 3) & 3)
            if replay.replay_grow(w, bits + 1) != defs.NC_EINVAL:
                return 8
            if replay.replay_grow(w, bits) < 0:
                return 1
            bits = w.n_bits
            continue
        if (op & 7) == 6:
            if cursor.rd_u64(&rd, &x) < 0:
                break
        else:
            if cursor.rd_u8(&rd, &d) < 0:
                break
            x = top + d if op & 1 else top - d      # may wrap: then it is far above the last number
        ok = 1 if x < replay.REPLAY_LAST and x >= low else 0
        for i in range(n_done):
            if done[i] == x:
                ok = 0
        keep = w.next
        if replay.replay_check(w, x) != ok or replay.replay_check(w, x) != ok:
            return 2
        if w.next != keep or keep != top:
            return 3
        if op & 0x80:                               # the tag did not hold: nothing may have changed
            continue
        if replay.replay_commit(w, x) != (defs.NC_OK if ok else defs.NC_EREPLAY):
            return 4
        if ok:
            done[n_done] = x
            n_done += 1
            if x >= top:
                top = x + 1
            if top > bits and top - bits > low:
                low = top - bits
        if w.next != top:
            return 5
        if replay.replay_check(w, x) != 0:
            return 6
    return 0


# All bytes as a channel's name; the oracle computes each code point and then looks whether it is a fair one.
cdef int fuzz_name(const uint8_t* data, size_t n) noexcept nogil:
    cdef size_t i = 0
    cdef size_t k
    cdef size_t more
    cdef uint32_t c
    cdef int ok = 1 if 0 < n <= 255 else 0
    while ok and i < n:
        c = data[i]
        i += 1
        more = 0 if c < 0x80 else 1 if c >> 5 == 6 else 2 if c >> 4 == 14 else 3 if c >> 3 == 30 else 9
        if more == 9 or more > n - i:               # 9: no first byte of any form
            ok = 0
            break
        c = c & (0x7F >> more) if more else c
        for k in range(more):
            if data[i + k] >> 6 != 2:
                ok = 0
            c = (c << 6) | (data[i + k] & 0x3F)
        i += more
        if more == 1 and c < 0x80 or more == 2 and c < 0x800 or more == 3 and c < 0x10000:
            ok = 0                                  # a longer form than it needs
        if c > 0x10FFFF or c >> 11 == 0x1B or c < 0x20 or 0x7F <= c < 0xA0:
            ok = 0
    return 0 if name_is_valid(data, n) == ok else 1


# First byte: how many containers may be open and how many references it may carry; then the value. The oracle descends
# into it.
cdef int fuzz_msgshape(const uint8_t* data, size_t n) noexcept nogil:
    cdef cursor.nc_rd rd
    cdef int most
    cdef int ends
    cdef int rc
    cdef int ok
    if n == 0:
        return 0
    most = data[0] % 66                             # 65: more than it can keep
    ends = data[0] // 66
    rc = shape_check(data + 1, n - 1, most, ends)
    if most > 64:
        return 0 if rc == defs.NC_EINVAL else 1
    cursor.rd_init(&rd, data + 1, n - 1)
    ok = 1 if msg_item(&rd, most, 0, &ends) and cursor.rd_left(&rd) == 0 else 0
    if rc != defs.NC_OK and rc != defs.NC_ETRUNC and rc != defs.NC_EFRAME and rc != defs.NC_ELIMIT \
            and rc != defs.NC_EUNKNOWN:
        return 2
    return 0 if (rc == defs.NC_OK) == ok else 3


# One item with room for `most` open containers and `ends` more references, which it counts down; 1 if it is whole and
# in the domain. `key`: it stands for a map's key.
cdef int msg_item(cursor.nc_rd* rd, int most, int key, int* ends) noexcept nogil:
    cdef uint8_t b = 0
    cdef uint64_t size = 0
    cdef uint64_t i
    cdef const uint8_t* at = NULL
    cdef int map_ = 0
    if cursor.rd_u8(rd, &b) < 0:
        return 0
    if b < 0x80 or b >= 0xE0:
        return 1
    if b < 0xA0:                                    # small map, small array
        map_ = 1 if b < 0x90 else 0
        size = b & 15
    elif b < 0xC0:
        return 1 if cursor.rd_bytes(rd, b & 31, &at) == 0 else 0
    elif b == 0xC0 or b == 0xC2 or b == 0xC3:
        return 0 if key else 1
    elif b == 0xCA or b == 0xCB:
        return 1 if not key and cursor.rd_bytes(rd, 4 if b == 0xCA else 8, &at) == 0 else 0
    elif b == 0xC4 or b == 0xC5 or b == 0xC6 or 0xD9 <= b <= 0xDB:
        if not msg_count(rd, 1 << ((b - 0xC4) if b < 0xD0 else (b - 0xD9)), &size):
            return 0
        return 1 if cursor.rd_bytes(rd, size, &at) == 0 else 0
    elif 0xCC <= b <= 0xD3:
        return 1 if cursor.rd_bytes(rd, <uint64_t>1 << (b & 3), &at) == 0 else 0
    elif b == 0xC7:                                 # an extension of 42 bytes, type 1
        if key or cursor.rd_bytes(rd, 2, &at) < 0 or at[0] != 42 or at[1] != 1:
            return 0
        ends[0] -= 1
        return 1 if ends[0] >= 0 and cursor.rd_bytes(rd, 42, &at) == 0 else 0
    elif b >= 0xDC:
        map_ = b >> 1 & 1
        if not msg_count(rd, 4 if b & 1 else 2, &size):
            return 0
    else:
        return 0
    if key or most <= 0:
        return 0
    for i in range(size * 2 if map_ else size):
        if not msg_item(rd, most - 1, 1 if map_ and not i & 1 else 0, ends):
            return 0
    return 1


cdef int msg_count(cursor.nc_rd* rd, int width, uint64_t* size) noexcept nogil:
    cdef uint8_t b = 0
    size[0] = 0
    while width:
        if cursor.rd_u8(rd, &b) < 0:
            return 0
        size[0] = size[0] << 8 | b
        width -= 1
    return 1
