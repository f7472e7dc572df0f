# rebuild: lost bytes of a stream out of parity symbols and what else is here. Layer: _core, rung f.
# docs/spec/parity.md §2.2. Threads: baton.

from libc.stdint cimport uint64_t

from netchan._core.budget cimport nc_budget
from netchan._core.frame cimport nc_frame
from netchan._core.inbox cimport nc_in

# PARITY of the stream. 1: bytes were made up for, as by in_data; 0: none; a negative code as of in_data, NC_ECREDIT and
# NC_ESTATE also where the group reaches beyond what may come.
cdef int rebuild_symbol(nc_in* s, const nc_frame* f, nc_budget* b, uint64_t max_message) noexcept nogil
# After data from `at` to `upto` came: the same, with the symbols that are held.
cdef int rebuild_held(nc_in* s, uint64_t at, uint64_t upto, nc_budget* b, uint64_t max_message) noexcept nogil
