"""The gateway, as services and plugins see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mailsec.interfaces.keys import KeyHandle
from mailsec.interfaces.people import FoundCertificate
from mailsec.interfaces.runtime import Runtime
from mailsec.interfaces.tokens import TokenHost
from mailsec.model.address import Address
from mailsec.model.correspondents import Sighting
from mailsec.model.octets import Octets, Segments
from mailsec.model.protection import ProtectionPlan
from mailsec.model.session import Envelope, Identity, Session, Transaction
from mailsec.model.settings import GatewaySettings
from mailsec.model.trust import IssuedCertificate
from mailsec.model.verdict import Decision, Event, Verdict

__all__ = ["Gateway", "Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `process` made of a transaction for one group of recipients. The octets live until it is closed."""

    recipients: tuple[Address, ...]
    decision: Decision
    segments: Segments | None
    verdict: Verdict | None
    findings: tuple[Any, ...] = ()
    need: str = ""
    secret: bool = False
    """True where the segments hold what was encrypted on arrival."""
    rule: str = ""
    explanation: Mapping[str, str] = field(default_factory=dict)
    sightings: tuple[Sighting, ...] = field(default=(), compare=False)
    """What the message teaches about its author, where it is trusted."""
    plan: ProtectionPlan | None = field(default=None, compare=False)
    """Outbound: how this copy was to be protected."""
    header: bytes | None = None
    """What a report about this copy may quote, where that is less than the header as received: fields that were encrypted are not in it."""


class Gateway(Protocol):
    """What `register_tcp_services`, `register_crypto_backends` and `startup` are given."""

    settings: GatewaySettings
    runtime: Runtime

    def begin(self, session: Session, envelope: Envelope, octets: Octets) -> Transaction:
        """The transaction of one message, with an id of its own. Raise LimitExceeded for a header over the limits."""
        ...

    def process(self, transaction: Transaction) -> AsyncIterator[Outcome]:
        """Everything up to the spool: an outcome for each group of recipients. Nothing is kept, sent or recorded; what fails is an outcome too."""
        ...

    def record(self, event: Event) -> None:
        """Tell everybody who records events (`record_event`), the log first of all: a service tells what became of what it processed."""
        ...

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]:
        """What all certificate directories know of `address`, in their order; nothing of it is judged."""
        ...

    async def usable_certificates(self, address: Address) -> Sequence[bytes]:
        """DER of the certificates that mail to `address` would be encrypted for now, judged as `mailsec cert find --explain` tells it.

        Empty: there is none. Raise a MailsecError that is temporary where that cannot be said now.
        """
        ...

    def may_send(self, identity: Identity, address: Address) -> bool:
        """True where `identity` may use `address`."""
        ...

    async def identity(self, login: str) -> Identity | None:
        """Who `login` is, where a peer that we trust says that it has checked the password (a milter's {auth_authen}, policy delegation).

        None: nobody here. One without addresses may send as nobody: a user who is disabled. Raise a MailsecError that is temporary
        where nobody can say.
        """
        ...

    async def recipient_exists(self, address: Address) -> bool | None:
        """What the recipient directories say; None: none of them knows."""
        ...

    async def key(self, name: str) -> KeyHandle | None:
        """The key that a key store calls `name`, with its certificate and chain: a nickname, "token:nickname" or a PKCS#11 URI."""
        ...

    async def authority(self, ca: str) -> Sequence[bytes]:
        """DER of the certificates of our own authority called `ca`, the one that issues now first (it has several where it was renewed).

        Raise KeyUnavailable where there is none.
        """
        ...

    async def issued(self, ca: str) -> Sequence[IssuedCertificate]:
        """The register of our own authority called `ca`. Raise KeyUnavailable where there is none, StoreError where it cannot be believed."""
        ...

    async def issued_as(self, ca: str, serial: int) -> IssuedCertificate | None:
        """One entry of that register, without reading the others; None: no such number was issued, or revoked, here."""
        ...

    def token(self, module: str) -> TokenHost:
        """The PKCS#11 module of that name, each time a connection of its own. Raise KeyUnavailable where there is none.

        Its methods block: call them through `runtime.in_thread`.
        """
        ...
