"""The exception tree and its messages (api: R47 to R51)."""

from __future__ import annotations

import inspect
import re

import pytest

from netchan import errors
from netchan.errors import (
    AuthError,
    ChannelAborted,
    ChannelEnded,
    Code,
    DialError,
    DialTimeout,
    InDoubt,
    ListenError,
    MessageTooLarge,
    NetchanError,
    SessionLost,
    channel_aborted,
    channel_closed,
    channel_ended,
    quote,
    session_lost,
)

TREE = {
    "ConfigError": ("NetchanError", "ValueError"),
    "CodecError": ("NetchanError", "ValueError"),
    "MessageTooLarge": ("CodecError",),
    "WouldBlock": ("NetchanError",),
    "ForkError": ("NetchanError", "RuntimeError"),
    "ListenError": ("NetchanError", "OSError"),
    "HandoverError": ("NetchanError",),
    "SpillError": ("NetchanError", "OSError"),
    "DialError": ("NetchanError", "ConnectionError"),
    "DialTimeout": ("DialError", "TimeoutError"),
    "HandshakeError": ("DialError",),
    "AuthError": ("HandshakeError",),
    "ProtocolError": ("NetchanError",),
    "ChannelError": ("NetchanError",),
    "ChannelClosed": ("ChannelError",),
    "ChannelEnded": ("ChannelError", "EOFError"),
    "ChannelAborted": ("ChannelError",),
    "SessionLost": ("ChannelError", "ConnectionError"),
}


class TestTree:
    @pytest.mark.parametrize("name", TREE)
    def test_class_has_exactly_its_bases(self, name: str) -> None:
        assert tuple(base.__name__ for base in getattr(errors, name).__bases__) == TREE[name]

    def test_tree_holds_every_exception_of_the_module_and_the_drawing_names_it(self) -> None:
        found = {
            name
            for name, value in vars(errors).items()
            if inspect.isclass(value) and issubclass(value, NetchanError) and value is not NetchanError
        }
        assert found == set(TREE)
        drawn = set(re.findall(r"[├└]─ (\w+)", errors.__doc__ or ""))
        assert drawn == set(TREE)

    def test_transient_says_what_may_work_later(self) -> None:
        said = {name for name in TREE if getattr(errors, name).transient}
        assert said == {"WouldBlock", "SpillError", "DialError", "DialTimeout", "SessionLost"}

    def test_builtin_bases_keep_message_and_attributes(self) -> None:
        causes = [OSError("a"), OSError("b")]
        error = DialTimeout("no answer", causes)
        assert (str(error), error.causes, isinstance(error, TimeoutError)) == ("no answer", tuple(causes), True)
        assert isinstance(AuthError("x"), (DialError, ConnectionError))
        assert str(ListenError("in use")) == "in use"
        large = MessageTooLarge("big", needed=9, limit=4)
        assert (large.needed, large.limit, isinstance(large, ValueError)) == (9, 4, True)


class TestCodes:
    def test_own_codes_start_where_the_programs_end(self) -> None:
        assert [int(code) for code in Code] == [(1 << 30) + n for n in range(6)]
        assert [code.name for code in Code] == [
            "LEFT_BY_EXCEPTION",
            "DROPPED",
            "TYPE_MISMATCH",
            "LIMIT",
            "PROCESS_EXIT",
            "HANDED_OVER",
        ]

    def test_aborted_shows_own_codes_by_name_and_others_as_numbers(self) -> None:
        own = channel_aborted("jobs", "nc:1", code=int(Code.DROPPED), reason="", by_us=False)
        assert own.code is Code.DROPPED
        assert "DROPPED" in str(own)
        theirs = channel_aborted("jobs", "nc:1", code=77, reason="full", by_us=True)
        assert (theirs.code, theirs.reason, theirs.by_us) == (77, "full", True)
        assert "77 (full)" in str(theirs)
        assert ChannelAborted("x", code=1 << 31).code == 1 << 31


class TestMessages:
    @pytest.mark.parametrize(
        "error",
        [
            channel_closed("jobs", "nc:ab", "we closed it", "make a new channel"),
            channel_ended("jobs", "nc:ab"),
            channel_aborted("jobs", "nc:ab", code=3, reason="r", by_us=False),
            *[channel_aborted("jobs", "nc:ab", code=int(code), reason="", by_us=False) for code in Code],
            session_lost("jobs", "nc:ab", "lease ran out"),
        ],
        ids=lambda e: type(e).__name__,
    )
    def test_message_says_what_where_and_what_next(self, error: errors.ChannelError) -> None:
        text = str(error)
        assert "channel 'jobs' with nc:ab" in text
        assert "; " in text
        assert (error.channel, error.peer) == ("jobs", "nc:ab")

    def test_peer_given_text_is_escaped_and_cut(self) -> None:
        evil = "\x1b[2J\n" + "A" * 1000 + "\u202e"
        error = channel_aborted(evil, "nc:1", code=1, reason=evil, by_us=False)
        assert str(error).isprintable()
        assert len(str(error)) < 500
        assert error.reason == evil
        assert quote(b"\xff\x00ok") == "\\\\xff\\x00ok"
        assert len(quote("\x00" * 500)) <= 120

    def test_ended_is_an_end_of_file(self) -> None:
        assert isinstance(channel_ended("", ""), (ChannelEnded, EOFError))


class TestLoss:
    def test_in_doubt_without_its_value_says_so(self) -> None:
        assert (InDoubt(3, "v").number, InDoubt(3, "v").value) == (3, "v")
        assert InDoubt(4, None).value is None
        with pytest.raises(LookupError, match="number 4"):
            _ = InDoubt(4).value
        assert repr(InDoubt(4)) == "InDoubt(4)"
        with pytest.raises(TypeError):
            InDoubt(1, 2, 3)

    def test_session_lost_keeps_its_report_and_its_cause(self) -> None:
        cause = errors.ProtocolError("bad frame", remote=True)
        error = session_lost("jobs", "nc:1", "protocol error", undelivered=[1], in_doubt=[InDoubt(0)], cause=cause)
        assert error.__cause__ is error.cause is cause
        assert cause.remote
        assert (list(error.undelivered), error.in_doubt[0].number) == ([1], 0)
        assert "1 accepted values were never sent, 1 are in doubt" in str(error)
        assert isinstance(SessionLost(), ConnectionError)
