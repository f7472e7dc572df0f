"""The field GF(2^8) modulo 0x11d: products and inverses, and sums of multiples over many bytes.

Layer: _core, rung b. No clock, no socket, no lock, no memory of its own but the tables. Contract in ``gf256.pxd``, the
kernel in ``k_gf256.c``: one form for each set of vector instructions. Spec: docs/spec/parity.md §1.1.
"""

cdef extern from "k_gf256.h" nogil:
    void nc_gf_init()
    const nc_gf_form* nc_gf_forms(int* n)
    uint8_t nc_gf_mul(uint8_t a, uint8_t b)
    uint8_t nc_gf_inv(uint8_t a)

cdef int _n = 0
cdef const nc_gf_form* _form            # in use; one of the _n that run here

nc_gf_init()
_form = nc_gf_forms(&_n)


def forms() -> tuple[str, ...]:
    """Return the names of the forms that this processor runs, fastest first: of gfni, avx2, ssse3, portable."""
    cdef const nc_gf_form* f = nc_gf_forms(&_n)
    cdef int i
    return tuple([(<bytes>f[i].name).decode() for i in range(_n)])


def form() -> str:
    """Return the name of the form in use."""
    return (<bytes>_form.name).decode()


def use(name: str) -> None:
    """Use another form from now on; for tests and measurements, while no other thread computes.

    Args:
        name: one of ``forms()``.

    Raises:
        ValueError: this processor does not run it, or there is none of that name.
    """
    global _form
    known = forms()
    if name not in known:
        raise ValueError(f"no form {name!r} of the kernel runs here; these do: {', '.join(known)}")
    _form = nc_gf_forms(&_n) + <int>known.index(name)


cdef uint8_t gf_mul(uint8_t a, uint8_t b) noexcept nogil:
    return nc_gf_mul(a, b)


cdef uint8_t gf_inv(uint8_t a) noexcept nogil:
    return nc_gf_inv(a)


cdef void gf_mul_add(uint8_t* dst, const uint8_t* src, uint8_t c, size_t n) noexcept nogil:
    if c != 0:
        _form.add(&dst, &c, 1, src, n)


cdef void gf_mul_add_rows(uint8_t** dst, const uint8_t* c, int rows, const uint8_t* src, size_t n) noexcept nogil:
    _form.add(dst, c, rows, src, n)
