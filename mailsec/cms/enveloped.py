"""EnvelopedData (RFC 5652 §6), AuthEnvelopedData (RFC 5083) and EncryptedData (RFC 5652 §8) as they are read: BER or DER of any chunking.

The encrypted content stays where it is. Invariant: any octets end in a value, CmsError or LimitExceeded, in linear time; nothing is
decrypted here.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailsec.algorithms.ciphers import CipherParameters, cipher_parameters
from mailsec.asn1.reader import INTEGER, OBJECT_IDENTIFIER, SEQUENCE, SET
from mailsec.asn1.stream import StringSpan, Walker
from mailsec.asn1.values import read_octet_string, read_oid
from mailsec.cms.recipients import Recipient, read_recipients
from mailsec.errors import Asn1Error, CmsError, CryptoError, LimitExceeded
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.octets import Octets, octets_of
from mailsec.model.verdict import Reason

__all__ = [
    "ID_AUTH_ENVELOPED_DATA",
    "ID_ENCRYPTED_DATA",
    "ID_ENVELOPED_DATA",
    "EnvelopedData",
    "read_enveloped_data",
    "read_recipient_infos",
]

ID_ENVELOPED_DATA = "1.2.840.113549.1.7.3"
ID_ENCRYPTED_DATA = "1.2.840.113549.1.7.6"
ID_AUTH_ENVELOPED_DATA = "1.2.840.113549.1.9.16.1.23"


@dataclass(frozen=True, slots=True)
class EnvelopedData:
    """An encrypted content, for whom it is, and where it stands."""

    authenticated: bool
    """True for AuthEnvelopedData."""
    recipients: tuple[Recipient, ...]
    content_type: str
    content: StringSpan
    parameters: CipherParameters | None
    """The content cipher; None where it is not known (see `problem`)."""
    problem: Reason | None = None
    authenticated_attributes: bytes = b""
    """DER of authAttrs under the tag of a SET OF: what is authenticated besides the content."""
    tag: bytes = b""
    """mac."""

    @property
    def algorithm(self) -> str:
        """The name of the content cipher; "" where it is not known."""
        return self.parameters.cipher.name if self.parameters is not None else ""


def read_enveloped_data(
    octets: Octets | bytes, start: int = 0, end: int | None = None, *, limits: Limits = DEFAULT_LIMITS
) -> EnvelopedData:
    """Read the ContentInfo with an EnvelopedData, AuthEnvelopedData or EncryptedData at [start, end)."""
    try:
        return _read(Walker(octets_of(octets), start, end, limits=limits), limits)
    except Asn1Error as error:
        raise CmsError(f"EnvelopedData: {error}") from None


def _read(walker: Walker, limits: Limits) -> EnvelopedData:
    walker.enter(SEQUENCE, "ContentInfo")
    content_type = read_oid(walker.take("contentType").expect(OBJECT_IDENTIFIER, "contentType"))
    if content_type not in (ID_ENVELOPED_DATA, ID_AUTH_ENVELOPED_DATA, ID_ENCRYPTED_DATA):
        raise CmsError(f"content type {content_type} where enveloped data is expected")
    authenticated = content_type == ID_AUTH_ENVELOPED_DATA
    walker.enter(0xA0, "content")
    walker.enter(SEQUENCE, "EnvelopedData")
    walker.take("version").expect(INTEGER, "version")
    # RFC 5652 §8: EncryptedData names nobody; whoever reads it has its content key.
    recipients = [Recipient("content-key")] if content_type == ID_ENCRYPTED_DATA else read_recipient_infos(walker, limits)
    walker.enter(SEQUENCE, "encryptedContentInfo")
    content_type = read_oid(walker.take("contentType"))
    algorithm = walker.take("contentEncryptionAlgorithm").encoding
    if walker.tag not in (0x80, 0xA0):
        raise CmsError("an encrypted message without its content")
    content = walker.string(0x80)
    walker.leave("encryptedContentInfo")

    attributes, tag = b"", b""
    if authenticated:
        if walker.tag == 0xA1:
            # RFC 5083 §2.2: authenticated in DER under the tag of a SET OF.
            attributes = b"\x31" + walker.take("authAttrs").encoding[1:]
        tag = read_octet_string(walker.take("mac"))
    parameters, problem = _cipher(algorithm, authenticated, tag)
    return EnvelopedData(authenticated, tuple(recipients), content_type, content, parameters, problem, attributes, tag)


def read_recipient_infos(walker: Walker, limits: Limits) -> list[Recipient]:
    """The recipients of an enveloped or authenticated message, where the walker stands behind its version."""
    if walker.tag == 0xA0:
        walker.take("originatorInfo")
    recipients: list[Recipient] = []
    for member in walker.take("recipientInfos").expect(SET, "recipientInfos"):
        recipients += read_recipients(member)
        if len(recipients) > limits.cms_recipients:
            raise LimitExceeded("cms_recipients", f"more than {limits.cms_recipients} recipients of one encrypted message")
    return recipients


def _cipher(algorithm: bytes, authenticated: bool, tag: bytes) -> tuple[CipherParameters | None, Reason | None]:
    try:
        parameters = cipher_parameters(algorithm)
    except (CryptoError, Asn1Error) as error:
        return None, Reason("cipher-unknown", "policy", error.message, error.hint)
    # RFC 5084 §1: GCM and CCM in AuthEnvelopedData only, CBC in EnvelopedData only: a GCM text read as CTR or CBC would lose its tag.
    if parameters.cipher.authenticated != authenticated:
        where = "authenticated" if authenticated else "plain"
        return None, Reason("cipher-misplaced", "integrity", f"{parameters.cipher.name} in {where} enveloped data", rfc="RFC 5084 §1")
    if authenticated and len(tag) != parameters.tag_length:
        return None, Reason(
            "tag-length-differs", "integrity", f"a tag of {len(tag)} octets, not {parameters.tag_length}", rfc="RFC 5084 §3"
        )
    return parameters, None
