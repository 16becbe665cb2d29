"""SignedData as it is written: SignerInfos from pieces that were encoded before, detached and opaque messages in DER.

All that does not change from message to message (identifier, algorithms, most attributes, certificates) is encoded once for each
certificate and mechanism; for a message the digest, the time and the signature are put in between. RFC 5652 §5, RFC 8551 §2.5, §3.5.
Invariant: what is written is DER, of a length known before the first octet of content is produced.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from mailsec.algorithms import table
from mailsec.algorithms.profiles import PROFILES, Profile
from mailsec.algorithms.public_keys import public_key_facts
from mailsec.asn1 import writer
from mailsec.cms import attributes
from mailsec.cms.signed import ID_DATA, ID_SIGNED_DATA
from mailsec.errors import CertificateError, CryptoError, KeyUnavailable
from mailsec.interfaces import KeyHandle
from mailsec.model.mechanism import SignatureMechanism
from mailsec.model.octets import Segments
from mailsec.x509.certificate import load_certificate

__all__ = ["Signer", "certs_only", "detached", "opaque", "sign_content", "signer_for"]

_header = writer.header


class _Template(NamedTuple):
    """The pieces of a SignerInfo around what changes: `before`, digest, `between`, time, `after` (or the time first)."""

    digest: str
    digest_size: int
    before: bytes
    between: bytes
    after: bytes
    digest_first: bool
    front: bytes
    """The SignerInfo up to the attributes, with their [0] header."""
    set_header: bytes
    """The same attributes' header as SET OF, under which they are signed."""
    back: bytes
    """The signature algorithm."""


@lru_cache(maxsize=256)
def _template(certificate: bytes, mechanism: SignatureMechanism, capabilities: bytes, generalized: bool) -> _Template:
    facts = load_certificate(certificate)
    if not facts.readable:
        raise CertificateError("the signer's certificate cannot be read")
    digest = table.message_digest(mechanism)
    digest_algorithm = table.digest_identifier(digest)
    signature_algorithm = table.signer_identifier(mechanism)
    size = table.DIGESTS[digest].size
    # Marks stand where the digest and the time will stand; the order in the SET OF (X.690 §11.6) does not depend on them, as the
    # attributes differ before, in length or in type.
    digest_mark = b"\xff" * size
    time_mark = b"\x18\x0f" + b"\xff" * 15 if generalized else b"\x17\x0d" + b"\xff" * 13
    members = [
        # RFC 5652 §11.1, §11.2: content-type and message-digest; §11.3: signing-time.
        attributes.attribute(attributes.CONTENT_TYPE, writer.oid(ID_DATA)),
        attributes.attribute(attributes.MESSAGE_DIGEST, writer.octet_string(digest_mark)),
        attributes.attribute(attributes.SIGNING_TIME, time_mark),
        # RFC 6211 §2: nobody can exchange the algorithms; RFC 5035 §5.4: nor the certificate.
        attributes.algorithm_protection(digest_algorithm, signature_algorithm),
        attributes.signing_certificate(certificate),
    ]
    if capabilities:
        # RFC 8551 §2.5.2: what we can read, so that the answer can be encrypted well.
        members.append(attributes.attribute(attributes.CAPABILITIES, capabilities))
    body = b"".join(sorted(members))
    time_value = time_mark[2:]
    digest_at = body.index(writer.octet_string(digest_mark)) + 2
    time_at = body.index(time_mark) + 2
    first, second = sorted(((digest_at, size), (time_at, len(time_value))))
    identifier = writer.sequence(facts.issuer.der, writer.integer(facts.serial))
    return _Template(
        digest,
        size,
        body[: first[0]],
        body[first[0] + first[1] : second[0]],
        body[second[0] + second[1] :],
        digest_at < time_at,
        # RFC 5652 §5.3: version 1, as the certificate is named by issuer and serial number.
        writer.integer(1) + identifier + digest_algorithm + _header(0xA0, len(body)),
        _header(0x31, len(body)),
        signature_algorithm,
    )


class Signer:
    """A key with its certificate and the way it signs. Cheap to make; what is encoded for it is kept per certificate."""

    __slots__ = ("_capabilities", "certificate", "chain", "handle", "mechanism")

    def __init__(
        self,
        handle: KeyHandle,
        mechanism: SignatureMechanism,
        certificate: bytes,
        chain: tuple[bytes, ...] = (),
        *,
        capabilities: bytes = b"",
    ) -> None:
        self.handle = handle
        self.mechanism = mechanism
        self.certificate = certificate
        self.chain = chain
        self._capabilities = capabilities

    @property
    def digest(self) -> str:
        """The digest that content is hashed with for this signer, by name."""
        return table.message_digest(self.mechanism)

    def template(self, generalized: bool) -> _Template:
        """The pieces that were encoded before."""
        return _template(self.certificate, self.mechanism, self._capabilities, generalized)


def signer_for(handle: KeyHandle, profile: Profile = PROFILES["default"]) -> Signer:
    """How this key signs under a profile; KeyUnavailable where it has no certificate, CryptoError where it cannot."""
    certificate = handle.certificate
    if certificate is None:
        raise KeyUnavailable(f"the key {handle.name!r} has no certificate", hint="import its certificate")
    facts = load_certificate(certificate)
    if facts.key_type == "rsa-pss":
        # RFC 4055 §1.2: a token may know its key as one for all of RSA; the certificate says what readers will accept.
        mechanism = profile.signature_for("rsa-pss", handle.bits, public_key_facts(facts.spki).pss)
    else:
        mechanism = profile.signature_for(handle.key_type, handle.bits)
    if not handle.can(mechanism):
        raise CryptoError(f"the key {handle.name!r} cannot make {mechanism.kind} signatures with {mechanism.digest or 'its own digest'}")
    return Signer(handle, mechanism, certificate, handle.chain, capabilities=profile.capabilities(handle))


async def sign_content(signer: Signer, content_digest: bytes, *, at: datetime) -> bytes:
    """Sign content whose `signer.digest` is `content_digest`; return the SignerInfo. `at` is the signing time."""
    moment = at if at.tzinfo is UTC else at.astimezone(UTC)
    # RFC 5652 §11.3: UTCTime from 1950 to 2049, GeneralizedTime otherwise.
    generalized = not 1950 <= moment.year < 2050
    pieces = signer.template(generalized)
    if len(content_digest) != pieces.digest_size:
        raise CryptoError(f"a digest of {len(content_digest)} octets where {pieces.digest} is expected")
    time = b"%02d%02d%02d%02d%02d%02dZ" % (
        moment.year if generalized else moment.year % 100,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
    )
    if generalized:
        time = time.rjust(15, b"0")
    first, second = (content_digest, time) if pieces.digest_first else (time, content_digest)
    body = b"".join((pieces.before, first, pieces.between, second, pieces.after))
    # RFC 5652 §5.4: the attributes are signed under the tag of a SET OF, and sent under [0].
    signature = await signer.handle.sign(signer.mechanism, pieces.set_header + body)
    info = b"".join((pieces.front, body, pieces.back, _header(0x04, len(signature)), signature))
    return _header(0x30, len(info)) + info


@lru_cache(maxsize=256)
def _shell(digests: tuple[str, ...], certificates: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """SignedData up to its encapContentInfo, and its certificates."""
    # RFC 5652 §5.1: version 1, as the content is id-data and every SignerInfo has version 1.
    front = writer.integer(1) + writer.set_of(*{table.digest_identifier(digest) for digest in digests})
    return front, b"\xa0" + writer.set_of(*set(certificates))[1:] if certificates else b""


def _shell_of(signers: Sequence[Signer]) -> tuple[bytes, bytes]:
    if len(signers) == 1:
        signer = signers[0]
        return _shell((signer.digest,), (signer.certificate, *signer.chain))
    certificates = [certificate for signer in signers for certificate in (signer.certificate, *signer.chain)]
    return _shell(tuple(signer.digest for signer in signers), tuple(certificates))


_SIGNED_DATA_OID = writer.oid(ID_SIGNED_DATA)
_DATA_OID = writer.oid(ID_DATA)
_NO_CONTENT = writer.sequence(_DATA_OID)


def detached(signers: Sequence[Signer], signer_infos: Sequence[bytes]) -> bytes:
    """A detached signature (RFC 8551 §3.5.3): ContentInfo with the SignerInfos that `sign_content` gave for these signers."""
    front, certificates = _shell_of(signers)
    infos = signer_infos[0] if len(signer_infos) == 1 else b"".join(sorted(signer_infos))
    body = b"".join((front, _NO_CONTENT, certificates, _header(0x31, len(infos)), infos))
    signed = _header(0x30, len(body)) + body
    content = _SIGNED_DATA_OID + _header(0xA0, len(signed)) + signed
    return _header(0x30, len(content)) + content


def opaque(content: Segments, signers: Sequence[Signer], signer_infos: Sequence[bytes]) -> Segments:
    """An opaque signature (RFC 8551 §3.5.2): the same around its content, which is passed through as it is produced."""
    front, certificates = _shell_of(signers)
    infos = b"".join(sorted(signer_infos))
    tail = certificates + _header(0x31, len(infos)) + infos
    length = len(content)
    # From the inside out: each header counts all that follows it within its element.
    head = _header(0x04, length)
    head = _header(0xA0, len(head) + length) + head
    head = _DATA_OID + head
    head = _header(0x30, len(head) + length) + head
    rest = length + len(tail)
    head = front + head
    head = _header(0x30, len(head) + rest) + head
    head = _header(0xA0, len(head) + rest) + head
    head = _SIGNED_DATA_OID + head
    head = _header(0x30, len(head) + rest) + head
    return Segments((head, content, tail))


def certs_only(certificates: Sequence[bytes], crls: Sequence[bytes] = ()) -> bytes:
    """A certificate management message (RFC 8551 §3.8): SignedData without content and signers."""
    parts = [writer.integer(1), writer.set_of(), _NO_CONTENT]
    if certificates:
        parts.append(b"\xa0" + writer.set_of(*certificates)[1:])
    if crls:
        parts.append(b"\xa1" + writer.set_of(*crls)[1:])
    parts.append(writer.set_of())
    return writer.sequence(_SIGNED_DATA_OID, writer.explicit(0, writer.sequence(*parts)))
