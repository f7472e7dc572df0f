# erasure: parity symbols over a group of data symbols, and data symbols back out of them. Layer: _core, rung d.
# docs/spec/parity.md §1.
#
# A group is k data symbols of S bytes, one after the other, and m parity symbols of S; k + m <= PARITY_SYMBOLS_MAX.
# Byte `at` of the group is byte at % S (its column) of data symbol at / S. Columns do not mix, so any interval of
# columns is a code of its own, and bytes may be added in any cut and any order.
#
# 1. The sender clears m rows of S bytes and adds each byte once (parity_add); then row j is parity symbol j.
# 2. The receiver has a row for each parity symbol: cleared, each byte of data that is here added once (parity_add with
#    the index of the symbol), and the symbol itself added by xor, in any order. So a row may be filled while data come,
#    and these need not be kept; or out of what is kept, piece by piece, when the symbol comes. Then the row is the sum
#    of what is missing, each part times its coefficient.
# 3. parity_gaps cuts the columns into intervals with one set of missing symbols. Where as many rows are there as
#    symbols are missing, parity_invert and parity_solve turn the rows into the missing bytes, in place.
# Threads and ownership: no state; all pointers are borrowed for the call. Nothing allocates; at most 5 KiB of stack.

from libc.stdint cimport uint8_t, uint64_t

from netchan._core.ranges cimport nc_ranges

cdef enum:
    PARITY_INDEX_MAX = 30               # largest index of a data or a parity symbol: PARITY_SYMBOLS_MAX - 2
    PARITY_MISSING_MAX = 16             # symbols solved at once: no code has more of both, PARITY_SYMBOLS_MAX / 2

# Coefficient of data symbol i in parity symbol j, never 0; 0 if an index is out of range.
cdef uint8_t parity_coefficient(int j, int i) noexcept nogil

# Adds n bytes of data, the first of them byte `at` of the group, to n_rows rows of S bytes; row r is of parity symbol
# index[r], of symbol r where index is NULL. p overlaps no row, nor does a row another. NC_OK; NC_EINVAL, nothing added:
# n_rows or an index out of range, S not in 1..PARITY_BYTES_MAX, or a byte beyond data symbol PARITY_INDEX_MAX.
cdef int parity_add(uint8_t** rows, const uint8_t* index, int n_rows, size_t S, size_t at, const uint8_t* p,
                    size_t n) noexcept nogil

# The inverse of the e x e coefficients of the missing data symbols in the held parity symbols: inverse[a * e + b] is
# the part of the row of held[a] in missing[b]. NC_OK; NC_EINVAL: e not in 1..PARITY_MISSING_MAX, an index out of range
# or given twice. There is no other failure.
cdef int parity_invert(const uint8_t* missing, const uint8_t* held, int e, uint8_t* inverse) noexcept nogil
# Turns n bytes of each of e rows (sums, in the order of `held`) into those of the missing symbols (in the order of
# `missing`). rows[a] points at the first column of the interval. NC_OK; NC_EINVAL: e out of range.
cdef int parity_solve(uint8_t** rows, const uint8_t* inverse, int e, size_t n) noexcept nogil

# What is missing from `column` on. The data of the group are the bytes start <= x < end of a stream (end <= 2^62);
# those below `received` are here, and those in `got`. Writes to missing (room for PARITY_INDEX_MAX + 1) the symbols
# whose byte of this column is not, ascending, and to stop the end of the columns of which the same is true
# (column < stop <= S). Returns how many are missing, PARITY_INDEX_MAX + 1 at most; what lies at `end` and behind is
# zero and never missing. NC_EINVAL: column, S or the length of the group out of range.
cdef int parity_gaps(const nc_ranges* got, uint64_t received, uint64_t start, uint64_t end, size_t S, size_t column,
                     uint8_t* missing, size_t* stop) noexcept nogil
