# record: frames <-> protected records of a stream path. Layer: _core, rung f. docs/spec/wire.md §3, docs/spec/keys.md.
#
# Threads: all of it belongs to the holder of the baton. Buffers are borrowed for the call.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netchan._core.ctxcache cimport nc_cache
from netchan._core.keys cimport nc_keys

ctypedef struct nc_sealer:          # what sealing and opening need, one per session
    nc_keys* keys                   # owned by the engine's record of the session
    nc_cache* cache                 # borrowed from the engine for the life of the session

# Size of the header for a tag: where the frames go in the buffer of a new record.
cdef size_t record_head_size(uint64_t tag) noexcept nogil

# Finishes a record at rec: head_size(tag) bytes of room, then body_len bytes of frames already there, then tail_len
# bytes that are sealed straight from `tail` (NULL: none). Room behind for them and the AEAD tag. binding: 32 bytes for
# the first record of a path, else NULL. Returns the size of the record; NC_EEXHAUSTED: the epoch must change;
# NC_ECRYPTO; NC_EINVAL: too long.
cdef int record_seal(nc_sealer* k, int path, uint64_t number, uint64_t tag, uint8_t* rec, size_t body_len,
                     const uint8_t* tail, size_t tail_len, const uint8_t* binding, int64_t now_ns) noexcept nogil

# Size of the record that begins at rec when 2 bytes are there; NC_EFRAME: below the minimum.
cdef int record_size(const uint8_t* rec) noexcept nogil

# Opens the record of `size` bytes at rec in place; its frames are then at *body. NC_OK; NC_ECRYPTO: the tag does not
# hold or there is no key for its epoch; NC_EFRAME: malformed header; NC_ELIMIT: too many forgeries.
cdef int record_open(nc_sealer* k, int path, uint64_t number, uint8_t* rec_untrusted, size_t size,
                     const uint8_t* binding, int64_t now_ns, uint64_t* tag, uint8_t** body,
                     size_t* body_len) noexcept nogil
