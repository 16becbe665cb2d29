"""Who is there, which addresses exist, and which certificates belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from mailsec.model.address import Address
from mailsec.model.session import Identity, Session
from mailsec.model.verdict import Reason

__all__ = [
    "PEER",
    "Authenticator",
    "CertificateDirectory",
    "Credentials",
    "FoundCertificate",
    "RecipientDirectory",
    "ScramAuthenticator",
    "ScramVerifier",
]

PEER: Final = "PEER"
"""The mechanism of `Credentials` whose secret a peer that we trust has checked (a mail server, over a milter or policy delegation). No client
can choose it: an authenticator is asked so by `Gateway.identity` only."""


@dataclass(frozen=True, slots=True)
class FoundCertificate:
    """A certificate that a directory gives for an address, with where it came from."""

    der: bytes
    source: str
    trusted_binding: bool = False
    """True where the source itself vouches that it belongs to the address (DNSSEC, an administrator)."""
    capabilities: bytes | None = None
    against: Reason | None = None
    """Why the directory itself says that it must not be used ("pending", "blocked"): it is shown, and nothing is encrypted with it."""
    preferred: bool = False
    """A person chose it (pinned): no other certificate of this address is used."""
    bound: bool = False
    """True where a person said that it is this address's, which it does not name. It needs a path all the same."""
    chain: tuple[bytes, ...] = ()
    """Certificates of authorities that came with it (DER); none is believed for that."""
    domain: str = ""
    """Where it is for everybody of this domain (a gateway's): one of the address's own is used before it."""
    origin: str = ""
    """Where in the source it was, for people: a distinguished name, the name of a record, "seen in mail"."""


class CertificateDirectory(Protocol):
    """A place to look up correspondents' certificates, best first.

    An attribute `local` that is true says that it answers from this machine, and knows itself when its answers are out of date: it is asked
    for every message. Others are asked only where a message is to be encrypted and no local one helps, and their answers are kept for a while.

    A MailsecError says that it works and cannot answer for this address: it is left alone for that domain for a while. One that raises something
    else, or is late, is left alone altogether.
    """

    name: str

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]:
        """What is known of `address`; empty where nothing is. Raise a MailsecError that is temporary where it cannot say."""
        ...


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


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What a proof of SCRAM-SHA-256 is checked against (RFC 5802 §3). Its `repr` shows nothing to guess with."""

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    identity: Identity | None
    """Whose it is; None: nobody's, and no proof fits."""


class Authenticator(Protocol):
    """Says who is there, and which addresses they may use.

    One that takes several logins for the same person ("alice", "alice@example.org") says so twice, or who guesses and who sends is counted for
    each by itself: by a method `account(login: str) -> str`, which every such login makes one text of ("": it says nothing), and by the same
    text in `Identity.account`.
    """

    name: str
    mechanisms: frozenset[str]

    async def authenticate(self, credentials: Credentials, session: Session) -> Identity | None:
        """The identity; None where login and secret do not fit; an exception with `.temporary` where it cannot say."""
        ...


class ScramAuthenticator(Authenticator, Protocol):
    """One whose `mechanisms` name "SCRAM-SHA-256" besides "PLAIN"."""

    async def verifier(self, login: str, session: Session) -> ScramVerifier:
        """What `login` is checked against. For a login that does not exist one that fits nothing, with the same salt whenever it is asked for."""
        ...
