"""Pages for secrets: guarded, locked when allowed, not in core dumps, zero in a forked child, overwritten at the end.

Layer: _core, rung c. It does not divide its pages: keystore does. Mapped and unmapped by Python-side calls only.
What it cannot do: a live process that may be read (ptrace, root) gives everything. Spec: docs/spec/keys.md §5.
"""

from netchan._core cimport defs

cdef extern from * nogil:
    """
    #include <sys/mman.h>
    #include <unistd.h>
    #include <string.h>
    static int nc_dont_dump(void *p, size_t n)
    {
    #ifdef MADV_DONTDUMP
        return madvise(p, n, MADV_DONTDUMP) == 0;
    #else
        (void)p; (void)n; return 0;
    #endif
    }
    static int nc_wipe_on_fork(void *p, size_t n)
    {
    #ifdef MADV_WIPEONFORK
        return madvise(p, n, MADV_WIPEONFORK) == 0;
    #else
        (void)p; (void)n; return 0;
    #endif
    }
    static void *nc_map_none(size_t n)
    {
        void *p = mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return p == MAP_FAILED ? NULL : p;
    }
    static int nc_make_usable(void *p, size_t n) { return mprotect(p, n, PROT_READ | PROT_WRITE) == 0; }
    static size_t nc_page(void) { return (size_t)sysconf(_SC_PAGESIZE); }
    static void nc_overwrite(void *p, size_t n)
    {
        memset(p, 0, n);
        __asm__ __volatile__("" : : "r"(p) : "memory");     /* keeps the store although nobody reads it */
    }
    """
    int nc_dont_dump(void *p, size_t n)
    int nc_wipe_on_fork(void *p, size_t n)
    void *nc_map_none(size_t n)
    int nc_make_usable(void *p, size_t n)
    size_t nc_page()
    void nc_overwrite(void *p, size_t n)
    int mlock(const void *p, size_t n)
    int munmap(void *p, size_t n)


cdef int arena_map(nc_arena *a, size_t n, int lock) noexcept nogil:
    cdef size_t page = nc_page()
    cdef size_t inner
    cdef unsigned char *base
    a.p = NULL
    a.n = a.mapped = 0
    a.locked = a.wiped_on_fork = 0
    if n == 0 or n > (<size_t>1 << 32):
        return defs.NC_EINVAL
    inner = (n + page - 1) // page * page
    base = <unsigned char *>nc_map_none(inner + 2 * page)
    if base == NULL:
        return defs.NC_ENOMEM
    if not nc_make_usable(base + page, inner):
        munmap(base, inner + 2 * page)
        return defs.NC_ENOMEM
    a.p = base + page
    a.n = n
    a.mapped = inner + 2 * page
    nc_dont_dump(a.p, inner)
    a.wiped_on_fork = nc_wipe_on_fork(a.p, inner)
    if lock:
        a.locked = mlock(a.p, inner) == 0
    return defs.NC_OK


cdef void arena_unmap(nc_arena *a) noexcept nogil:
    if a.p == NULL:
        return
    nc_overwrite(a.p, a.n)
    munmap(a.p - nc_page(), a.mapped)
    a.p = NULL
    a.n = a.mapped = 0
