"""A process that gets killed, or lives on and tells what has become of its values: one side of test_kills.py.

    python kill_side.py listen|dial lease address...

Sends numbers on each channel as fast as they are accepted, and writes down each number that it takes. A line each:
``at address...`` of a listener, ``up`` when the session has all its paths, ``t channel number`` for what was taken, and
``end json`` when the session is lost: what was accepted, and what the reports say.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

from netchan import Config, SessionLost, sync

CHANNELS = {"few": 1, "some": 64, "many": 1024}
PATIENCE = 120.0


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def send(channel: Any, accepted: dict[str, int], errors: dict[str, SessionLost], name: str) -> None:
    try:
        while True:
            channel.send(accepted[name], timeout=PATIENCE)
            accepted[name] += 1
    except SessionLost as error:
        errors[name] = error


def take(channel: Any, name: str) -> None:
    try:
        while True:
            say(f"t {name} {channel.recv(timeout=PATIENCE)}")
    except SessionLost:
        pass


def report(error: SessionLost) -> dict[str, Any]:
    doubted = []
    for item in error.in_doubt:
        try:
            doubted.append([item.number, item.value])
        except LookupError:
            doubted.append([item.number, None])
    return {"undelivered": list(error.undelivered), "in_doubt": doubted}


def work(peer: sync.Peer, paths: int) -> None:
    end = time.monotonic() + PATIENCE
    while peer.path_count < paths and time.monotonic() < end:
        time.sleep(0.01)
    channels = {name: peer.open(name, int, capacity=capacity) for name, capacity in CHANNELS.items()}
    if paths > 1:
        peer.redundancy = "stripe"
    say("up")
    accepted, errors = dict.fromkeys(CHANNELS, 0), dict[str, SessionLost]()
    threads = [threading.Thread(target=send, args=(channels[n], accepted, errors, n), daemon=True) for n in CHANNELS]
    threads += [threading.Thread(target=take, args=(channels[n], n), daemon=True) for n in CHANNELS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    again = {error.channel: report(error) for error in peer.lost}
    said = {
        "accepted": accepted,
        "reports": {name: report(error) for name, error in errors.items()},
        "lost": again,
        "hang": [thread.name for thread in threads if thread.is_alive()],
        "cause": type(peer.loss_cause).__name__,
    }
    say(f"end {json.dumps(said)}")


def main() -> None:
    role, lease, addresses = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    config = Config(lease=lease, datagrams=any(a.startswith("udp") for a in addresses))
    if role == "dial":
        with sync.dial(addresses, trust="any", config=config) as peer:
            work(peer, len(addresses))
        return
    with sync.listen(addresses, trust="any", config=config) as listener:
        say("at " + " ".join(listener.addresses))
        with listener.recv(timeout=PATIENCE) as peer:
            work(peer, len(addresses))


if __name__ == "__main__":
    main()
