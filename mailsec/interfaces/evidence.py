"""What `pki` misses, and who brings it. Sources bring octets; nothing in them is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

__all__ = ["Evidence", "EvidenceRequest", "RevocationSource"]


@dataclass(frozen=True, slots=True)
class EvidenceRequest:
    """What `pki` misses: "issuer" (AIA), "ocsp" or "crl" for one certificate."""

    kind: str
    certificate: bytes
    issuer: bytes | None = None
    urls: tuple[str, ...] = ()
    """Where the certificate says that it is, whatever the scheme."""
    optional: bool = False
    """True: the answer is known without it, and may be newer with it (a delta to a list that is at hand)."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Octets that a source brought; `pki` judges them. Nothing in here is believed."""

    kind: str
    data: bytes
    source: str
    fetched_at: datetime


class RevocationSource(Protocol):
    """Brings evidence: OCSP responses, CRLs, anything. It never judges.

    None: nobody is known to ask. Unavailable: somebody should know, and does not answer; the status is then "unknown", also of a certificate
    that names no source. An attribute `local` that is true says that it has evidence on this machine: it is then asked without addresses, too,
    whenever an answer is looked at again.

    A method `addresses(request) -> Sequence[str]` says where the source would ask: those of `request.urls` whose scheme it speaks (an LDAP
    plugin: "ldap:…"), or others of its own. They count against `limits.fetches`, and come in `request.urls` as far as they are within it.
    A source without that method is given all.
    """

    name: str

    async def evidence(self, request: EvidenceRequest) -> Sequence[Evidence]: ...
