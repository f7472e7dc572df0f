"""The demo: one encrypted session over four paths that are cut and restored, one process replaced in the middle of it.

    make demo        or        python examples/demo.py

The *listener* and the *dialler* are processes of their own. They make a key each, keep the private half in a file that
only this user can read, and pin each other's node id. Their session has four paths, two over TCP, one over UDP and one
over a Unix socket, each through a relay in this process. Over it they open five channels and send on each of them in
both directions at once: four of small values, in batches, and one of large values, one at a time.

Meanwhile this process cuts paths (connections are reset and nobody answers; datagrams vanish), all four of them once,
and restores them; it changes what several paths are used for; and it has the listener hand its session over to a new
process and end. The values go on through all of it.

The proof does not ask the library. Every value begins with its number. Each side enters everything that it hands to
netchan, and everything that it gets from netchan, into books of its own with SHA-256, per channel and direction; the
receiver counts from the numbers alone what is missing, what came twice and what came out of order. The listener's books
move to the new process with its work. The last line is

    demo: ok sent=2000000 received=2000000 lost=0 doubled=0 reordered=0 sha256=...

with exit status 0, or `demo: FAILED ...` with exit status 1.

    NETCHAN_DEMO_VALUES=50000        exchange fewer values, or more
    NETCHAN_DEMO_FAULT=drop          see the proof fail: the listener drops (or `double`s, or `swap`s) one value after
                                     netchan has delivered it and before it is counted
    NETCHAN_DEMO_SECONDS=58          give up after so many seconds
    NETCHAN_DEMO_SEED=...            the same values again, and so the same sha256; by default each run has its own
    NETCHAN_DEMO_TABLE=plain         lines instead of the live table, or `live` for the table where the output is no
                                     terminal; by default a table on a terminal, if `rich` is installed
"""

import asyncio, contextlib, json, os, sys, tempfile, time

from demo_parts.books import FAULTS, NAMES, Failed, judge, plan
from demo_parts.relay import DatagramRelay, StreamRelay
from demo_parts.table import new_table

PATHS = ("tcp a", "tcp b", "udp", "unix")
# What happens while values go both ways: at which hundredth of them, and what. All of it happens in each run.
SCRIPT = (
    (4, "stripe"), (10, "cut", "tcp a"), (16, "restore", "tcp a"), (20, "mirror"), (26, "cut", "udp"),
    (32, "cut", "unix"), (38, "restore", "udp"), (42, "restore", "unix"), (48, "failover"), (55, "hand over"),
    (62, "parity(3, 1)"), (70, "cut all"), (78, "stripe"), (84, "cut", "tcp b"), (90, "restore", "tcp b"),
    (94, "failover"),
)
DARK = 0.5                          # seconds without any path
STEP = 0.6                          # seconds between two events, at least; of a run with the usual number of values
BACK = 15                           # seconds in which all four paths come back


class Child:
    """A process of the demo, seen from here: the last report of each kind."""

    def __init__(self, role, process):
        self.role, self.process = role, process
        self.said, self.news = {}, asyncio.Event()

    async def listen(self):
        async for line in self.process.stdout:
            event = json.loads(line)
            self.said[event["event"]] = event
            self.news.set()
        self.said["exit"] = await self.process.wait()
        self.news.set()

    async def hear(self, event):
        while event not in self.said:
            if "exit" in self.said:
                raise Failed(f"the {self.role} ended early with status {self.said['exit']}")
            self.news.clear()
            await self.news.wait()
        return self.said[event]

    def tell(self, what):
        self.process.stdin.write(json.dumps(what).encode() + b"\n")

    def report(self):
        return self.said.get("result") or self.said.get("progress")


class Demo:
    """What this process does."""

    def __init__(self, values, seconds, fault, folder):
        self.values, self.seconds, self.fault, self.folder = values, seconds, fault, folder
        self.seed = os.environ.get("NETCHAN_DEMO_SEED") or os.urandom(8).hex()
        self.children, self.relays, self.cut = [], {}, set()
        self.table = new_table(os.environ.get("NETCHAN_DEMO_TABLE", ""), PATHS)
        self.counts = plan(values)
        self.happened = {"cuts": 0, "restored": 0}
        self.gate, self.mode = (0, 1), "failover"

    async def start(self, role):
        command = [__file__, role, *map(str, (self.values, self.seconds, self.fault, self.seed, self.folder))]
        child = Child(
            "listener" if role == "next" else role,
            await asyncio.create_subprocess_exec(
                sys.executable, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26
            ),
        )
        self.children.append(child)
        child.listening = self.tasks.create_task(child.listen())
        return child

    async def kill(self):
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()
            await child.process.wait()
        for relay in self.relays.values():
            await relay.close()

    # --- what happens on the way --------------------------------------------------------------------------------------

    def reports(self):
        return [r for r in (self.listener.report(), self.dialler.report()) if r]

    def took(self):
        return sum(r["took"] for r in self.reports())

    async def until_took(self, hundredth):
        """So much of what may be sent has come in, of every channel."""
        wanted = sum(count * hundredth // 100 for count in self.counts.values())
        while self.took() < wanted:
            self.check()
            await asyncio.sleep(0.01)

    def check(self):
        for child in (self.listener, self.dialler):
            if "exit" in child.said and "result" not in child.said:
                raise Failed(f"the {child.role} ended early with status {child.said['exit']}")

    def allow(self, hundredth):
        """Both may send up to there."""
        self.gate = (hundredth, 100)
        for child in (self.listener, self.dialler):
            child.tell({"gate": self.gate})

    async def set_cut(self, name, dead):
        relay = self.relays[name]
        await (relay.cut() if dead else relay.restore())
        (self.cut.add if dead else self.cut.discard)(name)
        self.happened["cuts" if dead else "restored"] += 1
        self.table.say(f"{name} is {'cut' if dead else 'back'}")

    async def act(self, what, name=""):
        if what in ("cut", "restore"):
            await self.set_cut(name, what == "cut")
        elif what == "cut all":
            for each in PATHS:
                await self.set_cut(each, True)
            await asyncio.sleep(DARK)
            for each in PATHS:
                await self.set_cut(each, False)
        elif what == "hand over":
            await self.hand_over()
        else:
            self.mode = what
            for child in (self.listener, self.dialler):
                child.tell({"mode": what})
            self.table.say(f"redundancy is now {what}")

    async def hand_over(self):
        """Another process takes the listener's place; the dialler is told nothing."""
        old = self.listener
        new = await self.start("next")
        hello = await new.hear("hello")
        # it takes what the old one gives, and then hears how far the work has got
        new.tell({"node_id": self.dialler.said["hello"]["node_id"]})
        old.tell({"move": True})
        begun = time.monotonic()
        books = (await old.hear("moved"))["books"]
        new.tell({"addresses": self.addresses, "books": books, "gate": self.gate, "mode": self.mode})
        await new.hear("session")
        pause = time.monotonic() - begun
        if not new.said["taken"]["happened"]:
            raise Failed("the new process took nothing over")
        self.listener = new
        await old.listening
        if old.said["exit"]:
            raise Failed(f"the old listener ended with status {old.said['exit']}")
        self.table.say(f"the listener is now pid {hello['pid']}, {pause * 1e3:.0f} ms after the old one stopped")

    async def play(self):
        """The script, under load: an event happens when half of what may be sent before the next one has come in."""
        before = 0
        pause = STEP * min(1.0, self.values / 2_000_000)
        for hundredth, *what in SCRIPT:
            self.allow(hundredth)
            await self.until_took((before + hundredth) / 2 if what != ["hand over"] else before)
            began = time.monotonic()
            await self.act(*what)
            await self.until_took(hundredth)
            await asyncio.sleep(max(0.0, began + pause - time.monotonic()))
            before = hundredth
        await self.all_back()
        self.allow(100)

    async def all_back(self):
        end = time.monotonic() + BACK
        while len(self.dialler.report()["paths"]) < len(PATHS):
            self.check()
            if time.monotonic() > end:
                raise Failed(f"after {BACK} s the session has {len(self.dialler.report()['paths'])} paths")
            await asyncio.sleep(0.02)

    # --- beginning and end --------------------------------------------------------------------------------------------

    async def connect(self):
        """Both processes, the relays between them, and the session."""
        self.listener, self.dialler = await self.start("listener"), await self.start("dialler")
        keys = {c.role: await c.hear("hello") for c in self.children}
        self.listener.tell({"node_id": keys["dialler"]["node_id"]})
        where = {}
        for address in (await self.listener.hear("address"))["addresses"]:
            kind, rest = address.split("://")
            where[kind] = rest.rpartition("@")[2]
        self.addresses = [f"{kind}://{rest}" for kind, rest in where.items()]
        for name in PATHS:
            kind = name.split()[0]
            if kind == "unix":
                self.relays[name] = StreamRelay(f"{self.folder}/relay", where[kind])
            else:
                host, _, port = where[kind].rpartition(":")
                maker = DatagramRelay if kind == "udp" else StreamRelay
                self.relays[name] = maker(("127.0.0.1", 0), (host, int(port)))
            await self.relays[name].restore()
        self.places = {}
        for name, relay in self.relays.items():
            place = relay.place if name == "unix" else ":".join(map(str, relay.place))
            self.places[f"{name.split()[0]}://{place}"] = name
        node_id = keys["listener"]["node_id"]
        self.dialler.tell([place.replace("://", f"://{node_id}@") for place in self.places])
        for c, other in ((self.listener, "dialler"), (self.dialler, "listener")):
            met = await c.hear("session")
            if met["node_id"] != keys[other]["node_id"]:
                raise Failed(f"the {c.role} met {met['node_id']}, not the {other}")
            print(f"  {c.role:8} pid {keys[c.role]['pid']}  {keys[c.role]['node_id']}", flush=True)
        hello = keys["listener"]
        print(f"  session  over {', '.join(PATHS)}; both sides authenticated by node id, {len(NAMES)} channels")
        print(f"  crypto   {hello['version']} (provider {hello['provider']!r})", flush=True)
        await self.dialler.hear("progress")
        await self.all_back()

    async def show(self, total):
        """What came in, and how the paths are."""
        while True:
            reports = self.reports()
            if len(reports) == 2:
                rows = {self.places.get(p[0]): p[1:] for p in self.dialler.report().get("paths", [])}
                self.table.show(
                    sum(r["took"] for r in reports), total, sum(r["bytes"] for r in reports) / 2, rows, self.cut,
                    self.mode,
                )
            await asyncio.sleep(0.1)

    async def run(self):
        what = f"{self.values:,} values between two processes, each hashing for itself"
        print(f"netchan demo: {what} (seed {self.seed})", flush=True)
        async with asyncio.TaskGroup() as self.tasks:
            await self.connect()
            began = time.monotonic()
            with self.table:
                shown = self.tasks.create_task(self.show(self.values))
                await self.play()
                results = [await c.hear("result") for c in (self.listener, self.dialler)]
                shown.cancel()
            spent = time.monotonic() - began
            for c in (self.listener, self.dialler):
                if await c.hear("exit"):
                    raise Failed(f"the {c.role} ended with status {c.said['exit']}")
        end = judge(results, self.values)
        moved = sum(r["bytes"] for r in results) / 2
        stats = [r["stats"] for r in results]
        rates = f"{self.values / spent:,.0f} values/s, {moved / spent / 1e6:.1f} MB/s"
        print(f"  in all   {spent:.1f} s, {rates}, {sum(s['rekeys'] for s in stats)} key changes")
        print(
            f"  paths    {self.happened['cuts']} cuts, {self.happened['restored']} restored, 1 process replaced, "
            f"{sum(s['resent'] for s in stats):,} records sent again, {max(s['resumes'] for s in stats)} resumptions"
        )
        return end


def number(name, default, low):
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < low:
        raise Failed(f"{name}={text!r} is not a whole number of at least {low}")
    return int(text)


async def main():
    demo, reason = None, None
    try:
        values = number("NETCHAN_DEMO_VALUES", 2_000_000, 1000)
        seconds = number("NETCHAN_DEMO_SECONDS", 58, 1)
        fault = os.environ.get("NETCHAN_DEMO_FAULT", "")
        if fault and fault not in FAULTS:
            raise Failed(f"NETCHAN_DEMO_FAULT={fault!r} is not one of {', '.join(FAULTS)}")
        with tempfile.TemporaryDirectory(prefix="netchan-") as folder:
            demo = Demo(values, seconds, fault, folder)
            try:
                async with asyncio.timeout(seconds):
                    print(await demo.run(), flush=True)
            finally:
                await demo.kill()
    except TimeoutError:
        reason = f"not done within {seconds} s"
    except Failed as error:
        reason = str(error)
    except ExceptionGroup as group:
        reason = "; ".join(str(error) for error in group.exceptions)
    if reason is not None:
        print(f"demo: FAILED {reason}", flush=True)
    return int(reason is not None)


if __name__ == "__main__":
    try:
        if len(sys.argv) == 7 and sys.argv[1] in ("listener", "dialler", "next"):
            from demo_parts.side import run

            role, values, seconds, fault, seed, folder = sys.argv[1:]
            asyncio.run(run(role, plan(int(values)), int(seconds), fault, seed, folder))
        else:
            sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:                           # reaches all processes; the parent has the word
        if len(sys.argv) == 1:
            print("demo: FAILED interrupted", flush=True)
        sys.exit(1)
