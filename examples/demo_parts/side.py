"""One of the two processes of the demo: it sends, receives and keeps its books. The listener can be replaced meanwhile.

It talks to the parent over its standard input and output, a line of JSON each: what it is told are gates (how far it
may send) and, to the listener, ``move``: give everything to the process that waits to take over.
"""

import asyncio, contextlib, json, logging, os, sys
from fractions import Fraction

from demo_parts.books import BATCH, NAMES, SMALL, Book, Fault, Inbox, Values

CAPACITY = 4096                     # values that may be under way in a channel; beyond that the sender waits
WAIT = 30                           # seconds for the other process of a hand-over


def say(**what):
    print(json.dumps(what), flush=True)


class Side:
    """The work of one process on one session.

    before: books of the process before this one, or None.
    """

    def __init__(self, peer, role, counts, fault, seed, before):
        self.peer, self.counts = peer, counts
        self.way, self.back = ("to-dialler", "to-listener") if role == "listener" else ("to-listener", "to-dialler")
        self.sent = {name: Book(name in SMALL) for name in NAMES}
        self.received = {name: Inbox(name in SMALL, counts[name, self.back]) for name in NAMES}
        for books, kept in ((self.sent, "sent"), (self.received, "received")):
            for name in NAMES if before else ():
                books[name].unpack(before[kept][name])
        self.took = before["took"] if before else 0     # values that netchan has given, before any fault
        self.faults = {name: Fault("", -1) for name in NAMES}
        if fault and not before and role == "listener":
            self.faults[SMALL[0]] = Fault(fault, counts[SMALL[0], self.back] * 9 // 20)
        self.values = {name: Values(name, self.way, seed) for name in NAMES}
        self.gate, self.opened = Fraction(0), asyncio.Event()
        self.moving = False

    # --- the work -----------------------------------------------------------------------------------------------------

    async def send(self, channel, name):
        """Batches up to the gate; a batch is in the book before netchan sees it."""
        book, count = self.sent[name], self.counts[name, self.way]
        step = BATCH if name in SMALL else 1
        while book.count < count and not self.moving:
            end = min(book.count + step, int(count * self.gate))
            if end <= book.count:
                self.opened.clear()
                await self.opened.wait()
                continue
            batch = self.values[name].batch(book.count, end)
            book.write(batch)
            await channel.send_many(batch)
        if not self.moving:
            channel.close()

    async def receive(self, channel, name):
        """Everything until the other side closes. Cancelled: nothing was taken that is not in the book."""
        import netchan

        book, fault, most = self.received[name], self.faults[name], BATCH if name in SMALL else 1
        with contextlib.suppress(netchan.ChannelEnded):
            while True:
                values = await channel.recv_many(most)
                self.took += len(values)
                book.write(fault(values))

    async def report(self):
        while True:
            say(event="progress", **self.progress(), stats=self.peer.stats(), paths=self.paths())
            await asyncio.sleep(0.05)

    def progress(self):
        return {
            "took": self.took,
            "sent": sum(b.count for b in self.sent.values()),
            "bytes": sum(b.size for b in (*self.sent.values(), *self.received.values())),
        }

    def paths(self):
        return [[p.address, p.state, p.rtt, p.rate, p.in_flight] for p in self.peer.paths]

    def tell(self, order):
        """What the parent says."""
        if "gate" in order:
            self.gate = Fraction(*order["gate"])
        if "mode" in order:
            self.peer.redundancy = order["mode"]
        if "move" in order:
            self.moving = True
        self.opened.set()

    async def exchange(self, orders):
        """Send and receive on all channels at once. True: all is done; False: what is left is another process's."""
        reporter = asyncio.create_task(self.report())
        # kept until all is over: a channel whose last handle is lost is dropped
        self.channels = {
            name: self.peer.open(name, bytes, capacity=CAPACITY if name in SMALL else 8) for name in NAMES
        }
        sending = [asyncio.create_task(self.send(channel, name)) for name, channel in self.channels.items()]
        receiving = [asyncio.create_task(self.receive(channel, name)) for name, channel in self.channels.items()]
        work = asyncio.create_task(asyncio.wait([*sending, *receiving], return_when=asyncio.FIRST_EXCEPTION))
        listening = asyncio.create_task(self.listen(orders))
        try:
            await asyncio.wait([work, listening], return_when=asyncio.FIRST_COMPLETED)
            if not self.moving:
                await asyncio.gather(*sending, *receiving)
                return True
            await asyncio.gather(*sending)              # each has handed over its batch, and begins no other
            for task in receiving:
                task.cancel()
            await asyncio.gather(*receiving, return_exceptions=True)
            return False
        finally:
            for task in (work, listening, reporter):
                task.cancel()

    async def listen(self, orders):
        """Orders of the parent, until this process has to move."""
        while not self.moving:
            self.tell(json.loads(await orders.readline() or b'{"gate": [1, 1]}'))

    # --- what it has to say at the end --------------------------------------------------------------------------------

    def pack(self):
        """The books, for the process that goes on."""
        packed = {"sent": {}, "received": {}, "took": self.took}
        for kept, books in (("sent", self.sent), ("received", self.received)):
            packed[kept] = {name: book.pack() for name, book in books.items()}
        return packed

    def result(self):
        inboxes = self.received.values()
        return {
            **self.progress(),
            "received": sum(b.count for b in inboxes),
            "stats": self.peer.stats(),
            "books": {f"{name} {self.way} sent": (b.count, b.digest()) for name, b in self.sent.items()}
            | {f"{name} {self.back} received": (b.count, b.digest()) for name, b in self.received.items()},
            "lost": sum(b.lost() for b in inboxes),
            "doubled": sum(b.doubled for b in inboxes),
            "reordered": sum(b.reordered for b in inboxes),
            "strange": sum(b.strange for b in inboxes),
        }


async def standard_input():
    reader = asyncio.StreamReader(limit=1 << 26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def run(role, counts, seconds, fault, seed, folder):
    """A process of the demo: "listener", "dialler", or "next", the listener that takes over."""
    import netchan
    from netchan._core import provider

    logging.getLogger("netchan.session").setLevel(logging.ERROR)    # else it warns of each path that is cut
    # Its key is in a file that only this user can read, because the process that takes over has to have the same.
    key = "dialler.key" if role == "dialler" else "listener.key"
    identity = netchan.Identity.load_or_create(f"{folder}/{key}")
    config = netchan.Config(lease=10, datagrams=True)   # ten seconds without any path, and it is over
    library = provider.load()
    orders = await standard_input()
    say(event="hello", node_id=identity.node_id, provider=library.name, version=library.version, pid=os.getpid())
    async with asyncio.timeout(seconds):
        if role == "dialler":
            # the addresses carry the listener's node id: whoever else answers there is refused
            places = json.loads(await orders.readline())
            async with netchan.dial(places, identity=identity, config=config) as peer:
                say(event="session", node_id=peer.node_id)
                side = Side(peer, role, counts, "", seed, None)
                await side.exchange(orders)
                say(event="result", **side.result())
            return
        where = ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", f"unix://{folder}/listener"]
        door = f"{folder}/hand-over"
        theirs = json.loads(await orders.readline())
        async with netchan.take_over(door, wait=WAIT if role == "next" else 0) as past:
            if role == "next":
                say(event="taken", happened=past.happened)
                theirs |= json.loads(await orders.readline())
                where = theirs["addresses"]
            listener = await past.listen(where, identity=identity, trust=[theirs["node_id"]], config=config)
        say(event="address", addresses=listener.addresses)
        async with listener:
            peer = await listener.recv()
            say(event="session", node_id=peer.node_id)
            side = Side(peer, "listener", counts, fault, seed, theirs.get("books"))
            if "gate" in theirs:
                side.tell(theirs)
            if not await side.exchange(orders):
                await netchan.hand_over(door, listener, wait=WAIT)
                say(event="moved", books=side.pack())
                return
            say(event="result", **side.result())
            await peer.aclose()
