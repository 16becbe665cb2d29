"""Who is at the other end, and what they asked to be carried: `Session`, `Envelope`, `Transaction`.

Origin decides what may happen to a message, never an address in it (`docs/architecture.md`, "origin and direction").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from mailsec.errors import AddressError
from mailsec.model.address import Address, normalise_domain
from mailsec.model.message import Message

__all__ = ["Envelope", "Identity", "Origin", "Recipient", "Session", "TlsInfo", "Transaction", "matches_pattern"]


class Origin(str, Enum):
    """What is known of whoever speaks on a listener."""

    SUBMISSION = "submission"
    """An authenticated person: signed for, if the identity may use the From address."""
    TRUSTED = "trusted"
    """A named MTA that has checked its users: signed for, within `senders`."""
    INTERNET = "internet"
    """Nobody: verified and decrypted only, whatever the header says."""
    MAILBOX = "mailbox"
    """A mailbox that is read by POP3: the inbound path within the session; nothing is signed or spooled."""

    @property
    def outbound(self) -> bool:
        """True where messages may be signed and encrypted for somebody."""
        return self in (Origin.SUBMISSION, Origin.TRUSTED)


def matches_pattern(pattern: str, address: Address) -> bool:
    """Say whether `address` is meant by `pattern`: `name@domain`, `@domain` (that domain only), `@.domain` (all below it), `*`."""
    if pattern == "*":
        return True
    if pattern.startswith("@."):
        return address.domain_key.endswith("." + normalise_domain(pattern[2:]))
    if pattern.startswith("@"):
        return address.domain_key == normalise_domain(pattern[1:])
    try:
        return Address.parse(pattern).key == address.key
    except AddressError:  # a pattern that is no address means nobody
        return False


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an authenticator says is there, and which addresses they may use as a sender (patterns of `matches_pattern`)."""

    name: str
    addresses: tuple[str, ...]
    mechanism: str = ""
    """How it was established: a SASL mechanism, "certificate", "senders" (a trusted listener), "milter"."""
    account: str = ""
    """What is counted as one with it, whichever way the login was written: rates and wrong passwords; "": `name`."""

    def may_use(self, address: Address) -> bool:
        """True where one of `addresses` means `address`."""
        return any(matches_pattern(pattern, address) for pattern in self.addresses)


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What a TLS session turned out to be; fields named as mod_nss's exported variables mean them."""

    version: str
    """ "TLSv1.3" and so on."""
    cipher: str
    cipher_bits: int = 0
    peer_certificate: bytes | None = None
    """DER of what the peer showed, checked or not."""
    peer_verified: bool = False
    server_name: str = ""
    """The name that the client asked for (SNI)."""
    group: str = ""
    """The key exchange: "X25519MLKEM768", "prime256v1"; empty where the library does not say."""
    resumed: bool = False
    peer_reasons: tuple[str, ...] = ()
    """Why what the peer showed was not accepted."""
    peer_chain: tuple[bytes, ...] = ()
    """DER of what the peer sent besides its own certificate; empty in a resumed session."""
    peer_identity: Identity | None = None
    """Who the peer's certificate says is there, as the listener maps it: only where it was accepted."""
    own_certificate: bytes | None = None
    """DER of what we showed."""
    exporter: bytes = field(default=b"", repr=False, compare=False)
    """What both ends of this very session know and nobody else (RFC 9266: tls-exporter), to bind a login to it; empty before TLS 1.3."""


@dataclass(frozen=True, slots=True)
class Session:
    """One connection of one client, as far as it is known at this moment (a changed session is a new value)."""

    id: str
    listener: str
    """The name of the listener in the configuration."""
    origin: Origin
    peer: str
    """ "192.0.2.1", "2001:db8::1", or "unix:PATH"."""
    peer_port: int = 0
    local: str = ""
    hostname: str = ""
    """How we call ourselves towards this client."""
    helo: str = ""
    """What the client calls itself."""
    protocol: str = "SMTP"
    """The `with` word of the Received field (RFC 3848): SMTP, ESMTP, ESMTPS, ESMTPSA, LMTP, POP3 …"""
    tls: TlsInfo | None = None
    identity: Identity | None = None
    behind_own_mta: bool = False
    """An `internet` listener that only our own MTA can reach: it has added results of its own already."""
    client: str = ""
    """Who spoke to the mail server before us, as that one says (XFORWARD): for logs, and for nothing else."""
    upstream: str = ""
    """`mailbox`: the mailbox's server as "HOST:PORT"; with `identity`, whose addresses are the mailbox owner's."""
    front_certified: bool = False
    """A server in front has said who the client is (XCLIENT), and has shown an accepted certificate itself: that is what the listener demands
    of whoever connects to it. It says nothing of the client, who has none in `tls`."""
    in_passing: bool = False
    """A message that another server keeps and only shows us (a milter): no hop is made, nothing is spooled, and nothing encrypted is opened,
    since the answer is given before anybody has said 250 (promise 6)."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One RCPT TO: the address, and its DSN parameters (RFC 3461 §4.1, §4.2) as received."""

    address: Address
    notify: str = ""
    original: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """MAIL FROM and RCPT TO. `reverse_path` is None for the null path (RFC 5321 §4.5.5)."""

    reverse_path: Address | None
    recipients: tuple[Recipient, ...]
    size: int = 0
    """SIZE as declared (RFC 1870 §6.1); 0 where it was not."""
    body: str = "7BIT"
    """BODY as declared (RFC 6152 §3): 7BIT or 8BITMIME."""
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    auth: str = ""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One message for one envelope in one session: what every hook and every step is given."""

    id: str
    """Our id, unique over workers and restarts: the log's key, and the `id` of the Received field."""
    session: Session
    envelope: Envelope
    message: Message
    received_at: datetime
    attempt: int = 0
    """How often this row was begun before (`raw` rows)."""
