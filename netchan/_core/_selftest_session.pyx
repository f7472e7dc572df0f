"""Opens frames, streams, records and sessions to pytest; test-only, never in wheels.

Layer: beside _core; nothing imports it but tests. ``Side`` is one session with real keys in virtual time, ``Pair`` two
of them joined by byte pipes, ``Peer`` the other end of a session in the hands of a test: it seals any frames under the
right keys.
Threads: everything on the caller's, with the GIL.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from netchan._core cimport defs
from netchan._core.crypto cimport nc_crypto, nc_ctx
from netchan._core.ctxcache cimport cache_new, cache_seal, nc_cache
from netchan._core.cursor cimport nc_rd, nc_wr, rd_init, varint_write, wr_init
from netchan._core.ecn cimport ecn_turn, nc_ecn
from netchan._core.datagram cimport (
    CID_SIZE, dgram_head_size, dgram_open, dgram_seal, dgram_unmask, nc_dgram_head,
)
from netchan._core.frame cimport (
    frame_next, frame_next_range, frame_put_abort, frame_put_ack, frame_put_ask, frame_put_data_head,
    frame_put_extension, frame_put_max_streams, frame_put_ping, frame_put_pos, frame_put_ratchet, frame_put_rekey,
    frame_put_session_close, frame_put_stop, frame_put_ticket, message_head, name_is_valid, nc_frame,
)
from netchan._core.idmap cimport idmap_free, idmap_get, idmap_init, idmap_next, idmap_pop, idmap_put, nc_idmap
from netchan._core.keys cimport (
    KEYS_HP_RECV, KEYS_HP_SEND, keys_epoch_byte, keys_free, keys_limits_default, keys_new, keys_path_add, keys_seal,
    keys_secret, keys_update, keys_update_acked, nc_keys, nc_keys_limits,
)
from netchan._core.keystore cimport ks_new, nc_keystore
from netchan._core.leaf cimport load_acq_u32, store_rel_u32
from netchan._core.provider cimport Provider, cipher_id_of, provider_table
from netchan._core.record cimport nc_sealer, record_head_size, record_open, record_seal, record_size
from netchan._core.events cimport path_state
from netchan._core.ends cimport (
    end_mark, end_open, end_release, end_request, session_close, session_next_offer, session_next_ready,
)
from netchan._core.flight cimport flight_free, flight_new, flight_token
from netchan._core.handover cimport (
    session_hold, session_moved, session_read, session_unhold, session_write,
)
from netchan._core.inbound cimport session_recv, session_recv_datagram
from netchan._core.order cimport nc_order
from netchan._core.modes cimport stream_mode
from netchan._core.outbound cimport session_said, session_send, session_send_datagram, session_wants_send
from netchan._core.ratchet cimport session_ratchet_secret
from netchan._core.resume cimport (
    path_find, session_add, session_forget_gone, session_join, session_mode, session_pass, session_path_doubt,
    session_path_lost, session_resume, session_standby,
)
from netchan._core.session cimport session_deadline, session_free, session_init, session_on_deadline
from netchan._core.ticket cimport session_replaced, session_ticket_send, session_ticket_take
from netchan._core.timer cimport TIMER_NEVER
from netchan._core.state cimport (
    EVENTS_KEPT, EV_ACK, EV_RECV, EV_SEND, REQ_ABORT, REQ_ASK, REQ_END_AFTER, REQ_POS, REQ_STOP, REQ_WANT,
    REQ_WITHDRAW, nc_dgram, nc_end, nc_group, nc_offer, nc_params, nc_path, nc_session,
)
from netchan._core.budget cimport budget_init, nc_budget
from netchan._core.parity cimport nc_parity_in
from netchan._core.rebuild cimport rebuild_held, rebuild_symbol
from netchan._core.inbox cimport in_data, in_free, in_give_back, in_init, in_over, in_pos, in_pos_due, in_skip, nc_in
from netchan._core.lossy cimport lossy_append
from netchan._core.take cimport (
    in_advance, in_claim, in_copy, in_discard, in_drop, in_expire, in_peek, in_pending, in_run, in_run_end, nc_msg,
    nc_run, run_next, run_pass,
)
from netchan._core.outbox cimport (
    APPEND_OFFER, nc_out, out_ack, out_append, out_append_run, out_close, out_end, out_free, out_has_room, out_init,
    out_offer_let_go, out_offer_state, out_offer_want, out_pass, out_pos, out_preface, out_read, out_ready, out_reserve,
    out_span,
)
from netchan._core.over cimport OVER_ABORT, OVER_ABORT_AFTER, OVER_NOT, OVER_STOPPED
from netchan._core.segment cimport nc_seg

from netchan._core import provider as provider_module

RC = {
    "OK": defs.NC_OK, "EAGAIN": defs.NC_EAGAIN, "ETRUNC": defs.NC_ETRUNC, "EFRAME": defs.NC_EFRAME,
    "ELIMIT": defs.NC_ELIMIT, "ECRYPTO": defs.NC_ECRYPTO, "ECLOSED": defs.NC_ECLOSED, "ENOMEM": defs.NC_ENOMEM,
    "EINVAL": defs.NC_EINVAL, "ESPACE": defs.NC_ESPACE, "ESTATE": defs.NC_ESTATE, "ECREDIT": defs.NC_ECREDIT,
    "EEXHAUSTED": defs.NC_EEXHAUSTED, "EUNKNOWN": defs.NC_EUNKNOWN,
}

cdef nc_keystore* STORE = NULL          # shared by all sides; sessions in it are told apart by their serial
cdef nc_cache* CACHE = NULL
cdef Provider PROVIDER = None


cdef int need_store() except -1:
    global STORE, CACHE, PROVIDER
    cdef const nc_crypto* t
    if STORE is not NULL:
        return 0
    PROVIDER = provider_module.load()
    t = provider_table(PROVIDER, cipher_id_of(PROVIDER.ciphers[0]))
    STORE = ks_new(t, 1024, 512, 77, 0)
    CACHE = cache_new(t, 64, 77)
    if STORE is NULL or CACHE is NULL:
        raise MemoryError("key store")
    return 0


cdef nc_keys* new_keys(bytes root, int role, dict limits) except NULL:
    cdef nc_keys_limits l
    cdef nc_keys* k
    keys_limits_default(&l)
    l.soft_blocks = limits.get("soft_blocks", l.soft_blocks)
    l.hard_blocks = limits.get("hard_blocks", l.hard_blocks)
    l.use_ns = limits.get("use_ns", l.use_ns)
    if len(root) != 32:
        raise ValueError("root of 32 bytes")
    k = keys_new(STORE, <const uint8_t*><char*>root, role, &l)
    if k is NULL:
        raise MemoryError("no session block left in the store")
    return k


# --- frames -----------------------------------------------------------------------------------------------------------

def parse(bytes data, uint64_t tag):
    """(frames as dicts, code that ended the walk: NC_EAGAIN at the end of the record)."""
    cdef size_t n = len(data)
    cdef uint8_t* p = <uint8_t*>malloc(n if n else 1)       # an exact copy: reading beyond it is seen by the sanitizer
    cdef nc_rd r
    cdef nc_frame f
    cdef int rc
    cdef list out = []
    memcpy(p, <const char*>data, n)
    rd_init(&r, p, n)
    try:
        while True:
            rc = frame_next(&r, tag, &f)
            if rc < 0:
                return out, rc
            out.append({"type": f.type, "stream": f.stream, "a": f.a, "b": f.b, "c": f.c, "d": f.d, "flags": f.flags,
                        "eliciting": f.eliciting, "n": f.n, "data": (<const char*>f.data)[:f.len] if f.len else b""})
    finally:
        free(p)


def ranges(bytes data):
    """The (gap, len) pairs of the payload of an ACK or POS."""
    cdef nc_rd r
    cdef uint64_t gap, length
    out = []
    rd_init(&r, <const uint8_t*><const char*>data, len(data))
    while frame_next_range(&r, &gap, &length) == 0:
        out.append((gap, length))
    return out


def put(str name, *args, size_t room=2048):
    """Bytes of one frame, or the code of the writer when it wrote nothing."""
    cdef uint8_t* p = <uint8_t*>malloc(room if room else 1)
    cdef nc_wr w
    cdef int rc
    cdef bytes blob
    wr_init(&w, p, room)
    try:
        if name == "ack":
            rc = frame_put_ack(&w, args[0], args[1], args[2], args[3])
        elif name == "pos":
            rc = frame_put_pos(&w, args[0], args[1], args[2], args[3], args[4])
        elif name == "ask":
            rc = frame_put_ask(&w, args[0], args[1], args[2])
        elif name == "abort":
            blob = args[4]
            rc = frame_put_abort(&w, args[0], args[1], args[2], args[3], <const uint8_t*><char*>blob, len(blob))
        elif name == "stop":
            rc = frame_put_stop(&w, args[0], args[1], args[2])
        elif name == "max_streams":
            rc = frame_put_max_streams(&w, args[0])
        elif name == "ping":
            rc = frame_put_ping(&w)
        elif name == "rekey":
            blob = args[3]
            rc = frame_put_rekey(&w, args[0], args[1], args[2], <const uint8_t*><char*>blob)
        elif name == "ratchet":
            blob = args[2]
            rc = frame_put_ratchet(&w, args[0], args[1], <const uint8_t*><char*>blob, len(blob))
        elif name == "ticket":
            blob = args[1]
            rc = frame_put_ticket(&w, args[0], <const uint8_t*><char*>blob, len(blob))
        elif name == "session_close":
            blob = args[1]
            rc = frame_put_session_close(&w, args[0], <const uint8_t*><char*>blob, len(blob))
        elif name == "extension":
            blob = args[1]
            rc = frame_put_extension(&w, args[0], <const uint8_t*><char*>blob, len(blob))
        elif name == "data":
            rc = frame_put_data_head(&w, args[0], args[1], args[2], args[3], args[4])
        else:
            raise KeyError(name)
        if rc < 0:
            return rc if w.p == p else "wrote something and failed"
        return (<const char*>p)[:w.p - p]
    finally:
        free(p)


def head_of(bytes data):
    """(bytes used, body length, has ext) of a message head, or a code."""
    cdef uint64_t body = 0
    cdef int ext = 0
    rc = message_head(<const uint8_t*><const char*>data, len(data), &body, &ext)
    return (rc, body, bool(ext)) if rc > 0 else rc


def name_valid(bytes name):
    return name_is_valid(<const uint8_t*><const char*>name, len(name)) == 1


# --- idmap ------------------------------------------------------------------------------------------------------------

cdef class IdMap:
    """Ids to numbers."""

    cdef nc_idmap m

    def __cinit__(self, uint32_t most, uint64_t seed):
        idmap_init(&self.m, most, seed)

    def __dealloc__(self):
        idmap_free(&self.m)

    def __len__(self):
        return self.m.len

    @property
    def cap(self):
        return self.m.cap

    def put(self, uint64_t id, size_t value):
        return idmap_put(&self.m, id, <void*>value)

    def get(self, uint64_t id):
        return <size_t>idmap_get(&self.m, id)

    def pop(self, uint64_t id):
        return <size_t>idmap_pop(&self.m, id)

    def walk(self):
        cdef uint32_t i = 0
        cdef void* v
        out = []
        while True:
            v = idmap_next(&self.m, &i)
            if v is NULL:
                return out
            out.append(<size_t>v)


# --- streams ----------------------------------------------------------------------------------------------------------

# Drops the references of released segments; how many there were.
cdef int drop_pins(nc_seg* s) except -1:
    cdef nc_seg* following
    cdef int n = 0
    while s is not NULL:
        following = s.next
        Py_DECREF(<object>s.pin)
        free(s)
        n += 1
        s = following
    return n


cdef int append_to(nc_out* o, bytes data, bint deliver, bint pin) except 1:
    cdef int rc
    if pin:
        Py_INCREF(data)
    rc = out_append(o, <const uint8_t*><char*>data, len(data), 1 if deliver else 0, <void*>data if pin else NULL)
    if pin and rc < 0:
        Py_DECREF(data)
    return rc


# A value of a direction that may drop it.
cdef int append_lossy(nc_out* o, bytes data, bint pin, int64_t now, nc_seg** pins) except 1:
    cdef int64_t due = now + <int64_t>o.ttl_ms * 1000000 if o.ttl_ms else 0
    cdef int rc
    if pin:
        Py_INCREF(data)
    rc = lossy_append(o, <const uint8_t*><char*>data, len(data), 0, <void*>data if pin else NULL, due, pins)
    if pin and rc < 0:
        Py_DECREF(data)
    return rc


cdef out_state(nc_out* o):
    cdef nc_seg* s = o.head
    cdef size_t own = 0, pinned = 0, n = 0
    while s is not NULL:
        n += 1
        if s.pin is NULL:
            own += s.cap
        else:
            pinned += s.len
        s = s.next
    return {"appended": o.appended, "accepted": o.accepted, "max_msgs": o.max_msgs, "max_bytes": o.max_bytes,
            "closing": o.closing, "over": o.over, "received": o.received, "taken": o.taken, "sent": o.sent,
            "sent_msgs": o.sent_msgs, "acked": o.acked, "boundary": o.at_boundary, "fin_sent": o.fin_sent,
            "fin_acked": o.fin_acked, "fin_at": o.fin_at, "segments": n, "own_bytes": own, "pinned_bytes": pinned,
            "credit_stalls": o.credit_stalls, "fresh": o.n_fresh, "dropped": o.dropped, "gap": o.gap_msgs}


cdef class Out:
    """One sender."""

    cdef nc_out o
    cdef nc_seg* pins

    def __cinit__(self, uint64_t id=16, uint64_t msgs=1 << 40, uint64_t bytes_=1 << 40):
        out_init(&self.o, id)
        self.o.max_msgs = msgs
        self.o.max_bytes = bytes_

    def __dealloc__(self):
        out_free(&self.o, &self.pins)
        drop_pins(self.pins)

    def preface(self, bytes data):
        return out_preface(&self.o, <const uint8_t*><char*>data, len(data))

    def append(self, bytes data, bint deliver=False, bint pin=False):
        return append_to(&self.o, data, deliver, pin)

    def append_run(self, list values):
        """(how many were accepted, or a code; bytes)."""
        cdef const uint8_t* p[64]
        cdef size_t[64] n
        cdef uint64_t total = 0
        cdef bytes value
        cdef int count = 0
        for value in values[:64]:
            p[count] = <const uint8_t*><const char*>value
            n[count] = <size_t>len(value)
            count += 1
        return out_append_run(&self.o, p, n, count, &total), total

    def reserve(self):
        return out_reserve(&self.o)

    def has_room(self):
        return out_has_room(&self.o) == 1

    def close(self):
        return out_close(&self.o)

    def end(self, uint32_t over):
        out_end(&self.o, over)

    def ready(self):
        """(bytes that may go, FIN behind them?)"""
        cdef int fin = 0
        n = out_ready(&self.o, &fin)
        return n, bool(fin)

    def read(self, size_t n):
        cdef bytearray out = bytearray(n)
        out_read(&self.o, <uint8_t*><char*>out, n)
        return bytes(out)

    def span(self, size_t n):
        """Bytes that lie together, at most n; not passed."""
        cdef const uint8_t* p = NULL
        cdef size_t k = out_span(&self.o, &p, n)
        return (<const char*>p)[:k] if k else b""

    def pass_(self, size_t n):
        out_pass(&self.o, n)

    def fin_was_sent(self):
        self.o.fin_sent = 1

    def ack(self, uint64_t upto):
        out_ack(&self.o, upto, &self.pins)

    def pos(self, uint64_t received, uint64_t taken, uint64_t msgs, uint64_t bytes_):
        return out_pos(&self.o, received, taken, msgs, bytes_, &self.pins)

    def free(self):
        out_free(&self.o, &self.pins)

    def released(self):
        """Pinned values that came out since the last call; their references are dropped."""
        cdef nc_seg* s = self.pins
        self.pins = NULL
        return drop_pins(s)

    def state(self):
        return out_state(&self.o)


cdef in_state(nc_in* s):
    cdef nc_seg* a = s.head
    cdef size_t own = 0, early = 0
    while a is not NULL:
        own += a.cap
        a = a.next
    a = s.ooo
    while a is not NULL:
        early += a.cap
        a = a.next
    return {"received": s.received, "started": s.started, "msgs": s.msgs, "taken": s.taken, "end": s.end,
            "take_off": s.take_off,
            "granted_msgs": s.granted_msgs, "granted_bytes": s.granted_bytes, "window": s.window,
            "grown": s.grown, "lent": s.lent, "waits": s.waits,
            "over": s.over, "has_final": s.has_final, "final": s.final, "discarded": s.discarded, "stopped": s.stopped,
            "dropped_bytes": s.dropped_bytes, "preface_done": s.preface_done, "held_bytes": own, "early_bytes": early,
            "early": s.n_early, "gaps": s.gaps.len, "starved": s.starved, "told_taken": s.told_taken,
            "code": s.abort_code, "reason": (<const char*>s.reason)[:s.reason_len], "capacity": s.capacity,
            "asked": s.asked, "lossy": s.lossy, "keep": s.keep, "dropped": s.dropped, "skipped": s.skipped,
            "skip_ahead": s.skip_ahead, "pending": in_pending(s)}


# The next message as (bytes, deliver, what in_advance said), or the code of in_peek.
cdef take_from(nc_in* s):
    cdef nc_msg m
    cdef bytearray out
    while True:
        rc = in_peek(s, &m)
        if rc < 0:
            return rc
        rc = in_claim(s, &m)
        if rc > 0:
            break
        if rc == 0:
            in_advance(s, &m)
    if m.number != s.taken:
        raise AssertionError("message number is not the count of taken ones")
    out = bytearray(m.len)
    in_copy(s, &m, <uint8_t*><char*>out)
    return bytes(out), bool(m.deliver), in_advance(s, &m)


cdef class In:
    """One receiver, as after pairing unless capacity is 0."""

    cdef nc_in s
    cdef nc_budget b

    def __cinit__(self, uint64_t capacity=1024, uint64_t window=65536, int64_t budget=0, uint64_t msgs=64,
                  uint64_t bytes_=16384):
        in_init(&self.s, 17)
        self.s.granted_msgs = msgs
        self.s.granted_bytes = bytes_
        budget_init(&self.b, budget)
        if capacity:
            self.s.capacity = capacity
            self.s.window = window
            self.s.pos_at_msgs = 0

    def __dealloc__(self):
        in_free(&self.s)

    @property
    def budget(self):
        return self.b.left

    def lossy(self, uint64_t keep=0):
        self.s.lossy = 1
        self.s.keep = keep

    def skip(self, uint64_t first, uint64_t n, uint64_t offset, uint64_t bytes_):
        rc = in_skip(&self.s, first, n, offset, bytes_)
        if rc == 0:
            in_drop(&self.s)
        return rc

    def expire(self, int64_t now):
        return in_expire(&self.s, now)

    def data(self, uint64_t offset, bytes data, bint fin=False, uint64_t max_message=1 << 24, int64_t now=0):
        cdef size_t n = len(data)
        cdef uint8_t* p = <uint8_t*>malloc(n if n else 1)
        memcpy(p, <const char*>data, n)
        self.s.now_ns = now
        rc = in_data(&self.s, offset, p, n, fin, max_message)
        if self.s.lossy and rc == 0:
            in_drop(&self.s)
        free(p)
        return rc

    def symbol(self, bytes frame, uint64_t max_message=1 << 24):
        """A PARITY frame, as in a record of the stream."""
        cdef nc_rd r
        cdef nc_frame f
        rd_init(&r, <const uint8_t*><const char*>frame, len(frame))
        rc = frame_next(&r, self.s.id, &f)
        return rebuild_symbol(&self.s, &f, &self.b, max_message) if rc >= 0 else rc

    def rebuild(self, uint64_t at=0, uint64_t upto=1 << 62, uint64_t max_message=1 << 24):
        """After data from ``at`` to ``upto``; None where nothing is held."""
        if self.s.parity is NULL or self.s.parity.held is NULL:
            return None
        return rebuild_held(&self.s, at, upto, &self.b, max_message)

    def held(self):
        """(groups, bytes of past that are kept, bytes drawn on the budget)"""
        cdef nc_parity_in* q = self.s.parity
        return (q.n_held, q.upto - q.first, q.drawn) if q is not NULL else None

    def give_back(self):
        in_give_back(&self.s, &self.b)

    def preface(self):
        return (<const char*>self.s.preface)[:self.s.preface_len] if self.s.preface_done else None

    def over(self, uint32_t why, uint64_t code=0, bytes reason=b""):
        in_over(&self.s, why, code, <const uint8_t*><char*>reason, len(reason))

    def final(self, uint64_t at):
        self.s.has_final = 1
        self.s.final = at

    def stop(self):
        in_over(&self.s, OVER_STOPPED, 0, NULL, 0)
        n = in_discard(&self.s)
        self.s.stopped = 1
        return n

    def take(self):
        return take_from(&self.s)

    def take_run(self, int limit):
        """(values taken where they lay, what in_run_end said)."""
        cdef nc_run r
        cdef const uint8_t* p
        cdef uint64_t n
        out = []
        if not in_run(&self.s, &r):
            return out, 0
        while limit > len(out) and run_next(&r, &p, &n):
            out.append((<const char*>p)[:n])
            run_pass(&r)
        return out, in_run_end(&self.s, &r)

    def rendezvous(self):
        self.s.rendezvous = 1

    def pending(self):
        return in_pending(&self.s)

    def discard(self):
        return in_discard(&self.s)

    def due(self):
        return in_pos_due(&self.s) == 1

    def pos(self, bint force=True, size_t room=64):
        """POS as (received, taken, max_msgs, max_bytes), None: not due, or a code."""
        cdef uint8_t[64] buf
        cdef nc_wr w
        wr_init(&w, buf, room)
        rc = in_pos(&self.s, &w, force, &self.b)
        if rc == 0:
            return None
        if rc < 0:
            return rc
        f = parse((<const char*>buf)[:w.p - buf], 0)[0][0]
        return f["a"], f["b"], f["c"], f["d"]

    def ask(self, uint64_t received, uint64_t taken):
        self.s.ask_received = received
        self.s.ask_taken = taken
        self.s.asked = 1

    def state(self):
        return in_state(&self.s)


# --- sessions ---------------------------------------------------------------------------------------------------------

cdef uint64_t NODE_DRAWN = 0            # what nc_budget counts for the process

DEFAULTS = {
    "max_record": 65535, "ack_delay_ns": 25_000_000, "ack_interval": 262144, "initial_msgs": 64, "initial_bytes": 16384,
    "max_streams": 256, "max_message": 1 << 24, "max_channels": 1024, "session_bytes": 1 << 26,
    "node_bytes": 1 << 40,
    "heartbeat_ns": 5_000_000_000, "dead_ns": 10_000_000_000, "trunk": True, "max_paths": 8, "lease_ns": 0,
    "datagrams": False, "parity": False,
}


cdef int fill_params(nc_params* p, dict given) except -1:
    d = DEFAULTS | given
    if d.keys() != DEFAULTS.keys():
        raise ValueError(f"unknown parameters {given.keys() - DEFAULTS.keys()}")
    p.max_record = d["max_record"]
    p.ack_delay_ns = d["ack_delay_ns"]
    p.ack_interval = d["ack_interval"]
    p.initial_msgs = d["initial_msgs"]
    p.initial_bytes = d["initial_bytes"]
    p.max_streams = d["max_streams"]
    p.max_message = d["max_message"]
    p.max_channels = d["max_channels"]
    p.session_bytes = d["session_bytes"]
    p.node_bytes = d["node_bytes"]
    p.trunk = d["trunk"]
    p.heartbeat_ns = d["heartbeat_ns"]
    p.dead_ns = d["dead_ns"]
    p.lease_ns = d["lease_ns"]
    p.max_paths = d["max_paths"]
    p.datagrams = d["datagrams"]
    p.parity = d["parity"]
    return 0


cdef class End:
    """The application's side of one channel end."""

    cdef nc_end* e
    cdef readonly Side side
    cdef readonly list events

    @property
    def id(self):
        return self.e.out.id

    @property
    def name(self):
        return (<const char*>self.e.name)[:self.e.name_len]

    @property
    def bound(self):
        return self.e.bound == 1

    @property
    def paired(self):
        return self.e.paired == 1

    @property
    def capacity(self):
        return self.e.capacity if self.e.paired else None

    @property
    def peer_codec(self):
        return self.e.peer_codec

    def send(self, bytes data, bint deliver=False, bint pin=False):
        if self.e.out.lossy:
            rc = append_lossy(&self.e.out, data, pin, self.side.now, &self.side.pins)
        else:
            rc = append_to(&self.e.out, data, deliver, pin)
        if rc == 0:
            end_mark(self.e)
        return rc

    def offer(self, bytes data):
        """Number of the offer, from 0, or a code."""
        rc = out_append(&self.e.out, <const uint8_t*><char*>data, len(data), APPEND_OFFER, NULL)
        if rc < 0:
            return rc
        end_mark(self.e)
        return self.e.out.accepted - 1

    def offer_state(self, uint64_t n):
        return out_offer_state(&self.e.out, n)

    def withdraw(self, uint64_t n):
        if out_offer_want(&self.e.out, n):
            end_request(self.e, REQ_WITHDRAW)

    def let_go(self, uint64_t n):
        out_offer_let_go(&self.e.out, n)

    def park(self, uint32_t n):
        store_rel_u32(&self.e.parked, n)
        end_request(self.e, REQ_WANT)

    def has_room(self):
        return out_has_room(&self.e.out) == 1

    def close(self):
        rc = out_close(&self.e.out)
        end_mark(self.e)
        return rc

    def take(self):
        """Bytes of the next value, or a code; asks for POS as a StreamEnd does."""
        cdef nc_in* i
        if not self.e.paired:
            return defs.NC_EAGAIN if load_acq_u32(&self.e.over) == OVER_NOT else defs.NC_ECLOSED
        i = self.e.in_
        if in_expire(i, self.side.now):
            end_request(self.e, REQ_POS)
        before = i.taken
        got = take_from(i)
        if i.taken > before + (0 if isinstance(got, int) else 1):
            end_request(self.e, REQ_POS)        # offers were passed over
        if isinstance(got, int):
            return got
        if got[2]:
            end_request(self.e, REQ_POS)
        return got[0]

    def take_all(self):
        out = []
        while True:
            got = self.take()
            if isinstance(got, int):
                return out
            out.append(got)

    def stop(self):
        if self.e.paired:
            in_over(self.e.in_, OVER_STOPPED, 0, NULL, 0)
            in_discard(self.e.in_)
        else:
            self.e.over = OVER_STOPPED
        end_request(self.e, REQ_STOP)

    def abort(self, uint64_t code, bytes reason=b""):
        if self.e.over_by_us or self.e.over_code:
            return
        self.e.over_by_us = 1
        self.e.over_code = code
        self.e.abort_code = code
        self.e.reason_len = <uint16_t>len(reason)
        memcpy(self.e.reason, <const char*>reason, len(reason))
        out_end(&self.e.out, OVER_ABORT)
        if self.e.paired:
            in_over(self.e.in_, OVER_ABORT, code, self.e.reason, self.e.reason_len)
            in_discard(self.e.in_)
        else:
            self.e.over = OVER_ABORT
        end_request(self.e, REQ_ABORT)

    def end_after(self, uint64_t code):
        if self.e.out.over or self.e.out.closing:
            return
        self.e.end_code = code
        out_end(&self.e.out, OVER_ABORT_AFTER)
        end_request(self.e, REQ_END_AFTER)

    def ask(self, uint64_t received=0, uint64_t taken=0):
        self.e.ask_received = max(self.e.ask_received, received)
        self.e.ask_taken = max(self.e.ask_taken, taken)
        end_request(self.e, REQ_ASK)

    def wait(self, uint32_t bits=EV_RECV | EV_SEND | EV_ACK):
        self.e.waiting |= bits

    def out(self):
        return out_state(&self.e.out)

    def in_(self):
        return in_state(self.e.in_) if self.e.paired else None

    def state(self):
        """(why sends are over, why receives are over, code, by us)"""
        cdef nc_end* e = self.e
        code = e.over_code
        if code == 0 and e.paired:
            code = e.in_.abort_code
        return e.out.over, e.in_.over if e.paired else e.over, code, bool(e.over_by_us)

    def refs(self):
        return self.e.refs

    def mode(self, int mode, int k=2, int m=1):
        """Our direction's own; -1: the session's."""
        return stream_mode(&self.side.s, self.e, mode, k, m, self.side.now)

    def picked(self):
        """Whether it is picked, the mode in force (-1: the session's), and why."""
        return self.e.auto is not NULL, self.e.own - 1, self.e.auto.why if self.e.auto is not NULL else 0

    def forgotten(self):
        """True when the session has no stake in this end any more."""
        return self.e.refs == 1 and not self.e.bound

    def release(self):
        """The application lets go."""
        if self.e is not NULL:
            self.side.ends.pop(<size_t>self.e, None)
            end_release(self.e, &self.side.pins)
            self.e = NULL

    def __dealloc__(self):
        cdef nc_seg* pins = NULL
        if self.e is not NULL:
            end_release(self.e, &pins)
            drop_pins(pins)


cdef nc_path NO_PATH                     # all zero


cdef class Side:
    """One session. ``now`` is its clock in ns."""

    cdef nc_session s
    cdef nc_seg* pins
    cdef bint live
    cdef public int64_t now
    cdef dict ends
    cdef list held

    def __cinit__(self, int role, bytes root=bytes(32), bytes binding=b"b" * 32, dict mine=None, dict peer=None,
                  dict limits=None, uint64_t seed=5, int64_t now=1_000_000_000, bint blank=False):
        cdef nc_params m, q
        need_store()
        self.ends = {}
        self.held = []
        if blank:
            self.now = now
            self.s.sealer.cache = CACHE
            self.live = True
            return
        fill_params(&m, mine or {})
        fill_params(&q, peer or {})
        if len(binding) != 32:
            raise ValueError("binding of 32 bytes")
        self.now = now
        self.s.sealer.cache = CACHE
        self.s.sealer.keys = new_keys(root, role, limits or {})
        if session_init(&self.s, role, &m, &q, <const uint8_t*><char*>binding, NULL, seed, now) < 0:
            raise MemoryError
        self.s.budget.node_used = &NODE_DRAWN
        self.live = True

    def free(self):
        """Frees the session; its ends live on while somebody holds them."""
        if self.live:
            self.live = False
            session_free(&self.s)
            keys_free(self.s.sealer.keys, CACHE)
            self.s.sealer.keys = NULL

    def __dealloc__(self):
        self.free()
        drop_pins(self.s.pins)
        drop_pins(self.pins)

    def open(self, name, uint64_t codec=1, bytes schema=bytes(16), capacity=None, uint8_t overflow=0,
             uint64_t ttl_ms=0, uint8_t kind=0, bint trunk=False):
        cdef End end = End.__new__(End)
        cdef bytes raw = name if isinstance(name, bytes) else name.encode()
        end.side = self
        end.events = []
        end.e = end_open(&self.s, kind, <const uint8_t*><char*>raw, len(raw), codec, <const uint8_t*><char*>schema,
                         0 if capacity is None else capacity + 1, overflow, ttl_ms, trunk)
        if end.e is NULL:
            raise ValueError("name")
        self.ends[<size_t>end.e] = end
        end_mark(end.e)
        return end

    def released(self):
        """Pinned values that came out since the last call; their references are dropped."""
        cdef nc_seg* own = self.pins
        cdef nc_seg* session = self.s.pins
        self.pins = self.s.pins = NULL
        return drop_pins(own) + drop_pins(session)

    def several_paths(self):
        """From now on bytes of a stream may overtake each other."""
        self.s.in_order = 0

    cdef nc_path* way(self, path) except? NULL:
        cdef nc_path* p
        if path is None:
            return self.s.control if self.s.control is not NULL else self.s.last
        p = path_find(&self.s, path)
        if p is NULL:
            raise LookupError(f"no path {path}")
        return p

    def paths(self):
        """Ids of the paths that live, in order; the one that carries control."""
        cdef nc_path* p = self.s.paths
        out = []
        while p is not NULL:
            out.append(p.id)
            p = p.next
        return out, (self.s.control.id if self.s.control is not NULL else None)

    def mode(self, int mode, int k=2, int m=1):
        session_mode(&self.s, mode, k, m, self.now)

    def modes(self):
        """In force: the session's; then by stream id those of streams that have one of their own."""
        cdef uint32_t at = 0
        cdef nc_end* e
        own = {}
        while True:
            e = <nc_end*>idmap_next(&self.s.outs, &at)
            if e is NULL:
                return self.s.mode, own
            if e.own:
                own[e.out.id] = e.own - 1

    def looks(self):
        """A mode is picked, and there is a time for the next look."""
        return self.s.auto_at != TIMER_NEVER

    def measured(self, path):
        """Of a stream path: bytes a second, shortest round trip in ns, bytes in flight."""
        cdef nc_path* p = self.way(path)
        return p.rate, p.min_rtt, p.tx_bytes - p.acked_bytes

    def pass_control(self, path):
        return session_pass(&self.s, self.way(path))

    def recv(self, data, path=None):
        cdef bytearray buf = bytearray(data)
        cdef nc_path* way = self.way(path)
        cdef size_t n = len(buf)
        cdef uint8_t* p = <uint8_t*>malloc(n if n else 1)
        memcpy(p, <char*>buf, n)
        rc = session_recv(&self.s, way, p, n, self.now) if way is not NULL and way.alive else defs.NC_ECLOSED
        free(p)
        session_forget_gone(&self.s)
        return rc

    def send(self, size_t cap=65536, path=None):
        """Bytes to transmit, b"": none, or a negative code."""
        cdef nc_path* way = self.way(path)
        cdef uint8_t* p = <uint8_t*>malloc(cap)
        n = session_send(&self.s, way, p, cap, self.now)
        out = (<const char*>p)[:n] if n >= 0 else n
        free(p)
        return out

    def wants_send(self):
        return session_wants_send(&self.s) == 1

    def deadline(self):
        return session_deadline(&self.s)

    def on_deadline(self):
        session_on_deadline(&self.s, self.now)
        session_forget_gone(&self.s)

    def path_lost(self, path=None):
        cdef nc_path* way = self.way(path)
        if way is not NULL:
            session_path_lost(&self.s, way, self.now)
        session_forget_gone(&self.s)

    def said(self):
        """Each path had its turn."""
        session_said(&self.s)

    cdef nc_dgram* flight(self, uint32_t path_id, mtu, bint search) except? NULL:
        cdef uint8_t[8] cid
        cdef nc_dgram* d
        if mtu is None:
            return NULL
        memset(cid, path_id & 0xFF, 8)
        d = flight_new(cid, cid, mtu, self.s.seed)
        if d is not NULL and not search:
            d.probe_at = INT64_MAX
        return d

    def add(self, uint32_t path_id, bytes binding, mtu=None, bint search=False):
        """A path beside the others; mtu: a datagram path; search: it looks for what goes through."""
        cdef nc_path* p = NULL
        cdef nc_dgram* d = self.flight(path_id, mtu, search)
        rc = session_add(&self.s, path_id, <const uint8_t*><char*>binding, d, self.now, &p)
        if rc < 0:
            flight_free(d)
        return rc

    def send_datagram(self, path):
        """One datagram, b"": none, or a negative code."""
        cdef uint8_t[2048] p
        n = session_send_datagram(&self.s, self.way(path), p, sizeof(p), self.now)
        return (<const char*>p)[:n] if n >= 0 else n

    def marks(self, path):
        """Whether what is sent next leaves with a mark, as a carrier asks before each batch."""
        cdef nc_path* p = self.way(path)
        return ecn_turn(&p.d.ecn, p.tx_number, p.d.pto_count)

    def ecn(self, path):
        """What a datagram path knows of congestion marks."""
        cdef nc_ecn* e = &self.way(path).d.ecn
        return {"state": e.state, "sent": e.sent, "said": list(e.said), "got": list(e.got),
                "told": self.way(path).d.n_marked}

    def recv_datagram(self, data, path, int mark=0):
        cdef bytes raw = bytes(data)
        cdef size_t n = len(raw)
        cdef nc_path* way = self.way(path)
        cdef uint8_t* p = <uint8_t*>malloc(n if n else 1)
        memcpy(p, <const char*>raw, n)
        way.d.ecn.here = <uint8_t>mark
        rc = session_recv_datagram(&self.s, way, p, n, self.now)
        free(p)
        session_forget_gone(&self.s)
        return rc

    def tell_token(self, path, bytes token):
        """NEW_CID is to be said of this path, with a cid of 8 and a token of 16 bytes."""
        flight_token(self.way(path).d, <const uint8_t*><char*>token)

    def token_of(self, path):
        """The cid and the token of the peer, or None; whether ours are still to be told."""
        cdef nc_dgram* d = self.way(path).d
        return (<const char*>d.cid)[:8] + (<const char*>d.token)[:16] if d.token_known else None, bool(d.token_due)

    def flying(self, path):
        """What a datagram path has on its way."""
        cdef nc_path* p = self.way(path)
        if p.d is NULL:
            return None
        return {"cwnd": p.d.cc.cwnd, "in_flight": p.d.cc.in_flight, "eliciting": p.d.eliciting, "lost": p.d.n_lost,
                "found": p.d.n_found, "refused": p.d.n_refused, "timeouts": p.d.n_timeouts, "srtt": p.srtt,
                "rttvar": p.rttvar, "min_rtt": p.min_rtt, "tx": p.tx_number, "acked": p.acked,
                "ssthresh": p.d.cc.ssthresh, "pto_count": p.d.pto_count, "pace_at": p.d.pace_at,
                "loss_at": p.d.loss_at, "limited": p.d.cc.limited, "log": p.log_next - p.log_first,
                "sent_cap": p.sent_cap, "scan": p.d.scan, "largest": p.d.largest_acked, "reordered": p.d.reordered,
                "oldest_at": p.oldest_at, "suspect": p.suspect, "ack_at": p.ack_at, "rx": p.rx_number,
                "acked_ranges": p.d.acked.len, "got_ranges": p.d.got.len, "recovery_at": p.d.cc.recovery_at,
                "losses": p.d.cc.losses, "skip_at": p.d.skip_at, "mtu": p.d.mtu, "probes": p.d.probes,
                "number_size": p.d.number_size, "latest_rtt": p.d.latest_rtt}

    def doubt(self, path):
        """Somebody knows that the way of this path is gone."""
        session_path_doubt(&self.s, self.way(path), self.now)

    def standby(self, path, bint on):
        """We want it used only where no other one lives, or no more."""
        session_standby(&self.s, self.way(path), on)

    def state_of(self, path):
        """As the program sees it, who wants it to stand by, and when PING is due next behind how long a silence."""
        cdef nc_path* p = self.way(path)
        return {"state": path_state(&self.s, p), "standby": p.standby, "aside": p.aside, "ping_at": p.ping_at,
                "ping_gap": p.ping_gap, "srtt": p.srtt, "rttvar": p.rttvar}

    def path_events(self):
        """What became of the paths: (path, state, state before) each, and how many there was no room for."""
        out = []
        while self.s.n_events:
            x = self.s.events[self.s.events_first & (EVENTS_KEPT - 1)]
            out.append((x.path, x.what, x.before))
            self.s.events_first += 1
            self.s.n_events -= 1
        lost = self.s.events_lost
        self.s.events_lost = 0
        return out, lost

    def path_ping(self, path):
        """PING is due on this path."""
        self.way(path).ping_due = 1

    def unacked(self, path):
        """Records sent on this path from the oldest on that was not acknowledged."""
        cdef nc_path* p = self.way(path)
        return p.tx_number - p.acked

    def groups(self):
        """Groups that name an end, and ends in the table that have one: as many, or one names an end that is gone."""
        cdef nc_group* g = self.s.groups
        cdef nc_end* e
        cdef uint32_t i = 0
        named = held = 0
        while g is not NULL:
            named += g.end is not NULL
            g = g.next
        while True:
            e = <nc_end*>idmap_next(&self.s.outs, &i)
            if e is NULL:
                return named, held
            held += e.group is not NULL

    def late(self):
        """(groups whose symbols come late, bytes of the rows of all groups)"""
        cdef nc_group* g = self.s.late
        n = 0
        while g is not NULL:
            n += 1
            g = g.next
        return n, self.s.group_bytes

    def order(self):
        """Numbers said, acknowledged without a gap, acted on; how many wait here."""
        cdef nc_order* o = self.s.order
        return None if o is NULL else (o.next, o.floor, o.want, o.n_kept)

    def join(self, uint32_t path_id, uint32_t last):
        """Records received on path ``last``, or a code."""
        return session_join(&self.s, path_id, last)

    def resume(self, uint32_t path_id, uint32_t last, uint64_t received, bytes binding, mtu=None,
               bint search=False):
        cdef nc_path* p = NULL
        cdef nc_dgram* d = self.flight(path_id, mtu, search)
        rc = session_resume(&self.s, path_id, last, received, <const uint8_t*><char*>binding, d, self.now, &p)
        if rc < 0:
            flight_free(d)
        session_forget_gone(&self.s)
        return rc

    cdef nc_end** loose_ends(self, uint32_t* n) except NULL:
        """Ends that the session has forgotten and of which values are left to take; free() them."""
        cdef nc_end** out = <nc_end**>malloc((len(self.ends) + 1) * sizeof(nc_end*))
        cdef End end
        n[0] = 0
        for end in self.ends.values():
            if end.e is not NULL and not end.e.bound and end.e.paired and in_pending(end.e.in_):
                out[n[0]] = end.e
                n[0] += 1
        return out

    def hold(self):
        """The session is about to move; its application waits."""
        cdef uint32_t n
        cdef nc_end** loose = self.loose_ends(&n)
        self.held = sorted(<size_t>loose[i] for i in range(n))
        session_hold(&self.s, loose, n)
        free(loose)

    cdef nc_end** held_ends(self) except NULL:
        cdef nc_end** out = <nc_end**>malloc((len(self.held) + 1) * sizeof(nc_end*))
        for i, at in enumerate(self.held):
            out[i] = <nc_end*><size_t>at
        return out

    def unhold(self):
        cdef nc_end** loose = self.held_ends()
        session_unhold(&self.s, loose, <uint32_t>len(self.held))
        free(loose)

    def write(self):
        """The state of a session that is held, or a code."""
        cdef uint8_t* p = NULL
        cdef size_t n = 0
        cdef nc_end** loose = self.held_ends()
        rc = session_write(&self.s, loose, <uint32_t>len(self.held), self.now, &p, &n)
        free(loose)
        if rc < 0:
            return rc
        out = (<const char*>p)[:n]
        free(p)
        return out

    def moved(self):
        session_moved(&self.s)

    def secrets(self):
        """All bytes of the block of secrets: zeros when they are wiped."""
        return (<const char*>self.s.sealer.keys.x)[:sizeof(self.s.sealer.keys.x[0])]

    @staticmethod
    def read(bytes state, int64_t now, uint64_t seed=9, bytes mix=b"m" * 32):
        """A session from another process, or the code why not."""
        cdef Side side
        cdef size_t n = len(state)
        cdef uint8_t* p = <uint8_t*>malloc(n if n else 1)       # an exact copy: reading beyond it is seen
        need_store()
        side = Side.__new__(Side, 0, blank=True, now=now)
        memcpy(p, <const char*>state, n)
        rc = session_read(&side.s, p, n, STORE, &NODE_DRAWN, seed, <const uint8_t*><char*>mix, now)
        free(p)
        if rc < 0:
            side.free()
            return rc
        return side

    def adopted(self):
        """Ends that came with the session and nobody has taken, oldest first: (place, name, stream id)."""
        cdef nc_end* e
        out = []
        for i in range(self.s.n_adopted):
            e = self.s.adopted[i]
            if e is not NULL:
                out.append((i, (<const char*>e.name)[:e.name_len], e.out.id))
        return out

    def adopt(self, uint32_t place):
        """Takes one of them."""
        cdef End end = End.__new__(End)
        end.side = self
        end.events = []
        end.e = self.s.adopted[place]
        self.s.adopted[place] = NULL
        self.ends[<size_t>end.e] = end
        return end

    @property
    def nonce_violations(self):
        """Numbers that were to be used again under a key; None: this build does not look."""
        return self.s.sealer.keys.mono_violations if self.s.sealer.keys.mono is not NULL else None

    def ratchet(self, uint64_t number, bytes secret):
        """Both sides have agreed on 32 bytes; the responder is told first."""
        session_ratchet_secret(&self.s, number, <const uint8_t*><char*>secret)

    def ticket_send(self, uint64_t life_s, bytes ticket):
        return session_ticket_send(&self.s, life_s, <const uint8_t*><char*>ticket, len(ticket))

    def ticket_take(self):
        """(life, ticket) of the newest one that came, or None."""
        cdef uint8_t* p = NULL
        cdef uint64_t life = 0
        cdef size_t n = session_ticket_take(&self.s, &life, &p)
        try:
            return (life, (<const char*>p)[:n]) if n else None
        finally:
            free(p)

    def replaced(self):
        session_replaced(&self.s)

    def close(self, uint16_t code, bytes reason=b""):
        session_close(&self.s, code, <const uint8_t*><char*>reason, len(reason))

    def ready(self):
        """Ends with news, as (end or None when it was released, bits)."""
        cdef nc_end* e
        cdef uint32_t bits = 0
        out = []
        while True:
            e = session_next_ready(&self.s, &bits)
            if e is NULL:
                return out
            end = self.ends.get(<size_t>e)
            if end is not None:
                end.events.append(bits)
            out.append((end, bits))
            end_release(e, &self.pins)

    def offers(self):
        """Names, capacity figures and codecs of channels offered since the last call."""
        cdef nc_offer* o
        out = []
        while True:
            o = session_next_offer(&self.s)
            if o is NULL:
                return out
            figure = None if o.capacity_wanted == 0 else o.capacity_wanted - 1
            out.append(((<const char*>o.name)[:o.name_len], figure, o.codec))

    def released(self):
        """Pinned values that came out since the last call."""
        cdef nc_seg* a = self.pins
        cdef nc_seg* b = self.s.pins
        self.pins = NULL
        self.s.pins = NULL
        return drop_pins(a) + drop_pins(b)

    def state(self):
        cdef nc_session* s = &self.s
        cdef nc_path* p = s.control if s.control is not NULL else s.last if s.last is not NULL else &NO_PATH
        return {"state": s.state, "code": s.close_code, "by_us": bool(s.close_by_us), "abrupt": bool(s.abrupt),
                "reason": (<const char*>s.reason)[:s.reason_len], "outs": s.outs.len, "ins": s.ins.len,
                "offers": s.offers.len, "n_offers": s.n_offers, "n_new": s.n_new, "opened": s.opened,
                "max_streams": s.max_streams, "peer_max": s.peer_max,
                "budget": s.budget.left, "drawn": s.budget.drawn, "turn": s.budget.turn, "waiting": s.budget.waits,
                "node_used": NODE_DRAWN, "tx": p.tx_number, "rx": p.rx_number, "acked": p.acked,
                "rekey": s.rekey_state, "have": s.ratchet_have, "ratchets": s.ratchets,
                "path": p.id, "alive": bool(p.alive), "in_order": bool(s.in_order),
                "suspended": bool(s.suspended), "suspect": bool(s.suspect),
                "resumes": s.stats.resumes, "resent": s.stats.resent, "resets": s.stats.resets,
                "parity_sent": s.stats.parity_sent, "rebuilt": s.stats.rebuilt,
                "log": p.log_next - p.log_first, "log_cap": p.log_cap,
                "again": s.replay.n - s.replay.next, "again_cap": s.replay.cap, "again_log": s.replay.log_cap,
                "failed": s.sealer.keys.st.failed if s.sealer.keys is not NULL else 0,
                "derived": STORE.derived,
                "sent_cap": p.sent_cap, "left_cap": p.left_cap, "srtt": p.srtt,
                "epoch": s.sealer.keys.owner.send_epoch if s.sealer.keys is not NULL else 0,
                "updates": s.sealer.keys.updates if s.sealer.keys is not NULL else 0,
                "trunk_records": s.stats.trunk_records, "trunk_waits": p.trunk_next - p.trunk_first,
                "records_sent": s.stats.records_sent, "records_received": s.stats.records_received,
                "messages_sent": s.stats.messages_sent, "messages_received": s.stats.messages_received,
                "pings": s.stats.pings, "acks": s.stats.acks, "dropped_bytes": s.stats.dropped_bytes}


cdef class Pair:
    """Two sides, initiator ``a`` and responder ``b``, and the bytes between them."""

    cdef public Side a
    cdef public Side b
    cdef public bytearray ab
    cdef public bytearray ba

    def __init__(self, mine=None, peer=None, limits=None, seed=5):
        self.a = Side(0, mine=mine, peer=peer, limits=limits, seed=seed)
        self.b = Side(1, mine=peer, peer=mine, limits=limits, seed=seed + 1)
        self.ab = bytearray()
        self.ba = bytearray()

    def collect(self, size_t cap=65536):
        """What both sides have to say goes into the pipes; how many bytes."""
        n = 0
        for side, pipe in ((self.a, self.ab), (self.b, self.ba)):
            while True:
                got = side.send(cap)
                if isinstance(got, int) or not got:
                    break
                pipe += got
                n += len(got)
        return n

    def deliver(self, size_t ab=1 << 30, size_t ba=1 << 30):
        """Up to so many bytes of each pipe arrive."""
        if self.ab and ab:
            x = bytes(self.ab[:ab])
            del self.ab[:ab]
            self.b.recv(x)
        if self.ba and ba:
            x = bytes(self.ba[:ba])
            del self.ba[:ba]
            self.a.recv(x)

    def run(self, int rounds=50, chunk=None):
        """Until nothing moves at this moment; chunk: callable that gives the size of each delivery."""
        for _ in range(rounds):
            n = self.collect()
            if n == 0 and not self.ab and not self.ba:
                return
            while self.ab or self.ba:
                if chunk is None:
                    self.deliver()
                else:
                    self.deliver(chunk(), chunk())
        raise AssertionError(f"still talking after {rounds} rounds")

    def sleep(self, int64_t ns):
        """The clocks move on, deadline by deadline, and everything due is exchanged."""
        cdef int64_t until = self.a.now + ns
        cdef int64_t at
        cdef int guard = 0
        self.run()
        while True:
            at = min(self.a.deadline(), self.b.deadline())
            if at > until:
                break
            guard += 1
            if guard > 10000:
                raise AssertionError("deadlines do not move on")
            self.a.now = self.b.now = max(self.a.now, at)
            self.a.on_deadline()
            self.b.on_deadline()
            self.run()
        self.a.now = self.b.now = until

    def free(self):
        self.a.free()
        self.b.free()


# A datagram path of a peer.
cdef class _Way:
    cdef int key
    cdef bytes binding
    cdef uint64_t tx                    # number of the next datagram
    cdef uint64_t expected              # one above the largest number opened


cdef class Peer:
    """The other end of a session, in the hands of a test: seals whatever it is told, opens what it gets."""

    cdef nc_sealer sealer
    cdef dict ways
    cdef int path
    cdef public uint64_t tx
    cdef public uint64_t rx
    cdef bytes binding
    cdef bytearray left

    def __cinit__(self, int role, bytes root=bytes(32), bytes binding=b"b" * 32):
        need_store()
        self.sealer.cache = CACHE
        self.sealer.keys = new_keys(root, role, {})
        self.path = keys_path_add(self.sealer.keys, 0, 1)
        self.binding = binding
        self.left = bytearray()
        self.ways = {}

    def __dealloc__(self):
        if self.sealer.keys is not NULL:
            keys_free(self.sealer.keys, CACHE)

    def seal(self, uint64_t tag, bytes frames, bytes tail=None, int64_t number=-1, binding=True):
        """One record. number: -1 = the next one."""
        cdef size_t head = record_head_size(tag)
        cdef size_t n = len(frames), t = len(tail) if tail is not None else 0
        cdef bytearray rec = bytearray(head + n + t + 16)
        cdef uint8_t* p = <uint8_t*><char*>rec
        cdef const uint8_t* b = NULL
        cdef const uint8_t* q = NULL
        cdef bytes bound = self.binding
        if number < 0:
            number = self.tx
            self.tx += 1
        if number == 0 and binding:
            b = <const uint8_t*><char*>bound
        if tail is not None:
            q = <const uint8_t*><const char*>tail
        memcpy(p + head, <const char*>frames, n)
        rc = record_seal(&self.sealer, self.path, number, tag, p, n, q, t, b, 0)
        return bytes(rec[:rc]) if rc > 0 else rc

    def open(self, data):
        """[(tag, frames)] of the records that are whole now; raises ValueError with the code if one does not open."""
        cdef bytearray rec
        cdef uint8_t* p
        cdef uint8_t* body = NULL
        cdef size_t n = 0
        cdef uint64_t tag = 0
        cdef const uint8_t* b
        cdef bytes bound = self.binding
        self.left += data
        out = []
        while len(self.left) >= 2:
            size = record_size(<uint8_t*><char*>self.left)
            if size < 0:
                raise ValueError(size)
            if size > len(self.left):
                break
            rec = self.left[:size]
            del self.left[:size]
            p = <uint8_t*><char*>rec
            b = <const uint8_t*><char*>bound if self.rx == 0 else NULL
            rc = record_open(&self.sealer, self.path, self.rx, p, size, b, 0, &tag, &body, &n)
            if rc < 0:
                raise ValueError(rc)
            self.rx += 1
            out.append((tag, (<const char*>body)[:n]))
        return out

    def update(self):
        """Our next epoch, without asking."""
        return keys_update(self.sealer.keys, CACHE, NULL, 0)

    def secret(self, bint sends):
        """Key of the header protection of one direction."""
        return (<const char*>keys_secret(self.sealer.keys, KEYS_HP_SEND if sends else KEYS_HP_RECV))[:32]

    @property
    def cipher(self):
        return PROVIDER.ciphers[0]

    def failed(self):
        """Tags that did not hold here."""
        return self.sealer.keys.st.failed

    def add_datagram_path(self, uint32_t path_id, bytes binding):
        """As Side.add with an mtu."""
        cdef _Way way = _Way.__new__(_Way)
        if len(binding) != 32:
            raise ValueError("binding of 32 bytes")
        way.key = keys_path_add(self.sealer.keys, path_id, 2)
        if way.key < 0:
            raise ValueError(way.key)
        way.binding = binding
        self.ways[path_id] = way

    def number(self, uint32_t path_id):
        """Of the next datagram that is sealed here without one."""
        return (<_Way>self.ways[path_id]).tx

    def seal_part(self, uint32_t path_id, uint64_t number, uint64_t tag, bytes head, bytes frames):
        """One record of a datagram under any header (without the binding): for headers that a test writes itself."""
        cdef _Way way = self.ways[path_id]
        cdef bytes aad = head + way.binding
        cdef size_t n = len(frames)
        cdef bytearray out = bytearray(n + 16)
        cdef uint8_t* p = <uint8_t*><char*>out
        memcpy(p, <const char*>frames, n)
        rc = keys_seal(self.sealer.keys, CACHE, way.key, number, tag, <const uint8_t*><const char*>aad, len(aad), p, n,
                       0)
        if rc < 0:
            raise ValueError(rc)
        return bytes(out[:rc])

    def mask(self, bytes data):
        """The same datagram with the protection of its header put on: what the core does at the end of sealing."""
        cdef bytearray out = bytearray(data)
        cdef uint8_t* p = <uint8_t*><char*>out
        cdef uint8_t[16] zeros
        cdef uint8_t[16] mask
        cdef uint8_t[16] tag
        cdef size_t n = len(out)
        cdef int i
        cdef nc_ctx* ctx = cache_seal(CACHE, self.sealer.keys.owner.serial, 2, <uint32_t>0xFFFFFFFF,
                                      keys_secret(self.sealer.keys, KEYS_HP_SEND))
        memset(zeros, 0, 16)
        if n < 40 or ctx is NULL or ctx.t.seal(ctx, p + n - 12, NULL, 0, zeros, 16, mask, tag) < 0:
            raise ValueError("too short to be masked")
        p[0] ^= mask[0] & 0x3F
        for i in range(15):
            p[1 + CID_SIZE + i] ^= mask[1 + i]
        return bytes(out)

    def seal_datagram(self, uint32_t path_id, records, int64_t number=-1, int size=2, bytes cid=None, bint pad=True):
        """A datagram of records [(tag, frames) ...]; the core itself sends one in each. number: -1 = the next one;
        pad: records below the least length get PADDING.
        """
        cdef _Way way = self.ways[path_id]
        cdef uint8_t[8] varint
        cdef list parts = [(tag, frames + bytes(8 - len(frames)) if pad and len(frames) < 8 else frames)
                           for tag, frames in records]
        cdef bytes head
        cdef uint64_t tag
        if number < 0:
            number = way.tx
            way.tx += 1
        head = bytes([0x40 | (size - 1)]) + (bytes([path_id & 0xFF] * 8) if cid is None else cid)
        head += (<uint64_t>number & ((<uint64_t>1 << (8 * size)) - 1)).to_bytes(size, "big")
        head += bytes([keys_epoch_byte(self.sealer.keys), len(parts)])
        for tag, frames in parts:
            head += (<const char*>varint)[:varint_write(varint, tag)] + (len(frames) + 16).to_bytes(2, "big")
        return self.mask(head + b"".join(self.seal_part(path_id, number, tag, head, frames) for tag, frames in parts))

    def quick_datagram(self, uint32_t path_id, uint64_t tag, bytes frames):
        """One record under the next number, sealed by the core: for tests of tens of thousands."""
        cdef _Way way = self.ways[path_id]
        cdef size_t head = dgram_head_size(4, tag)
        cdef size_t n = len(frames) if len(frames) >= 8 else 8
        cdef uint8_t[8] cid
        cdef uint8_t[2048] p
        if n > 1600:
            raise ValueError("too long")
        memset(cid, path_id & 0xFF, 8)
        memset(p + head, 0, n)
        memcpy(p + head, <const char*>frames, len(frames))
        rc = dgram_seal(&self.sealer, way.key, cid, way.tx, 4, tag, <const uint8_t*><const char*>way.binding, p, n,
                        NULL, 0, 0)
        if rc < 0:
            raise ValueError(rc)
        way.tx += 1
        return (<const char*>p)[:rc]

    def open_datagram(self, uint32_t path_id, bytes data, expected=None):
        """(number, epoch byte, [(tag, frames) ...]); ValueError with the code if it does not open."""
        cdef _Way way = self.ways[path_id]
        cdef bytearray buf = bytearray(data)
        cdef uint8_t* p = <uint8_t*><char*>buf
        cdef nc_dgram_head h
        cdef size_t at
        cdef uint32_t i
        rc = dgram_unmask(&self.sealer, p, len(buf), way.expected if expected is None else expected, &h)
        if rc < 0:
            raise ValueError(rc)
        rc = dgram_open(&self.sealer, way.key, &h, <const uint8_t*><const char*>way.binding, p, 0, 1 << 60)
        if rc < 0:
            raise ValueError(rc)
        if h.number >= way.expected:
            way.expected = h.number + 1
        at = h.size
        out = []
        for i in range(h.n):
            out.append((h.tags[i], bytes(buf[at:at + h.lens[i] - 16])))
            at += h.lens[i]
        return h.number, h.epoch, out

    def update_acked(self):
        """Our newest epoch has been acknowledged, whether or not it has."""
        return keys_update_acked(self.sealer.keys, self.sealer.keys.owner.send_epoch)
