"""What a process gives to the one that takes its place: its listeners, then its sessions, a few at a time.

Layer 6: waits for nothing but the worker; no sockets of its own. Called on the thread of net.handover.Giving; what the
other process makes of it is node/legacy.py. A session stands still only while its group is on its way: before, it is
one like any other; JOINs do not find it from then on. Spec: docs/spec/handover.md §2, §3.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

from netchan.errors import HandoverError
from netchan.net import moved, resume
from netchan.net.handover import PATIENCE_S, on_worker
from netchan.net.handover_talk import FDS_MAX, GROUP_BYTES, Item
from netchan.net.manager import ratchet_number
from netchan.net.redial import Redial
from netchan.net.secret import wipe

if TYPE_CHECKING:
    from netchan.node.hall import Hall
    from netchan.node.session import PeerCore

SETTLE_S: Final = 1.0
"""Handshakes that are going on may end before the last session has moved; the others are cut, and dial again."""
LOOK_S: Final = 0.005


class Estate:
    """The listeners and sessions of one hand-over (net.handover.Source).

    Args:
        halls: of the listeners.
        cores: dialled sessions; they move first.
    """

    def __init__(self, halls: Iterable[Hall], cores: Iterable[PeerCore]) -> None:
        self._halls, self._dialled = list(halls), list(cores)
        self._todo: deque[tuple[PeerCore, int]] = deque((core, -1) for core in self._dialled)
        self._seen: set[PeerCore] = set()
        self._held: list[PeerCore] = []
        self._paused: list[Hall] = []
        self._moved = 0
        self._settled_at = 0.0

    def begin(self) -> list[Item]:
        """See Source. HandoverError: something here cannot move, or still comes from the process before."""
        until = time.monotonic() + PATIENCE_S / 2  # the other process waits for us
        while any(hall.arriving for hall in self._halls):
            if time.monotonic() >= until:
                raise HandoverError("sessions still come from the process before; hand over when it has finished")
            time.sleep(LOOK_S)
        for core in [*self._dialled, *(core for hall in self._halls for core in hall.living())]:
            core.check_movable()
        for hall in self._halls:
            self._paused.append(hall)
            on_worker(hall.listening.pause)
        self._settled_at = time.monotonic() + SETTLE_S
        items = []
        for hall in self._halls:
            doors = on_worker(hall.listening.sockets)
            about = {"node_id": hall.node_id, "doors": [door[:2] for door in doors]}
            items.append(Item({"listener": about}, fds=[door[2] for door in doors]))
        return items

    def group(self, most: int) -> list[Item]:
        """See Source."""
        items: list[Item] = []
        while not items and (batch := self._next(most)):
            answered = on_worker(partial(resume.hide, [core.session for core, _ in batch]))
            n_bytes = n_fds = 0
            for at, ((core, place), number) in enumerate(zip(batch, answered, strict=True)):
                if n_bytes >= GROUP_BYTES or n_fds >= FDS_MAX // 2:
                    self._put_back(batch[at:])
                    break
                self._held.append(core)
                item = _hold(core, place, number)
                if item is None:
                    self._stays(core)
                    continue
                items.append(item)
                n_bytes += len(item.state)
                n_fds += len(item.fds)
        return items

    def take_back(self) -> None:
        """See Source."""
        from netchan._engine import handover_handle

        held, self._held = self._held, []
        for core in held:
            handover_handle.unhold(core.session)
        if held:
            on_worker(partial(resume.show, [core.session for core in held]))

    def moved(self) -> int:
        """See Source."""
        from netchan._engine import handover_handle

        held, self._held = self._held, []
        for core in held:
            handover_handle.moved(core.session)
        if held:
            on_worker(partial(resume.forget, [core.session for core in held]))
        self._moved += len(held)
        return self._moved

    def end(self, all_moved: bool) -> None:
        """See Source."""
        for hall in self._paused:
            on_worker(hall.moved if all_moved else hall.listening.go_on)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _next(self, most: int) -> list[tuple[PeerCore, int]]:
        """Those that are next; none: all have moved, and no handshake is going on that may bring one more."""
        while not self._todo:
            busy = any(hall.listening.busy for hall in self._halls)
            fresh = [
                (core, place)
                for place, hall in enumerate(self._halls)
                for core in hall.living()
                if core not in self._seen and not core.left
            ]
            self._todo.extend(fresh)
            if not fresh and (not busy or time.monotonic() >= self._settled_at):
                return []
            if not fresh:
                time.sleep(LOOK_S)
        batch = [self._todo.popleft() for _ in range(min(most, len(self._todo)))]
        self._seen.update(core for core, _ in batch)
        return batch

    def _put_back(self, batch: list[tuple[PeerCore, int]]) -> None:
        """Not in this group."""
        self._todo.extendleft(reversed(batch))
        on_worker(partial(resume.show, [core.session for core, _ in batch]))

    def _stays(self, core: PeerCore) -> None:
        """It is being left, or over: this process does that to its end."""
        self._held.remove(core)
        on_worker(partial(resume.show, [core.session]))


def _hold(core: PeerCore, place: int, answered: int) -> Item | None:
    """A session stands still from now on; None: it does not move.

    Args:
        core: of it.
        place: number of its listener; -1: it was dialled.
        answered: JOINs that were answered.
    """
    from netchan._engine import handover_handle

    session, link = core.session, core.link
    if core.left:
        return None
    found = handover_handle.hold(session, list(core.endpoints()))
    if found is None:
        return None
    state, cipher, links = found
    try:
        about = {
            "session": place,
            "cipher": cipher,
            "link": [
                *(link.carrier, link.local, link.remote, link.node_id, link.max_message, link.keeps),
                link.by_ticket,
            ],
            "caps": sorted(link.caps),
            "links": [[path_id, pend, answer] for path_id, _, pend, answer in links],
            "where": session.where or {},
            "ratchet": ratchet_number(session),
            "answered": answered,
            "known": moved.known_of(session),
            "redial": session.maker.about() if isinstance(session.maker, Redial) else None,
            "channels": core.about_channels(),
        }
    except BaseException:
        wipe(state)
        raise
    return Item(about, state, [fd for _, fd, _, _ in links])
