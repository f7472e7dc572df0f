"""Channels and ends of channels inside values that cross a session.

Layer 5. A reference stands in the value for the end: a token, under which both sides open a channel of its own
(``E`` below). The side that gave the end holds what was given and forwards (forward.py): values that come by E into its
channel, values of its channel into E when somebody waits for them over there.

1. ``carry`` encodes the value and notes what it gives; nothing has happened yet.
2. ``commit``, in the step in which the value was accepted: E is opened, the giver's handle lets go.
3. ``adopt`` over there, when the value is decoded: E is opened, a handle is made of it.
4. The value is never received: E ends, and what was given is dropped (``Watch``).

Spec: docs/spec/channel-end.md §9, docs/spec/wire.md §6.3, §8.
"""

from __future__ import annotations

import logging
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from netchan.channel.codec import Codec, codec_by_id, codec_for
from netchan.channel.forward import Forward, Kept, Watch
from netchan.channel.gone import GoneEndpoint
from netchan.channel.handle import Handle
from netchan.channel.msgpack import ENDS_MAX
from netchan.errors import CodecError, ConfigError
from netchan.markers import Carrying

if TYPE_CHECKING:
    from netchan.channel.remote import RemoteEndpoint

SENDER: Final = 1
RECEIVER: Final = 2
CHANNEL: Final = 3
"""What moves; ``CHANNEL`` is shared."""
_LAYOUT: Final = struct.Struct(">BB16s16sQ")
"""kind, 0, token, schema hash, codec id: ``REFERENCE_SIZE`` bytes of _core/msgshape.pyx."""
TOKEN_BYTES: Final = 16
_PLAIN: Final = (bytes, str, int, float, bool)

_log = logging.getLogger("netchan.session")


@dataclass(frozen=True, slots=True)
class Given:
    """One end that a value gives away."""

    handle: Handle
    kind: int
    token: bytes
    codec: Codec


def carry(endpoint: RemoteEndpoint, value: Any) -> Carrying:
    """The bytes of a value that holds channels or ends of them.

    Raises:
        CodecError: this channel cannot carry any, or not this one.
    """
    write = endpoint.codec.encode_with
    if write is None:
        raise CodecError(f"a channel of {endpoint.codec.type_name} carries no channels; open it without a type")
    if endpoint.lossy:
        raise CodecError("a channel that may drop its values carries no channels: open it without overflow and ttl")
    given: list[Given] = []

    def refer(handle: Handle) -> bytes:
        if len(given) == ENDS_MAX:
            raise CodecError(f"a value carries at most {ENDS_MAX} channels and ends")
        one = _give(handle)
        if one.kind != CHANNEL and any(other.handle is handle for other in given):
            raise CodecError("a value holds the same end twice, and it can move only once; send a clone() too")
        given.append(one)
        return _LAYOUT.pack(one.kind, 0, one.token, one.codec.schema_hash, one.codec.id)

    data = Carrying(write(value, refer))
    data.given = given
    return data


def _give(handle: Handle) -> Given:
    kind = (SENDER if handle._sends else 0) | (RECEIVER if handle._receives else 0)
    endpoint = handle._ep
    if handle._shut or isinstance(endpoint, GoneEndpoint):
        raise CodecError(f"{handle!r} was closed or sent away before; only an open end can be sent")
    try:
        codec = codec_for(endpoint.type)
    except ConfigError as error:
        raise CodecError(f"{handle!r} cannot be sent: its values could not travel ({error})") from None
    return Given(handle, kind, os.urandom(TOKEN_BYTES), codec)


def commit(parent: RemoteEndpoint, carried: Carrying, position: int) -> None:
    """The value was accepted, at this position; 0: it was taken. Never raises: the value is on its way."""
    forwards: list[Forward] = []
    for one in carried.given:
        kept = Kept(one.handle._ep, one.kind, counted=one.handle._counted)
        if one.kind != CHANNEL:
            let_go(one.handle)
        try:
            forwards.append(_open(parent, one, kept))
        except Exception:
            _log.exception("channel %r: an end that was sent in a value could not be opened", parent.name)
            kept.drop()
    if position and forwards:
        Watch(parent, position, forwards).start()


def _open(parent: RemoteEndpoint, one: Given, kept: Kept) -> Forward:
    local = kept.endpoint
    # A receiver over there takes by the rule of capacity 0; so does a shared channel, whose two directions have one.
    capacity = local.capacity if one.kind == SENDER else 0
    far = parent.sibling(one.token, local.type, one.codec, capacity)
    forward = Forward(kept, far, inward=one.kind != RECEIVER, outward=one.kind != SENDER)
    forward.start()
    return forward


def let_go(handle: Handle) -> None:
    """The handle has no part in its channel any more, and that ends nothing: somebody else holds its place."""
    endpoint, me = handle._ep, id(handle)
    for holders in (endpoint.handles.sending, endpoint.handles.receiving, endpoint.handles.counted):
        holders.discard(me)
    gone = GoneEndpoint(endpoint.name, endpoint.type)
    handle._ep, handle._txq, handle._rxq = gone, gone.tx_waiters, gone.rx_waiters
    handle._try_send, handle._try_recv = gone.try_send, gone.try_recv


def adopt(parent: RemoteEndpoint, payload: bytes) -> Handle:
    """The handle of an end that came in a value.

    Raises:
        CodecError: no reference.
    """
    kind, zero, token, schema, number = _LAYOUT.unpack(payload)
    if not SENDER <= kind <= CHANNEL or zero:
        raise CodecError("received bytes hold a reference to no kind of channel end")
    codec = codec_by_id(number, schema)
    if codec is None:
        raise CodecError(f"received a channel end whose values have codec {number}, which this side does not know")
    form = next((form for form in _PLAIN if codec_for(form).id == number), Any)
    far = parent.sibling(token, form, codec, None)
    if kind == RECEIVER:
        far.close_send()
    sender, receiver, channel = parent.front()
    made: type[Handle] = (sender, receiver, channel)[kind - 1]
    return made(far)
