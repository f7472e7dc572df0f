"""Structure check of MessagePack bytes, before a decoder that believes its headers sees them.

Layer: _core, rung b. A decoder that allocates what a header declares, or recurses as deep as the input nests, is safe
behind this: every declared count is covered by bytes that are there, and depth is bounded. No recursion here: one
counter per open container, in a fixed array. Text is not looked at (the decoder checks UTF-8).
"""

from libc.stdint cimport uint64_t

from netchan._core cimport defs
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

cdef enum:
    REFERENCE_TYPE = 1              # MessagePack extension type of a reference (wire.md §8)
    REFERENCE_SIZE = 42


cdef inline uint64_t _load(const unsigned char* p, int size) noexcept nogil:
    cdef uint64_t v = 0
    cdef int i
    for i in range(size):
        v = (v << 8) | p[i]
    return v


cdef int shape_check(const unsigned char* data, size_t n, int most, int ends) noexcept nogil:
    cdef uint64_t left[64]          # items still to come in each open container
    cdef bint keyed[64]             # this container is a map
    cdef int depth = 0
    cdef size_t i = 0
    cdef unsigned char b
    cdef int head
    cdef uint64_t count
    cdef uint64_t skip
    cdef int kind                   # 0 plain item, 1 may be a map key, 2 array, 3 map
    cdef bint is_key
    if most < 0 or most > 64:
        return defs.NC_EINVAL
    while True:
        if i >= n:
            return defs.NC_ETRUNC
        b = data[i]
        i += 1
        kind = 0
        head = 0                    # bytes of a length or number field
        skip = 0                    # bytes of body
        count = 0                   # items of a container
        if b <= 0x7F or b >= 0xE0:
            kind = 1
        elif b <= 0x8F:
            kind = 3
            count = b & 0x0F
        elif b <= 0x9F:
            kind = 2
            count = b & 0x0F
        elif b <= 0xBF:
            kind = 1
            skip = b & 0x1F
        elif b == 0xC0 or b == 0xC2 or b == 0xC3:
            kind = 0
        elif b == 0xC4 or b == 0xD9:
            kind = 1
            head = 1
        elif b == 0xC5 or b == 0xDA:
            kind = 1
            head = 2
        elif b == 0xC6 or b == 0xDB:
            kind = 1
            head = 4
        elif b == 0xCA:
            skip = 4
        elif b == 0xCB:
            skip = 8
        elif 0xCC <= b <= 0xCF:
            kind = 1
            skip = 1 << (b - 0xCC)
        elif 0xD0 <= b <= 0xD3:
            kind = 1
            skip = 1 << (b - 0xD0)
        elif b == 0xDC or b == 0xDD:
            kind = 2
            head = 2 if b == 0xDC else 4
        elif b == 0xDE or b == 0xDF:
            kind = 3
            head = 2 if b == 0xDE else 4
        elif b == 0xC7 and n - i >= 2 and data[i] == REFERENCE_SIZE and data[i + 1] == REFERENCE_TYPE:
            if ends == 0:
                return defs.NC_EUNKNOWN     # a channel end, where none may be or one too many
            ends -= 1
            skip = 2 + REFERENCE_SIZE
        else:
            return defs.NC_EFRAME   # 0xC1 is reserved, 0xC7-0xC9 and 0xD4-0xD8 are extensions
        is_key = depth > 0 and keyed[depth - 1] and (left[depth - 1] & 1) == 0
        if is_key and kind != 1:
            return defs.NC_EFRAME
        if head:
            if <size_t>head > n - i:
                return defs.NC_ETRUNC
            count = _load(data + i, head)
            i += head
            if kind == 1:
                skip = count
        if skip > n - i:
            return defs.NC_ETRUNC
        i += <size_t>skip
        if depth:
            left[depth - 1] -= 1
        if kind >= 2:
            if depth >= most:
                return defs.NC_ELIMIT
            if kind == 3:
                count *= 2          # at most 2^33: no overflow
            if count > n - i:       # each item takes at least one byte
                return defs.NC_ETRUNC
            left[depth] = count
            keyed[depth] = kind == 3
            depth += 1
        while depth and left[depth - 1] == 0:
            depth -= 1
        if depth == 0:
            return 0 if i == n else defs.NC_EFRAME


CARRIES = "it holds a channel or an end of one, which cannot be here, or more of them than a value may carry"


def fault(data, most: int = 32, ends: int = 0) -> str:
    """Say what keeps ``data`` from being one MessagePack value of the closed domain; "" if it is one.

    Args:
        data: bytes-like, contiguous; not kept.
        most: containers that may be open at a time, 0 to 64.
        ends: references to channel ends that it may hold; ``CARRIES`` is said of more.
    """
    cdef Py_buffer view
    cdef int rc
    cdef int depth = most
    cdef int carried = ends
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    if view.len > 4096:
        with nogil:
            rc = shape_check(<const unsigned char*>view.buf, <size_t>view.len, depth, carried)
    else:
        rc = shape_check(<const unsigned char*>view.buf, <size_t>view.len, depth, carried)
    PyBuffer_Release(&view)
    if rc == 0:
        return ""
    if rc == defs.NC_EUNKNOWN:
        return CARRIES
    if rc == defs.NC_ETRUNC:
        return "it ends early, or a header declares more than there is"
    if rc == defs.NC_ELIMIT:
        return f"it nests deeper than {most} levels"
    if rc == defs.NC_EFRAME:
        return "it holds an extension type, a map key that is no str, bytes or int, or bytes after its end"
    raise ValueError(f"most={most} is out of range; give 0 to 64")
