"""OCSP responses (RFC 6960 §4.2): DER to frozen values. Nothing is judged here; that is `pki.ocsp`.

Invariant: any octets end in an `OcspResponse` or an `Asn1Error`, in linear time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from mailsec.errors import Asn1Error, LimitExceeded
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.x509 import der
from mailsec.x509.names import Name

__all__ = ["OcspResponse", "SingleResponse", "read_ocsp_response"]

_BASIC: Final = "1.3.6.1.5.5.7.48.1.1"
_NONCE: Final = "1.3.6.1.5.5.7.48.1.2"

# RFC 6960 §4.2.1: OCSPResponseStatus.
STATUSES: Final = {0: "successful", 1: "malformedRequest", 2: "internalError", 3: "tryLater", 5: "sigRequired", 6: "unauthorized"}


@dataclass(frozen=True, slots=True)
class SingleResponse:
    """The answer about one certificate (RFC 6960 §4.2.1)."""

    hash_algorithm: str
    """OID."""
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int
    status: str
    """ "good", "revoked" or "unknown"."""
    revoked_at: datetime | None
    reason: int | None
    this_update: datetime
    next_update: datetime | None
    unknown_critical: bool
    """True where it has a critical extension that we do not know."""


@dataclass(frozen=True, slots=True)
class OcspResponse:
    """One response. Where `status` is not "successful", there is nothing else in it."""

    status: str
    fingerprint: bytes
    tbs: bytes = b""
    signature_algorithm: bytes = b""
    signature: bytes = b""
    responder_name: Name | None = None
    responder_key_hash: bytes | None = None
    """SHA-1 of the responder's public key."""
    produced_at: datetime | None = None
    responses: tuple[SingleResponse, ...] = ()
    nonce: bytes | None = None
    certificates: tuple[bytes, ...] = ()
    unknown_critical: bool = False


def read_ocsp_response(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> OcspResponse:
    """Read an OCSPResponse; raise Asn1Error where it is none, LimitExceeded where it is too large."""
    data = bytes(data)
    if len(data) > limits.cms_metadata_octets:
        raise LimitExceeded("cms_metadata_octets", "the OCSP response is too large to be read")
    fingerprint = sha256(data).digest()
    _, _, content, end = der.single(data, 0, len(data), der.SEQUENCE, "OCSP response")
    parts = der.split(data, content, end, 2)
    if not parts or parts[0][0] != der.ENUMERATED:
        raise Asn1Error("OCSP response: no status")
    code = der.integer(data, parts[0][2], parts[0][3])
    status = STATUSES.get(code, f"status {code}")
    if code:
        return OcspResponse(status, fingerprint)
    if len(parts) != 2 or parts[1][0] != 0xA0:
        raise Asn1Error("OCSP response: successful, and without a response")
    _, _, content, end = der.single(data, parts[1][2], parts[1][3], der.SEQUENCE, "responseBytes")
    kind, octets = _pair(der.split(data, content, end, 2), der.OID, der.OCTET_STRING)
    if der.oid(data[kind[2] : kind[3]]) != _BASIC:
        raise Asn1Error("OCSP response: of another type than basic")
    return _basic(data[octets[2] : octets[3]], fingerprint, limits)


def _pair(spans: list[der.Span], first: int, second: int) -> tuple[der.Span, der.Span]:
    if len(spans) != 2 or spans[0][0] != first or spans[1][0] != second:
        raise Asn1Error("OCSP response: not the elements that belong there")
    return spans[0], spans[1]


def _basic(data: bytes, fingerprint: bytes, limits: Limits) -> OcspResponse:
    _, _, content, end = der.single(data, 0, len(data), der.SEQUENCE, "BasicOCSPResponse")
    parts = der.split(data, content, end, 4)
    if [part[0] for part in parts[:3]] != [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]:
        raise Asn1Error("BasicOCSPResponse: not a signed structure")
    certificates: tuple[bytes, ...] = ()
    if len(parts) == 4:
        if parts[3][0] != 0xA0:
            raise Asn1Error("BasicOCSPResponse: an element that does not belong there")
        _, _, first, last = der.single(data, parts[3][2], parts[3][3], der.SEQUENCE, "certs")
        certificates = tuple(data[span[1] : span[3]] for span in der.split(data, first, last, limits.certificates))
    tbs, algorithm, signature = parts[:3]
    if data[signature[2] : signature[2] + 1] != b"\0":
        raise Asn1Error("BasicOCSPResponse: a signature with unused bits")
    fields = der.split(data, tbs[2], tbs[3], 5)
    if fields and fields[0][0] == 0xA0:
        _, _, first, last = der.single(data, fields[0][2], fields[0][3], der.INTEGER, "version")
        # RFC 6960 §4.2.1: version 1, whose number is 0.
        if der.integer(data, first, last) != 0:
            raise Asn1Error("ResponseData: of another version than 1")
        del fields[0]
    if len(fields) < 3 or fields[1][0] != der.GENERALIZED_TIME or fields[2][0] != der.SEQUENCE:
        raise Asn1Error("ResponseData: not the elements that belong there")
    name: Name | None = None
    key_hash: bytes | None = None
    if fields[0][0] == 0xA1:
        span = der.single(data, fields[0][2], fields[0][3], der.SEQUENCE, "byName")
        name = Name(data[span[1] : span[3]])
    elif fields[0][0] == 0xA2:
        span = der.single(data, fields[0][2], fields[0][3], der.OCTET_STRING, "byKey")
        key_hash = data[span[2] : span[3]]
    else:
        raise Asn1Error("ResponseData: no responder")
    nonce, unknown = (None, False)
    if len(fields) > 3:
        if len(fields) != 4 or fields[3][0] != 0xA1:
            raise Asn1Error("ResponseData: an element that does not belong there")
        nonce, unknown = _extensions(data, fields[3])
    return OcspResponse(
        "successful",
        fingerprint,
        data[tbs[1] : tbs[3]],
        data[algorithm[1] : algorithm[3]],
        data[signature[2] + 1 : signature[3]],
        name,
        key_hash,
        der.time(data, fields[1]),
        tuple(_single(data, span) for span in der.split(data, fields[2][2], fields[2][3], 1000)),
        nonce,
        certificates,
        unknown,
    )


def _single(data: bytes, span: der.Span) -> SingleResponse:
    parts = der.split(data, span[2], span[3], 5)
    if span[0] != der.SEQUENCE or len(parts) < 3 or parts[0][0] != der.SEQUENCE or parts[2][0] != der.GENERALIZED_TIME:
        raise Asn1Error("SingleResponse: not the elements that belong there")
    names = der.split(data, parts[0][2], parts[0][3], 4)
    if [part[0] for part in names] != [der.SEQUENCE, der.OCTET_STRING, der.OCTET_STRING, der.INTEGER]:
        raise Asn1Error("CertID: not the elements that belong there")
    algorithm = der.split(data, names[0][2], names[0][3], 2)
    if not algorithm or algorithm[0][0] != der.OID:
        raise Asn1Error("CertID: no hash algorithm")
    tag, _, first, last = parts[1]
    revoked_at: datetime | None = None
    reason: int | None = None
    if tag == 0x80 and first == last:
        status = "good"
    elif tag == 0xA1:
        status = "revoked"
        info = der.split(data, first, last, 2)
        if not info or info[0][0] != der.GENERALIZED_TIME:
            raise Asn1Error("RevokedInfo: no time")
        revoked_at = der.time(data, info[0])
        if len(info) == 2:
            code = der.single(data, info[1][2], info[1][3], der.ENUMERATED, "CRLReason")
            reason = der.integer(data, code[2], code[3])
    elif tag == 0x82:
        status = "unknown"
    else:
        raise Asn1Error("SingleResponse: an unknown status")
    next_update: datetime | None = None
    unknown = False
    for part in parts[3:]:
        if part[0] == 0xA0 and next_update is None:
            next_update = der.time(data, der.single(data, part[2], part[3], der.GENERALIZED_TIME, "nextUpdate"))
        elif part[0] == 0xA1:
            unknown = _extensions(data, part)[1]
        else:
            raise Asn1Error("SingleResponse: an element that does not belong there")
    return SingleResponse(
        der.oid(data[algorithm[0][2] : algorithm[0][3]]),
        data[names[1][2] : names[1][3]],
        data[names[2][2] : names[2][3]],
        der.integer(data, names[3][2], names[3][3]),
        status,
        revoked_at,
        reason,
        der.time(data, parts[2]),
        next_update,
        unknown,
    )


def _extensions(data: bytes, span: der.Span) -> tuple[bytes | None, bool]:
    """(nonce, whether there is a critical extension besides it)."""
    _, _, start, stop = der.single(data, span[2], span[3], der.SEQUENCE, "extensions")
    nonce: bytes | None = None
    unknown = False
    for tag, _, first, last in der.split(data, start, stop, 64):
        parts = der.split(data, first, last, 3)
        critical = len(parts) == 3 and parts[1][0] == der.BOOLEAN and der.boolean(data, parts[1][2], parts[1][3])
        if tag != der.SEQUENCE or len(parts) < 2 or parts[0][0] != der.OID or parts[-1][0] != der.OCTET_STRING:
            raise Asn1Error("an extension without type or value")
        if der.oid(data[parts[0][2] : parts[0][3]]) == _NONCE:
            nonce = _unwrapped(data[parts[-1][2] : parts[-1][3]])
        elif critical:
            unknown = True
    return nonce, unknown


def _unwrapped(value: bytes) -> bytes:
    # RFC 9654 §2.1: the nonce is an OCTET STRING within extnValue; early responders left that out.
    try:
        _, _, first, last = der.single(value, 0, len(value), der.OCTET_STRING, "nonce")
    except Asn1Error:
        return value
    return value[first:last]
