"""OCSP requests (RFC 6960 §4.1): DER to frozen values.

The one invariant: any octets end in an `OcspRequest` of at most `MOST_IDS` certificates or in an `Asn1Error`, in linear time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailsec.errors import Asn1Error
from mailsec.x509 import der

__all__ = ["MOST_IDS", "MOST_OCTETS", "CertId", "OcspRequest", "read_ocsp_request"]

MOST_OCTETS: Final = 16_384
"""Octets of a request: one about a certificate has 70 to 120, a signed one 2,000. Attack: memory for each connection."""
MOST_IDS: Final = 16
"""Certificates of one request. RFC 9919 §3.1.1 asks about one. Attack: ten thousand look-ups for one packet."""
_MOST_NONCE: Final = 128
_NONCE: Final = "1.3.6.1.5.5.7.48.1.2"
_NULL: Final = b"\x05\x00"


@dataclass(frozen=True, slots=True)
class CertId:
    """Which certificate is asked about (RFC 6960 §4.1.1)."""

    hash_algorithm: str
    """OID."""
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int
    der: bytes
    """As it was asked: what is answered names it by the same octets."""


@dataclass(frozen=True, slots=True)
class OcspRequest:
    """One request. Signatures and names of requestors are not looked at: everybody gets an answer (RFC 9919 §3.1.2)."""

    ids: tuple[CertId, ...]
    nonce: bytes | None = None
    """The value of the nonce's extension, as it goes into the answer."""


def read_ocsp_request(data: bytes) -> OcspRequest:
    """Read an OCSPRequest; raise Asn1Error where it is none, or asks too much."""
    if len(data) > MOST_OCTETS:
        raise Asn1Error("a request that is too long")
    _, _, content, end = der.single(data, 0, len(data), der.SEQUENCE, "OCSPRequest")
    parts = der.split(data, content, end, 2)
    if not parts or parts[0][0] != der.SEQUENCE or any(part[0] != 0xA0 for part in parts[1:]):
        raise Asn1Error("OCSPRequest: not the elements that belong there")
    fields = der.split(data, parts[0][2], parts[0][3], 4)
    if fields and fields[0][0] == 0xA0:
        _, _, first, last = der.single(data, fields[0][2], fields[0][3], der.INTEGER, "version")
        # RFC 6960 §4.1.1: version 1, whose number is 0.
        if der.integer(data, first, last) != 0:
            raise Asn1Error("TBSRequest: of another version than 1")
        del fields[0]
    if fields and fields[0][0] == 0xA1:
        del fields[0]
    if not fields or fields[0][0] != der.SEQUENCE or [field[0] for field in fields[1:]] not in ([], [0xA2]):
        raise Asn1Error("TBSRequest: not the elements that belong there")
    asked = der.split(data, fields[0][2], fields[0][3], MOST_IDS)
    if not asked:
        raise Asn1Error("a request about nothing")
    nonce = _extensions(data, fields[1]) if len(fields) == 2 else None
    return OcspRequest(tuple(_cert_id(data, span) for span in asked), nonce)


def _cert_id(data: bytes, span: der.Span) -> CertId:
    parts = der.split(data, span[2], span[3], 2)
    if span[0] != der.SEQUENCE or [part[0] for part in parts] not in ([der.SEQUENCE], [der.SEQUENCE, 0xA0]):
        raise Asn1Error("Request: not the elements that belong there")
    if len(parts) == 2:
        # A nonce that stands here is about nothing; what else is critical is refused.
        _extensions(data, parts[1])
    fields = der.split(data, parts[0][2], parts[0][3], 4)
    if [field[0] for field in fields] != [der.SEQUENCE, der.OCTET_STRING, der.OCTET_STRING, der.INTEGER]:
        raise Asn1Error("CertID: not the elements that belong there")
    algorithm = der.split(data, fields[0][2], fields[0][3], 2)
    if not algorithm or algorithm[0][0] != der.OID:
        raise Asn1Error("CertID: no hash algorithm")
    if len(algorithm) == 2 and data[algorithm[1][1] : algorithm[1][3]] != _NULL:
        raise Asn1Error("CertID: a hash algorithm with parameters")
    return CertId(
        der.oid(data[algorithm[0][2] : algorithm[0][3]]),
        data[fields[1][2] : fields[1][3]],
        data[fields[2][2] : fields[2][3]],
        der.integer(data, fields[3][2], fields[3][3]),
        data[parts[0][1] : parts[0][3]],
    )


def _extensions(data: bytes, span: der.Span) -> bytes | None:
    """The nonce, if there is one."""
    _, _, start, stop = der.single(data, span[2], span[3], der.SEQUENCE, "extensions")
    nonce: bytes | None = None
    for tag, _, first, last in der.split(data, start, stop, 16):
        parts = der.split(data, first, last, 3)
        critical = len(parts) == 3 and parts[1][0] == der.BOOLEAN and der.boolean(data, parts[1][2], parts[1][3])
        if tag != der.SEQUENCE or len(parts) < 2 or parts[0][0] != der.OID or parts[-1][0] != der.OCTET_STRING:
            raise Asn1Error("an extension without type or value")
        if der.oid(data[parts[0][2] : parts[0][3]]) == _NONCE:
            if nonce is not None:
                raise Asn1Error("two nonces")
            nonce = data[parts[-1][2] : parts[-1][3]]
            _check_nonce(nonce)
        elif critical:
            # RFC 6960 §4.4: what is critical and not understood is not passed over.
            raise Asn1Error("a critical extension that is not known")
    return nonce


def _check_nonce(value: bytes) -> None:
    # RFC 9654 §2.1: an OCTET STRING of 1 to 128 octets; anything else is a malformed request.
    try:
        _, _, first, last = der.single(value, 0, len(value), der.OCTET_STRING, "nonce")
    except Asn1Error:
        # Early clients sent the octets themselves.
        first, last = 0, len(value)
    if not 1 <= last - first <= _MOST_NONCE:
        raise Asn1Error("a nonce that is empty or too long")
