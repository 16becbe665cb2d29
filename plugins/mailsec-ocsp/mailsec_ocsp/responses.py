"""OCSP responses (RFC 6960 §4.2), as they are written. Signing is elsewhere: what is signed, and the frame around it.

The one invariant: what is written here is DER, and `mailsec.x509.ocsp` reads it as what was meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mailsec.asn1 import writer

__all__ = [
    "INTERNAL_ERROR",
    "MALFORMED_REQUEST",
    "TRY_LATER",
    "UNAUTHORIZED",
    "Standing",
    "basic_response",
    "response_data",
    "single_response",
]

_BASIC: Final = "1.3.6.1.5.5.7.48.1.1"
_NONCE: Final = "1.3.6.1.5.5.7.48.1.2"
_EXTENDED_REVOKE: Final = "1.3.6.1.5.5.7.48.1.9"

# RFC 6960 §4.2.1: answers without a signature.
MALFORMED_REQUEST: Final = writer.sequence(writer.enumerated(1))
INTERNAL_ERROR: Final = writer.sequence(writer.enumerated(2))
TRY_LATER: Final = writer.sequence(writer.enumerated(3))
UNAUTHORIZED: Final = writer.sequence(writer.enumerated(6))

# RFC 5280 §5.3.1. "unspecified" is said by leaving it out.
_REASONS: Final = {
    "keyCompromise": 1,
    "cACompromise": 2,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
    "certificateHold": 6,
    "privilegeWithdrawn": 9,
    "aACompromise": 10,
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with a certificate (RFC 6960 §2.2)."""

    status: str
    """ "good", "revoked" or "unknown"."""
    revoked_at: datetime | None = None
    reason: str = ""
    issued: bool = True
    """False where no certificate with this number was issued."""

    @property
    def der(self) -> bytes:
        """CertStatus."""
        if self.revoked_at is None:
            return b"\x80\x00" if self.status == "good" else b"\x82\x00"
        code = _REASONS.get(self.reason)
        reason = b"" if code is None else writer.explicit(0, writer.enumerated(code))
        return writer.implicit(1, writer.sequence(writer.generalized_time(self.revoked_at), reason))


def single_response(cert_id: bytes, standing: Standing, this_update: datetime, next_update: datetime) -> bytes:
    """SingleResponse. nextUpdate is always there (RFC 9919 §3.2.4)."""
    return writer.sequence(
        cert_id,
        standing.der,
        writer.generalized_time(this_update),
        writer.explicit(0, writer.generalized_time(next_update)),
    )


def response_data(
    key_hash: bytes, produced_at: datetime, singles: Sequence[bytes], *, nonce: bytes | None = None, extended_revoke: bool = False
) -> bytes:
    """ResponseData, which is what is signed; the responder is named by the SHA-1 of its key. `nonce` is the value of the extension."""
    extensions = []
    if nonce is not None:
        extensions.append(writer.sequence(writer.oid(_NONCE), writer.octet_string(nonce)))
    if extended_revoke:
        # RFC 6960 §4.4.8: said where "revoked" may mean that a certificate was never issued.
        extensions.append(writer.sequence(writer.oid(_EXTENDED_REVOKE), writer.octet_string(writer.NULL)))
    return writer.sequence(
        writer.explicit(2, writer.octet_string(key_hash)),
        writer.generalized_time(produced_at),
        writer.sequence(*singles),
        writer.explicit(1, writer.sequence(*extensions)) if extensions else b"",
    )


def basic_response(tbs: bytes, algorithm: bytes, signature: bytes, certificates: Sequence[bytes]) -> bytes:
    """OCSPResponse with a BasicOCSPResponse in it."""
    certs = writer.explicit(0, writer.sequence(*certificates)) if certificates else b""
    basic = writer.sequence(tbs, algorithm, writer.bit_string(signature), certs)
    return writer.sequence(writer.enumerated(0), writer.explicit(0, writer.sequence(writer.oid(_BASIC), writer.octet_string(basic))))
