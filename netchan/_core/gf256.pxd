# gf256: the field GF(2^8) modulo 0x11d, over single bytes and over many. Layer: _core, rung b.
# docs/spec/parity.md §1.1.
#
# Sums are xor. A call over many bytes runs in the form of the kernel that was picked when this module was imported: the
# fastest one that the processor has. All forms give the same bytes, take any length and any alignment, allocate nothing
# and look nothing up at an index made of the data; coefficients are public and may show in the time a call takes.
# Threads: everything but use() may run anywhere at any time.

from libc.stdint cimport uint8_t

cdef extern from "k_gf256.h":
    ctypedef struct nc_gf_form:
        const char* name
        void (*add)(uint8_t** dst, const uint8_t* c, int rows, const uint8_t* src, size_t n) noexcept nogil

cdef uint8_t gf_mul(uint8_t a, uint8_t b) noexcept nogil
# The b with a * b = 1; 0 of 0.
cdef uint8_t gf_inv(uint8_t a) noexcept nogil

# dst[x] += c * src[x] for x < n. dst and src (borrowed for the call) do not overlap.
cdef void gf_mul_add(uint8_t* dst, const uint8_t* src, uint8_t c, size_t n) noexcept nogil
# dst[r][x] += c[r] * src[x] for r < rows and x < n: `rows` such sums over one source, in less time than one by one. No
# dst overlaps src or another dst.
cdef void gf_mul_add_rows(uint8_t** dst, const uint8_t* c, int rows, const uint8_t* src, size_t n) noexcept nogil
