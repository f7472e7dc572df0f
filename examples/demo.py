"""The demo: two processes exchange two million values over one encrypted session, and each proves what it saw.

    make demo        or        python examples/demo.py

Three processes run. This one only starts the other two, prints what they report and compares it at the end. The
*listener* and the *dialler* make a key each, tell nobody the private half, and pin each other's node id: the session
is encrypted and mutually authenticated. Over TCP on the loopback they open five channels and send on each of them in
both directions at once: four of small values, in batches, and one of large values, one at a time.

The proof does not ask the library. Every value begins with its number. Each side feeds everything it hands to netchan,
and everything it gets from netchan, to SHA-256 of its own, per channel and direction; the receiver counts from the
numbers alone what is missing, what came twice and what came out of order. The last line is

    demo: ok sent=2000000 received=2000000 lost=0 doubled=0 reordered=0 sha256=...

with exit status 0, or `demo: FAILED ...` with exit status 1.

    NETCHAN_DEMO_VALUES=50000        exchange fewer values, or more
    NETCHAN_DEMO_FAULT=drop          see the proof fail: the listener drops (or `double`s, or `swap`s) one value after
                                     netchan has delivered it and before it is counted
    NETCHAN_DEMO_SECONDS=58          give up after so many seconds
    NETCHAN_DEMO_SEED=...            the same values again, and so the same sha256; by default each run has its own
"""

import asyncio, contextlib, hashlib, json, os, random, struct, sys, time
from array import array

SMALL = ("small-0", "small-1", "small-2", "small-3")
LARGE = "large"
NAMES = (*SMALL, LARGE)
LARGE_SHARE = 10_000                # one value in so many is a large one
LARGE_BYTES = (64 << 10, 256 << 10) # lengths of the large ones
SMALL_BYTES = (0, 112)              # lengths of the small ones, behind the number
BATCH = 512                         # values handed to one send_many
CAPACITY = 4096                     # values that may be under way in a channel; beyond that the sender waits
FAULTS = ("drop", "double", "swap")


def plan(values):
    """How many values each channel carries, {(channel, direction): count}; both sides make the same plan."""
    ways = ("to-listener", "to-dialler")
    large = max(1, values // LARGE_SHARE // len(ways))
    counts = {(LARGE, way): large for way in ways}
    share, rest = divmod(values - large * len(ways), len(SMALL) * len(ways))
    for i, key in enumerate((name, way) for name in SMALL for way in ways):
        counts[key] = share + (i < rest)
    return counts


# --- the two books: what was sent, and what was received --------------------------------------------------------------

class Book:
    """Two digests over a sequence of values, one of their bytes and one of their lengths, so that no other cut fits."""

    def __init__(self):
        self.bytes, self.lengths = hashlib.sha256(), hashlib.sha256()
        self.count = self.size = 0

    def write(self, values):
        data = b"".join(values)
        self.bytes.update(data)
        self.lengths.update(array("L", map(len, values)).tobytes())
        self.count += len(values)
        self.size += len(data)

    def digest(self):
        return hashlib.sha256(self.bytes.digest() + self.lengths.digest()).hexdigest()


class Inbox(Book):
    """A book that also judges the order, from the numbers in the values alone."""

    def __init__(self, expected):
        super().__init__()
        self.expected = expected
        self.seen = bytearray(expected)                 # one byte per number: did it come?
        self.next = 0                                   # one more than the highest number so far
        self.doubled = self.reordered = self.strange = 0

    def write(self, values):
        super().write(values)
        try:
            numbers = struct.unpack(f">{len(values)}Q", b"".join([value[:8] for value in values]))
        except struct.error:                            # a value too short to hold a number
            self.strange += len(values)
            return
        end = self.next + len(values)
        if end <= self.expected and numbers == tuple(range(self.next, end)):
            self.seen[self.next : end] = b"\1" * len(values)
            self.next = end
            return
        for number in numbers:                          # something is wrong: look at each
            if number >= self.expected:
                self.strange += 1
            elif self.seen[number]:
                self.doubled += 1
            else:
                self.seen[number] = 1
                self.reordered += number < self.next
                self.next = max(self.next, number + 1)

    def lost(self):
        return self.expected - sum(self.seen)


class Fault:
    """Drops, doubles or swaps one value between netchan and the book: the switch that shows that the proof can fail."""

    def __init__(self, kind, at):
        self.kind, self.left, self.held = kind, at, None

    def __call__(self, values):
        if self.held is not None and values:            # swap: the value held back comes behind its successor
            values, self.held = [values[0], self.held, *values[1:]], None
        elif 0 <= self.left < len(values):
            at, self.left = self.left, -1
            before, value, after = values[:at], values[at], values[at + 1 :]
            if self.kind == "drop":
                values = before + after
            elif self.kind == "double":
                values = [*before, value, value, *after]
            elif after:
                values = [*before, after[0], value, *after[1:]]
            else:
                values, self.held = before, value
        else:
            self.left -= len(values)
        return values


# --- one of the two processes -----------------------------------------------------------------------------------------

async def send_small(channel, count, book, seed):
    """Numbered values of many lengths, a batch at a time; the batch is in the book before netchan sees it."""
    rng = random.Random(seed)
    bodies = [rng.randbytes(rng.randint(*SMALL_BYTES)) for _ in range(1021)]
    pack = struct.Struct(">Q").pack
    for start in range(0, count, BATCH):
        batch = [pack(n) + bodies[n % 1021] for n in range(start, min(start + BATCH, count))]
        book.write(batch)
        await channel.send_many(batch)
    channel.close()


async def send_large(channel, count, book, seed):
    """Long values, one send each."""
    rng = random.Random(seed)
    for n in range(count):
        value = n.to_bytes(8, "big") + rng.randbytes(rng.randint(*LARGE_BYTES))
        book.write([value])
        await channel.send(value)
    channel.close()


async def receive_small(channel, book, fault):
    """Everything until the other side closes."""
    import netchan

    with contextlib.suppress(netchan.ChannelEnded):
        while True:
            book.write(fault(await channel.recv_many(BATCH)))


async def receive_large(channel, book):
    async for value in channel:
        book.write([value])


def say(**what):
    print(json.dumps(what), flush=True)


async def exchange(peer, role, counts, fault_kind, seed):
    """Send and receive on all channels at once; report twice a second, and what was seen at the end."""
    out, back = ("to-dialler", "to-listener") if role == "listener" else ("to-listener", "to-dialler")
    sent = {name: Book() for name in NAMES}
    received = {name: Inbox(counts[name, back]) for name in NAMES}

    def progress():
        return {
            "sent": sum(b.count for b in sent.values()),
            "received": sum(b.count for b in received.values()),
            "bytes": sum(b.size for b in (*sent.values(), *received.values())),
        }

    async def report():
        while True:
            await asyncio.sleep(0.5)
            say(event="progress", **progress(), stats=peer.stats())

    async with asyncio.TaskGroup() as tasks:
        reporter = tasks.create_task(report())
        work = []
        for name in NAMES:
            channel = peer.open(name, bytes, capacity=CAPACITY if name in SMALL else 8)
            send, rng_seed = send_small if name in SMALL else send_large, f"{seed} {role} {name}"
            work.append(tasks.create_task(send(channel, counts[name, out], sent[name], rng_seed)))
            if name == LARGE:
                work.append(tasks.create_task(receive_large(channel, received[name])))
            else:
                at = counts[name, back] // 2 if fault_kind and name == SMALL[0] and role == "listener" else -1
                work.append(tasks.create_task(receive_small(channel, received[name], Fault(fault_kind, at))))
        await asyncio.wait(work)
        reporter.cancel()
    say(
        event="result",
        **progress(),
        stats=peer.stats(),
        books={f"{name} {out} sent": (book.count, book.digest()) for name, book in sent.items()}
        | {f"{name} {back} received": (book.count, book.digest()) for name, book in received.items()},
        lost=sum(book.lost() for book in received.values()),
        doubled=sum(book.doubled for book in received.values()),
        reordered=sum(book.reordered for book in received.values()),
        strange=sum(book.strange for book in received.values()),
    )


async def child(role, values, seconds, fault_kind, seed):
    """The listener or the dialler. It tells its node id, is told the other's, and keeps its key to itself."""
    import netchan
    from netchan._core import provider

    identity = netchan.Identity.generate()
    config = netchan.Config(lease=2)            # a process that is killed does not come back
    library = provider.load()
    say(event="hello", node_id=identity.node_id, provider=library.name, version=library.version, pid=os.getpid())
    counts = plan(values)
    async with asyncio.timeout(seconds):
        theirs = await asyncio.to_thread(sys.stdin.readline)
        if role == "listener":
            async with netchan.listen(
                "tcp://127.0.0.1:0", identity=identity, trust=[theirs.strip()], config=config
            ) as listener:
                say(event="address", address=listener.addresses[0])
                async with await listener.recv() as peer:
                    say(event="session", node_id=peer.node_id, remote=peer.remote_address)
                    await exchange(peer, role, counts, fault_kind, seed)
        else:
            # the address carries the listener's node id: whoever else answers there is refused
            async with netchan.dial(theirs.strip(), identity=identity, config=config) as peer:
                say(event="session", node_id=peer.node_id, remote=peer.remote_address)
                await exchange(peer, role, counts, None, seed)


# --- the parent -------------------------------------------------------------------------------------------------------

class Child:
    """A process of the demo, seen from the parent: the last report of each kind."""

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

    def tell(self, text):
        self.process.stdin.write(text.encode() + b"\n")


class Failed(Exception):
    """The demo did not prove what it should."""


async def start(role, *arguments):
    return Child(
        role,
        await asyncio.create_subprocess_exec(
            sys.executable, __file__, role, *map(str, arguments),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
        ),
    )


async def table(children, total):
    """A line a second: what came in over both processes."""
    print(f"{'time':>6} {'values':>11} {'values/s':>11} {'MB/s':>7} {'records':>9} {'rtt':>8}", flush=True)
    began = last_time = time.monotonic()
    last = {"received": 0, "bytes": 0}
    while True:
        await asyncio.sleep(1)
        now = time.monotonic()
        reports = [c.said.get("result") or c.said.get("progress") for c in children]
        if not all(reports):
            continue
        sums = {key: sum(r[key] for r in reports) for key in last}
        records = sum(r["stats"]["records_received"] for r in reports)
        rtt, step = reports[0]["stats"]["rtt_us"], now - last_time
        print(
            f"{now - began:5.1f}s {sums['received']:>11,} {(sums['received'] - last['received']) / step:>11,.0f} "
            f"{(sums['bytes'] - last['bytes']) / 2 / step / 1e6:>7.1f} {records:>9,} {rtt:>6}us",
            flush=True,
        )
        last, last_time = sums, now
        if sums["received"] >= total:
            return


def judge(results, total):
    """The end line; raises Failed with the reason. Only what the two processes counted and hashed is looked at."""
    books = {key: value for result in results for key, value in result["books"].items()}
    names = ("sent", "received", "lost", "doubled", "reordered")
    figures = {name: sum(result[name] for result in results) for name in names}
    overall = hashlib.sha256()
    wrong = []
    for key in sorted(k for k in books if k.endswith(" sent")):
        stream = key.removesuffix(" sent")
        overall.update(books[key][1].encode())
        if books[key] != books[f"{stream} received"]:
            wrong.append(stream)
    text = " ".join(f"{key}={value}" for key, value in figures.items())
    strange = sum(result["strange"] for result in results)
    flaws = figures["lost"] + figures["doubled"] + figures["reordered"] + strange
    if wrong or flaws or not figures["sent"] == figures["received"] == total:
        differ = f" differ={','.join(wrong)}" if wrong else ""
        raise Failed(f"{text} strange={strange}{differ}")
    return f"demo: ok {text} sha256={overall.hexdigest()}"


async def supervise(values, seconds, fault, children):
    seed = os.environ.get("NETCHAN_DEMO_SEED") or os.urandom(8).hex()
    print(f"netchan demo: {values:,} values between two processes, each hashing for itself (seed {seed})", flush=True)
    for role in ("listener", "dialler"):
        children.append(await start(role, values, seconds, fault, seed))
    listener, dialler = children
    async with asyncio.TaskGroup() as tasks:
        for c in children:
            tasks.create_task(c.listen())
        keys = {c.role: await c.hear("hello") for c in children}
        listener.tell(keys["dialler"]["node_id"])
        dialler.tell((await listener.hear("address"))["address"])
        for c, other in ((listener, "dialler"), (dialler, "listener")):
            met = await c.hear("session")
            if met["node_id"] != keys[other]["node_id"]:
                raise Failed(f"the {c.role} met {met['node_id']}, not the {other}")
            print(f"  {c.role:8} pid {keys[c.role]['pid']}  {keys[c.role]['node_id']}", flush=True)
        hello = keys["listener"]
        address = (await dialler.hear("session"))["remote"]
        print(f"  session  {address}, both sides authenticated by node id, {len(NAMES)} channels in both directions")
        print(f"  crypto   {hello['version']} (provider {hello['provider']!r})", flush=True)
        began = time.monotonic()
        rows = tasks.create_task(table(children, values))
        results = [await c.hear("result") for c in children]
        spent = time.monotonic() - began
        rows.cancel()
        for c in children:
            if await c.hear("exit"):
                raise Failed(f"the {c.role} ended with status {c.said['exit']}")
    end = judge(results, values)
    moved = sum(r["bytes"] for r in results) / 2
    rekeys = sum(r["stats"]["rekeys"] for r in results)
    rates = f"{values / spent:,.0f} values/s, {moved / spent / 1e6:.1f} MB/s"
    print(f"  in all   {spent:.1f} s, {rates}, {rekeys} key changes")
    return end


def number(name, default, low):
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < low:
        raise Failed(f"{name}={text!r} is not a whole number of at least {low}")
    return int(text)


async def main():
    children, reason = [], None
    try:
        values = number("NETCHAN_DEMO_VALUES", 2_000_000, 100)
        seconds = number("NETCHAN_DEMO_SECONDS", 58, 1)
        fault = os.environ.get("NETCHAN_DEMO_FAULT", "")
        if fault and fault not in FAULTS:
            raise Failed(f"NETCHAN_DEMO_FAULT={fault!r} is not one of {', '.join(FAULTS)}")
        async with asyncio.timeout(seconds):
            print(await supervise(values, seconds, fault, children), flush=True)
    except TimeoutError:
        reason = f"not done within {seconds} s"
    except Failed as error:
        reason = str(error)
    except ExceptionGroup as group:
        reason = "; ".join(str(error) for error in group.exceptions)
    finally:
        for c in children:
            with contextlib.suppress(ProcessLookupError):
                c.process.kill()
            await c.process.wait()
    if reason is not None:
        print(f"demo: FAILED {reason}", flush=True)
    return int(reason is not None)


if __name__ == "__main__":
    try:
        if len(sys.argv) == 6 and sys.argv[1] in ("listener", "dialler"):
            role, values, seconds, fault, seed = sys.argv[1:]
            asyncio.run(child(role, int(values), int(seconds), fault, seed))
        else:
            sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:                           # reaches all three processes; the parent has the word
        if len(sys.argv) == 1:
            print("demo: FAILED interrupted", flush=True)
        sys.exit(1)
