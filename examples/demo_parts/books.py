"""What the two processes of the demo send, and the books in which each of them enters what it sent and received.

Nothing here asks the library: a value begins with its number, and each book hashes what it is given.
"""

import base64, hashlib, random, struct
from array import array

SMALL = ("small-0", "small-1", "small-2", "small-3")
LARGE = "large"
NAMES = (*SMALL, LARGE)
WAYS = ("to-listener", "to-dialler")
LARGE_SHARE = 10_000                # one value in so many is a large one
LARGE_BYTES = (64 << 10, 256 << 10) # lengths of the large ones
SMALL_BYTES = (0, 112)              # lengths of the small ones, behind the number
BODIES = 1021                       # different bodies of small values
BATCH = 512                         # values handed to one send_many
BLOCK = {True: 256, False: 1}       # values hashed together: small, large
FAULTS = ("drop", "double", "swap")


def plan(values):
    """How many values each channel carries, {(channel, direction): count}; both sides make the same plan."""
    large = max(1, values // LARGE_SHARE // len(WAYS))
    counts = {(LARGE, way): large for way in WAYS}
    share, rest = divmod(values - large * len(WAYS), len(SMALL) * len(WAYS))
    for i, key in enumerate((name, way) for name in SMALL for way in WAYS):
        counts[key] = share + (i < rest)
    return counts


class Values:
    """The values of one channel and direction; whoever knows the seed makes the same ones, from any place on."""

    def __init__(self, name, way, seed):
        self.name, self.seed = name, f"{seed} {way} {name}"
        rng = random.Random(self.seed)
        self.bodies = [rng.randbytes(rng.randint(*SMALL_BYTES)) for _ in range(BODIES if name in SMALL else 0)]

    def batch(self, start, end):
        if self.bodies:
            return [n.to_bytes(8, "big") + self.bodies[n % BODIES] for n in range(start, end)]
        made = []
        for n in range(start, end):
            rng = random.Random(f"{self.seed} {n}")
            made.append(n.to_bytes(8, "big") + rng.randbytes(rng.randint(*LARGE_BYTES)))
        return made


class Book:
    """Counts and digests over a sequence of values: of their bytes and of their lengths, so that no other cut fits.

    The digest is one over digests of blocks of values, so that what was entered can move to another process.
    """

    def __init__(self, small):
        self.block = BLOCK[small]
        self.open, self.done = [], []       # values of the block that is being filled; digests of those before it
        self.count = self.size = 0

    def write(self, values):
        self.count += len(values)
        self.size += sum(map(len, values))
        self.open += values
        while len(self.open) >= self.block:
            self.done.append(self.hashed(self.open[: self.block]))
            del self.open[: self.block]

    @staticmethod
    def hashed(values):
        digest = hashlib.sha256(b"".join(values))
        digest.update(array("L", map(len, values)).tobytes())
        return digest.digest()

    def digest(self):
        rest = [self.hashed(self.open)] if self.open else []
        return hashlib.sha256(b"".join(self.done + rest)).hexdigest()

    def pack(self):
        """All of it, for the process that goes on."""
        return {
            "count": self.count,
            "size": self.size,
            "done": base64.b85encode(b"".join(self.done)).decode(),
            "open": [base64.b85encode(value).decode() for value in self.open],
        }

    def unpack(self, packed):
        self.count, self.size = packed["count"], packed["size"]
        done = base64.b85decode(packed["done"])
        self.done = [done[i : i + 32] for i in range(0, len(done), 32)]
        self.open = [base64.b85decode(value) for value in packed["open"]]


class Inbox(Book):
    """A book that also judges the order, from the numbers in the values alone."""

    def __init__(self, small, expected):
        super().__init__(small)
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

    def pack(self):
        missing = [n for n in range(self.next) if not self.seen[n]] if sum(self.seen) < self.next else []
        flaws = {name: getattr(self, name) for name in ("next", "doubled", "reordered", "strange")}
        return super().pack() | flaws | {"missing": missing}

    def unpack(self, packed):
        super().unpack(packed)
        for name in ("next", "doubled", "reordered", "strange"):
            setattr(self, name, packed[name])
        self.seen[: self.next] = b"\1" * self.next
        for number in packed["missing"]:
            self.seen[number] = 0


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


class Failed(Exception):
    """The demo did not prove what it should."""


def judge(results, total):
    """The end line; raises Failed with the reason. Only what the processes counted and hashed is looked at."""
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
