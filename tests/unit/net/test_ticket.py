"""Tickets as their giver makes and reads them (spec handshake §12.1, §12.4)."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from netchan.net import ticket as tk
from netchan.net.identity import Identity
from netchan.net.secret import SecureBytes

WALL_S = 1_800_000_000.0
HOUR = 3_600 * 10**9
SECRET = bytes(range(32))
CIPHERS: list[Callable[[SecureBytes], Any]] = [tk.SivCipher, tk.KeyedCipher]
NODE = tk.Context(b"i" * 32, b"net", 1)


@pytest.fixture(scope="module")
def record() -> Any:
    return Identity(SecureBytes(b"\7" * 32)).record(WALL_S, b"net")


def keys(seed: int = 1, **options: Any) -> tk.TicketKeys:
    return tk.TicketKeys(random.Random(seed).randbytes, **options)


def issued(of: tk.TicketKeys, record: Any, now_ns: int = 0, id16: bytes = b"0123456789abcdef", **context: Any) -> Any:
    return of.issue(id16, SECRET, record, frozenset({2, 700}), NODE._replace(**context), now_ns)


def why(call: Callable[[], object]) -> str:
    with pytest.raises(tk.NoTicketError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("cipher", CIPHERS)
class TestTicket:
    def test_ticket_read_by_its_giver_gives_what_was_put_in(self, record: Any, cipher: Any) -> None:
        mine = keys(cipher=cipher)
        life_s, ticket = issued(mine, record, 5 * HOUR + 7_000_000)
        got = mine.open(ticket, NODE, 6 * HOUR)
        assert (got.secret, got.issued_ms, got.caps) == (SECRET, 5 * 3_600_000 + 7, frozenset({2, 700}))
        assert got.record == record
        assert life_s == 24 * 3_600
        assert tk.ticket_id(ticket) == b"0123456789abcdef"
        assert tk.TICKET_MIN <= len(ticket) <= tk.TICKET_MAX
        assert SECRET not in ticket
        assert record.raw not in ticket

    def test_longest_ticket_fits_into_its_frame(self, cipher: Any) -> None:
        long = Identity(SecureBytes(b"\7" * 32)).record(WALL_S, b"n" * 64)
        node = tk.Context(b"i" * 32, b"n" * 64, 1)
        _, ticket = keys(cipher=cipher).issue(bytes(16), SECRET, long, frozenset(range(64)), node, 0)
        assert len(ticket) <= 480

    def test_ticket_changed_in_any_byte_or_cut_anywhere_is_refused(self, record: Any, cipher: Any) -> None:
        mine = keys(cipher=cipher)
        _, ticket = issued(mine, record)
        for at in range(len(ticket)):
            changed = ticket[:at] + bytes((ticket[at] ^ 1 << at % 8,)) + ticket[at + 1 :]
            assert why(lambda changed=changed: mine.open(changed, NODE, 0)) in ("unknown key", "does not open")
            assert why(lambda at=at: mine.open(ticket[:at], NODE, 0)) in ("malformed", "does not open")
        for more in (b"\0", bytes(tk.TICKET_MAX)):
            assert why(lambda more=more: mine.open(ticket + more, NODE, 0)) in ("malformed", "does not open")
        mine.open(ticket, NODE, 0)

    @pytest.mark.parametrize("other", [{"id_pub": b"j" * 32}, {"network_id": b"ne"}, {"suite": 2}])
    def test_ticket_of_another_node_network_or_suite_does_not_open(
        self, record: Any, cipher: Any, other: dict[str, Any]
    ) -> None:
        mine = keys(cipher=cipher)
        _, ticket = issued(mine, record)
        assert why(lambda: mine.open(ticket, NODE._replace(**other), 0)) == "does not open"

    def test_ticket_of_another_process_is_refused(self, record: Any, cipher: Any) -> None:
        mine, earlier = keys(1, cipher=cipher), keys(2, cipher=cipher)
        _, ticket = issued(earlier, record)
        issued(mine, record)
        assert why(lambda: mine.open(ticket, NODE, 0)) == "unknown key"
        # also if the name of the key were the same
        renamed = issued(mine, record)[1][: tk.NAME_LEN] + ticket[tk.NAME_LEN :]
        assert why(lambda: mine.open(renamed, NODE, 0)) == "does not open"

    def test_first_ticket_of_a_process_is_not_under_a_zero_key(self, record: Any, cipher: Any) -> None:
        # what happens when a key is used before it was made (CVE-2020-13777)
        _, ticket = tk.TicketKeys(os.urandom, cipher).issue(b"0123456789abcdef", SECRET, record, frozenset(), NODE, 0)
        name, id16, sealed = ticket[:8], ticket[8:24], ticket[24:]
        zero = cipher(SecureBytes(32))
        for label in (b"netchan ticket v1\0", b""):
            bound = label + name + id16 + NODE.id_pub + bytes((1, 3)) + b"net"
            with pytest.raises(InvalidTag):
                zero.open(id16, sealed, bound)

    def test_ticket_is_good_once(self, record: Any, cipher: Any) -> None:
        mine = keys(cipher=cipher)
        _, ticket = issued(mine, record)
        _, other = issued(mine, record, id16=bytes(16))
        mine.open(ticket, NODE, 0)
        mine.open(ticket, NODE, 0)  # to look does not use it up
        mine.strike(ticket, 0)
        assert why(lambda: mine.open(ticket, NODE, HOUR)) == "used"
        assert why(lambda: mine.strike(ticket, HOUR)) == "used"
        mine.open(other, NODE, 0)


class TestKeys:
    def test_key_seals_twelve_hours_and_opens_twenty_four(self, record: Any) -> None:
        mine = keys()
        first = issued(mine, record, 1)[1]
        life_s, late = issued(mine, record, 12 * HOUR, id16=bytes(16))
        assert life_s == 12 * 3_600
        assert late[:8] == first[:8]
        life_s, second = issued(mine, record, 12 * HOUR + 1)
        assert life_s == 24 * 3_600
        assert second[:8] != first[:8]
        for ticket in (first, late):
            mine.open(ticket, NODE, 24 * HOUR)
        for ticket in (first, late):
            assert why(lambda ticket=ticket: mine.open(ticket, NODE, 24 * HOUR + 1)) == "unknown key"
        mine.open(second, NODE, 36 * HOUR)
        assert why(lambda: mine.open(second, NODE, 36 * HOUR + 1)) == "unknown key"

    def test_used_ticket_stays_used_for_as_long_as_its_key_lives(self, record: Any) -> None:
        mine = keys()
        _, ticket = issued(mine, record, 0)
        mine.strike(ticket, HOUR)
        issued(mine, record, 13 * HOUR)
        assert why(lambda: mine.open(ticket, NODE, 24 * HOUR - 1)) == "used"

    def test_when_no_use_can_be_remembered_tickets_are_refused_and_the_next_key_begins(self, record: Any) -> None:
        mine = keys(strikes_max=3)
        tickets = [issued(mine, record, id16=bytes((n,)) * 16)[1] for n in range(5)]
        for ticket in tickets[:3]:
            mine.strike(ticket, 0)
        mine.open(tickets[3], NODE, 0)
        for _ in range(2):  # also a second time: it was never used
            assert why(lambda: mine.strike(tickets[3], 0)) == "full"
        assert why(lambda: mine.strike(tickets[0], 0)) == "used"
        _, fresh = issued(mine, record)
        assert fresh[:8] != tickets[0][:8]
        mine.strike(fresh, 0)

    def test_two_keys_are_kept_at_most(self, record: Any) -> None:
        mine = keys(strikes_max=1)
        seen = []
        for n in range(4):
            tickets = [issued(mine, record, n, id16=os.urandom(16))[1] for _ in range(2)]
            mine.strike(tickets[0], n)
            assert why(lambda: mine.strike(tickets[1], n)) == "full"  # noqa: B023 - called at once
            seen.append(tickets[1])
        assert len(mine._keys) == 2
        assert why(lambda: mine.open(seen[0], NODE, 5)) == "unknown key"

    def test_without_gcm_siv_each_ticket_has_a_key_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert isinstance(tk.best_cipher(SecureBytes(32)), tk.SivCipher)

        def missing(self: object, key: object) -> None:
            raise UnsupportedAlgorithm("no GCM-SIV here")

        monkeypatch.setattr(tk.SivCipher, "__init__", missing)
        found = tk.best_cipher(SecureBytes(32))
        assert isinstance(found, tk.KeyedCipher)
        first, second = (found.seal(id16, bytearray(b"same"), b"") for id16 in (bytes(16), b"\1" * 16))
        assert first != second

    def test_siv_cipher_is_that_of_rfc_8452(self) -> None:
        sealed = tk.SivCipher(SecureBytes(b"k" * 32)).seal(b"n" * 16, bytearray(b"text"), b"ad")
        assert AESGCMSIV(b"k" * 32).decrypt(b"n" * 12, sealed, b"ad") == b"text"

    def test_forked_child_has_other_keys_and_knows_no_use(self, record: Any) -> None:
        _, ticket = issued(tk.ticket_keys(), record)
        assert tk.ticket_keys() is tk.ticket_keys()
        readable, writable = os.pipe()
        child = os.fork()
        if not child:
            try:
                tk.ticket_keys().open(ticket, NODE, 0)
                os.write(writable, b"opened")
            except tk.NoTicketError as error:
                os.write(writable, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writable)
        with os.fdopen(readable, "rb") as answer:
            assert answer.read() == b"unknown key"
        tk.ticket_keys().open(ticket, NODE, 0)
