# news: lists of what happened to channels and sessions, for whoever holds the GIL next. Layer: _engine. Threads: the
# holder of the baton puts in, under the engine's leaf lock; engine_handle takes out.

from libc.stdint cimport uint8_t

from netchan._engine.state cimport nc_engine, nc_slot

cdef void kick(int fd) noexcept nogil                                           # an eventfd becomes readable
# What the core has to tell of this session goes to the lists.
cdef void engine_collect(nc_engine* g, nc_slot* t) noexcept nogil
cdef void engine_collect_pins(nc_engine* g, nc_slot* t) noexcept nogil          # memory whose owner waits for the GIL
cdef void engine_poke(nc_engine* g) noexcept nogil                              # wakes whoever sleeps in the poller
cdef void list_slot(nc_engine* g, nc_slot* t, int over) noexcept nogil
cdef void path_news(nc_engine* g, nc_slot* t, uint8_t what) noexcept nogil      # nc_path_news
