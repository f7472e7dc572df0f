"""Who is accepted: the trust policies, the known-nodes file, cluster authorities.

Layer: net (L3). Touches the file system only in KnownNodes; the wall clock is an argument; never awaits: an async
callable comes back inside the Decision for the caller to await.
Flow: make_policy at listen or dial (configuration errors here) -> decide(claim) in the handshake -> established(claim).
Spec: docs/spec/handshake.md §1.4, §7.
"""

from __future__ import annotations

import inspect
import os
import stat
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from netchan.errors import ConfigError
from netchan.net.identity import Identity, format_node_id, parse_node_id
from netchan.net.params import Refusal
from netchan.net.record import (
    Membership,
    NodeRecord,
    RecordError,
    RecordExpiredError,
    build_membership,
    verify_membership,
)

MAX_KNOWN_NODES = 65_536
MAX_KNOWN_LINE = 512
MAX_TRUSTED = 65_536
MEMBERSHIP_LIFE_S = 86_400


@dataclass(frozen=True)
class Claim:
    """What the other side has proved, for the policy to judge."""

    id_pub: bytes
    record: NodeRecord
    membership: bytes | None = None
    address: str | None = None
    dialled: bool = False
    same_user: bool = False

    @property
    def node_id(self) -> str:
        """The peer's node id."""
        return format_node_id(self.id_pub)


@dataclass(frozen=True)
class Decision:
    """The policy's answer: allowed, refused with a code and a reason for our own log, or to be awaited (`pending`)."""

    allowed: bool
    code: Refusal = Refusal.UNTRUSTED
    reason: str = ""
    pending: Awaitable[object] | None = None


ALLOW = Decision(True)


@dataclass(frozen=True)
class CARoot:
    """The public half of an authority: accepts its members.

    Attributes:
        public: its Ed25519 key, 32 bytes.
        groups: if any are named, members of one of these only.

    Raises:
        ConfigError: the key has another length.
    """

    public: bytes
    groups: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if len(self.public) != 32:
            raise ConfigError(
                f"an authority's public key has 32 bytes, not {len(self.public)}; take CA(...).root.public"
            )

    def require(self, *groups: str) -> CARoot:
        """The same authority, accepting only members of one of these groups."""
        return CARoot(self.public, frozenset(groups))


class CA:
    """An authority that vouches for node ids. Its key is an Identity of its own, made and stored like any other."""

    def __init__(self, key: Identity) -> None:
        self._key = key

    @property
    def root(self) -> CARoot:
        """What verifiers need."""
        return CARoot(self._key.id_pub)

    def issue(
        self, node_id: str, wall_s: float, *, groups: Collection[str] = (), life_s: int = MEMBERSHIP_LIFE_S
    ) -> Membership:
        """Vouch for a node from one hour ago until `life_s` seconds from now.

        Args:
            node_id: its 52 characters.
            wall_s: now, in Unix seconds.
            groups: names, for authorities that ask for some (``CARoot.require``).
            life_s: seconds, 1 or more.

        Raises:
            ConfigError: not a node id, too many or too long groups, a life below 1 s, or the authority's key is closed.
        """
        if isinstance(groups, str) or life_s < 1:
            raise ConfigError('groups is a collection of names and life_s at least 1; write groups=["workers"]')
        now = max(int(wall_s), 3_600)
        try:
            return build_membership(
                self._key.sign,
                ca_pub=self._key.id_pub,
                id_pub=parse_node_id(node_id),
                not_before=now - 3_600,
                not_after=now + life_s,
                groups=tuple(groups),
            )
        except (ValueError, RecordError) as error:
            raise ConfigError(f"membership cannot be issued: {error}") from error


class KnownNodes:
    """The file of ids first seen under an address: one `address node_id` a line, mode 0600.

    Raises:
        ConfigError: the file is open to others, too long, or holds a line that is not understood.
        OSError: it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._nodes: dict[str, tuple[str, int]] = {}
        self._lines = 0
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077:
                raise ConfigError(
                    f"known-nodes file {str(self.path)!r} is open to group or others; run: chmod 600 {str(self.path)!r}"
                )
            while line := file.readline(MAX_KNOWN_LINE + 1):
                self._lines += 1
                self._read_line(self._lines, line)

    def _read_line(self, number: int, line: bytes) -> None:
        if number > MAX_KNOWN_NODES or len(line) > MAX_KNOWN_LINE:
            raise ConfigError(
                f"known-nodes file {str(self.path)!r} is too long at line {number}; at most {MAX_KNOWN_NODES} lines of "
                f"{MAX_KNOWN_LINE} bytes are read: remove what is out of use"
            )
        text = line.decode("utf-8", "replace").strip()
        if not text or text.startswith("#"):
            return
        parts = text.split(" ")
        try:
            address, node_id = parts
            parse_node_id(node_id)
        except ValueError:
            raise ConfigError(
                f"known-nodes file {str(self.path)!r}: line {number} is not 'address node_id'; correct or remove it"
            ) from None
        self._nodes.setdefault(address, (node_id, number))

    def lookup(self, address: str) -> tuple[str, int] | None:
        """(node id, line number) first seen under this address, or None."""
        return self._nodes.get(address)

    def remember(self, address: str, node_id: str) -> None:
        """Append a line with one write; nothing happens if the address is known. ConfigError: the file is full."""
        if address in self._nodes:
            return
        line = f"{address} {node_id}\n".encode()
        if self._lines >= MAX_KNOWN_NODES or len(line) > MAX_KNOWN_LINE or len(address.split()) != 1:
            raise ConfigError(
                f"{address[:80]!r} does not fit into the known-nodes file {str(self.path)!r}; remove lines that are "
                "out of use, or put the node id into the address"
            )
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(f"short write to {str(self.path)!r}")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._lines += 1
        self._nodes[address] = (node_id, self._lines)


Trust = str | Collection[str] | CA | CARoot | Callable[[str], bool | Awaitable[bool]]
BlockingTrust = str | Collection[str] | CA | CARoot | Callable[[str], bool]
"""``Trust`` where nothing can be awaited."""


@dataclass
class Policy:
    """What make_policy built. decide() may be called any number of times; it changes nothing."""

    own_id: bytes
    expected_id: bytes | None = None
    allow_self: bool = False
    kind: str = "none"
    ids: frozenset[bytes] = frozenset()
    root: CARoot | None = None
    ask: Callable[[str], object] | None = None
    known: KnownNodes | None = None
    blocked: set[bytes] = field(default_factory=set)

    def decide(self, claim: Claim, wall_s: float) -> Decision:
        """Judge a peer that proved `claim` at `wall_s` (Unix seconds); never raises for what it or a callable did."""
        if claim.id_pub == self.own_id and not self.allow_self:
            return Decision(False, Refusal.SELF, "the peer shows our own identity")
        if self.expected_id is not None and claim.id_pub != self.expected_id:
            return Decision(
                False, Refusal.WRONG_ID, f"dialled {format_node_id(self.expected_id)}, {claim.node_id} answered"
            )
        if claim.id_pub in self.blocked or claim.record.static_pub in self.blocked:
            return Decision(False, Refusal.UNTRUSTED, f"{claim.node_id} is blocked")
        return self._decide_kind(claim, wall_s)

    def _decide_kind(self, claim: Claim, wall_s: float) -> Decision:
        if self.kind == "ids":
            return (
                ALLOW
                if claim.id_pub in self.ids
                else Decision(False, reason=f"{claim.node_id} is not in trust=; add it if it is the right node")
            )
        if self.kind == "ca":
            return self._decide_ca(claim, wall_s)
        if self.kind == "tofu":
            return self._decide_tofu(claim)
        if self.kind == "ask" and self.ask is not None:
            return _ask(self.ask, claim.node_id)
        if self.kind == "same-user":
            return (
                ALLOW
                if claim.same_user
                else Decision(False, reason="the peer runs as another user; say whom to trust: trust= or psk=")
            )
        return ALLOW if self.kind == "any" else Decision(False, reason="no policy")

    def _decide_ca(self, claim: Claim, wall_s: float) -> Decision:
        if self.root is None or self.root.public in self.blocked:
            return Decision(False, reason="the authority is blocked")
        if claim.membership is None:
            return Decision(False, reason=f"{claim.node_id} shows no membership; have the authority issue one")
        try:
            member = verify_membership(claim.membership, self.root.public, claim.id_pub, wall_s)
        except RecordExpiredError as error:
            return Decision(False, Refusal.EXPIRED, str(error))
        except RecordError as error:
            return Decision(False, reason=str(error))
        if self.root.groups and not self.root.groups.intersection(member.groups):
            return Decision(
                False,
                reason=f"{claim.node_id} is in none of the groups {sorted(self.root.groups)}; have the authority "
                "issue a membership with one of them",
            )
        return ALLOW

    def _decide_tofu(self, claim: Claim) -> Decision:
        if self.known is None or claim.address is None or not claim.dialled:
            return Decision(False, reason="first use can only be judged for an address that was dialled")
        seen = self.known.lookup(claim.address)
        if seen is None or seen[0] == claim.node_id:
            return ALLOW
        return Decision(
            False,
            reason=f"{claim.address} was {seen[0]} when first seen, now {claim.node_id} answers: either the node was"
            f" set up anew or somebody stands between. If it was set up anew, remove line {seen[1]} of"
            f" {str(self.known.path)!r} and dial again",
        )

    def established(self, claim: Claim) -> None:
        """To be called when the handshake has ended well: remembers first use. OSError, ConfigError: cannot write."""
        if self.kind == "tofu" and self.known is not None and claim.address is not None:
            self.known.remember(claim.address, claim.node_id)


def _ask(ask: Callable[[str], object], node_id: str) -> Decision:
    try:
        answer = ask(node_id)
    except Exception as error:
        return Decision(False, reason=f"trust callable raised {type(error).__name__} for {node_id}; that refuses")
    if inspect.isawaitable(answer):
        return Decision(False, reason="", pending=answer)
    return ALLOW if answer is True else Decision(False, reason=f"trust callable did not return True for {node_id}")


def make_policy(
    trust: Trust | None,
    *,
    own_id: bytes,
    dialling: bool,
    psk: bool = False,
    expected_id: bytes | None = None,
    same_user: bool = False,
    known_nodes: str | os.PathLike[str] | None = None,
    blocked: set[bytes] | None = None,
    allow_self: bool = False,
) -> Policy:
    """Turn the `trust=` of listen or dial into a policy.

    Args:
        trust: "any", "tofu", node ids, an authority, a callable (sync or async) that gets the node id, or None.
        own_id: our identity, 32 bytes.
        dialling: True for dial, False for listen.
        psk: a PSK is set.
        expected_id: identity in the dialled address; then no other is accepted, whatever `trust` says.
        same_user: the carrier is Unix or in-process, whose peers' user is checked.
        known_nodes: file for "tofu".
        blocked: public keys (identity, static or authority) that are refused; kept by reference, so it may change.
        allow_self: accept our own identity (loopback tests).

    Raises:
        ConfigError: no policy where one is needed, or one that cannot work; the message holds the line to write.
    """
    policy = Policy(own_id, expected_id, allow_self, blocked=blocked if blocked is not None else set())
    verb = "dial" if dialling else "listen"
    if trust is None:
        if same_user and not psk and expected_id is None:
            policy.kind = "same-user"
        elif psk or expected_id is not None:
            policy.kind = "any"  # the PSK, or the id in the address, is the condition
        else:
            raise ConfigError(
                f'{verb} needs to know whom to trust; write for example {verb}(..., trust=["<node id>"])'
                f"{' or put the id into the address, tcp://<node id>@host:port' if dialling else ''}"
                f" or {verb}(..., psk=key)"
            )
    elif isinstance(trust, str):
        _use_word(policy, trust, dialling, known_nodes)
    elif isinstance(trust, CA | CARoot):
        policy.kind, policy.root = "ca", trust.root if isinstance(trust, CA) else trust
    elif callable(trust):
        policy.kind, policy.ask = "ask", trust
    else:
        policy.kind, policy.ids = "ids", _parse_ids(trust)
    return policy


def _parse_ids(trust: object) -> frozenset[bytes]:
    # takes any object: what the type says is no help against what a program passes
    items = list(trust) if isinstance(trust, Collection) and not isinstance(trust, bytes | bytearray) else []
    if not 1 <= len(items) <= MAX_TRUSTED or not all(isinstance(item, str) for item in items):
        raise ConfigError(f'trust= takes 1 to {MAX_TRUSTED} node ids; write trust=["<node id>"]')
    return frozenset(parse_node_id(item) for item in items)


def _use_word(policy: Policy, word: str, dialling: bool, known_nodes: str | os.PathLike[str] | None) -> None:
    if word == "any":
        policy.kind = "any"
        return
    if word != "tofu":
        raise ConfigError(f'trust={word[:60]!r} is not understood; a node id goes into a list: trust=["<node id>"]')
    if not dialling:
        raise ConfigError('trust="tofu" is for dial only; write listen(..., trust=["<node id>"])')
    if known_nodes is None:
        raise ConfigError('trust="tofu" needs the path of a known-nodes file')
    policy.kind, policy.known = "tofu", KnownNodes(known_nodes)
