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
    """

    name: str

    async def evidence(self, request: EvidenceRequest) -> Sequence[Evidence]: ...
