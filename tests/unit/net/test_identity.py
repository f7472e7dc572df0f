"""Identity: node ids, the file, static keys and the record they are named in (spec handshake §1.1, §1.2, §1.5)."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netchan.errors import ConfigError
from netchan.net.identity import STATIC_PERIOD_S, Identity, _parse_file, format_node_id, parse_node_id
from netchan.net.record import RecordCache, check_signature
from netchan.net.secret import SecureBytes

NOW = 1_800_000_000.0
# RFC 8032 §7.1 test 1
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
NODE_ID = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena"


class TestNodeId:
    def test_node_id_of_known_key_is_frozen(self) -> None:
        identity = Identity(SecureBytes(SEED))
        assert identity.id_pub == PUBLIC
        assert identity.node_id == NODE_ID
        assert parse_node_id(NODE_ID) == PUBLIC

    @given(st.binary(min_size=32, max_size=32))
    def test_node_id_round_trip_is_identity(self, key: bytes) -> None:
        text = format_node_id(key)
        assert len(text) == 52
        assert parse_node_id(text) == key

    @given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz234567", min_size=52, max_size=52))
    def test_node_id_each_key_has_one_spelling(self, text: str) -> None:
        try:
            key = parse_node_id(text)
        except ConfigError:
            assert text[-1] not in "aq"
            return
        assert format_node_id(key) == text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            NODE_ID[:-1],
            NODE_ID + "a",
            NODE_ID.upper(),
            NODE_ID[:-1] + "b",
            NODE_ID[:-1] + "=",
            "1" + NODE_ID[1:],
            "ä" * 52,
        ],
    )
    def test_node_id_other_text_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match="node id"):
            parse_node_id(text)


class TestFile:
    def test_load_or_create_second_time_gives_the_same(self, tmp_path: Path) -> None:
        first = Identity.load_or_create(tmp_path / "key")
        second = Identity.load_or_create(str(tmp_path / "key"))
        assert first.node_id == second.node_id
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
        assert [p.name for p in tmp_path.iterdir()] == ["key"]
        assert (tmp_path / "key").stat().st_size == 112

    def test_load_with_passphrase_opens_only_with_it(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        first = Identity.load_or_create(path, "open sesame")
        assert bytes(first._seed) not in path.read_bytes()
        assert Identity.load_or_create(path, b"open sesame").node_id == first.node_id
        with pytest.raises(ConfigError, match="wrong passphrase"):
            Identity.load_or_create(path, "sesame")
        with pytest.raises(ConfigError, match="passphrase="):
            Identity.load_or_create(path)

    def test_passphrase_for_open_file_or_empty_is_refused(self, tmp_path: Path) -> None:
        Identity.load_or_create(tmp_path / "key")
        with pytest.raises(ConfigError, match="not sealed"):
            Identity.load_or_create(tmp_path / "key", "x")
        with pytest.raises(ConfigError, match="empty"):
            Identity.load_or_create(tmp_path / "key", "")

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
    def test_file_open_to_others_is_refused(self, tmp_path: Path, mode: int) -> None:
        Identity.load_or_create(tmp_path / "key")
        (tmp_path / "key").chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            Identity.load_or_create(tmp_path / "key")

    def test_file_with_any_bit_changed_or_cut_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        Identity.load_or_create(path)
        good = path.read_bytes()
        for bit in range(112 * 8):
            changed = SecureBytes(
                good[: bit // 8] + bytes((good[bit // 8] ^ 1 << bit % 8,)) + good[bit // 8 + 1 :] + b"\0"
            )
            with pytest.raises(ConfigError, match="damaged or not"):
                _parse_file(path, changed, 112, None)
        for data in (*(good[:n] for n in range(112)), good + b"\0", good * 2):
            path.write_bytes(data)
            with pytest.raises(ConfigError, match="damaged or not"):
                Identity.load_or_create(path)

    def test_sealed_file_with_costly_kdf_is_refused_before_work(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        Identity.load_or_create(path, "x")
        good = path.read_bytes()
        for place, value in ((10, 30), (10, 9), (11, 0), (11, 17), (12, 0), (12, 5)):
            path.write_bytes(good[:place] + bytes((value,)) + good[place + 1 :])
            with pytest.raises(ConfigError, match="damaged or not"):
                Identity.load_or_create(path, "x")

    def test_sealed_file_with_other_public_key_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        Identity.load_or_create(path, "x")
        good = path.read_bytes()
        path.write_bytes(good[:32] + PUBLIC + good[64:])
        with pytest.raises(ConfigError):
            Identity.load_or_create(path, "x")

    def test_symlink_is_refused(self, tmp_path: Path) -> None:
        Identity.load_or_create(tmp_path / "key")
        (tmp_path / "link").symlink_to(tmp_path / "key")
        with pytest.raises(OSError, match="link"):
            Identity.load_or_create(tmp_path / "link")

    def test_missing_folder_raises_oserror(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="No such file"):
            Identity.load_or_create(tmp_path / "no" / "key")

    def test_lost_race_takes_the_file_of_the_winner(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, winner = tmp_path / "key", Identity.generate()
        real = os.link

        def link(source: Path, target: Path) -> None:
            monkeypatch.setattr(os, "link", real)
            other = Identity.load_or_create(path)
            winner.id_pub = other.id_pub
            real(source, target)

        monkeypatch.setattr(os, "link", link)
        assert Identity.load_or_create(path).id_pub == winner.id_pub
        assert [p.name for p in tmp_path.iterdir()] == ["key"]


class TestStaticKey:
    def test_record_names_the_static_key_and_verifies(self) -> None:
        identity = Identity.generate()
        static = identity.static_key(NOW)
        assert static.private.public_key().public_bytes_raw() == static.record.static_pub
        assert RecordCache().verify(static.record.raw, b"netchan", NOW) == static.record
        assert identity.record(NOW) == static.record

    def test_static_key_is_the_same_after_restart_and_not_the_seed(self) -> None:
        first, second = (Identity(SecureBytes(SEED)).record(NOW) for _ in range(2))
        assert first.static_pub == second.static_pub
        assert first.static_pub not in (PUBLIC, SEED)

    def test_static_key_changes_with_the_period_and_the_old_one_stays_a_candidate(self) -> None:
        identity, edge = Identity.generate(), 600.0 * STATIC_PERIOD_S
        old, new = identity.record(edge - 1), identity.record(edge)
        assert old.static_pub != new.static_pub
        publics = [key.public_key().public_bytes_raw() for key in identity.static_candidates(edge)]
        assert publics == [new.static_pub, old.static_pub]

    def test_record_is_kept_until_half_life_then_renewed_with_higher_seq(self) -> None:
        identity = Identity.generate()
        first = identity.record(NOW)
        assert identity.record(NOW + 3 * 86_400) is first
        second = identity.record(NOW + 4 * 86_400)
        assert second.seq > first.seq
        assert second.not_after > first.not_after

    def test_record_after_the_clock_went_back_is_valid_and_seq_still_grows(self) -> None:
        identity = Identity.generate()
        first = identity.record(NOW)
        back = identity.record(NOW - 10 * 86_400)
        back.check_time(NOW - 10 * 86_400)
        assert back.seq > first.seq
        assert RecordCache().verify(identity.record(0.0).raw, b"netchan", 0.0)

    def test_closed_identity_cannot_sign_and_holds_zeros(self) -> None:
        identity = Identity.generate()
        assert check_signature(identity.id_pub, identity.sign(b"x"), b"x")
        identity.close()
        identity.close()
        assert not any(identity._seed)
        for call in (lambda: identity.sign(b"x"), lambda: identity.record(NOW)):
            with pytest.raises(ConfigError, match="closed"):
                call()

    def test_identity_is_not_pickled_and_shows_only_the_id(self) -> None:
        identity = Identity.generate()
        assert repr(identity) == f"<Identity {identity.node_id}>"
        with pytest.raises(TypeError):
            pickle.dumps(identity)
