"""The language of the scripts, the reader of the traces, the rules of R58 and the player itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.oracle import play
from tests.interop.oracle.fronts import CARRIERS, AsyncioFront, ThreadFront
from tests.interop.oracle.script import (
    MAX_BLOCK_DEPTH,
    MAX_FILE_BYTES,
    MAX_LINE_BYTES,
    Env,
    Outcomes,
    Script,
    ScriptError,
    parse_scripts,
    parse_traces,
)

FRONTS: list[Any] = [AsyncioFront(CARRIERS["channel"]), ThreadFront(CARRIERS["channel"])]
BOTH = pytest.mark.parametrize("front", FRONTS, ids=["asyncio", "blocking"])


def script(body: str, head: str = "") -> Script:
    """One script with this body of main."""
    (one,) = parse_scripts(f"== x\n{head}\ntask main\n{body}\n")
    return one


class TestLanguage:
    @BOTH
    def test_blocks_when_played_jump_as_they_read(self, front: Any) -> None:
        body = """
        for i 1 3
          for j i 3
            if j == 2
              print $i-$j two
            else
              if i != j
                print $i-$j
              end
            end
          end
        end
        for i 3 1
          print never
        end
        let n 0
        loop
          let n n + 1
          if n == 4
            break
          end
          if n % 2
            print odd $n
          end
        end
        return
        print never"""
        lines = ["1-2 two", "1-3", "2-2 two", "2-3", "odd 1", "odd 3"]
        assert front.play(script(body)).trace == tuple(f"main: {line}" for line in lines)

    def test_for_when_its_end_changes_inside_keeps_the_first(self) -> None:
        body = "let n 2\nfor i 1 n\nlet n 9\nprint $i\nend"
        assert FRONTS[0].play(script(body)).trace == ("main: 1", "main: 2")

    def test_values_and_names_are_filled_in(self) -> None:
        env = Env(a=3, off=None, word="none", ch=object())
        assert env.fill("$a$off-$word $ch") == "3nil-none channel"
        assert [env.eval(text.split()) for text in ("a * 4", "a - 5", "a < 3", "a <= 3", "a % 2", "a != nil")] == [
            12,
            -2,
            0,
            1,
            1,
            1,
        ]
        assert env.eval(['"none"', "==", "word"]) == 1

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("task main\n", "x:1: a line before the first =="),
            ("== a\ntask main\nend\n", "x:3: end without a block"),
            ("== a\ntask main\nloop\n", "x:4: loop without end"),
            ("== a\ntask main\nloop\ntask b\n", "x:4: loop without end"),
            ("== a\ntask main\njump 1\n", "unknown word"),
            ("== a\ntask main\nsend c\n", "wrong number of words"),
            ("== a\ntask main\nelse\n", "else without if"),
            ("== a\ntask main\nif 1\nelse\nelse\nend\n", "else without if"),
            ("== a\ntask main\nbreak\n", "break outside a loop"),
            ("== a\ntask main\ncase default\n", "case without select"),
            ("== a\ntask main\nselect\ncase print x\nend\n", "no such arm"),
            ("== a\ntask main\nselect\nprint x\nend\n", "between select and its first case"),
            ("== a\ntask main\nspawn b\n", "spawn of 'b' does not fit"),
            ("== a\ntask main\nspawn b 1\ntask b\n", "spawn of 'b' does not fit"),
            ("== a\ntask main\ntask main\n", "a name of its own"),
            ("== a\nprint x\n", "outside a task"),
            ("== a\norder: none\n", "unknown header"),
            ("== a\nneeds: luck\n", "unknown header"),
            ("== a\ntask other\n", "no task main"),
            ("== a\ntask main x\n", "no task main"),
            ("== a\ntask main\n== a\ntask main\n", "a second script 'a'"),
            ("== a\ntask main\nprint " + "x" * MAX_LINE_BYTES, "bytes in a line"),
            ("#" * MAX_FILE_BYTES + "\n", f"more than {MAX_FILE_BYTES} bytes"),
            ("== a\ntask main\n" + "loop\n" * (MAX_BLOCK_DEPTH + 1), "blocks in each other"),
        ],
    )
    def test_text_that_is_no_script_names_the_line(self, text: str, says: str) -> None:
        with pytest.raises(ScriptError) as caught:
            parse_scripts(text, "x")
        assert says in str(caught.value)

    def test_headers_are_kept(self) -> None:
        one = script("print x", "about: says: this\norder: tasks\ndiffers: handoff")
        assert (one.about, one.by_task, one.handoff, one.selects) == ("says: this", True, True, False)
        assert script("select\ncase default\nend").selects

    def test_what_a_script_needs_of_its_channels_is_known(self) -> None:
        assert not script("make c 0\nrecv c").looks
        assert script("print x", "needs: one process").needs == "one process"
        assert [script(f"make c 1\n{line}").looks for line in ("len c n", "trysend c 1 h", "tryrecv c v h")] == [
            True
        ] * 3


class TestTraces:
    def test_outcomes_are_read_as_they_are_written(self) -> None:
        text = (
            "# head\n\n== a\n-- trace 1 of 2\nm: 1\nblocked: m recv c\n-- trace 2 of 2\n"
            "-- without settle 1 of 1\nm: 2\n\n== b\n-- trace 1 of 1\n"
        )
        assert dict(parse_traces(text)) == {
            "a": Outcomes([("m: 1", "blocked: m recv c"), ()], [("m: 2",)]),
            "b": Outcomes([()]),
        }

    @pytest.mark.parametrize("text", ["== a\nm: 1\n", "== a\n-- trace 1 of 1\nnonsense\n", "x\n"])
    def test_line_that_is_of_no_trace_raises(self, text: str) -> None:
        with pytest.raises(ScriptError):
            list(parse_traces(text))

    def test_translation_changes_what_r58_names_and_nothing_else(self) -> None:
        go = (
            "m: panic: close of closed channel",
            "m: panic: send on closed channel",
            "m: got 1",
            "blocked: a recv c",
            "blocked: m select without a live arm",
        )
        assert play.translate(go) == (
            "m: ChannelClosed",
            "m: got 1",
            "ValueError: m select without a live arm",
            "blocked: a recv c",
        )

    def test_loose_traces_are_allowed_to_marked_scripts_only(self) -> None:
        outcomes = Outcomes([("m: 1",)], [("m: 2",)])
        assert play.allowed(script("print x"), outcomes) == {("m: 1",)}
        assert play.allowed(script("print x", "differs: handoff"), outcomes) == {("m: 1",), ("m: 2",)}


class TestPlayer:
    @BOTH
    def test_tasks_that_wait_for_ever_are_named_with_what_they_do(self, front: Any) -> None:
        text = """== x
        task main
          make c 0
          spawn a c
          spawn b c
          recv c v
          join a b
        task a c
          send c 1
          send c 2
        task b c
          join main
        """
        (one,) = parse_scripts(text)
        assert front.play(one).trace == ("blocked: a send c", "blocked: b join main", "blocked: main join a")

    @BOTH
    def test_settle_waits_until_the_others_wait(self, front: Any) -> None:
        text = """== x
        task main
          make c 0
          make d 0
          spawn a c d
          settle
          print before
          send c 1
          settle
          print after
        task a c d
          print one
          recv c v
          print two
          recv d v
        """
        (one,) = parse_scripts(text)
        lines = ("a: one", "main: before", "a: two", "main: after", "blocked: a recv d")
        for seed in (None, 1, 2, 3):
            assert front.play(one, seed).trace == lines

    @BOTH
    def test_slip_in_a_script_is_raised_and_not_taken_for_a_trace(self, front: Any) -> None:
        with pytest.raises(ScriptError, match="no variable 'c'"):
            front.play(script("send c 1"))

    @BOTH
    def test_endless_task_is_a_failure(self, front: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(play, "MAX_TASK_STEPS", 100)
        with pytest.raises(AssertionError, match="does not end"):
            front.play(script("loop\nend"))

    @BOTH
    def test_script_that_is_never_quiet_runs_out_of_patience(self, front: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tests.interop.oracle.play.PATIENCE", 0.2)
        monkeypatch.setattr("tests.interop.oracle.fronts.PATIENCE", 0.2)
        text = "== x\ntask main\nspawn a\nsettle\ntask a\nsettle\n"
        (one,) = parse_scripts(text)
        with pytest.raises(TimeoutError):
            front.play(one)


class _Arm:
    """What ``recv_op`` and the like give, as far as the player looks at it."""

    def __init__(self, kind: str, value: Any = None, closed: bool = False) -> None:
        self.kind, self.value, self.closed = kind, value, closed


class _Chan:
    """A channel that makes arms."""

    def __init__(self, value: Any = None, closed: bool = False) -> None:
        self.tx = self.rx = self
        self.given = (value, closed)

    def recv_op(self) -> _Arm:
        return _Arm("recv", *self.given)

    def send_op(self, value: Any) -> _Arm:
        return _Arm("send", value)


class TestSelect:
    """What the interpreter asks of ``netchan.select`` and makes of its answer, driven by hand (R33-R38)."""

    BODY = """
    select
    case recv c v ok
      print got $v $ok
    case send d 4
      print sent
    case recv off v
      print never
    case after 2
      print late
    {default}
    end
    print end"""

    def begin(self, default: str = "", **env: Any) -> tuple[play.Run, play.Steps, Any]:
        one = script(self.BODY.format(default=default))
        front = AsyncioFront(CARRIERS["channel"], tick=0.5)
        front.after = lambda seconds: _Arm("after", seconds)  # type: ignore[method-assign]
        run = play.Run(one, front, None)
        values = {"c": _Chan(7), "d": _Chan(), "off": None} | env
        task = run.tasks["main"] = play.Task("main", one.tasks["main"], Env(values), None)
        steps = play.interpret(run, task)
        return run, steps, next(steps)

    @staticmethod
    def finish(run: play.Run, steps: play.Steps, answer: Any) -> list[str]:
        with pytest.raises(StopIteration):
            if isinstance(answer, Exception):
                steps.throw(answer)
            else:
                steps.send(answer)
        return [text for _, text in run.events]

    def test_arms_are_given_in_order_and_off_ones_as_none(self) -> None:
        run, _, (word, arms, keywords) = self.begin()
        assert (word, keywords) == ("select", {})
        assert [arm and (arm.kind, arm.value) for arm in arms] == [("recv", 7), ("send", 4), None, ("after", 1.0)]
        assert run.tasks["main"].timed and run.tasks["main"].live

    @pytest.mark.parametrize(("at", "shown"), [(0, "got 7 1"), (1, "sent"), (3, "late")])
    def test_winning_arm_goes_on_in_its_case(self, at: int, shown: str) -> None:
        run, steps, (_, arms, _) = self.begin()
        assert self.finish(run, steps, arms[at]) == [shown, "end"]
        assert not run.tasks["main"].timed

    def test_closed_arm_gives_nil(self) -> None:
        run, steps, (_, arms, _) = self.begin(c=_Chan(closed=True))
        assert self.finish(run, steps, arms[0]) == ["got nil 0", "end"]

    def test_default_comes_back_as_it_was_given(self) -> None:
        run, steps, (_, _, keywords) = self.begin("case default\nprint nothing")
        assert self.finish(run, steps, keywords["default"]) == ["nothing", "end"]

    def test_send_arm_that_cannot_proceed_shows_channel_closed(self) -> None:
        run, steps, _ = self.begin()
        assert self.finish(run, steps, play.ChannelClosed("over")) == ["ChannelClosed", "end"]
        assert run.differences == {play.CLOSED_RAISES: 1}

    def test_no_live_arm_ends_the_task_with_a_line_of_its_own(self) -> None:
        one = script("select\ncase recv off v\nend\nprint never")
        run = play.Run(one, AsyncioFront(CARRIERS["channel"]), None)
        task = run.tasks["main"] = play.Task("main", one.tasks["main"], Env(off=None), None)
        steps = play.interpret(run, task)
        assert next(steps) == ("select", (None,), {})
        assert self.finish(run, steps, ValueError("no live arm")) == []
        assert run.raised == ["ValueError: main select without a live arm"]
        assert run.differences == {play.NO_ARM_RAISES: 1}

    def test_value_error_with_a_live_arm_is_no_difference(self) -> None:
        _, steps, _ = self.begin()
        with pytest.raises(ValueError, match="wrong"):
            steps.throw(ValueError("wrong"))
