"""What the certificate database says of a certificate: NSS's trust flags, anchors, and where each was learnt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mailsec.model.address import Address

__all__ = ["Anchor", "CertificateEntry", "IssuedCertificate", "TrustFlags", "UserEntry"]


@dataclass(frozen=True, slots=True)
class TrustFlags:
    """NSS's three trust strings, as in `certutil -t "TLS,email,object"`.

    Letters: p (prohibited), P (trusted peer), c (valid CA), C (trusted CA for issuing server or mail certificates), T (trusted CA for
    issuing client certificates), u (user certificate: we hold its key; shown, never stored), w (warn: never stored).
    """

    tls: str = ""
    email: str = ""
    object: str = ""

    @classmethod
    def parse(cls, text: str) -> TrustFlags:
        """Read "C,C,"; raise ValueError for other letters or a wrong number of fields."""
        fields = [field.strip() for field in text.split(",")]
        if len(fields) != 3 or any(set(field) - set("pPcCTuw") for field in fields):
            raise ValueError(f'not trust flags: {text!r}: three fields of the letters p P c C T u w, as in ",C,"')
        return cls(*("".join(dict.fromkeys(field.translate({ord("u"): None, ord("w"): None}))) for field in fields))

    def __str__(self) -> str:
        return f"{self.tls},{self.email},{self.object}"

    @property
    def email_anchor(self) -> bool:
        """True where paths of e-mail certificates may end here."""
        return "C" in self.email and "p" not in self.email

    @property
    def email_peer(self) -> bool:
        """True where this end-entity certificate is itself trusted for e-mail, without a path."""
        return "P" in self.email and "p" not in self.email

    @property
    def email_distrusted(self) -> bool:
        """True where no path for e-mail may hold this certificate."""
        return "p" in self.email


@dataclass(frozen=True, slots=True)
class Anchor:
    """A trust anchor (RFC 5280 §6.1.1 (d)): a certificate, and what it may vouch for."""

    der: bytes
    domains: tuple[str, ...] = ("*",)
    """Domains of mail addresses that it may vouch for: "example.org" with all below it, or "*"."""
    purposes: tuple[str, ...] = ("email",)
    """ "email", "tls-server", "tls-client"."""
    not_after: datetime | None = None
    """Certificates issued later are not believed (NSS's distrust-after)."""


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """One certificate of the shared database, or of a token."""

    id: int
    nickname: str
    der: bytes
    trust: TrustFlags
    has_key: bool = False
    addresses: tuple[str, ...] = ()
    """Keys (`Address.key`) of the mailboxes that the certificate names."""
    assigned: tuple[str, ...] = ()
    """Patterns of addresses that its key signs and opens for; empty: those in the certificate."""
    domains: tuple[str, ...] = ()
    """For an anchor: domains that it may vouch for."""
    verified: bool = True
    """False where the row was not written by mailsec: it then decides nothing."""
    source: str = ""
    """Where it was learnt: "imported", "issued", "harvested", "token:NAME"."""
    learnt_at: datetime | None = None
    state: str = ""
    """One of `model.correspondents.CERTIFICATE_STATES`: what a person, or the lack of one, has decided about it."""
    bound: tuple[str, ...] = ()
    """What a person bound it to: addresses (`Address.key`), and domains as "@example.net". Mail is encrypted for them, and nothing else."""

    def for_whom(self, address: Address) -> str:
        """For whom mail to `address` would be encrypted with it: the address itself, its domain ("@example.net"), or "" (nobody)."""
        if address.key in self.addresses or address.key in self.bound:
            return address.key
        domain = "@" + address.domain_key
        return domain if domain in self.bound else ""


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate that one of our own authorities issued, for CRLs and for an OCSP responder."""

    issuer: bytes
    """DER of the authority's certificate."""
    serial: int
    der: bytes | None
    not_after: datetime
    revoked_at: datetime | None = None
    reason: str = ""
    """A CRLReason of RFC 5280 §5.3.1 ("keyCompromise"); empty where it is not revoked."""


@dataclass(frozen=True, slots=True)
class UserEntry:
    """One user of the database: a login, and the addresses that it may send as (patterns)."""

    login: str
    addresses: tuple[str, ...]
    created_at: datetime | None = None
    disabled: bool = False
    verified: bool = True
    """False where the row was not written by mailsec: this user then does not log in."""
