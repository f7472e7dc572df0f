"""What somebody on the wire can read of a session: nothing of values, names, identities and keys (handshake.md §3)."""

from __future__ import annotations

import base64
import os
import threading
import time
import zlib
from typing import Any

import pytest
from netchan._core._selftest_crypto import Keys, Store

from netchan import Identity, sync
from netchan._core import provider
from netchan.net import dial as dial_module
from netchan.net import listen as listen_module
from tests.integration.proxy import Proxy

MESSAGES = 10_000
MARK = b"<payload-marker-7c1e>"
NAME = "channel-name-5f0a"


def forms(secret: bytes) -> dict[str, bytes]:
    """How a secret may look on the wire."""
    return {
        "raw": secret,
        "reversed": secret[::-1],
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "base64": base64.b64encode(secret).rstrip(b"="),
        "base32": base64.b32encode(secret).rstrip(b"=").lower(),
    }


def found(capture: bytes, secrets: dict[str, bytes]) -> list[str]:
    """Names and forms of the secrets that stand in a capture."""
    return [f"{name} ({form})" for name, raw in secrets.items() for form, text in forms(raw).items() if text in capture]


class TestCapture:
    @pytest.mark.parametrize("psk", [None, bytes(range(7, 47))], ids=["node-id", "psk"])
    def test_capture_of_ten_thousand_messages_holds_no_secret(
        self, monkeypatch: pytest.MonkeyPatch, psk: bytes | None
    ) -> None:
        boss, key = Identity.generate(), Identity.generate()
        roots: list[bytes] = []

        def spy(module: Any) -> None:
            real = module.attach

            def attach(engine: Any, fd: int, carrier: str, event: Any, config: Any, **more: Any) -> Any:
                roots.append(bytes(event.root))
                return real(engine, fd, carrier, event, config, **more)

            monkeypatch.setattr(module, "attach", attach)

        spy(dial_module)
        spy(listen_module)
        begun = time.monotonic()
        with sync.listen("tcp://127.0.0.1:0", identity=boss, trust=[key.node_id], psk=psk) as listener:
            with Proxy(listener.addresses[0]) as proxy:
                with sync.dial(proxy.address, identity=key, psk=psk) as there:
                    here = listener.recv(timeout=10)
                    echo = here.open(NAME, bytes)
                    thread = threading.Thread(target=lambda: [echo.send(value, timeout=10) for value in echo])
                    thread.start()
                    mine = there.open(NAME, bytes)
                    got: list[bytes] = []
                    reader = threading.Thread(target=lambda: got.extend(mine.recv(timeout=20) for _ in range(MESSAGES)))
                    reader.start()
                    for number in range(MESSAGES):
                        mine.send(MARK + b"%06d" % number, timeout=20)
                    reader.join()
                    mine.close()
                    thread.join()
                up, down = proxy.links[0].wire("up"), proxy.links[0].wire("down")
                records = sum(len(units) for units in proxy.links[0].units.values()) - 4
        assert got == [MARK + b"%06d" % number for number in range(MESSAGES)]
        assert len(roots) == 2
        assert roots[0] == roots[1]

        now = time.time()
        secrets = {"payload marker": MARK, "channel name": NAME.encode(), "root": roots[0]}
        if psk is not None:
            secrets["psk"] = psk
        for who, identity in (("listener", boss), ("dialler", key)):
            static = identity.static_key(now)
            secrets[f"{who}: node id text"] = identity.node_id.encode()
            secrets[f"{who}: identity key"] = identity.id_pub
            secrets[f"{who}: identity seed"] = bytes(identity._seed)
            secrets[f"{who}: static public key"] = static.record.static_pub
            secrets[f"{who}: static private key"] = static.private.private_bytes_raw()
            secrets[f"{who}: record signature"] = static.record.raw[-64:]
        store = Store(provider.load(), provider.load().ciphers[0])
        for role in (0, 1):
            keys = Keys(store, bytearray(roots[0]), role)
            for number, master in enumerate(keys.masters()):
                if any(master):
                    secrets[f"master {role}.{number}"] = master
            keys.close()
        assert len(secrets) >= 18
        capture = up + b"\0" * 64 + down
        assert found(capture, secrets) == []
        # the search itself finds every one of them, in every form
        for name, raw in secrets.items():
            for form, text in forms(raw).items():
                assert f"{name} ({form})" in found(capture[:500] + text + capture[500:1000], {name: raw})
        packed = len(zlib.compress(capture, 9)) / len(capture)
        assert packed > 0.9, "the capture has a pattern beyond the heads of records"
        print(
            f"\n{MESSAGES} messages each way: {len(up)} + {len(down)} bytes captured in {records} records, "
            f"{len(secrets)} secrets x {len(forms(b'x'))} forms searched: 0 found; zlib keeps {packed:.3f}; "
            f"{time.monotonic() - begun:.1f} s"
        )

    def test_two_captures_of_the_same_talk_share_nothing_but_lengths(self) -> None:
        boss, key = Identity.generate(), Identity.generate()
        wires = []
        with sync.listen("tcp://127.0.0.1:0", identity=boss, trust=[key.node_id]) as listener:
            for _ in range(2):
                with Proxy(listener.addresses[0]) as proxy:
                    with sync.dial(proxy.address, identity=key) as there:
                        here = listener.recv(timeout=10)
                        mine, theirs = there.open("x", bytes), here.open("x", bytes)
                        for _ in range(50):
                            mine.send(bytes(100), timeout=5)
                            assert theirs.recv(timeout=5) == bytes(100)
                    wires.append(proxy.links[0].wire("up") + proxy.links[0].wire("down"))
        first = {wires[0][at : at + 16] for at in range(len(wires[0]) - 16)}
        shared = [at for at in range(len(wires[1]) - 16) if wires[1][at : at + 16] in first]
        # The second mac of a message is empty, and up to six bytes of the clear head of the next one (type, version,
        # length, suite, fragment) may be the same behind it before the random scid begins.
        others = [at for at in shared if wires[1][at : at + 16].count(0) < 10]
        assert others == [], "16 bytes in a row came twice"
        assert os.urandom(16) not in first
        print(f"\n{len(wires[0])} and {len(wires[1])} bytes: no 16 bytes in common but {len(shared)} empty second macs")
