"""Trust policies, the known-nodes file, authorities (spec handshake §1.4, §7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netchan.errors import ConfigError
from netchan.net.identity import Identity
from netchan.net.params import Refusal
from netchan.net.secret import SecureBytes
from netchan.net.trust import CA, CARoot, Claim, Decision, KnownNodes, Policy, make_policy

NOW = 1_800_000_000.0
ME, PEER, OTHER = (Identity(SecureBytes(bytes([i]) * 32)) for i in (1, 2, 3))
ADDRESS = "tcp://192.0.2.1:7000"


def claim(who: Identity = PEER, **fields: Any) -> Claim:
    """What `who` proved to us, who dialled."""
    return Claim(who.id_pub, who.record(NOW), **({"address": ADDRESS, "dialled": True} | fields))


def policy(trust: Any, **options: Any) -> Policy:
    """A dialler's policy."""
    return make_policy(trust, **({"own_id": ME.id_pub, "dialling": True} | options))


def code(decision: Decision) -> Refusal | None:
    """None if allowed."""
    return None if decision.allowed else decision.code


class TestMakePolicy:
    @pytest.mark.parametrize("dialling", [True, False])
    def test_no_policy_is_an_error_with_the_line_to_write(self, dialling: bool) -> None:
        with pytest.raises(ConfigError, match=r'trust=\["<node id>"\]'):
            policy(None, dialling=dialling)
        assert policy(None, dialling=dialling, psk=True).decide(claim(), NOW).allowed

    @pytest.mark.parametrize(
        "trust",
        ["all", "", PEER.node_id, [], [PEER.node_id[:-1]], [PEER.id_pub], b"any", 5, object(), {}, [PEER.node_id, 7]],
    )
    def test_trust_not_understood_is_an_error_and_never_any(self, trust: Any) -> None:
        with pytest.raises(ConfigError):
            policy(trust)

    def test_tofu_needs_dial_and_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="dial only"):
            policy("tofu", dialling=False, known_nodes=tmp_path / "known")
        with pytest.raises(ConfigError, match="known-nodes"):
            policy("tofu")

    def test_policy_without_a_kind_refuses(self) -> None:
        assert code(Policy(ME.id_pub).decide(claim(), NOW)) is Refusal.UNTRUSTED


class TestDecide:
    def test_any_accepts_everyone_but_ourselves(self) -> None:
        assert policy("any").decide(claim(), NOW).allowed
        assert code(policy("any").decide(claim(ME), NOW)) is Refusal.SELF
        assert policy("any", allow_self=True).decide(claim(ME), NOW).allowed

    @pytest.mark.parametrize("kind", [list, tuple, set, frozenset, dict.fromkeys])
    def test_ids_accept_only_those(self, kind: Any) -> None:
        rule = policy(kind([PEER.node_id]))
        assert rule.decide(claim(), NOW).allowed
        assert code(rule.decide(claim(OTHER), NOW)) is Refusal.UNTRUSTED

    def test_id_in_the_address_counts_whatever_trust_says(self) -> None:
        for trust in (None, "any", [OTHER.node_id], lambda node_id: True):
            rule = policy(trust, expected_id=PEER.id_pub)
            assert code(rule.decide(claim(OTHER), NOW)) is Refusal.WRONG_ID
        assert policy(None, expected_id=PEER.id_pub).decide(claim(), NOW).allowed

    def test_same_user_accepts_only_checked_credentials(self) -> None:
        rule = policy(None, same_user=True, dialling=False)
        assert rule.decide(claim(same_user=True), NOW).allowed
        assert code(rule.decide(claim(), NOW)) is Refusal.UNTRUSTED

    def test_blocked_key_is_refused_as_identity_static_or_authority(self) -> None:
        authority = CA(OTHER)
        member = authority.issue(PEER.node_id, NOW).raw
        for key in (PEER.id_pub, PEER.record(NOW).static_pub, OTHER.id_pub):
            blocked: set[bytes] = set()
            rule = policy(authority, blocked=blocked)
            assert rule.decide(claim(membership=member), NOW).allowed
            blocked.add(key)
            assert code(rule.decide(claim(membership=member), NOW)) is Refusal.UNTRUSTED

    @pytest.mark.parametrize(
        ("answer", "allowed"), [(True, True), (False, False), (None, False), (1, False), ("yes", False)]
    )
    def test_callable_gets_the_node_id_and_only_true_allows(self, answer: Any, allowed: bool) -> None:
        asked: list[str] = []
        rule = policy(lambda node_id: (asked.append(node_id), answer)[1])
        assert rule.decide(claim(), NOW).allowed is allowed
        assert asked == [PEER.node_id]

    def test_callable_that_raises_refuses_without_its_text(self) -> None:
        def judge(node_id: str) -> bool:
            raise RuntimeError("password=hunter2")

        decision = policy(judge).decide(claim(), NOW)
        assert code(decision) is Refusal.UNTRUSTED
        assert "hunter2" not in decision.reason

    def test_async_callable_comes_back_pending(self) -> None:
        async def judge(node_id: str) -> bool:
            return True

        decision = policy(judge).decide(claim(), NOW)
        assert not decision.allowed
        assert decision.pending is not None
        decision.pending.close()  # type: ignore[attr-defined]


class TestAuthority:
    def test_member_in_time_and_group_is_accepted(self) -> None:
        authority = CA(OTHER)
        member = authority.issue(PEER.node_id, NOW, groups=["worker", "eu"], life_s=100).raw
        cases = (
            (authority.root, member, NOW, None),
            (authority.root.require("eu", "us"), member, NOW, None),
            (authority.root.require("us"), member, NOW, Refusal.UNTRUSTED),
            (authority.root, member, NOW + 101, Refusal.EXPIRED),
            (authority.root, member, NOW - 3_601, Refusal.EXPIRED),
            (authority.root, None, NOW, Refusal.UNTRUSTED),
            (authority.root, member[:-1] + bytes((member[-1] ^ 1,)), NOW, Refusal.UNTRUSTED),
            (CARoot(ME.id_pub), member, NOW, Refusal.UNTRUSTED),
            (authority.root, authority.issue(ME.node_id, NOW).raw, NOW, Refusal.UNTRUSTED),
        )
        for root, raw, now, expected in cases:
            assert code(policy(root).decide(claim(membership=raw), now)) is expected

    @pytest.mark.parametrize(
        "options",
        [{"groups": "worker"}, {"life_s": 0}, {"groups": ["x" * 33]}, {"groups": [str(i) for i in range(17)]}],
    )
    def test_issue_out_of_range_is_an_error(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            CA(OTHER).issue(PEER.node_id, NOW, **options)

    def test_root_of_wrong_size_is_an_error(self) -> None:
        with pytest.raises(ConfigError):
            CARoot(bytes(31))


class TestFirstUse:
    def test_first_use_is_remembered_only_when_established(self, tmp_path: Path) -> None:
        path = tmp_path / "folder" / "known"
        rule = policy("tofu", known_nodes=path)
        assert rule.decide(claim(), NOW).allowed
        assert not path.exists()
        rule.established(claim())
        rule.established(claim())
        assert path.read_text() == f"{ADDRESS} {PEER.node_id}\n"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700

    def test_other_node_later_is_refused_with_what_to_do(self, tmp_path: Path) -> None:
        path = tmp_path / "known"
        path.write_text("# comment\n\n" + f"{ADDRESS} {PEER.node_id}\n")
        path.chmod(0o600)
        rule = policy("tofu", known_nodes=path)
        assert rule.decide(claim(), NOW).allowed
        decision = rule.decide(claim(OTHER), NOW)
        assert code(decision) is Refusal.UNTRUSTED
        assert "remove line 3 of" in decision.reason
        assert rule.decide(claim(OTHER, address="tcp://other:1"), NOW).allowed

    def test_accepted_side_or_no_address_is_refused(self, tmp_path: Path) -> None:
        rule = policy("tofu", known_nodes=tmp_path / "known")
        assert not rule.decide(claim(dialled=False), NOW).allowed
        assert not rule.decide(claim(address=None), NOW).allowed

    @pytest.mark.parametrize(
        "text",
        ["x\n", "a b\n", f"a {PEER.node_id} c\n", "x" * 600 + "\n", f"a {PEER.node_id[:-1]}\n", "\xff\xfe y z\n"],
    )
    def test_file_not_understood_is_an_error(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "known"
        path.write_bytes(text.encode("latin-1"))
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="line 1"):
            KnownNodes(path)

    def test_file_open_to_others_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "known"
        path.touch(mode=0o600)
        path.chmod(0o622)
        with pytest.raises(ConfigError, match="chmod 600"):
            KnownNodes(path)

    @pytest.mark.parametrize("address", ["two words", "line\nbreak", "", "x" * 600])
    def test_address_that_does_not_fit_a_line_is_not_written(self, tmp_path: Path, address: str) -> None:
        known = KnownNodes(tmp_path / "known")
        with pytest.raises(ConfigError):
            known.remember(address, PEER.node_id)
        assert not (tmp_path / "known").exists()
