"""SignedData (RFC 5652 §5) as it is read: BER or DER of any chunking, over octets that need not be in memory.

The content stays where it is; the rest is copied, bounded by `limits.cms_metadata_octets`. Certificates and CRLs are kept as received,
also those that nobody can read; a SignerInfo that cannot be read is kept with its reason, so that the others are judged. Invariant:
any octets end in a value, CmsError or LimitExceeded, in linear time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mailsec.algorithms.table import digest_of
from mailsec.asn1.reader import INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SET, Element, read_element, read_header
from mailsec.asn1.stream import StringSpan, Walker
from mailsec.asn1.values import read_integer, read_octet_string, read_oid
from mailsec.cms.identifiers import issuer_and_serial
from mailsec.errors import Asn1Error, CmsError, CryptoError, LimitExceeded
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.octets import Octets, octets_of
from mailsec.model.verdict import Reason
from mailsec.x509.names import Name

__all__ = ["ID_DATA", "ID_SIGNED_DATA", "SignedData", "SignerInfo", "read_content_type", "read_signed_data", "read_signer_info"]

ID_DATA = "1.2.840.113549.1.7.1"
ID_SIGNED_DATA = "1.2.840.113549.1.7.2"

_HEAD = 300
"""Octets in which a contentType stands, whatever lengths and identifiers are (`reader.read_header`, `limits.asn1_oid_octets`)."""
_CONTEXT_0 = 0xA0
_CONTEXT_1 = 0xA1


@dataclass(frozen=True, slots=True)
class SignerInfo:
    """One SignerInfo (RFC 5652 §5.3), as received."""

    issuer: bytes = b""
    """DER of the issuer's name, where the certificate is named by issuer and serial number."""
    serial: int = 0
    key_id: bytes | None = None
    """The subject key identifier, where the certificate is named by it."""
    digest_algorithm: bytes = b""
    signed_attributes: Element | None = None
    """signedAttrs under their [0] tag."""
    signature_algorithm: bytes = b""
    signature: bytes = b""
    unsigned_attributes: Element | None = None
    """unsignedAttrs under their [1] tag: what others added (counter-signatures, RFC 5652 §11.4; time-stamps). Nothing rests on them."""
    problem: Reason | None = None
    """Why it could not be read; the other fields then mean nothing."""

    @property
    def signer_id(self) -> str:
        """For reports: "issuer, serial" or "key id"."""
        if self.key_id is not None:
            return f"key id {self.key_id.hex()}"
        return f"{Name(self.issuer).text}, {self.serial:x}" if self.issuer else ""


@dataclass(frozen=True, slots=True)
class SignedData:
    """A SignedData, and where its content stands."""

    digests: tuple[str, ...]
    """Names of the digest algorithms that are listed; those that are not known stand as their identifiers."""
    content_type: str
    """eContentType."""
    content: StringSpan | None
    """eContent; None where the signature is detached."""
    certificates: tuple[bytes, ...]
    crls: tuple[bytes, ...]
    signer_infos: tuple[SignerInfo, ...]

    @property
    def detached(self) -> bool:
        """True where the content is elsewhere."""
        return self.content is None

    def content_blocks(self) -> Iterator[bytes | memoryview]:
        """The encapsulated content in order; raise CmsError where there is none."""
        if self.content is None:
            raise CmsError("a detached signature has no content of its own")
        return self.content.blocks()


def read_content_type(octets: Octets | bytes, start: int = 0, end: int | None = None) -> str:
    """The contentType of a ContentInfo (RFC 5652 §3) in dotted form; raise CmsError where there is no ContentInfo."""
    octets = octets_of(octets)
    size = (len(octets) if end is None else min(end, len(octets))) - start
    head = bytes(octets.view(start, start + min(size, _HEAD)))
    try:
        tag, content, _ = read_header(head, 0, size)
        if tag != SEQUENCE:
            raise Asn1Error(f"tag 0x{tag:02x} where a ContentInfo is expected")
        return read_oid(read_element(head, content))
    except (Asn1Error, IndexError) as error:
        raise CmsError(f"not a CMS message: {error}") from None


def read_signed_data(octets: Octets | bytes, start: int = 0, end: int | None = None, *, limits: Limits = DEFAULT_LIMITS) -> SignedData:
    """Read the ContentInfo with a SignedData at [start, end); octets behind it are not looked at.

    Raises CmsError for what is none, LimitExceeded (`certificates`, `signers`, `cms_metadata_octets`, `asn1_*`) over a limit.
    """
    try:
        return _read(Walker(octets_of(octets), start, end, limits=limits), limits)
    except Asn1Error as error:
        raise CmsError(f"SignedData: {error}") from None


def _read(walker: Walker, limits: Limits) -> SignedData:
    walker.enter(SEQUENCE, "ContentInfo")
    content_type = read_oid(walker.take("contentType").expect(OBJECT_IDENTIFIER, "contentType"))
    if content_type != ID_SIGNED_DATA:
        raise CmsError(f"content type {content_type} where signed data is expected")
    walker.enter(_CONTEXT_0, "content")
    walker.enter(SEQUENCE, "SignedData")
    walker.take("version").expect(INTEGER, "version")
    digests = tuple(_digest_name(member) for member in walker.take("digestAlgorithms").expect(SET, "digestAlgorithms"))
    walker.enter(SEQUENCE, "encapContentInfo")
    content_type = read_oid(walker.take("eContentType"))
    content: StringSpan | None = None
    if walker.tag:
        walker.enter(_CONTEXT_0, "eContent")
        if walker.tag not in (OCTET_STRING, OCTET_STRING | 0x20):
            # RFC 5652 §5.2.1: PKCS #7 version 1.5 allowed ANY here; nothing in mail does so.
            raise CmsError("a content that is no OCTET STRING")
        content = walker.string()
        walker.leave("eContent")
    walker.leave("encapContentInfo")

    certificates: list[bytes] = []
    crls: list[bytes] = []
    signer_infos: Element | None = None
    while tag := walker.tag:
        element = walker.take("SignedData")
        if tag == _CONTEXT_0 and not certificates:
            # RFC 5652 §10.2.2: attribute certificates and others have tags of their own; nothing here reads them.
            certificates = [member.encoding for member in element if member.tag == SEQUENCE]
        elif tag == _CONTEXT_1 and not crls:
            crls = [member.encoding for member in element if member.tag == SEQUENCE]
        elif tag == SET and signer_infos is None:
            signer_infos = element
        else:
            raise CmsError(f"SignedData: tag 0x{tag:02x} where it does not belong")
    if signer_infos is None:
        raise CmsError("SignedData without signerInfos")
    members = signer_infos.children()
    for name, found in (("certificates", certificates), ("crls", crls), ("signers", members)):
        if len(found) > getattr(limits, name):
            raise LimitExceeded(name, f"{len(found)} {name} in one signed message, more than {getattr(limits, name)}")
    return SignedData(
        digests, content_type, content, tuple(certificates), tuple(crls), tuple(read_signer_info(member) for member in members)
    )


def _digest_name(element: Element) -> str:
    try:
        return digest_of(element.encoding).name
    except (CryptoError, Asn1Error):
        try:
            return read_oid(element.children()[0])
        except (Asn1Error, IndexError):
            return "unreadable"


def read_signer_info(element: Element) -> SignerInfo:
    """Read a SignerInfo of a SignedData or of a counter-signature; one that cannot be read says so in `problem`."""
    try:
        return _read_signer_info(element)
    except Asn1Error as error:
        return SignerInfo(problem=Reason("signer-unreadable", "parse", f"a SignerInfo that cannot be read: {error}", rfc="RFC 5652 §5.3"))


def _read_signer_info(element: Element) -> SignerInfo:
    parts = element.expect(SEQUENCE, "SignerInfo").children()
    if len(parts) < 5:
        raise Asn1Error("parts are missing")
    read_integer(parts[0])
    issuer, serial, key_id = b"", 0, None
    sid = parts[1]
    if sid.tag == SEQUENCE:
        issuer, serial = issuer_and_serial(sid)
    else:
        # subjectKeyIdentifier [0] IMPLICIT OCTET STRING; OpenSSL before 0.9.8 and others wrote it EXPLICIT.
        key_id = sid.only().content if sid.tag == _CONTEXT_0 else read_octet_string(sid, 0x80)
    digest_algorithm = parts[2].expect(SEQUENCE, "digestAlgorithm").encoding
    rest = parts[3:]
    signed_attributes = rest.pop(0) if rest[0].tag == _CONTEXT_0 else None
    if len(rest) not in (2, 3) or (len(rest) == 3 and rest[2].tag != _CONTEXT_1):
        raise Asn1Error("parts that do not belong there")
    return SignerInfo(
        issuer,
        serial,
        key_id,
        digest_algorithm,
        signed_attributes,
        rest[0].expect(SEQUENCE, "signatureAlgorithm").encoding,
        read_octet_string(rest[1]),
        rest[2] if len(rest) == 3 else None,
    )
