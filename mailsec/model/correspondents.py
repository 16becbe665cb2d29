"""What signed mail teaches about its author: a certificate, what its holder can read, and what became of that knowledge."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mailsec.model.address import Address
from mailsec.model.trust import CertificateEntry

__all__ = ["CERTIFICATE_STATES", "KnownCertificate", "Lesson", "Sighting"]

CERTIFICATE_STATES = ("", "pending", "pinned", "blocked", "rejected")
"""What a certificate of the database may be to a correspondent.

"": it may be used. "pending": it was seen, and waits for a person or for the end of the one in use. "pinned": a person chose it, and no other
is used for its addresses. "blocked": no path may hold it. "rejected": a person does not want it used; signatures are judged as ever.
"""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One certificate of the author of a message, whose signature was intact, trusted, and not refused by policy."""

    address: Address
    """The From address. What else the certificate names is not learnt."""
    certificate: bytes
    chain: tuple[bytes, ...] = ()
    """The authorities between it and its anchor, nearest first; before it was judged, all certificates that came with it."""
    anchor: bytes = b""
    """DER of the anchor where its path ends."""
    capabilities: bytes | None = None
    """DER of the sMIMECapabilities that the holder signed (RFC 8551 §2.5.2)."""
    signed_at: datetime | None = None
    """When: the signer's claim, not later than the arrival."""
    source: str = "mail"
    revoked: tuple[bytes, ...] = ()
    """DER of the address's known certificates that are revoked now, as evidence that was judged here showed; what a message claims is none."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What became of one sighting."""

    address: str
    """`Address.key`."""
    fingerprint: str
    """SHA-256 of the certificate, lower-case hexadecimal."""
    state: str
    """A word of CERTIFICATE_STATES."""
    reason: str
    new: bool
    """True where something was learnt that was not known."""


@dataclass(frozen=True, slots=True)
class KnownCertificate:
    """A certificate of the database with its state, and where and when it was seen."""

    entry: CertificateEntry
    state: str = ""
    address: str = ""
    """The address for which it was seen; empty where it was imported."""
    source: str = ""
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    times: int = 0

    @property
    def in_use(self) -> bool:
        """True where no person, and no lack of one, speaks against it."""
        return self.state in ("", "pinned")
