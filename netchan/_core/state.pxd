# state: what a session is made of, and the lists of its ends. Layer: _core, rung g; types and inline list steps only.
#
# 1. nc_end is the application's side of a channel: it appends to end.out and takes from end.in_ under their leaf
#    locks, sets request bits (end_request) and pushes the end on the session's dirty list (end_mark); no more.
# 2. ends.pyx opens, pairs and ends them, inbound.pyx acts on what the peer sends, outbound.pyx writes, session.pyx is
#    the clock.
# Threads: fields marked app are the application's (GIL), atomics as said, all else belongs to the holder of the baton.
# Ownership: a session owns its paths, tables and, together with the application, its ends (refs): each list that an
# end is on holds one. A path that is over stays where it is until session_forget_gone, so that its carrier finds it.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netchan._core.budget cimport nc_budget
from netchan._core.congestion cimport nc_cc
from netchan._core.ecn cimport nc_ecn
from netchan._core.idmap cimport nc_idmap
from netchan._core.leaf cimport fetch_add_u32, load_acq_u64, load_seq_u32, nc_leaf
from netchan._core.order cimport nc_order
from netchan._core.ranges cimport nc_ranges
from netchan._core.record cimport nc_sealer
from netchan._core.replay cimport nc_replay as nc_window
from netchan._core.inbox cimport nc_in
from netchan._core.outbox cimport nc_out
from netchan._core.segment cimport nc_seg

cdef enum nc_control:                # bits of end.ctl: control frames to write
    CTL_POS = 1
    CTL_STOP = 2
    CTL_ABORT = 4
    CTL_ASK = 8
    CTL_WANT = 16
    CTL_WITHDRAW = 32
    CTL_WITHDRAWN = 64

cdef enum:
    NAME_BUCKETS = 64               # chains of unpaired names
    PATH_CLOSES = 8                 # PATH_CLOSE that wait; what is too much the other side finds out by silence
    EVENTS_KEPT = 16                # news of paths that wait for the application; a power of two

cdef enum nc_session_state:
    SESSION_UP = 0
    SESSION_CLOSING = 1             # SESSION_CLOSE will be sent, then nothing
    SESSION_OVER = 2                # closed by either side, or lost
    SESSION_SUSPENDED = 3           # no path; all is kept until one comes or the lease is over

cdef enum nc_silence:               # nc_path.suspect
    PATH_HEARD = 0
    PATH_SUSPECT = 1                # owes an acknowledgement for longer than another path would take
    PATH_SILENT = 2                 # so long that another one is to be made

cdef enum nc_standby:               # bits of nc_path.standby: who wants it used only where no other path lives
    STANDBY_OURS = 1
    STANDBY_THEIRS = 2

cdef enum nc_path_state:            # as the program sees a path, or the session (events.pxd)
    STATE_NEW = 0                   # nothing was said of it yet
    STATE_ACTIVE = 1
    STATE_STANDBY = 2
    STATE_SUSPECT = 3
    STATE_LOST = 4
    STATE_SUSPENDED = 5             # of the session: its last path is lost
    STATE_RESUMED = 6               # it has one again

cdef enum nc_mode:                  # what several paths are used for (session.md §5.3)
    MODE_FAILOVER = 0               # one carries, the others stand by
    MODE_STRIPE = 1                 # bulk data on all of them
    MODE_MIRROR = 2                 # everything on all of them; what arrives first counts
    MODE_PARITY = 3                 # bulk data on all of them, and symbols that make up for what one of them loses
    MODE_AUTO = 4                   # asked for only: one of the others is in force, as was measured (auto.pxd)

cdef enum nc_own_modes:             # bits: what some stream has been set to that the session is not
    OWN_SPREADS = 1                 # stripe or parity
    OWN_MIRRORS = 2
    OWN_OTHER = 4
    OWN_AUTO = 8                    # bit for good: streams are looked at, too

cdef enum nc_event:                 # bits: what an end waits for (end.waiting) and what happened to it (end.ready)
    EV_RECV = 1                     # a value, or the direction is over
    EV_SEND = 2                     # room, or the direction is over
    EV_ACK = 4                      # received or taken moved
    EV_STATE = 8                    # paired, refused: always reported

cdef enum nc_request:               # bits an application sets in end.requests
    REQ_STOP = 1                    # STOP the incoming stream
    REQ_ABORT = 2                   # ABORT the channel (end.abort_code, end.reason)
    REQ_END_AFTER = 4               # ABORT behind the data (end.end_code): dropped, left by exception
    REQ_ASK = 8                     # ASK for end.ask_received / ask_taken
    REQ_POS = 16                    # the application took values: say so
    REQ_WITHDRAW = 32               # offers are to be taken back (out.offers.wanted)
    REQ_WANT = 64                   # end.parked has changed

cdef struct nc_session
cdef struct nc_end
cdef struct nc_path
cdef struct nc_group

cdef enum nc_sent_state:            # of a datagram
    SENT_FLIGHT = 0
    SENT_ACKED = 1
    SENT_LOST = 2                   # its frames are sent again; should it have arrived after all, that still counts
    SENT_NONE = 3                   # no datagram has this number

cdef enum nc_token:                 # nc_dgram.token_known
    TOKEN_NONE = 0
    TOKEN_KNOWN = 1
    TOKEN_CAME = 2                  # a datagram ended with it: the path is lost

# What is known of paths and traffic where a mode is picked (auto.pyx).
ctypedef struct nc_figures:
    uint64_t rate                   # bytes of values a second, smoothed
    uint64_t size                   # of a value, smoothed
    uint64_t waits                  # bytes that waited to be sent
    int64_t rtt                     # ns, the shortest of the paths
    uint32_t loss                   # of a million datagrams, the worst path
    uint8_t paths                   # those that are not suspect
    uint8_t trouble                 # one fell silent or was lost not long ago

# A mode that is picked.
ctypedef struct nc_auto:
    nc_figures seen                 # at the last look
    nc_figures decided              # when the mode in force was picked
    int64_t since                   # when that was
    int64_t looked_at               # 0: nothing to compare with
    uint64_t bytes                  # of the stream or session at that look
    uint64_t messages
    uint8_t why                     # nc_auto_why
    uint8_t wanted                  # nc_mode that the last looks would have picked
    uint8_t looks                   # so many of them, in a row

# What a datagram path has beside the rest of a path (flight.pyx).
cdef struct nc_dgram:
    uint8_t cid[8]                  # chosen by the peer: names the path in what we send
    uint8_t own_cid[8]              # chosen here: what the exchange gives, or what is told with own_token
    uint8_t token[16]               # of the peer: what ends with it says that it knows the path no more
    uint8_t own_token[16]           # ours, to be told
    uint8_t token_known             # nc_token
    uint8_t token_due               # NEW_CID is to be said
    uint32_t mtu                    # bytes of a datagram at most
    int number_size                 # bytes of the number of the datagram that is being built
    # receiver
    nc_window window                # numbers that were received
    nc_ranges got                   # the newest of them, to be acknowledged
    int64_t largest_at              # when the largest came
    uint32_t unacked                # eliciting ones that were not acknowledged yet
    uint64_t ack_here               # for nc_sent.pos of the datagram that is being built
    # sender
    nc_ranges acked                 # numbers from nc_path.acked on that were acknowledged
    uint64_t largest_acked          # one above; 0: none
    uint64_t scan                   # all below were acknowledged or given up
    int64_t loss_at                 # when the next one counts as lost; TIMER_NEVER
    int64_t eliciting_at            # when the last eliciting one was sent
    uint32_t eliciting              # of these in flight
    uint32_t pto_count              # probe timeouts in a row
    uint32_t probes                 # datagrams that may go whatever the window says
    uint64_t skip_at                # this number is left out: who acknowledges it lies (RFC 9000 §21.4)
    uint32_t reordered              # datagrams by which one may be late (RFC 9002 §6.1.1, grown by what was seen)
    int64_t pace_at                 # what waits may leave then; TIMER_NEVER: nothing waits for the pace
    # a new address of the peer is proved before anything but this goes there (RFC 9000 §8.2)
    uint8_t challenge[8]
    uint8_t challenged              # 1: waits for its answer, 2: it has come; CHALLENGED_NEVER
    uint8_t response_due
    uint8_t response[8]
    int64_t latest_rtt
    int64_t first_rtt_at            # when the first sample was made; 0: none
    nc_cc cc
    nc_ecn ecn
    # the search for what the path carries (RFC 8899): one longer datagram at a time that brings nothing
    uint64_t probe_number           # one above its number; 0: none is on its way
    int64_t probe_at                # not before this
    uint8_t probe_step              # which length is tried
    uint8_t probe_tries
    uint32_t long_lost              # rounds in a row in which long datagrams were lost and none was acknowledged
    int64_t long_at                 # when the last of them was counted
    uint64_t n_lost
    uint64_t n_found                # of these, that came after all
    uint64_t n_refused              # datagrams that did not open, or came again
    uint64_t n_timeouts
    uint64_t n_marked               # ACKs that told of congestion by a mark

# One path.
cdef struct nc_path:
    nc_path* next                   # of the session's list, in the order in which they came
    void* carrier                   # the engine's
    uint32_t id
    int key                         # index in the session's keys
    nc_dgram* d                     # owned; NULL: a stream path
    uint8_t alive
    uint8_t suspect                 # nc_silence
    uint8_t late                    # an acknowledgement is overdue: what waits for its turn here goes elsewhere
    uint8_t standby                 # nc_standby
    uint8_t aside                   # 1: nothing of the session's goes here: suspect, or standby while another one lives
    uint8_t status_due              # PATH_STATUS is to be said
    uint8_t shown                   # nc_path_state that was noted last
    uint8_t ping_due
    uint8_t close_said
    uint8_t epoch_waits             # 1: no record of our newest epoch was acknowledged here yet
    uint64_t epoch_at               # number of the first one
    uint64_t moved                  # records below are sent again on another path; their log is given back
    uint64_t whole_from             # as long as it carries control: nothing said before this record needs to come first
    uint64_t copy_from              # of the path that carries control: records from here on were copied to this one
    uint64_t copied                 # up to here
    uint64_t copies                 # number of the first of these copies here
    uint64_t copy_at                # and where in its log that is
    uint64_t beside_upto            # one above the last record of POS alone that others copy; not handed over: no loss
    uint64_t tx_number              # number of the next record sent
    uint64_t rx_number              # of the next record received
    uint64_t acked                  # records below this were acknowledged by the peer
    nc_sent* sent                   # owned ring of the records from `acked` on
    uint32_t sent_cap               # power of two
    uint8_t* log                    # owned ring: frames of the records in `sent`, as they were sealed
    uint32_t log_cap                # power of two
    uint64_t log_first              # positions in it, ever growing
    uint64_t log_next
    nc_trunk_sent* trunk            # owned ring: parts of trunk records that were not acknowledged yet, in order
    uint32_t trunk_cap              # power of two
    uint64_t trunk_first            # positions in it, ever growing
    uint64_t trunk_next
    uint8_t* left                   # owned: the begun record at the end of what was received
    size_t left_len
    size_t left_cap
    uint8_t binding[32]
    int64_t rx_at                   # last time something was received
    int64_t tx_at                   # last time something was sent
    int64_t oldest_at               # when the oldest unacknowledged eliciting record was sent
    uint64_t unacked_records        # received eliciting records not acknowledged yet
    uint64_t unacked_bytes
    int64_t ack_at                  # deadline of the ACK we owe; NEVER
    int64_t acked_at                # when we said the last one
    int64_t ping_at                 # deadline of the next PING when quiet
    int64_t ping_gap
    uint64_t status_said            # version of our PATH_STATUS
    uint64_t status_heard           # one above the largest of theirs; 0: none
    int64_t srtt                    # ns; 0: no sample
    int64_t rttvar
    int64_t min_rtt                 # ns; 0: no sample
    # how much bulk data may be in flight here beside other paths (rate.pxd)
    uint64_t tx_bytes               # sealed so far
    uint64_t acked_bytes            # of these in records below `acked`
    uint64_t rate                   # bytes a second that arrive over there; 0: not measured
    uint64_t rate_number            # of the record whose acknowledgement makes the next sample
    int64_t rate_at                 # when it was sent
    uint64_t rate_bytes             # acked_bytes at that time
    uint8_t rate_marked             # there is one
    uint8_t rate_steady             # samples in a row that were no better than the one before
    uint8_t limited                 # bulk data had to wait since then
    # datagrams, for a mode that is picked (auto.pyx)
    uint64_t look_sent              # at the last look
    uint64_t look_lost
    uint32_t loss                   # of a million, grown at once and forgotten slowly

ctypedef struct nc_trunk_sent:      # one stream's part of a trunk record
    uint64_t number                 # of the record
    uint64_t stream
    uint64_t upto
    uint64_t len                    # of its data, or what SKIP passed

ctypedef struct nc_sent:
    uint64_t stream                 # 0: control; 1: the trunk, whose streams are in nc_path.trunk
    uint64_t upto                   # stream offset behind its data
    uint64_t len                    # bytes of the stream before it that it brings, or passes by SKIP
    int64_t at                      # when it was sealed
    uint64_t pos                    # bytes of the path up to its end; of a datagram: one above the largest number that
                                    # an ACK in it names, 0: none; in a replay: where its frames begin in the log
    uint32_t log_len                # its frames in the log, where the session may be resumed
    uint32_t tail_len               # behind them: the last bytes before `upto`, which the outbox still holds
    uint32_t rekey                  # the epoch for which it announces what is mixed in; 0: none
    uint8_t eliciting
    uint8_t copy                    # nc_sent_copy (sent.pxd)
    uint8_t state                   # nc_sent_state; datagrams only
    uint8_t numbered                # `order` holds
    uint32_t order                  # low bits of the number it has in the order of the session (order.pxd)
    uint32_t log_at                 # low bits of the position of its frames in the log
    uint32_t size                   # of the datagram

# Records of paths that are gone or suspect which the peer may not have got, oldest first: sealed anew on another path.
ctypedef struct nc_replay:
    nc_sent* items                  # owned; pos counts from `log`
    uint8_t* log                    # owned
    uint32_t n
    uint32_t next
    uint32_t cap
    size_t log_len
    size_t log_cap

# A group of data symbols that is being sent, at its sender (group.pyx).
cdef struct nc_group:
    nc_group* next                  # of the session's list
    nc_group* before                # of those that come late
    nc_end* end                     # borrowed; NULL: it is over, or its symbols come late
    uint64_t stream
    uint64_t start                  # offset in the stream
    uint64_t n                      # bytes so far
    uint64_t room                   # bytes at `rows`
    uint8_t* rows                   # owned: the parity symbols as they grow, behind one another
    int64_t quiet_at                # the group ends here when nothing more comes; TIMER_NEVER
    int64_t old_at                  # and here in any case
    int64_t wait                    # ns from its first byte to that
    uint32_t size                   # bytes of a symbol
    uint8_t k                       # data symbols at most
    uint8_t m
    uint8_t open
    uint8_t used                    # the rows are not all zeros
    uint8_t closed                  # its parity symbols are to be said
    uint8_t later                   # the symbols of the group before come late, and have its rows
    uint8_t said                    # of these
    uint8_t turn                    # which path its first symbol takes
    uint8_t announce                # records that say that there will be a group
    # where its symbols went (dealing.pyx)
    int last                        # key of the path that took the record before; -1: none of this group
    uint8_t[64] carried             # symbols, or pieces of them, by the key of their path (KEYS_PATHS)

cdef struct nc_end:
    nc_session* session             # borrowed: outlives its ends' engine use
    nc_out out
    nc_in* in_                      # owned once paired; NULL: the other side has not opened
    # application and engine
    uint32_t refs                   # atomic
    uint32_t dirty                  # atomic: on the dirty list
    uint32_t requests               # atomic bits of nc_request
    uint32_t waiting                # atomic bits of nc_event
    uint32_t ready                  # atomic bits of nc_event, collected for the application
    uint32_t paired                 # atomic
    uint32_t over                   # atomic nc_over: receiving is over while in_ is NULL
    nc_end* dirty_next
    nc_end* open_next
    nc_end* app_next                # the engine's list for the application, with its bits, under the engine's leaf lock
    uint32_t app_bits
    uint8_t in_app
    void* user                      # application: its object, borrowed; only touched with the GIL
    # application, before the request bit is set
    uint64_t abort_code
    uint64_t end_code
    uint64_t ask_received
    uint64_t ask_taken
    uint32_t parked                 # atomic: receivers that wait here, for a rendezvous
    uint16_t reason_len
    uint8_t reason[256]
    # fixed at open
    uint64_t capacity_wanted        # 0: no figure; else capacity + 1
    uint64_t codec
    uint8_t schema[16]
    uint8_t trunk_wanted
    uint8_t overflow_wanted         # defs.nc_overflow
    uint64_t ttl_wanted             # ms; 0: none
    uint8_t kind                    # defs.nc_preface_kind: what `name` is
    uint64_t name_hash
    uint16_t name_len
    uint8_t name[256]
    # engine; read by the application after `paired`
    uint64_t capacity               # settled
    uint8_t overflow                # of our direction, settled; before: what we want
    uint8_t trunk                   # small DATA of both directions may ride in records of the trunk
    uint64_t peer_codec
    uint8_t peer_schema[16]
    uint64_t over_code              # of an abort of the whole channel
    uint8_t over_by_us
    # engine only
    nc_end* active_next             # round robin of ends with data
    nc_end* ctl_next                # ends with control to write
    nc_end* ready_next
    nc_end* name_next               # chain of unpaired ends
    uint8_t active
    uint8_t in_ctl
    uint8_t in_ready
    uint8_t ctl                     # CTL_ bits
    uint8_t bound                   # has a stream id and is in the table
    uint8_t unpaired                # on the chain of its name
    uint8_t out_done                # nothing more to say for the outgoing stream
    uint8_t in_done
    uint8_t abort_flags
    uint64_t named_at               # in a session with an order: of the last numbered record before it may be striped
    uint64_t want_version           # of the WANT said last
    uint32_t want_said              # what it said
    nc_group* group                 # owned while bound; NULL: none
    nc_auto* auto                   # owned; NULL: nothing is picked
    uint8_t own                     # our direction's nc_mode + 1; 0: the session's
    uint8_t parity_k                # of an own MODE_PARITY
    uint8_t parity_m
    uint32_t answers                # WITHDRAWN to say, by number & 31
    uint32_t outcomes               # the message was taken

# A stream that the peer opened and nobody here has: kept until opened.
cdef struct nc_offer:
    nc_offer* next                  # chain of the name
    nc_offer* queue_next            # order of arrival, for the application
    nc_in* in_
    uint64_t name_hash
    uint64_t codec
    uint64_t capacity_wanted
    uint8_t schema[16]
    uint8_t overflow
    uint64_t ttl_ms
    uint8_t kind
    uint8_t flags
    uint8_t seen                    # given to the application already
    uint8_t aborted                 # ABORT came before it was opened
    uint8_t pos_due                 # on the list of those whose sender asked for POS
    nc_offer* pos_next
    uint64_t abort_code
    uint16_t name_len
    uint8_t name[256]

ctypedef struct nc_params:          # transport parameters (handshake.md), one set per side
    uint64_t max_record
    uint64_t ack_delay_ns
    uint64_t ack_interval
    uint64_t initial_msgs
    uint64_t initial_bytes
    uint64_t max_streams
    uint64_t max_message
    uint64_t max_channels           # local only
    uint8_t trunk                   # local only: both sides know the trunk
    uint8_t parity                  # local only: both sides know PARITY
    int64_t session_bytes           # local only: budget beyond the floors
    uint64_t node_bytes             # local only: the same for all sessions of the process together
    int64_t heartbeat_ns            # local only
    int64_t dead_ns                 # local only: silence that ends a path
    uint32_t max_paths              # local only: at a time, as agreed
    uint8_t datagrams               # local only: there may be datagram paths, as agreed
    uint32_t max_datagram
    int64_t lease_ns                # local only: how long the session is kept without a path, as agreed; 0: not at all

ctypedef struct nc_session_stats:
    uint64_t records_sent
    uint64_t records_received
    uint64_t bytes_sent
    uint64_t bytes_received
    uint64_t messages_sent          # accepted ones, of all streams, counted when their stream gets its turn
    uint64_t messages_received      # whole ones, of all streams
    uint64_t dropped_bytes
    uint64_t pings
    uint64_t acks
    uint64_t trunk_records
    uint64_t resumes
    uint64_t resent                 # records sealed again after one
    uint64_t parity_sent            # parity symbols
    uint64_t rebuilt                # groups in which they made up for something
    uint64_t data_sent              # bytes of streams, each once
    uint64_t picks                  # changes of a mode that is picked
    uint64_t resets                 # paths that the other side does not know any more, as it has said

# What became of a path.
ctypedef struct nc_path_event:
    uint32_t path
    uint8_t what                    # nc_path_state
    uint8_t before                  # STATE_NEW: the path was added

# A path that is no more, and how much came on it: the other side may ask when it makes the next one.
ctypedef struct nc_ended:
    uint32_t id
    uint64_t rx                     # 0: place not used

cdef struct nc_session:
    # shared with the application
    nc_end* dirty_head              # atomic stack of ends to look at
    uint32_t dirty_any              # atomic: the engine's list holds this session
    nc_session* dirty_next          # the engine's list
    nc_leaf open_lock               # guards the queue of new ends
    nc_end* open_head
    nc_end* open_tail
    uint32_t over                   # atomic: 1 = SESSION_OVER was reached; streams say why
    void* user                      # application's object, borrowed; only touched with the GIL
    void* engine_slot               # the engine's own record of this session
    # engine
    uint8_t role                    # 0 initiator, 1 responder
    uint8_t state
    uint8_t close_by_us
    uint8_t close_sent              # on one path at the least
    uint8_t abrupt                  # our own end, not said to the peer
    uint16_t close_code
    uint16_t reason_len
    uint8_t reason[256]
    nc_sealer sealer
    nc_path* paths                  # those that live
    nc_path* control                # of these the one for control, and for all that must come in order
    nc_path* last                   # while suspended: the one that was lost last
    nc_path* gone                   # over, to be forgotten
    uint32_t n_paths
    uint32_t path_top               # largest id so far
    uint8_t mode                    # nc_mode, of our direction, in force
    uint8_t own_modes               # nc_own_modes
    uint8_t picks                   # 1: MODE_AUTO was asked for
    nc_auto auto
    int64_t auto_at                 # when is looked next; TIMER_NEVER: nothing moves, or nothing is picked
    int64_t trouble_at              # when a path last fell silent or was lost beside others; 0: never
    uint8_t parity_k                # MODE_PARITY: data symbols of a group at most, and parity symbols
    uint8_t parity_m
    nc_group* groups                # of all ends
    int64_t group_at                # when the first of them ends; TIMER_NEVER
    uint64_t group_bytes            # of their rows, and of those that come late
    nc_group* late                  # owned: closed groups whose path takes nothing now, in their order (dealing.pyx)
    nc_group* late_tail
    uint64_t late_none              # bit by key of a path: none of these may go there
    uint8_t group_orphans           # some have no end any more
    uint8_t n_ended                 # position in `ended`
    uint8_t n_closes                # datagram paths that we gave up, and have to say so
    uint32_t closes[PATH_CLOSES]
    nc_ended[8] ended               # ring
    nc_path_event[16] events        # ring of EVENTS_KEPT, for the application
    uint32_t events_first
    uint32_t n_events
    uint64_t events_lost            # of those that there was no room for
    uint8_t events_new              # the application was not told of some
    int64_t used_at                 # when something came last that was neither PING nor an answer
    nc_replay replay
    nc_order* order                 # owned; NULL: all paths are stream paths, for good
    uint32_t suspended              # atomic: 1 = no path
    uint32_t suspect                # atomic: 1 = all paths are silent where they should not be
    int64_t lease_until             # while suspended
    nc_params mine
    nc_params peer
    nc_idmap outs                   # our stream id -> nc_end*
    nc_idmap ins                    # peer's stream id -> nc_end* (paired)
    nc_idmap offers                 # peer's stream id -> nc_offer*
    uint64_t next_out               # next id of ours
    uint64_t opened                 # streams of ours that have an id
    uint64_t max_streams            # how many we may open
    uint64_t next_in                # lowest id of the peer that was never seen
    uint64_t peer_max               # how many the peer may open, as it may know
    uint64_t peer_max_told
    uint64_t n_offers
    nc_offer* offer_names[64]       # unpaired offers by hash of the name, each chain in order
    nc_end* end_names[64]           # unpaired ends by hash of the name, each chain in order
    nc_offer* offer_pos             # offers whose POS is to be written
    nc_offer* new_head              # offers not given to the application, in order
    nc_offer* new_tail
    uint32_t n_new
    nc_end* active_head             # ends with data, round robin
    nc_end* active_tail
    uint32_t n_active
    nc_end* ctl_head                # ends with control frames to write
    nc_end* ready_head
    uint32_t ready_any              # something for the application
    nc_seg* pins                    # released segments whose owners a holder of the GIL must drop
    nc_budget budget                # of bytes beyond the floors
    uint8_t unkept                  # the record that is being read has bytes for which there is no room
    uint8_t in_order                # 1: all records come by one stream path at a time: in order, and each once
    uint8_t max_streams_due
    uint64_t seed
    nc_end** adopted                # owned: ends that came from another process, with a reference each; NULL: taken
    uint32_t n_adopted
    nc_session_stats stats
    # DH ratchet (keys.md §2): a Noise message each way, made above; then each direction announces its secret
    uint64_t ratchet_number         # of the ratchet whose secret is held
    uint8_t ratchet_secret[32]      # wiped when both directions have mixed it in
    uint8_t ratchet_have
    uint8_t ratchet_theirs          # 1: the peer's direction has it
    uint8_t rekey_state             # 0 nothing, 1 to announce, 2 announced, waiting for its acknowledgement
    uint32_t rekey_here             # the record that is being built announces it: the epoch; else 0
    uint8_t copy_here               # it is a copy
    uint8_t numbered_here           # it has the number order_here
    uint64_t order_here
    uint8_t rekey_mix[32]           # what was announced; wiped when the epoch has changed
    uint32_t rekey_told             # the epoch whose announcement was acknowledged
    uint64_t rekey_order            # one above the number of that record; 0: it has none
    uint8_t rekey_again             # the next ratchet's secret came meanwhile: to announce afterwards
    uint8_t rekey_bump              # what is announced is no ratchet's secret
    uint8_t bump_due                # the session came from another process: an epoch with bump_mix is to be announced
    uint8_t bump_mix[32]            # random; wiped when it is
    uint64_t ratchets               # finished in our direction
    uint8_t ratchet_out_step        # message to send: 0xff none
    uint64_t ratchet_out_number
    size_t ratchet_out_len
    uint8_t* ratchet_out            # owned, RATCHET_MAX
    uint8_t ratchet_in_new          # message received, for the application
    uint8_t ratchet_in_step
    uint64_t ratchet_in_number
    size_t ratchet_in_len
    uint8_t* ratchet_in             # owned, RATCHET_MAX
    # Tickets (handshake.md §12): the side that was dialled gives them
    uint64_t ticket_out_life        # seconds
    size_t ticket_out_len
    uint8_t* ticket_out             # owned; NULL: none waits to be sent
    uint64_t ticket_in_life
    size_t ticket_in_len
    uint8_t* ticket_in              # owned, the newest that came; NULL: none waits for the application


# What several paths are used for by a stream (nc_mode).
cdef inline int mode_of(const nc_session* s, const nc_end* e) noexcept nogil:
    return e.own - 1 if e.own else s.mode


# 1: other paths have copies of all that the one that carries control says, but of what is striped or has parity.
cdef inline int copies_all(const nc_session* s) noexcept nogil:
    return 1 if s.mode == MODE_MIRROR or s.mode == MODE_PARITY else 0


# --- lists of ends (baton) ---

cdef inline void* load_ptr(void** p) noexcept nogil:
    return <void*>load_acq_u64(<uint64_t*>p)


cdef inline void notify(nc_session* s, nc_end* e, uint32_t bits) noexcept nogil:
    bits &= load_seq_u32(&e.waiting) | EV_STATE
    if bits == 0:
        return
    e.ready |= bits
    if not e.in_ready:
        e.in_ready = 1
        fetch_add_u32(&e.refs, 1)
        e.ready_next = s.ready_head
        s.ready_head = e
    s.ready_any = 1


cdef inline void want_ctl(nc_session* s, nc_end* e, uint8_t bits) noexcept nogil:
    e.ctl |= bits
    if not e.in_ctl:
        e.in_ctl = 1
        fetch_add_u32(&e.refs, 1)
        e.ctl_next = s.ctl_head
        s.ctl_head = e


cdef inline void want_data(nc_session* s, nc_end* e) noexcept nogil:
    # What was aborted before it began still says its name: ids and names keep their order (session.md §6).
    if e.active or not e.bound or (e.out_done and e.out.sent):
        return
    e.active = 1
    fetch_add_u32(&e.refs, 1)
    e.active_next = NULL
    if s.active_tail is NULL:
        s.active_head = e
    else:
        s.active_tail.active_next = e
    s.active_tail = e
    s.n_active += 1


# Takes e out of the line, behind `before` (NULL: it is the first).
cdef inline void take_active(nc_session* s, nc_end* before, nc_end* e) noexcept nogil:
    if before is NULL:
        s.active_head = e.active_next
    else:
        before.active_next = e.active_next
    if s.active_tail == e:
        s.active_tail = before
    s.n_active -= 1
    e.active = 0


cdef inline nc_end* pop_active(nc_session* s) noexcept nogil:
    cdef nc_end* e = s.active_head
    take_active(s, NULL, e)
    return e
