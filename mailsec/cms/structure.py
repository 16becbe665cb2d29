"""What a CMS message consists of, for people and for `mailsec cms parse`: type, algorithms, signers, recipients, sizes.

Nothing is checked or decrypted. Invariant: any octets end in a mapping that JSON can carry, CmsError or LimitExceeded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mailsec.algorithms.ciphers import AGREEMENTS, WRAPS, transport_mechanism
from mailsec.algorithms.table import SIGNATURE_OIDS, algorithm_of, digest_of, signature_mechanism
from mailsec.asn1.reader import SEQUENCE, Element, read_single
from mailsec.asn1.stream import Walker
from mailsec.asn1.values import read_integer, read_oid
from mailsec.cms import attributes as attrs
from mailsec.cms.compressed import ID_COMPRESSED_DATA, read_compressed_data
from mailsec.cms.enveloped import ID_AUTH_ENVELOPED_DATA, ID_ENCRYPTED_DATA, ID_ENVELOPED_DATA, read_enveloped_data, read_recipient_infos
from mailsec.cms.recipients import Recipient
from mailsec.cms.signed import ID_DATA, ID_SIGNED_DATA, SignerInfo, read_content_type, read_signed_data, read_signer_info
from mailsec.errors import Asn1Error, CmsError, CryptoError, LimitExceeded
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.octets import Octets, octets_of
from mailsec.x509.certificate import load_certificate

__all__ = ["CONTENT_TYPES", "describe"]

CONTENT_TYPES: Final[Mapping[str, str]] = {
    ID_DATA: "Data",
    ID_SIGNED_DATA: "SignedData",
    ID_ENVELOPED_DATA: "EnvelopedData",
    "1.2.840.113549.1.7.5": "DigestedData",
    ID_ENCRYPTED_DATA: "EncryptedData",
    "1.2.840.113549.1.9.16.1.2": "AuthenticatedData",
    ID_AUTH_ENVELOPED_DATA: "AuthEnvelopedData",
    ID_COMPRESSED_DATA: "CompressedData",
}
"""Names of the content types (RFC 5652, RFC 5083, RFC 3274)."""

_COUNTER_SIGNATURE: Final = "1.2.840.113549.1.9.6"
_ATTRIBUTES: Final = {
    attrs.CONTENT_TYPE: "content-type",
    attrs.MESSAGE_DIGEST: "message-digest",
    attrs.SIGNING_TIME: "signing-time",
    attrs.CAPABILITIES: "sMIMECapabilities",
    attrs.ALGORITHM_PROTECTION: "CMSAlgorithmProtection",
    attrs.SIGNING_CERTIFICATE: "signing-certificate",
    attrs.SIGNING_CERTIFICATE_V2: "signing-certificate-v2",
    _COUNTER_SIGNATURE: "countersignature",
    "1.2.840.113549.1.9.16.2.14": "timeStampToken",
}
# RFC 3211 §2.3.1: id-alg-PWRI-KEK.
_KEY_ENCRYPTION: Final = {wrap.oid: name for name, wrap in WRAPS.items()} | {"1.2.840.113549.1.9.16.3.9": "pwri-kek"}
# RFC 8018 §B.1; RFC 3370 §3.1 has another identifier for HMAC with SHA-1.
_MACS: Final = {
    "1.3.6.1.5.5.8.1.2": "hmac-sha1",
    "1.2.840.113549.2.7": "hmac-sha1",
    "1.2.840.113549.2.9": "hmac-sha256",
    "1.2.840.113549.2.10": "hmac-sha384",
    "1.2.840.113549.2.11": "hmac-sha512",
}


def describe(octets: Octets | bytes, start: int = 0, end: int | None = None, *, limits: Limits = DEFAULT_LIMITS) -> dict[str, object]:
    """The structure of the ContentInfo at [start, end)."""
    octets = octets_of(octets)
    content_type = read_content_type(octets, start, end)
    result: dict[str, object] = {"type": CONTENT_TYPES.get(content_type, "unknown"), "content_type": content_type}
    reader = _READERS.get(content_type)
    if reader is not None:
        result.update(reader(octets, start, end, limits))
    return result


def _signed(octets: Octets, start: int, end: int | None, limits: Limits) -> dict[str, object]:
    signed = read_signed_data(octets, start, end, limits=limits)
    return {
        "detached": signed.detached,
        "content": {"type": signed.content_type, "octets": None if signed.content is None else len(signed.content)},
        "digests": list(signed.digests),
        "certificates": [_certificate(der) for der in signed.certificates],
        "crls": len(signed.crls),
        "signers": [_signer(info, limits) for info in signed.signer_infos],
    }


def _certificate(der: bytes) -> dict[str, object]:
    certificate = load_certificate(der)
    return {
        "subject": certificate.subject.text,
        "issuer": certificate.issuer.text,
        "serial": f"{certificate.serial:x}",
        "readable": certificate.readable,
    }


def _signer(info: SignerInfo, limits: Limits) -> dict[str, object]:
    if info.problem is not None:
        return {"problem": info.problem.message}
    signed = _attributes(info.signed_attributes, limits)
    claimed = signed.time(attrs.SIGNING_TIME) if signed is not None else None
    unsigned = _attributes(info.unsigned_attributes, limits)
    counters = unsigned.values.get(_COUNTER_SIGNATURE, ()) if unsigned is not None else ()
    return {
        "signer": info.signer_id,
        "digest": _named(info.digest_algorithm, lambda der: digest_of(der).name),
        "signature": _named(info.signature_algorithm, _signature),
        "signed_attributes": _names(signed, info.signed_attributes),
        "signing_time": None if claimed is None else claimed.isoformat(),
        "unsigned_attributes": _names(unsigned, info.unsigned_attributes),
        # RFC 5652 §11.4: each value signs the signature of this signer. Theirs are not shown in turn.
        "counter_signatures": [_counter_signature(value) for value in counters[: limits.signers]],
    }


def _counter_signature(value: Element) -> dict[str, object]:
    info = read_signer_info(value)
    if info.problem is not None:
        return {"problem": info.problem.message}
    return {
        "signer": info.signer_id,
        "digest": _named(info.digest_algorithm, lambda der: digest_of(der).name),
        "signature": _named(info.signature_algorithm, _signature),
    }


def _attributes(element: Element | None, limits: Limits) -> attrs.Attributes | None:
    try:
        return None if element is None else attrs.read_attributes(element, limits=limits)
    except (Asn1Error, CmsError, LimitExceeded):
        return None


def _names(found: attrs.Attributes | None, element: Element | None) -> list[str]:
    if found is None:
        return [] if element is None else ["unreadable"]
    return [_ATTRIBUTES.get(kind, kind) for kind in found.values]


def _signature(der: bytes) -> str:
    oid = algorithm_of(read_single(der, SEQUENCE))[0]
    if oid in SIGNATURE_OIDS:
        return SIGNATURE_OIDS[oid][0]
    # rsaEncryption stands for PKCS #1 v1.5 here (RFC 3370 §3.2); the digest does not change the kind.
    return signature_mechanism("", der, "rsa").kind if oid != "1.2.840.113549.1.1.1" else "rsassa-pkcs1-v1_5"


def _named(der: bytes, name: Callable[[bytes], str]) -> str:
    try:
        return name(der)
    except (CryptoError, Asn1Error):
        try:
            return algorithm_of(read_single(der, SEQUENCE))[0]
        except Asn1Error:
            return "unreadable"


def _enveloped(octets: Octets, start: int, end: int | None, limits: Limits) -> dict[str, object]:
    enveloped = read_enveloped_data(octets, start, end, limits=limits)
    return {
        "algorithm": enveloped.algorithm or None,
        "problem": enveloped.problem.message if enveloped.problem is not None else None,
        "content": {"type": enveloped.content_type, "octets": len(enveloped.content)},
        "recipients": [_recipient(recipient) for recipient in enveloped.recipients if recipient.kind != "content-key"],
    }


def _recipient(recipient: Recipient) -> dict[str, object]:
    def algorithm(der: bytes) -> str:
        if recipient.kind == "key-transport":
            return transport_mechanism(der).kind
        oid = algorithm_of(read_single(der, SEQUENCE))[0]
        agreement = AGREEMENTS.get(oid)
        return _KEY_ENCRYPTION.get(oid, oid) if agreement is None else f"ecdh-{agreement.kdf}-{agreement.digest}"

    return {
        "kind": recipient.kind,
        "recipient": recipient.name,
        "algorithm": _named(recipient.algorithm, algorithm) if recipient.algorithm else None,
        "problem": recipient.problem or None,
    }


def _compressed(octets: Octets, start: int, end: int | None, limits: Limits) -> dict[str, object]:
    content = read_compressed_data(octets, start, end, limits=limits)
    return {"algorithm": "zlib", "content": {"octets": len(content)}}


def _digested(octets: Octets, start: int, end: int | None, limits: Limits) -> dict[str, object]:
    """DigestedData (RFC 5652 §7): named and reported; it protects against nobody."""
    walker = Walker(octets, start, end, limits=limits)
    try:
        walker.enter(SEQUENCE, "ContentInfo")
        walker.take("contentType")
        walker.enter(0xA0, "content")
        walker.enter(SEQUENCE, "DigestedData")
        read_integer(walker.take("version"))
        digest = _named(walker.take("digestAlgorithm").encoding, lambda der: digest_of(der).name)
        content = _content(walker)
    except Asn1Error as error:
        raise CmsError(f"DigestedData: {error}") from None
    return {"digest": digest, "content": content}


def _authenticated(octets: Octets, start: int, end: int | None, limits: Limits) -> dict[str, object]:
    """AuthenticatedData (RFC 5652 §9): named and reported; whoever shares its key can have made it."""
    walker = Walker(octets, start, end, limits=limits)
    try:
        walker.enter(SEQUENCE, "ContentInfo")
        walker.take("contentType")
        walker.enter(0xA0, "content")
        walker.enter(SEQUENCE, "AuthenticatedData")
        read_integer(walker.take("version"))
        recipients = read_recipient_infos(walker, limits)
        oid = algorithm_of(walker.take("macAlgorithm").expect(SEQUENCE, "macAlgorithm"))[0]
        digest: str | None = None
        if walker.tag == 0xA1:
            digest = _named(b"\x30" + walker.take("digestAlgorithm").encoding[1:], lambda der: digest_of(der).name)
        content = _content(walker)
    except Asn1Error as error:
        raise CmsError(f"AuthenticatedData: {error}") from None
    return {"mac": _MACS.get(oid, oid), "digest": digest, "content": content, "recipients": [_recipient(one) for one in recipients]}


def _content(walker: Walker) -> dict[str, object]:
    """EncapsulatedContentInfo (RFC 5652 §5.2)."""
    walker.enter(SEQUENCE, "encapContentInfo")
    content_type = read_oid(walker.take("eContentType"))
    size: int | None = None
    if walker.tag:
        walker.enter(0xA0, "eContent")
        size = len(walker.string())
        walker.leave("eContent")
    walker.leave("encapContentInfo")
    return {"type": content_type, "octets": size}


_READERS: Final[dict[str, Callable[[Octets, int, int | None, Limits], dict[str, object]]]] = {
    ID_SIGNED_DATA: _signed,
    ID_ENVELOPED_DATA: _enveloped,
    ID_AUTH_ENVELOPED_DATA: _enveloped,
    ID_ENCRYPTED_DATA: _enveloped,
    ID_COMPRESSED_DATA: _compressed,
    "1.2.840.113549.1.7.5": _digested,
    "1.2.840.113549.1.9.16.1.2": _authenticated,
}
