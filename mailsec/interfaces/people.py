"""Who is there, which addresses exist, and which certificates belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mailsec.model.address import Address
from mailsec.model.session import Identity, Session

__all__ = ["Authenticator", "CertificateDirectory", "Credentials", "FoundCertificate", "RecipientDirectory"]


@dataclass(frozen=True, slots=True)
class FoundCertificate:
    """A certificate that a directory gives for an address, with where it came from."""

    der: bytes
    source: str
    trusted_binding: bool = False
    """True where the source itself vouches that it belongs to the address (DNSSEC, an administrator)."""
    capabilities: bytes | None = None


class CertificateDirectory(Protocol):
    """A place to look up correspondents' certificates."""

    name: str

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]: ...


class RecipientDirectory(Protocol):
    """Knows whether an address exists."""

    name: str

    async def exists(self, address: Address) -> bool | None:
        """True or False; None where this directory does not know the domain."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client offered. Its `repr` shows nothing."""

    mechanism: str
    login: str
    secret: bytes = field(repr=False)
    authorisation: str = ""


class Authenticator(Protocol):
    """Says who is there, and which addresses they may use."""

    name: str
    mechanisms: frozenset[str]

    async def authenticate(self, credentials: Credentials, session: Session) -> Identity | None:
        """The identity; None where login and secret do not fit; an exception with `.temporary` where it cannot say."""
        ...
