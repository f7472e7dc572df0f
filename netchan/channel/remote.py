"""The endpoint of a channel over a session.

Layer: channel (L5): codecs, wait queues and errors around the compiled ``StreamEnd``, which does the rest (contract:
base.Endpoint). No I/O here, and nothing waits. Threads: any; see _engine/end_handle.pyx.
Spec: docs/spec/session.md §3, §6, §8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

from netchan._engine.end_handle import StreamEnd
from netchan._engine.session_handle import Session
from netchan.channel.base import ChannelStats, Handles
from netchan.channel.codec import ID_BYTES, Codec, codec_by_id, codec_for, fits
from netchan.channel.overflow import NO_TERMS, Terms
from netchan.channel.redundancy import Redundancy, RedundancyInfo, info_of, mode_name, read_mode
from netchan.errors import (
    ChannelError,
    Code,
    CodecError,
    ConfigError,
    InDoubt,
    MessageTooLarge,
    SessionLost,
    channel_aborted,
    channel_closed,
    channel_ended,
    handed_over,
    quote,
    session_lost,
)
from netchan.markers import EMPTY, CarriesEnds, Carrying, Empty
from netchan.net.wait import Driver, Waiter, WaitQueue

if TYPE_CHECKING:
    from netchan.channel.flow import Token
    from netchan.channel.handle import Handle

_TAKEN, _WITHDRAWN = 1, 2
# Why a direction is over: nc_over of netchan/_core/outbox.pxd.
_NOT, _FIN, _ABORT_AFTER, _ABORT, _STOPPED, _LOST, _LEFT = range(7)

_SILENT: Final = 13
"""SESSION_CLOSE code that our own side notes when the last path ended without a close (session.md section 9.1)."""
_DUPLICATE: Final = 15
_REPLACED: Final = 16
"""SESSION_CLOSE code for a session whose other side has begun another one with a ticket of it."""
NAME_MAX_BYTES: Final = 255


def _front() -> tuple[type[Handle], type[Handle], type[Handle]]:
    from netchan.channel.fronts import FRONT

    return FRONT


class RemoteOffer:
    """One offer across a session (contract: base.Offer), out as soon as there is room for it.

    Args:
        endpoint: where to.
        waiter: at the head of its ``tx_waiters``.
        value: prepared, or EMPTY: there is none, and the offer is settled with ``number`` 0.
    """

    __slots__ = ("_at", "_carried", "_endpoint", "_value", "_waiter", "number")

    def __init__(self, endpoint: RemoteEndpoint, waiter: Waiter, value: Any) -> None:
        self._endpoint, self._waiter, self._value = endpoint, waiter, value
        self._at = self.number = 0
        self._carried = value if isinstance(value, Carrying) else None

    def placed(self) -> bool:
        """Offer the value if there is room now; True once it is out. Its place in the line passes on."""
        if not self._at:
            endpoint = self._endpoint
            self._at = endpoint.try_offer(self._value)
            if self._at:
                self._value = None
                endpoint.offers_out += 1
                endpoint.ack_waiters.join(self._waiter)
                endpoint.tx_waiters.leave(self._waiter, lambda: endpoint.offer_room)
        return self._at != 0

    def _taken(self) -> None:
        if not self.number:
            self.number = self._at
            if self._carried is not None:
                self._endpoint.commit(self._carried, 0)

    def settled(self) -> bool:
        """As in base.Offer."""
        if self._value is EMPTY:
            return True
        if not self.placed():
            return False
        if self._endpoint.offer_state(self._at) == _TAKEN:
            self._taken()
            return True
        self._endpoint.check_send()
        return False

    def withdraw(self) -> bool | None:
        """As in base.Offer. True also when the direction is over and nobody can answer any more."""
        if not self._at:
            return True
        endpoint = self._endpoint
        endpoint.offer_withdraw(self._at)
        state = endpoint.offer_state(self._at)
        if state == _TAKEN:
            self._taken()
            return False
        return True if state == _WITHDRAWN or endpoint.send_ended else None

    @property
    def stranded(self) -> bool:
        """As in base.Offer: the session has no path."""
        return self._endpoint.session.suspended

    def let_go(self) -> None:
        """As in base.Offer."""
        if self._at:
            endpoint = self._endpoint
            endpoint.offers_out -= 1
            endpoint.offers_back += not self.number
            endpoint.ack_waiters.leave(self._waiter, _no)
            endpoint.offer_let_go(self._at)
            endpoint.tx_waiters.nudge()


class RemoteEndpoint(StreamEnd):
    """One end of a named channel of a peer; see ``open_endpoint``.

    Attributes:
        name, peer, peer_id, type, driver, rings, handles, due, far, keeps: as in base.Endpoint.
        close_timeout: seconds that ``aclose`` waits at most.
        put_off: asked when the last sending handle was collected unclosed; True: whoever was asked calls ``drop_now``
            later, unless the direction is over by then.
        dropped: that is pending.
        register: told of an end that came or went in a value, which the session has to end like its others.
        front: gives (Sender, Receiver, Channel), for ends that come in a value.
        terms: what this side said of overflow, ttl, the trunk and spilling when it opened.
        backlogged: values that were accepted wait here, outside of the session (spill_remote.py).
        offers_out, offers_back: sends of a rendezvous whose value is out; that ended without its being taken.
    """

    one_queue = False
    register: Callable[[RemoteEndpoint], None] | None = None
    front: Callable[[], tuple[type[Handle], type[Handle], type[Handle]]] = staticmethod(_front)
    due: Final = None
    far: Final = True
    put_off: Callable[[RemoteEndpoint], bool] | None = None
    dropped = False
    backlogged = False
    offers_out = 0
    offers_back = 0

    def __init__(
        self,
        session: Session,
        *,
        name: str,
        type: Any,
        codec: Codec,
        capacity: int | None,
        peer: Any,
        peer_id: str,
        driver: Driver | None,
        close_timeout: float,
        max_message: int,
        keeps: bool = False,
        terms: Terms = NO_TERMS,
        token: bytes | None = None,
        adopt: int | None = None,
    ) -> None:
        self.name = name
        self.keeps = keeps
        self.type = type
        self.codec = codec
        self.peer = peer
        self.peer_id = peer_id
        self.driver = driver
        self.rings = driver is not None and driver.rings
        self.close_timeout = close_timeout
        self.max_message = max_message
        self.handles = Handles()
        self.tx_waiters = WaitQueue()
        self.rx_waiters = WaitQueue()
        self.ack_waiters = WaitQueue()
        self.end_waiters = WaitQueue()
        self.decode = None if codec.id == ID_BYTES else codec.decode
        self._lost: SessionLost | None = None
        wire_name = name.encode() if token is None else token
        super().__init__(
            session,
            wire_name,
            codec.id,
            codec.schema_hash,
            capacity,
            terms.overflow,
            terms.ttl_ms,
            terms.trunk,
            token=token is not None,
            adopt=adopt,
        )
        self.terms = terms
        if codec.id == ID_BYTES:
            self.plain_max = max_message

    @property
    def redundancy(self) -> Redundancy | None:
        """As in base.Endpoint."""
        mode = self.mode
        return None if mode is None else mode_name(mode)

    @redundancy.setter
    def redundancy(self, mode: Any) -> None:
        self.mode = None if mode is None else read_mode(mode)

    @property
    def redundancy_info(self) -> RedundancyInfo:
        """As in base.Endpoint."""
        own = self.mode
        return info_of(own or self.session.mode, self.told_redundancy(), "channel" if own else "peer")

    # --- values -------------------------------------------------------------------------------------------------------

    def encode(self, value: Any) -> Any:
        """The bytes of a value, or CodecError, MessageTooLarge."""
        try:
            data = self.codec.encode(value)
        except CarriesEnds:
            data = moving().carry(self, value)
        if len(data) > self.max_message:
            self._too_large(len(data))
        return data

    def commit(self, carried: Carrying, position: int) -> None:
        """A value that carries ends was accepted."""
        moving().commit(self, carried, position)

    def decode_carrying(self, data: bytes) -> Any:
        """A value that carries ends, with handles for them."""
        read = self.codec.decode_with
        assert read is not None, "its decoder said so"
        came: list[Handle] = []

        def adopt(payload: bytes) -> Handle:
            handle: Handle = moving().adopt(self, payload)
            came.append(handle)
            return handle

        try:
            return read(data, adopt)
        except BaseException:
            for handle in came:  # nobody but us has lost them: without a warning
                cast("RemoteEndpoint", handle._ep).drop_now()
            raise

    def sibling(self, token: bytes, type: Any, codec: Codec, capacity: int | None) -> RemoteEndpoint:
        """Our end of the channel under a token that travels, or travelled, in a value of this one."""
        made = RemoteEndpoint(
            self.session,
            name=f"{self.name[:200]}/{token[:4].hex()}",
            type=type,
            codec=codec,
            capacity=capacity,
            peer=self.peer,
            peer_id=self.peer_id,
            driver=self.driver,
            close_timeout=self.close_timeout,
            max_message=self.max_message,
            keeps=self.keeps,
            token=token,
        )
        made.register, made.front = self.register, self.front
        if self.register is not None:
            self.register(made)
        return made

    def retype(self, form: Any) -> None:
        """As in base.Endpoint."""
        codec = codec_for(form)
        if not (codec.id == self.codec.id and codec.schema_hash == self.codec.schema_hash):
            if not fits(codec, self.codec):
                raise CodecError(
                    f"an end of a channel of {self.codec.type_name} came where {codec.type_name} was asked"
                )
            self.codec, self.type = codec, form
            self.decode = None if codec.id == ID_BYTES else codec.decode

    def lose(self, error: SessionLost, *, send: bool, recv: bool) -> None:
        """As in base.Endpoint; over the network it is an abort."""
        self.abort(int(Code.DROPPED), "the process that held the other end is out of reach")

    def _where(self) -> str:
        return f"channel '{quote(self.name)}' with {quote(self.peer_id)}"

    def _too_large(self, n: int) -> None:
        raise MessageTooLarge(
            f"{self._where()}: a value of {n} bytes is longer than max_message={self.max_message} of the other side; "
            "send it in parts, or raise Config.max_message over there",
            needed=n,
            limit=self.max_message,
        )

    def try_recv_into(self, buffer: memoryview) -> int | Empty:
        """As in base.Endpoint.

        Raises:
            MessageTooLarge: the buffer is too small; ``needed`` is the length in bytes, and the value stays.
        """
        got = super().try_recv_into(buffer)
        if isinstance(got, int) and got < 0:
            raise MessageTooLarge(
                f"{self._where()}: the value at the head has {-got} bytes and the buffer {buffer.nbytes}; it stays: "
                "call again with a larger one",
                needed=-got,
                limit=buffer.nbytes,
            )
        return got

    def offer(self, source: Any, waiter: Waiter, *, many: bool = False) -> RemoteOffer | None:
        """As in base.Endpoint; with ``many`` the item is fetched when it can be offered, not when it is taken.

        None: it is not this waiter's turn, the other side has not opened yet, or as many offers as may be are out.
        """
        if not self.tx_waiters.may_try(waiter) or not self.offer_room:
            return None
        if many:
            item = next(source, EMPTY)
            source = item if item is EMPTY else self.prepare(item)
        offer = RemoteOffer(self, waiter, source)
        return offer if source is EMPTY or offer.placed() or many else None

    def offer_arm(self, prepared: Any, waiter: Waiter, token: Token | None) -> RemoteOffer | None:
        """As in base.Endpoint."""
        if self.send_over:
            raise self.send_error()
        if not self.wanted or not self.offer_room or not self.tx_waiters.vacant():
            return None
        offer = RemoteOffer(self, waiter, prepared)
        return offer if offer.placed() else None

    def check_send(self) -> None:
        """Raise what a send would raise now; nothing if it could be accepted or would have to wait."""
        if self.send_over:
            raise self.send_error()

    @property
    def recv_ending(self) -> bool:
        """True when no further value can come; those that are here can still be taken."""
        return self.state[1] != _NOT

    @property
    def most_at_once(self) -> int | None:
        """As in base.Endpoint: what the other side may send ahead of us, and what of it stays."""
        return self.holds

    def want(self, n: int) -> None:
        """A receive call waits for n values: ``has`` tells the engine, n was checked against ``most_at_once``."""

    # --- ending -------------------------------------------------------------------------------------------------------

    def abort(self, code: int, reason: str) -> None:
        """End both directions at once; The first call counts."""
        self.abort_both(code, reason.encode())

    def close_unclean(self) -> None:
        """Like ``close_send``, but the other side gets ChannelAborted(LEFT_BY_EXCEPTION) behind the values."""
        self.end_after(Code.LEFT_BY_EXCEPTION)

    def left_by_exception(self) -> None:
        """An ``async with`` was left by an exception: neither direction ends cleanly."""
        self.close_unclean()
        self.stop_recv()

    def drop_send(self) -> bool:
        """The last sending handle was collected unclosed; True when that cuts somebody off (base.Endpoint)."""
        if self.send_over:
            return False
        if self.put_off is not None and self.put_off(self):
            self.dropped = True
            return False
        missed = self.missed
        self.drop_now()
        return missed

    @property
    def missed(self) -> bool:
        """True while somebody over there would notice that the sending direction is dropped."""
        # Not where the other side's end was taken: both sides know that it is over.
        return not self.send_over and (self.state[1] in (_NOT, _STOPPED) or not self.recv_over)

    def drop_now(self) -> None:
        """End a direction that nobody can close any more, unless it is over."""
        self.dropped = False
        if not self.send_over:
            self.end_after(Code.DROPPED)

    def drop_recv(self) -> None:
        """The last receiving handle was collected unclosed: ``stop_recv`` unless the direction is over anyway."""
        if self.state[1] in (_NOT, _FIN, _ABORT_AFTER):
            self.stop_recv()

    # --- errors -------------------------------------------------------------------------------------------------------

    def send_error(self) -> ChannelError:
        """The exception that a send raises now (api R48)."""
        over, _, _, code, by_us, reason = self.state
        if self.held or self.session.handed_over:
            return self._session_lost()
        if self.aborted_here:
            return self._aborted(code, True, reason)
        if over in (_ABORT, _ABORT_AFTER) and not (over == _ABORT_AFTER and not by_us and code == 0):
            return self._aborted(code, by_us, reason)
        if over == _LOST:
            return self._session_lost()
        if over == _STOPPED:
            return channel_closed(self.name, self.peer_id, "the other side stopped receiving", "stop sending")
        if over == _LEFT:
            if self.session.close_by_us:
                return channel_closed(self.name, self.peer_id, "this side left the session", "dial again to go on")
            return channel_closed(self.name, self.peer_id, "the other side left the session", "stop sending")
        return channel_closed(self.name, self.peer_id, "this side closed it", "open the name again for a new channel")

    def recv_error(self) -> ChannelError:
        """The exception that a receive raises when nothing is left to take (api R48)."""
        _, over, _, code, by_us, reason = self.state
        if self.session.handed_over:
            return self._session_lost()
        if self.aborted_here:
            return self._aborted(code, True, reason)
        if over == _FIN:
            return channel_ended(self.name, self.peer_id)
        if over == _STOPPED:
            why = "this side stopped receiving"
            return channel_closed(self.name, self.peer_id, why, "open the name again to go on")
        if over in (_ABORT, _ABORT_AFTER):
            return self._aborted(code, by_us, reason)
        if self.session.close_by_us and not self.session.lost:
            return channel_closed(self.name, self.peer_id, "this side left the session", "dial again to go on")
        if over == _LEFT:
            return channel_ended(self.name, self.peer_id)
        return self._session_lost()

    def _aborted(self, code: int, by_us: bool, reason: bytes) -> ChannelError:
        text = reason.decode("utf-8", "replace")
        if code == Code.TYPE_MISMATCH and not text:
            text = self._mismatch()
        return channel_aborted(self.name, self.peer_id, code=code, reason=text, by_us=by_us)

    def _mismatch(self) -> str:
        theirs = self.peer_codec
        found = codec_by_id(*theirs) if theirs else None
        other = f"{found.type_name}" if found else "another type"
        return f"this side opened it as {self.codec.type_name}, the other side as {other}"

    def loss(self) -> SessionLost | None:
        """The report of what was accepted here and may be lost with the session, which is over; None: nothing is."""
        return self._session_lost() if self.has_loss() else None

    def has_loss(self) -> bool:
        """True when values that were accepted here are not known to be taken, and the session is over."""
        return self.state[0] in (_LOST, _FIN) and not self.aborted_here and bool(self.unsettled())

    def _session_lost(self) -> SessionLost:
        if self.held or self.session.handed_over:
            return handed_over(self.name, self.peer_id)
        if self._lost is None:
            undelivered: list[Any] = []
            in_doubt: list[InDoubt] = []
            for number, data, sealed in self.unsettled():
                if data is None:
                    in_doubt.append(InDoubt(number))
                elif not sealed:
                    undelivered.append(self._decode_own(data))
                else:
                    in_doubt.append(InDoubt(number, self._decode_own(data)))
            self._lost = session_lost(
                self.name,
                self.peer_id,
                self._why_lost(),
                undelivered=self._undelivered(undelivered),
                in_doubt=in_doubt,
                cause=self._cause(),
            )
        return self._lost

    def _undelivered(self, values: list[Any]) -> Sequence[Any]:
        """All that was accepted and never sent, of which the session had these."""
        return values

    def _decode_own(self, data: bytes) -> Any:
        if self.decode is None:
            return data
        try:
            return self.codec.decode(data)
        except CarriesEnds:
            read = self.codec.decode_with
            return None if read is None else read(data, lambda _: None)  # the ends were dropped with it

    def _why_lost(self) -> str:
        session = self.session
        if not session.lost and not session.close_by_us:
            return "the other side left without ending the channel"
        if session.close_code == _REPLACED:
            return "a new one was begun with a ticket of it"
        if session.close_code == _DUPLICATE:
            return "another one with the same node is kept"
        if session.close_by_us:
            return f"this side closed the session (code {session.close_code})"
        if session.close_code == _SILENT:
            return "the connection was cut, or the other side was silent too long"
        return f"the session ended (code {session.close_code})"

    def _cause(self) -> BaseException | None:
        return getattr(self.peer, "loss_cause", None)

    # --- looking ------------------------------------------------------------------------------------------------------

    def stats(self) -> ChannelStats:
        """A snapshot; ``credit_limited`` counts how often data waited for credit."""
        sent, received, taken, discarded, pending, stalls, dropped = self.counts()
        return ChannelStats(
            sent=sent - self.offers_out - self.offers_back,
            received=received,
            taken=taken,
            discarded=discarded,
            pending=pending,
            capacity=self.capacity,
            senders_waiting=len(self.tx_waiters) + self.offers_out,
            receivers_waiting=len(self.rx_waiters),
            credit_limited=stalls,
            dropped=dropped,
        )


def open_endpoint(
    session: Session,
    *,
    name: str,
    type: Any,
    capacity: int | None,
    peer: Any,
    peer_id: str,
    driver: Driver | None,
    close_timeout: float,
    max_message: int,
    codec: Codec | None = None,
    keeps: bool = False,
    terms: Terms = NO_TERMS,
    adopt: int | None = None,
) -> RemoteEndpoint:
    """Open a channel by name on a session; never waits.

    Args:
        session: the session that carries it.
        name: 1–255 bytes of UTF-8 without control characters.
        type: type form; its codec is looked up unless ``codec`` is given.
        capacity: values per direction, at least 1; None: the other side decides, else 1 024.
        peer: what ``Channel.peer`` gives.
        peer_id: how errors call the other side.
        driver: what blocking callers run.
        close_timeout: seconds that ``aclose`` waits at most.
        max_message: bytes of one value that the other side takes at most.
        codec: that of an offered channel; None: by ``type``.
        keeps: as in base.Endpoint.
        terms: what is said of overflow, ttl, the trunk and spilling.
        adopt: attach to the channel at this place of ``Session.adopted`` instead.

    Raises:
        ConfigError: name, type or capacity out of range. ForkError.
    """
    # Callers may be untyped, so the type is looked at all the same.
    if not isinstance(name, str) or not 1 <= len(name.encode()) <= NAME_MAX_BYTES:  # type: ignore[redundant-expr]
        raise ConfigError(f"channel name {name!r} must be a str of 1 to {NAME_MAX_BYTES} bytes in UTF-8")
    if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in name):
        raise ConfigError(f"channel name {name!r} holds a control character; use printable text")
    make: Callable[..., RemoteEndpoint] = RemoteEndpoint
    if terms.spill is not None:
        # Here, since that module needs this one, and who does not spill needs neither it nor its cipher.
        make = import_module("netchan.channel.spill_remote").SpillingEndpoint
    return make(
        session,
        name=name,
        type=type,
        codec=codec or codec_for(type),
        capacity=capacity,
        peer=peer,
        peer_id=peer_id,
        driver=driver,
        close_timeout=close_timeout,
        max_message=max_message,
        keeps=keeps,
        terms=terms,
        adopt=adopt,
    )


__all__: Sequence[str] = ("RemoteEndpoint", "open_endpoint")


def _no() -> bool:
    return False


def moving() -> Any:
    """The module of that name, which needs this one."""
    return import_module("netchan.channel.moving")
