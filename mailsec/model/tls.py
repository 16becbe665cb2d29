"""What is asked of TLS sessions: versions and ciphers, and who a next hop must be. Names, no contexts: `net.tls` makes those."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["TlsPeer", "TlsPolicy"]


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """Versions, ciphers and groups of one side; what is empty is the profile's. `algorithms.tls` knows the names."""

    profile: str = "intermediate"
    protocols: tuple[str, ...] = ()
    """ "TLSv1.2", "TLSv1.3": the lowest and the highest count."""
    ciphers: str = ""
    """OpenSSL names with colons, or NSS names with commas, as NSSCipherSuite has them."""
    groups: tuple[str, ...] = ()
    """Key exchange groups in order of preference."""
    resumption: bool = True
    lifetime: int = 7200
    """Seconds for which a session may be resumed; keys of tickets are new after that time."""


@dataclass(frozen=True, slots=True)
class TlsPeer:
    """Who a next hop must be, and what it is shown. All empty: a name under the usual anchors, where "verified" asks for it."""

    policy: TlsPolicy = field(default_factory=TlsPolicy)
    pins: tuple[str, ...] = ()
    """SHA-256 in hexadecimal, of the certificate ("sha256:…") or of its key ("key-sha256:…"): one of them is enough, whatever the name."""
    authority: str = ""
    """Nickname of the certificate that must be the peer's own, or its issuer's above it."""
    certificate: str = ""
    """Nickname, or "file:DIR", of the certificate that we show when we are asked for one."""
