"""Queues of waiting calls, first come first served over tasks, threads and loops.

Layer: _engine. net/wait.py has the waiters for each front; who joins which queue is the channels' affair. Compiled,
because every call that finds nothing passes through here several times.

1. A call joins with its waiter, tries, and sleeps until it is woken. A wake-up is a hint and owns nothing.
2. Only the head is woken; whoever leaves, served or not, wakes the next one if there may be more. So while something is
   ready and somebody waits, the head is awake or about to look.
3. A waiter whose loop was closed can never run again: it is passed over.
4. A waiter may stand aside (``stand_aside``): it keeps its place and is woken whenever the head is, but the next one
   behind it is the head. That is for a select that has made an offer and takes nothing until that is settled.

Threads and ownership: see waitq.pxd. Spec: docs/spec/channel-end.md §3.
"""

cimport cython

from time import monotonic

cdef object clock = monotonic


def set_clock(now):
    """What stands for ``time.monotonic`` here; returns what did before. For programs in virtual time."""
    global clock
    before, clock = clock, now
    return before


ANSWER_SECONDS = 10.0
"""How long a call that was cancelled waits to hear whether its offer was taken. A session that is cut is given up about
as soon; a peer that goes on with everything but the answer holds up nobody for longer than this."""


@cython.freelist(64)
cdef class Place:
    """The place of one waiter in one queue."""


cdef class Waiter:
    """One waiting call.

    Args:
        deadline: seconds of ``time.monotonic()`` after which ``park`` raises TimeoutError, or None.

    Attributes:
        woken: a wake-up was given and not yet looked at; reading it is free.
        deadline: as given, or nearer.
        bounded: True when ``at_most`` set the deadline, not the caller.
        mortal: True where ``gone`` may ever be true.
    """

    def __init__(self, deadline=None):
        self.deadline = deadline

    def at_most(self, seconds):
        """Bring the deadline forward to ``seconds`` from now; does nothing if it is nearer already."""
        end = clock() + seconds
        if self.deadline is None or end < self.deadline:
            self.deadline = end
            self.bounded = True

    def wake(self):
        """Give a wake-up; from any thread, never blocks, does nothing when one is pending."""
        if not self.woken:
            self.woken = True
            self._notify()

    def asleep(self):
        """True when no wake-up is pending; another thread may change that at any time."""
        return not self.woken

    def rearm(self):
        """Take the pending wake-up away, before looking again at what was waited for."""
        self.woken = False

    def persist(self):
        """The call ends by an error, and waits only for the answer that settles its offer: ``ANSWER_SECONDS`` more."""
        self.deadline = clock() + ANSWER_SECONDS

    def gone(self):
        """True when whoever waits can never run again; asked only of a ``mortal`` waiter."""
        return False

    def excuse(self, error):
        """True if ``error`` came too late: the operation has happened, so the call returns normally."""
        raise NotImplementedError

    def _notify(self):
        raise NotImplementedError


cdef class BlockingWaiter(Waiter):
    """A blocked thread that runs the driver of its endpoint while it waits.

    Args:
        driver: net.wait.Driver.
        timeout: seconds from now, 0 = look once; None = no limit.

    Raises:
        RuntimeError: this thread's running loop drives the engine that would have to make progress.
    """

    def __init__(self, driver, timeout=None):
        self.deadline = None if timeout is None else clock() + timeout
        self.driver = driver
        if driver is not None:
            driver.check_blocking()

    def park(self, until=None):
        """Wait for the wake-up, or until ``until`` (seconds of ``time.monotonic()``), which is no error.

        Raises:
            TimeoutError: the deadline passed first.
            KeyboardInterrupt: within 100 ms of the signal.
        """
        cdef object end = self.deadline if until is None or (self.deadline is not None and self.deadline < until) \
            else until
        while not self.woken:
            self.driver.drive(self, end)
            if until is not None and clock() >= until:
                return
            self.check_deadline()

    def check_deadline(self):
        """TimeoutError if the deadline passed and no wake-up came."""
        if self.deadline is not None and not self.woken and clock() >= self.deadline:
            raise TimeoutError("the time given for this call passed")

    def excuse(self, error):
        return isinstance(error, TimeoutError)

    def _notify(self):
        self.driver.poke(self)


cdef class WaitQueue:
    """Waiters of one kind at one endpoint.

    Attributes:
        waiting: how many there are; testing it is free.
    """

    def __len__(self):
        return self.waiting

    cdef void unlink(self, Place place) noexcept:
        cdef Place other
        if place.aside:
            self.asides -= 1
        if place.before is None:
            self.first = place.behind
        else:
            place.before.behind = place.behind
        if place.behind is None:
            self.last = place.before
        else:
            place.behind.before = place.before
        other = place.waiter.places
        if other is place:
            place.waiter.places = place.other
        else:
            while other.other is not place:
                other = other.other
            other.other = place.other
        place.before = place.behind = place.other = None
        place.queue = None
        self.waiting -= 1

    cdef Place find(self, Waiter waiter):
        cdef Place place = waiter.places
        while place is not None and place.queue is not self:
            place = place.other
        return place

    # The first waiter that does not stand aside and can still run; those before it whose loop was closed under them
    # are removed.
    cdef Waiter head(self):
        cdef Place place = self.first
        while place is not None:
            if place.aside:
                place = place.behind
                continue
            if not place.waiter.mortal or not place.waiter.gone():
                return place.waiter
            if place.queue is self:             # gone() ran Python code
                self.unlink(place)
            place = self.first
        return None

    cdef wake_asides(self, Waiter but):
        cdef list awake = []
        cdef Place place = self.first
        while place is not None:
            if place.aside and place.waiter is not but:
                awake.append(place.waiter)
            place = place.behind
        for waiter in awake:
            (<Waiter>waiter).wake()

    def join(self, Waiter waiter not None):
        """Queue up at the tail. RuntimeError: it stands here already."""
        cdef Place place = Place()              # before a link is touched: an allocation may run a finaliser
        if self.find(waiter) is not None:
            raise RuntimeError("this waiter stands in the queue already")
        self.head()
        place.waiter = waiter
        place.queue = self
        place.before = self.last
        place.other = waiter.places
        waiter.places = place
        if self.last is None:
            self.first = place
        else:
            self.last.behind = place
        self.last = place
        self.waiting += 1

    def stand_aside(self, Waiter waiter not None, bint aside=True):
        """Let those behind go first, or take the place again. Whoever steps aside nudges, if there may be something."""
        cdef Place place = self.find(waiter)
        if place is not None and place.aside != aside:
            place.aside = aside
            self.asides += 1 if aside else -1

    def may_try(self, Waiter waiter not None):
        """True when it is this waiter's turn: nobody who can still run is before it. Takes the pending wake-up away.

        Two that were woken one after the other may run in either order, so being awake is not enough: first come is
        first served, and who leaves wakes the next.
        """
        waiter.woken = False
        return self.head() is waiter

    def turn(self, Waiter waiter not None):
        """As ``may_try``, but leaves the wake-up pending: for a waiter that stands in several queues."""
        return self.head() is waiter

    def vacant(self):
        """True when nobody waits whom a newcomer would overtake."""
        return self.head() is None

    def leave(self, Waiter waiter not None, more):
        """Leave the queue, served or not; the next one is woken if ``more()`` says there may be something to take."""
        cdef Place place = self.find(waiter)
        if place is not None:
            self.unlink(place)
        waiter.woken = False
        if self.waiting and more():
            self.nudge()

    def nudge(self, Waiter but=None):
        """See to it that the head is awake, and those who stand aside; ``but``: not this one."""
        cdef Waiter head
        if self.asides:
            self.wake_asides(but)
        head = self.head()
        if head is not None and head is not but:
            head.wake()

    def reserved(self):
        """True when the head was woken and has not looked yet: a newcomer must not overtake it."""
        cdef Waiter head
        if not self.waiting:
            return False
        head = self.head()
        return head is not None and head.woken

    def wake(self, Py_ssize_t n=1):
        """Wake the first waiter, if ``n`` values or places came; from any thread, never blocks.

        Only the head is woken, whatever ``n`` is: it takes first, and who leaves wakes the next.
        """
        if self.waiting and n > 0:
            self.nudge()

    def wake_all(self):
        """Wake everybody; from any thread, never blocks."""
        cdef list awake = []
        cdef Place place
        if not self.waiting:
            return
        self.head()
        place = self.first
        while place is not None:
            awake.append(place.waiter)
            place = place.behind
        for waiter in awake:                    # only now: waking runs Python code, which may change the queue
            (<Waiter>waiter).wake()
