"""The gateway, as services and plugins see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mailsec.interfaces.keys import KeyHandle
from mailsec.interfaces.people import FoundCertificate
from mailsec.interfaces.runtime import Runtime
from mailsec.model.address import Address
from mailsec.model.correspondents import Sighting
from mailsec.model.octets import Segments
from mailsec.model.protection import ProtectionPlan
from mailsec.model.session import Identity, Transaction
from mailsec.model.settings import GatewaySettings
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

    def process(self, transaction: Transaction) -> AsyncIterator[Outcome]: ...

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]: ...

    def may_send(self, identity: Identity, address: Address) -> bool: ...

    async def recipient_exists(self, address: Address) -> bool | None: ...

    async def key(self, name: str) -> KeyHandle | None: ...

    def record(self, event: Event) -> None:
        """Tell everybody who records events (`record_event`): a service tells what became of what it processed."""
        ...
