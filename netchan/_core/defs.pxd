# Wire numbers, limits and return codes: the only place where a wire number is written (docs/spec/wire.md).
# Layer: _core, rung a. No code here, constants only.

# --- return codes: >= 0 is a size or "done"; failures are negative (checked by errors.check) -----------------
cdef enum nc_rc:
    NC_OK = 0
    NC_EAGAIN = -1          # nothing to do now, or a bounded resource is used up for the moment
    NC_ETRUNC = -2          # bytes end before the item does
    NC_EFRAME = -3          # bytes that no conforming peer sends (malformed frame, field or length)
    NC_ELIMIT = -4          # a stated limit is exceeded by the peer
    NC_ECRYPTO = -5         # tag does not hold, key not available
    NC_EREPLAY = -6         # number already seen or too old
    NC_ECLOSED = -7         # this direction is over
    NC_ENOMEM = -8          # allocation failed
    NC_EINVAL = -9          # argument out of its stated range (our own mistake)
    NC_ESPACE = -10         # output buffer is too small
    NC_ESTATE = -11         # call not allowed in this state
    NC_ECREDIT = -12        # the peer sent beyond its credit
    NC_EEXHAUSTED = -13     # key usage limit reached: the epoch must change first
    NC_ESYS = -14           # a system call failed; errno is kept beside the code
    NC_EFORK = -15          # used in a forked child
    NC_EUNKNOWN = -16       # an item that must be understood (odd type) and is not

# --- spec constants (docs/spec/wire.md): a change here is a change of the wire -------------------------------------
cdef enum nc_tag:
    TAG_CONTROL = 0
    TAG_TRUNK = 1
    TAG_FIRST_STREAM = 16           # 16 for the initiator, 17 for the responder

cdef enum nc_frame_type:            # wire.md §5, §6
    FRAME_PADDING = 0x00
    FRAME_PING = 0x01
    FRAME_ACK = 0x02
    FRAME_POS = 0x03
    FRAME_WANT = 0x04
    FRAME_WITHDRAW = 0x05
    FRAME_WITHDRAWN = 0x06
    FRAME_ABORT = 0x07
    FRAME_STOP = 0x08
    FRAME_MAX_STREAMS = 0x09
    FRAME_PATH_CHALLENGE = 0x0a
    FRAME_PATH_RESPONSE = 0x0b
    FRAME_PATH_STATUS = 0x0c
    FRAME_PATH_CLOSE = 0x0d
    FRAME_NEW_CID = 0x0e
    FRAME_RETIRE_CID = 0x0f
    FRAME_ADDRESSES = 0x10
    FRAME_OBSERVED_ADDRESS = 0x11
    FRAME_REKEY = 0x12
    FRAME_RATCHET = 0x13
    FRAME_LOCATORS = 0x14
    FRAME_TICKET = 0x15
    FRAME_DRAIN = 0x16
    FRAME_SESSION_CLOSE = 0x17
    FRAME_ASK = 0x18
    FRAME_ORDER = 0x19
    FRAME_DATA = 0x20               # 0x20-0x27 with the flags below
    FRAME_SKIP = 0x28
    FRAME_PARITY = 0x29
    FRAME_DATAGRAM = 0x2a
    FRAME_TRUNK_DATA = 0x30         # 0x30-0x37
    FRAME_EXTENSION = 64            # from here on: type, length, value; even may be skipped

cdef enum nc_data_flag:             # wire.md §6.1
    DATA_FIN = 1
    DATA_MSG = 2
    DATA_LEN = 4

cdef enum nc_abort_flag:            # wire.md §5
    ABORT_AFTER_DATA = 1
    ABORT_CHANNEL = 2

cdef enum nc_close_code:            # session.md §9.1
    CLOSE_NONE = 0
    CLOSE_EXCEPTION = 1
    CLOSE_PROCESS_EXIT = 2
    CLOSE_HANDED_OVER = 3
    CLOSE_PROTOCOL = 4
    CLOSE_CREDIT = 5
    CLOSE_STREAMS = 6
    CLOSE_FINAL_SIZE = 7
    CLOSE_MESSAGE_SIZE = 8
    CLOSE_CRYPTO = 9
    CLOSE_KEYS = 10
    CLOSE_UNSUPPORTED = 11
    CLOSE_PARAMETER = 12
    CLOSE_TIMEOUT = 13
    CLOSE_REFUSED = 14
    CLOSE_DUPLICATE = 15
    CLOSE_REPLACED = 16
    CLOSE_INTERNAL = 17

cdef enum nc_code:                  # session.md §9.2; netchan.errors.Code has the same numbers
    CODE_LEFT_BY_EXCEPTION = 0x40000000
    CODE_DROPPED = 0x40000001
    CODE_TYPE_MISMATCH = 0x40000002
    CODE_LIMIT = 0x40000003
    CODE_PROCESS_EXIT = 0x40000004
    CODE_HANDED_OVER = 0x40000005
    CODE_UNSUPPORTED = 0x40000006
    CODE_STOPPED = 0x40000007

cdef enum nc_codec:                 # wire.md §8
    CODEC_ANY = 1
    CODEC_BYTES = 2
    CODEC_ARRAY = 8

cdef enum nc_skip:                  # reasons of SKIP, wire.md §6.2
    SKIP_TTL = 1
    SKIP_REPLACED = 2
    SKIP_OVERFLOW = 3

cdef enum nc_overflow:              # what a full direction does, wire.md §6.3
    OVERFLOW_NONE = 0               # nothing said: as the other side says, else block
    OVERFLOW_BLOCK = 1
    OVERFLOW_DROP_NEW = 2
    OVERFLOW_DROP_OLD = 3
    OVERFLOW_LATEST = 4
    OVERFLOW_DISCONNECT = 5

cdef enum nc_preface_kind:          # wire.md §6.3
    PREFACE_NAME = 0
    PREFACE_TOKEN = 1               # the reference that travelled in a value
    TOKEN_SIZE = 16

cdef enum nc_preface_field:         # wire.md §6.3
    PREFACE_OVERFLOW = 64
    PREFACE_TTL = 66

cdef enum nc_message_field:         # wire.md §7
    FIELD_DELIVER = 1
    FIELD_DEADLINE = 2
    FIELD_COMPRESSION = 6
    FIELD_SKIPPED = 61              # never on the wire: marks in an inbox what SKIP replaced

cdef enum nc_wire_size:
    RECORD_LEN_SIZE = 2             # wire.md §3
    RECORD_HEAD_MIN = 5             # len, epoch, flags, shortest tag
    RECORD_HEAD_MAX = 12
    AEAD_TAG_SIZE = 16
    BINDING_SIZE = 32
    RECORD_BODY_MAX = 65508         # sealed bytes of one record at most
    PARITY_SYMBOLS_MAX = 32         # data and parity symbols of one group, parity.md §1
    PARITY_BYTES_MAX = 16384        # bytes of one symbol

# --- implementation limits (docs/spec/limits.md): each bounds an attack or a cost ------------------------------------
cdef enum nc_limit:
    FRAMES_PER_RECORD = 4096        # time of one record made of tiny frames
    ACK_RANGES_MAX = 64             # ranges of one ACK
    POS_RANGES_MAX = 32             # ranges of one POS
    PREFACE_MAX = 1024              # bytes before a channel is known
    NAME_MAX = 255
    REASON_MAX = 256
    EXT_MAX = 1024                  # block of message fields
    RATCHET_MAX = 1024              # one Noise message of a ratchet
    TICKET_MAX = 1024
    ADDRESSES_MAX = 16
    LOCATORS_MAX = 8
    UNOPENED_MAX = 256              # channels offered by the peer and not opened here
    INITIAL_MSGS = 64               # values in flight before the receiver opened
    INITIAL_BYTES = 16384
    DEFAULT_CAPACITY = 1024
    STREAM_BYTES_MIN = 65536        # window of one stream at first: its floor, which no budget can take
    STREAM_BYTES_LOW = 4096         # the same where more than FLOOR_STREAMS are open
    FLOOR_STREAMS = 1000
    STREAM_BYTES_MAX = 4194304      # and at most
    OFFERS_MAX = 16                 # offers of one capacity-0 direction that are open at once
    OFFER_FREE = 16384              # longer values are offered only while a receiver is parked
    GAPS_MAX = 1024                 # out-of-order runs of one stream
    EARLY_MAX = 2048                # pieces in which their bytes are kept
    SENT_MAX = 65536                # records in flight of one path
    SUSPECT_MS = 1000               # a path that owes an acknowledgement is suspect after this silence at the least
    LOG_MAX = 4194304               # bytes of their frames, kept where the session may be resumed
    ACK_BYTES = 262144              # acknowledge at the latest after so many bytes
    ACK_RECORDS = 8192              # or so many records
    RECORD_BODY_DEFAULT = 16384
