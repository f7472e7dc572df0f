"""The talk of a hand-over (docs/spec/handover.md §3): packets that are wrong, other versions, other users."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest

import netchan
from netchan import HandoverError
from netchan.net import handover_talk as talk
from netchan.net.handover_talk import Kind, Sizes, pack_group
from tests.integration.handover_kit import connected, giving, run, until

pytestmark = pytest.mark.timeout(120)


HELLO = bytes((Kind.HELLO,)) + talk.pack_version()
NEXT, READY = bytes((Kind.NEXT,)), bytes((Kind.READY,))


def talk_to(path: Path, packets: list[bytes], fds: list[int] | None = None) -> list[bytes]:
    """Say these packets to a giver, each when it has said something; all that it says."""
    heard: list[bytes] = []
    with connected(path) as sock:
        try:
            for packet in packets:
                socket.send_fds(sock, [packet], fds or [])
            while True:
                data, came, _, _ = socket.recv_fds(sock, 70_000, 253)
                for fd in came:
                    os.close(fd)
                if not data:
                    return heard
                heard.append(data)
        except OSError:
            return heard


@pytest.mark.parametrize(
    "packets",
    [
        [b"\x01"],
        [HELLO, b"\x07full"],
        [HELLO, b"\x42"],
        [HELLO, NEXT],
        [b"\x08"],
        [b"\xff" * 60_000],
        [HELLO + bytes(60_000), b"\x07" + b"long " * 10_000],
        [HELLO, READY, b"\x07 the sessions, no"],
        [HELLO, READY, READY],
        [HELLO, READY, NEXT, NEXT],
        [HELLO, READY, NEXT, b"\x07 the sessions, no"],
    ],
    ids=[
        "short",
        "refused",
        "unknown",
        "next",
        "release",
        "noise",
        "long",
        "not next",
        "ready",
        "not ready",
        "no more",
    ],
)
def test_giver_takes_everything_back_whatever_the_other_one_says(packets: list[bytes], tmp_path: Path) -> None:
    async def body() -> None:
        async with giving() as (_, listener, [client], [peer]):
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", listener, wait=30))
            heard = await asyncio.to_thread(talk_to, tmp_path / "hand", packets)
            with pytest.raises(HandoverError):
                await handing
            assert Kind.DONE not in {packet[0] for packet in heard}
            await client.open("c", int).send(1)
            assert await peer.open("c", int).recv() == 1
            async with netchan.dial(listener.addresses[0], trust="any") as another:
                await another.open("c", int).send(2)
                their = await listener.recv()
                assert await their.open("c", int).recv() == 2

    run(body())


@pytest.mark.parametrize("version", [1, 3])
def test_giver_refuses_another_version_and_says_which(version: int, tmp_path: Path) -> None:
    async def body() -> None:
        async with giving() as (_, listener, [client], [peer]):
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", listener, wait=30))
            hello = bytes((Kind.HELLO,)) + struct.pack("!H", version)
            heard = await asyncio.to_thread(talk_to, tmp_path / "hand", [hello])
            with pytest.raises(HandoverError, match=f"version {version} and this one in 2"):
                await handing
            assert len(heard) == 1 and heard[0][:1] == b"\x09"  # what a process of version 1 understands, too
            assert f"version {version} and this one in 2".encode() in heard[0]
            await client.open("c", int).send(1)
            assert await peer.open("c", int).recv() == 1

    run(body())


def give_noise(path: Path, packets: list[tuple[bytes, list[int]]]) -> list[bytes]:
    """Offer these packets at a path; what the taker said."""
    heard = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(str(path))
        door.listen()
        door.settimeout(30)
        conn, _ = door.accept()
        with conn:
            conn.settimeout(30)
            heard.append(conn.recv(100))
            try:
                for packet, fds in packets:
                    socket.send_fds(conn, [packet], fds)
                while True:
                    heard.append(conn.recv(70_000))
                    if not heard[-1] or heard[-1][0] == Kind.REFUSED:
                        break
            except OSError:
                pass
    return heard


def group(number: int, about: Any, state: bytes = b"", n_fds: int = 0) -> list[tuple[bytes, list[int]]]:
    """A group of one item."""
    data = msgpack.packb(about)
    head = bytes((Kind.GROUP,)) + pack_group(number, [Sizes(n_fds, len(data), len(state))])
    whole = data + state
    return [
        (head, []),
        *((bytes((Kind.DATA,)) + whole[at : at + 65_535], []) for at in range(0, len(whole), 65_535)),
    ]


def head(*row: int) -> tuple[bytes, list[int]]:
    return bytes((Kind.GROUP,)) + struct.pack("!IH" + "HII" * ((len(row) - 2) // 3), *row), []


BEGIN = (bytes((Kind.BEGIN,)) + talk.pack_version(), [])
NO_DOORS = [(bytes((Kind.GROUP,)) + pack_group(0, []), []), (bytes((Kind.RELEASE,)), [])]
DOOR = {"listener": {"node_id": "x", "doors": []}}
SESSION = {
    "session": -1,
    "cipher": 1,
    "link": ["tcp", "", "", "x" * 52, 1, True],
    "links": [],
    "where": {},
    "ratchet": 0,
    "answered": 0,
    "known": [],
    "redial": None,
    "channels": {"accepted": [], "returned": {}},
}


@pytest.mark.parametrize(
    "packets",
    [
        [(bytes((Kind.BEGIN, 0, 1)), [])],
        [(bytes((Kind.BEGIN,)), [])],
        [BEGIN, BEGIN],
        [BEGIN, (bytes((Kind.DONE,)), [])],
        [BEGIN, head(1, 0)],
        [BEGIN, head(0, 300)],
        [BEGIN, head(0, 2, 0, 4, 0)],
        [BEGIN, head(0, 1, 0, 1 << 31, 0)],
        [BEGIN, head(0, 1, 0, 4, 1 << 31)],
        [BEGIN, head(0, 2, 0, 5 << 20, 0, 0, 4, 0)],
        [BEGIN, head(0, 1, 1, 4, 0), (bytes((Kind.DATA,)) + b"\x81\xa1a\1", [])],
        [BEGIN, head(0, 1, 1, 4, 0), (bytes((Kind.FDS,)), [])],
        [BEGIN, head(0, 1, 0, 4, 0), (bytes((Kind.DATA,)) + b"\x81\xa1a\1\1", [])],
        [BEGIN, head(0, 1, 0, 4, 0), (bytes((Kind.DATA,)), [])],
        [BEGIN, head(0, 1, 0, 4, 0), (bytes((Kind.CANCEL,)) + b"no", [])],
        [BEGIN, *group(0, ["no dict"])],
        [BEGIN, *group(0, DOOR | {"listener": {"doors": []}})],
        [BEGIN, *group(0, DOOR | {"listener": {"node_id": "x", "doors": [["a", "b"]]}})],
        [BEGIN, *group(0, SESSION, bytes(600))],
        [BEGIN, (bytes((Kind.DATA,)), [])],
        [BEGIN, (bytes((Kind.CANCEL,)) + b"no", [])],
    ],
    ids=lambda packets: packets[-1][0][:12].hex() if isinstance(packets, list) else None,
)
def test_taker_refuses_what_is_no_hand_over_and_keeps_nothing(packets: list[Any], tmp_path: Path) -> None:
    async def body() -> None:
        open_before = len(os.listdir("/proc/self/fd"))
        given = asyncio.create_task(asyncio.to_thread(give_noise, tmp_path / "hand", packets))
        with pytest.raises(HandoverError):
            async with netchan.take_over(tmp_path / "hand", wait=30):
                raise AssertionError("something was taken")
        heard = await given
        assert heard[0] == HELLO
        assert len(heard) < 2 or heard[1][:1] in (b"", bytes((Kind.REFUSED,)))
        await until(lambda: len(os.listdir("/proc/self/fd")) <= open_before + 8)  # a loop and the worker

    run(body())


@pytest.mark.parametrize(
    "packets",
    [
        [head(2, 1, 0, 4, 0)],
        [head(1, 0)],
        group(1, DOOR),
        group(1, {"cipher": 1}),
        group(1, SESSION, b"noise" * 100),
        group(1, SESSION, b"ncho\0\0\0\2" + bytes(600)),
        group(1, SESSION | {"cipher": 9}, bytes(600)),
        [(bytes((Kind.BEGIN,)) + talk.pack_version(), [])],
        [(bytes((Kind.RELEASE,)), [])],
        [(bytes((Kind.CANCEL,)) + b"no", [])],
    ],
    ids=lambda packets: packets[-1][0][:12].hex() if isinstance(packets, list) else None,
)
def test_taker_whose_second_group_is_none_goes_on_with_what_it_has(packets: list[Any], tmp_path: Path) -> None:
    async def body() -> None:
        given = asyncio.create_task(asyncio.to_thread(give_noise, tmp_path / "hand", [BEGIN, *NO_DOORS, *packets]))
        async with netchan.take_over(tmp_path / "hand", wait=30) as before:
            with pytest.raises(HandoverError):
                await before.finished()
            async with before.listen("tcp://127.0.0.1:0", trust="any") as listener:
                async with netchan.dial(listener.addresses[0], trust="any") as client:
                    await client.open("c", int).send(1)
                    peer = await listener.recv()
                    assert await peer.open("c", int).recv() == 1
        assert [packet[0] for packet in await given if packet][:3] == [Kind.HELLO, Kind.READY, Kind.NEXT]

    run(body())


def test_descriptors_that_come_with_what_is_refused_are_closed(tmp_path: Path) -> None:
    async def body() -> None:
        read, write = os.pipe()
        packets = [BEGIN, head(0, 1, 3, 4, 0), (bytes((Kind.FDS,)), [write] * 5)]
        given = asyncio.create_task(asyncio.to_thread(give_noise, tmp_path / "hand", packets))
        with pytest.raises(HandoverError, match="more descriptors"):
            async with netchan.take_over(tmp_path / "hand", wait=30):
                raise AssertionError("something was taken")
        await given
        os.close(write)
        assert await asyncio.to_thread(os.read, read, 1) == b""  # nobody else has it open
        os.close(read)

    run(body())


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_another_user_gets_nothing_and_gives_nothing(tmp_path: Path) -> None:
    program = (
        "import os, socket, sys, time\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "try:\n    s.connect(sys.argv[1])\n"
        "except PermissionError:\n    print('no'); sys.exit()\n"
        "s.settimeout(5)\ns.send(bytes((1, 0, 2)))\nprint(repr(s.recv(100)))\n"
    )

    async def ask(path: Path) -> str:
        asking = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        return (await asking.communicate())[0].decode()

    async def body() -> None:
        folder = tmp_path
        while folder != Path("/tmp"):
            folder.chmod(0o755)
            folder = folder.parent
        async with giving() as (_, listener, [client], [peer]):
            handing = asyncio.create_task(netchan.hand_over(tmp_path / "hand", listener, wait=30))
            await until(lambda: (tmp_path / "hand").exists() and (tmp_path / "hand").stat().st_mode & 0o777 == 0o600)
            assert await ask(tmp_path / "hand") == "no\n"
            (tmp_path / "hand").chmod(0o666)  # somebody has opened it by mistake: credentials count
            said = await ask(tmp_path / "hand")
            assert re.search(r"ConnectionReset|BrokenPipe|^b''$", said, re.MULTILINE), said
            handing.cancel()
            await client.open("c", int).send(1)
            assert await peer.open("c", int).recv() == 1

    run(body())


def test_limits_are_those_that_are_written_down() -> None:
    assert (talk.FDS_MAX, talk.GROUP_MAX, talk.GROUP_BYTES, talk.STATE_MAX) == (253, 256, 4 << 20, 1 << 28)
    assert (talk.ABOUT_MAX, talk.HELD_S) == (64 << 20, 5.0)
