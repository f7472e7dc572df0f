"""Break the channel layer on purpose, one fault at a time, and see the conformance suites go red (``make mutants``).

Each fault is one replacement in one file of a copy of the package; the copy is then tested with the suites of
tests/conformance.py, on four pairs of ends under asyncio; the far process of the fourth runs from the copy too. A fault
that no case notices is printed as SURVIVED, and the status is 1. A fault whose text is no longer in the file is an error
here, and a test in tests/unit says so at once: mend the list with the code.
"""

# ruff: noqa: E501 - the texts of the faults are those of the files

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITES = (
    "tests/unit/channel/test_conformance.py",
    "tests/unit/channel/test_both_ends.py",
    "tests/unit/channel/test_select.py",
    "tests/unit/channel/test_select_local.py",
    "tests/unit/channel/test_overflow.py",
    "tests/unit/channel/test_spill.py",
)
PICK = "channel-asyncio or pipe-asyncio or session-asyncio or unix-asyncio or TestOffers"
LIMIT_S = 120


@dataclass(frozen=True)
class Fault:
    """What is wrong, where, and the text that makes it so."""

    what: str
    file: str
    old: str
    new: str


FAULTS = [
    Fault(
        "a receiver that leaves wakes nobody",
        "channel/waits.py",
        "        queue.leave(waiter, endpoint.can_recv)\n        if endpoint.capacity == 0:",
        "        queue.leave(waiter, lambda: False)\n        if endpoint.capacity == 0:",
    ),
    Fault(
        "a newcomer that looks takes what was meant for a woken receiver",
        "channel/receiver.py",
        "if not self._rxq.reserved() or self._ep.recv_over:",
        "if self._rxq is not None:",
    ),
    Fault(
        "a sender that leaves wakes nobody",
        "channel/waits.py",
        "                    return position\n            await waiter.park()\n    finally:\n"
        "        queue.leave(waiter, lambda: _may_follow(endpoint))",
        "                    return position\n            await waiter.park()\n    finally:\n"
        "        queue.leave(waiter, lambda: False)",
    ),
    Fault(
        "recv_many(min=n) takes before n are here",
        "channel/waits.py",
        "if endpoint.has(least) or endpoint.recv_ending:",
        "if endpoint.has(1) or endpoint.recv_ending:",
    ),
    Fault(
        "send_many forgets what it sent in earlier steps",
        "channel/waits.py",
        "        total += accepted\n        if exhausted:\n            break\n        await _count_values",
        "        total = accepted\n        if exhausted:\n            break\n        await _count_values",
    ),
    Fault(
        "one value more than the capacity is accepted",
        "channel/local.py",
        "            if len(flow.values) + flow.reserved + flow.permits >= flow.room:\n                return 0",
        "            if len(flow.values) + flow.reserved + flow.permits > flow.room:\n                return 0",
    ),
    Fault(
        "an accepted value wakes no receiver",
        "channel/local.py",
        "            flow.sent = position = flow.sent + 1\n        if flow.rx_waiters.waiting:\n            flow.rx_waiters.wake()\n"
        "        return position\n\n    def try_reserve",
        "            flow.sent = position = flow.sent + 1\n        return position\n\n    def try_reserve",
    ),
    Fault(
        "a taken value wakes no sender",
        "channel/local.py",
        "        if flow.tx_waiters.waiting or flow.ack_waiters.waiting:\n            flow.took()\n        return value",
        "        return value",
    ),
    Fault("every end is a clean one", "channel/local.py", "flow.end = int(how)", "flow.end = CLEAN"),
    Fault(
        "stop keeps what was accepted",
        "channel/local.py",
        "flow.finish(mark, discard=True, blocking=blocking)",
        "flow.finish(mark, discard=False, blocking=blocking)",
    ),
    Fault(
        "deliver is done when the value is accepted",
        "channel/local.py",
        '        if level == "received":\n            return True',
        "        if level:\n            return True",
    ),
    Fault(
        "an end wakes nobody",
        "channel/flow.py",
        "        for queue in (self.tx_waiters, self.rx_waiters, self.ack_waiters, self.end_waiters):\n            queue.wake_all()",
        "        for queue in (self.ack_waiters,):\n            queue.wake_all()",
    ),
    Fault(
        "an offer that was taken back can still be taken",
        "channel/flow.py",
        "                flow.offers.pop(self, None)\n",
        "",
    ),
    Fault("two offers of one select can be claimed", "channel/flow.py", "return self.won is offer", "return True"),
    Fault(
        "a select takes back no offer before it looks",
        "channel/arms.py",
        "        won = self.take_back()\n        if won is not None:\n            return won\n        for queue in self._rx:",
        "        for queue in self._rx:",
    ),
    Fault(
        "a select stays in the queues of its losing arms",
        "channel/arms.py",
        "            queue.leave(waiter, end.can_recv)\n",
        "",
    ),
    Fault(
        "a select that leaves wakes nobody",
        "channel/arms.py",
        "            queue.leave(waiter, end.can_recv)\n",
        "            queue.leave(waiter, lambda: False)\n",
    ),
    Fault(
        "a newcomer's select overtakes those who wait",
        "channel/arms.py",
        "            if queue.waiting and not over and (queue.reserved() if polling else not queue.vacant()):\n"
        "                continue\n",
        "",
    ),
    Fault(
        "the first ready arm always wins",
        "channel/arms.py",
        "return random.sample(self._ops, len(self._ops)) if len(self._ops) > 1 else self._ops",
        "return self._ops",
    ),
    Fault(
        "an offer across a session is never regretted",
        "channel/arms.py",
        "        if self.offer is None or offered is None:\n            return False",
        "        if self.offer is None or offered is not None:\n            return False",
    ),
    Fault(
        "a select offers across a session although nobody waits",
        "channel/remote.py",
        "if not self.wanted or not self.offer_room",
        "if not self.offer_room",
    ),
    Fault(
        "an op may be in two selects",
        "channel/arms.py",
        "                if op.busy:",
        "                if op.busy and default:",
    ),
    Fault(
        "the default comes back although an arm is ready",
        "channel/selecting.py",
        "        won = arms.now(polling=default is not _NONE)\n        if won is not None:",
        "        won = arms.now(polling=default is not _NONE)\n        if won is not None and default is _NONE:",
    ),
    Fault(
        "an op keeps the value of the select before",
        "channel/ops.py",
        "        self._value, self._error = EMPTY, None\n\n    def attempt",
        "        self._error = None\n\n    def attempt",
    ),
    Fault(
        "a receive arm of an ended channel never wins",
        "channel/ops.py",
        "            self._error = error\n            return True",
        "            self._error = error\n            return False",
    ),
    Fault(
        "a place that was reserved and not used is lost",
        "channel/permit.py",
        "        if self._held:\n            self._held = False\n            self._ep.unreserve()\n\n    def __del__",
        "        if self._held:\n            self._held = False\n\n    def __del__",
    ),
    Fault(
        "closing a Sender half does not end the direction",
        "channel/sender.py",
        "        handles.counted.discard(me)\n",
        "",
    ),
    Fault(
        "a lost Sender is not noticed",
        "channel/handle.py",
        "        if sent and not handles.sending and ep.drop_send()",
        "        if sent and not handles and ep.drop_send()",
    ),
    Fault(
        "a clean end across a session looks like our own stop",
        "channel/remote.py",
        "        if over == _FIN:\n            return channel_ended",
        "        if over == _STOPPED:\n            return channel_ended",
    ),
    Fault(
        "an offer across a session counts as taken when it is out",
        "channel/remote.py",
        "        if self._endpoint.offer_state(self._at) == _TAKEN:\n            self._taken()\n            return True\n"
        "        self._endpoint.check_send()",
        "        if self._endpoint.offer_state(self._at) != _WITHDRAWN:\n            self._taken()\n            return True\n"
        "        self._endpoint.check_send()",
    ),
    Fault(
        "one value more than the capacity travels across a session",
        "channel/remote.py",
        "            capacity,\n            terms.overflow,\n",
        "            capacity and capacity + 1,\n            terms.overflow,\n",
    ),
    Fault(
        "an abort across a session is always said to be our own",
        "channel/remote.py",
        "return channel_aborted(self.name, self.peer_id, code=code, reason=text, by_us=by_us)",
        "return channel_aborted(self.name, self.peer_id, code=code, reason=text, by_us=True)",
    ),
    Fault(
        "a block that was left by an exception ends cleanly across a session",
        "channel/remote.py",
        "self.end_after(Code.LEFT_BY_EXCEPTION)",
        "self.close_send()",
    ),
    Fault(
        "a lost sender ends cleanly across a session",
        "channel/remote.py",
        "self.end_after(Code.DROPPED)",
        "self.close_send()",
    ),
    Fault(
        "a session that was lost looks like the end",
        "channel/remote.py",
        "            return channel_ended(self.name, self.peer_id)\n        return self._session_lost()",
        "            return channel_ended(self.name, self.peer_id)\n        return channel_ended(self.name, self.peer_id)",
    ),
    Fault(
        "offers that were taken back count as sent",
        "channel/remote.py",
        "sent=sent - self.offers_out - self.offers_back",
        "sent=sent - self.offers_out",
    ),
    Fault(
        "deliver is done when any value was taken",
        "channel/sender.py",
        '        if not ep.reached("taken", position):\n            await wait_reached(ep, "taken", position, waiter)',
        '        if not ep.reached("taken", 1):\n            await wait_reached(ep, "taken", 1, waiter)',
    ),
    Fault(
        "a clone is not counted",
        "channel/sender.py",
        "        self._check()\n        return Sender(self._ep)",
        "        self._check()\n        made = Sender[S_contra](self._ep)\n        self._ep.handles.counted.discard(id(made))\n"
        "        return made",
    ),
    Fault(
        "recv_many knows no limit",
        "channel/receiver.py",
        "return self._recv_many(*check_batch(self._ep, max, min))\n",
        "return self._recv_many(1 << 20, check_batch(self._ep, max, min)[1])\n",
    ),
    Fault(
        "aclose does not wait until the values are there",
        "channel/waits.py",
        '        if not endpoint.reached("received", position):\n            waiter.at_most',
        '        if not endpoint.reached("received", 0):\n            waiter.at_most',
    ),
    Fault(
        "a reserve that was given up keeps its place in the line",
        "channel/waits.py",
        "endpoint.try_reserve():\n                return\n            await waiter.park()\n    finally:\n"
        "        queue.leave(waiter, lambda: _may_follow(endpoint))",
        "endpoint.try_reserve():\n                return queue.leave(waiter, endpoint.can_send)\n"
        "            await waiter.park()\n    finally:\n        pass",
    ),
    Fault(
        "drop_old drops the newest",
        "channel/lossy.py",
        "                while len(flow.values) >= room:\n                    gone.append(flow.values.popleft())",
        "                while len(flow.values) >= room:\n                    gone.append(flow.values.pop())",
    ),
    Fault(
        "what drop_new refuses is not counted",
        "channel/lossy.py",
        "                flow.refused += 1\n",
        "",
    ),
    Fault(
        "a value of any age is received",
        "channel/lossy.py",
        "while flow.values and flow.values[0].due <= now:",
        "while flow.values and flow.values[0].due <= 0:",
    ),
    Fault(
        "a send that may be dropped can be waited for",
        "channel/checks.py",
        'it may be dropped."""\n    if endpoint.lossy:\n',
        'it may be dropped."""\n    if False:\n',
    ),
    Fault(
        "a deliver that waits does not hear that its value may be dropped",
        "channel/checks.py",
        'the other side when it opened."""\n    if endpoint.lossy:\n',
        'the other side when it opened."""\n    if False:\n',
    ),
    Fault(
        "a name is bound for ever",
        "node/session.py",
        "    if closing or tx in (_FIN, _ABORT_AFTER, _ABORT) or rx == _ABORT:\n        return False\n"
        "    return not (rx in (_FIN, _ABORT_AFTER) and endpoint.recv_over)",
        "    return True",
    ),
    Fault(
        "a value goes by those on disk when there is room",
        "channel/spill_remote.py",
        "        if not backlog:\n            position = super().try_send(prepared)",
        "        if True:\n            position = super().try_send(prepared)",
    ),
    Fault(
        "what moved from the disk stays on it, too",
        "channel/spill_remote.py",
        "            if position:\n                backlog.pop()\n            return",
        "            if position and len(backlog) > 1:\n                backlog.pop()\n            return",
    ),
    Fault(
        "the end does not wait for what is on disk",
        "channel/spill_remote.py",
        "            try:\n                if not self.backlogged:\n                    self._backlog.close()\n                    self._end_now(code)",
        "            try:\n                if True:\n                    self._end_now(code)",
    ),
    Fault(
        "nobody hears that the file has room again",
        "channel/spill_remote.py",
        "            self.tx_waiters.nudge(self._mover)",
        "            pass",
    ),
    Fault(
        "a flush asks for what has not left the disk, and never again",
        "channel/spill_remote.py",
        "            if self._asked:\n                self._ask_again()",
        "            if not self._asked:\n                self._ask_again()",
    ),
    Fault(
        "time to live begins when a value leaves the disk",
        "channel/spill_remote.py",
        "int((monotonic() - stamp) * 1e9)",
        "int((monotonic() - stamp) * 0)",
    ),
    Fault(
        "an aborted channel keeps its file",
        "channel/spill_remote.py",
        "        if self.state[0] != _LOST:\n            self._backlog.close()",
        "        if self.state[0] != _LOST:\n            pass",
    ),
    Fault(
        "any number of permits at once",
        "channel/spill_remote.py",
        "if self._permits >= (PERMITS_MAX",
        "if self._permits < 0 * (PERMITS_MAX",
    ),
    Fault(
        "values without room are not brought from the disk when some are taken",
        "channel/spill_local.py",
        "            while self.backlog and len(self.values) < self.room:\n                data",
        "            while self.backlog and not self.values:\n                data",
    ),
    Fault(
        "a value goes by those on disk in process",
        "channel/spill_local.py",
        "        if not self.backlog and len(self.values) < self.room:\n            self.values.append(Aged(due, bytes(data)))",
        "        if len(self.values) <= self.room:\n            self.values.append(Aged(due, bytes(data)))",
    ),
    Fault(
        "pending forgets the disk",
        "channel/spill_local.py",
        "            return len(flow.values) + len(flow.backlog)",
        "            return len(flow.values)",
    ),
    Fault(
        "a failed write is told to nobody",
        "channel/backlog.py",
        "        if failure is not None and self.tail:\n            raise failure",
        "        if failure is not None and self.tail:\n            return",
    ),
    Fault(
        "values in memory are passed by later ones",
        "channel/backlog.py",
        "        return not self.tail and self.spool.fits(n)",
        "        return self.spool.fits(n)",
    ),
    Fault(
        "the file is longer than it may be",
        "channel/spool.py",
        "        return self.used + n + OVERHEAD <= most",
        "        return self.used + n <= most",
    ),
]


def run(fault: Fault | None, folder: Path) -> list[str]:
    """Cases that fail with this fault in the copy of the package; None: as it is."""
    for path in [ROOT / "netchan" / fault.file] if fault else []:
        text = path.read_text()
        if text.count(fault.old) != 1:  # type: ignore[union-attr]
            raise LookupError(f"{fault}: its text stands {text.count(fault.old)} times in the file")  # type: ignore[union-attr]
        (folder / "netchan" / fault.file).write_text(text.replace(fault.old, fault.new))  # type: ignore[union-attr]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", "-k", PICK, *SUITES]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "NETCHAN_PATIENCE": "2", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        failed = re.findall(r"^(?:FAILED|ERROR) \S*?::test_(\S+)", done.stdout, re.MULTILINE)
        if not failed and done.returncode not in (0, 1):
            failed = [f"the run ended with status {done.returncode}"]
    except subprocess.TimeoutExpired:
        failed = [f"the run hangs ({LIMIT_S} s)"]
    if fault:
        shutil.copyfile(ROOT / "netchan" / fault.file, folder / "netchan" / fault.file)
    return failed


def main() -> int:
    """Print a line per fault; the number of those that survived decides the status."""
    begun, survived = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("netchan", "tests", "pyproject.toml"):
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.c", "oracle"))
            else:
                shutil.copyfile(source, folder / part)
        healthy = run(None, folder)
        if healthy:
            print(f"without any fault these fail: {healthy}")
            return 1
        for number, fault in enumerate(FAULTS, 1):
            failed = run(fault, folder)
            survived += not failed
            print(f"{number:2} {fault.what}: {failed[0] if failed else 'SURVIVED'}", flush=True)
    print(f"{len(FAULTS)} faults, {survived} survived, {time.monotonic() - begun:.0f} s")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
