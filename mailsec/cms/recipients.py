"""RecipientInfos (RFC 5652 §6.2, RFC 9629): for whom a content key is wrapped, and how, as read.

Invariant: any element ends in a `Recipient`; one that cannot be read, or of a kind that is not known, says so and hides no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mailsec.algorithms.table import algorithm_of
from mailsec.asn1.reader import OCTET_STRING, SEQUENCE, Element
from mailsec.asn1.values import read_integer, read_octet_string, read_oid
from mailsec.cms.identifiers import issuer_and_serial
from mailsec.errors import Asn1Error, CryptoError
from mailsec.x509.certificate import Certificate
from mailsec.x509.names import Name

__all__ = ["ID_ORI_KEM", "Recipient", "read_recipients"]

ID_ORI_KEM = "1.2.840.113549.1.9.16.13.3"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One wrapped content key."""

    kind: str
    """ "key-transport", "key-agreement", "key-encryption-key", "password", "kem", "content-key" (EncryptedData), "other"; "unreadable"."""
    issuer: bytes = b""
    serial: int = 0
    key_id: bytes | None = None
    """Subject key identifier, or the identifier of a key-encryption key."""
    algorithm: bytes = b""
    """keyEncryptionAlgorithm; of a KEM, the key wrap."""
    encrypted_key: bytes = field(default=b"", repr=False)
    originator: bytes | None = None
    """Key agreement: the originator's ephemeral SubjectPublicKeyInfo, its parameters as received."""
    ukm: bytes | None = None
    derivation: bytes = b""
    """keyDerivationAlgorithm of a password; of a KEM, its KDF."""
    ciphertext: bytes = field(default=b"", repr=False)
    """KEM: kemct."""
    kem: str = ""
    """KEM: its identifier."""
    kek_length: int = 0
    """KEM: kekLength, octets."""
    problem: str = ""

    def is_for(self, certificate: Certificate) -> bool:
        """Whether it names this certificate."""
        if self.key_id is not None:
            return certificate.subject_key_id == self.key_id
        return bool(self.issuer) and certificate.serial == self.serial and certificate.issuer.matches(Name(self.issuer))

    @property
    def name(self) -> str:
        """For reports."""
        if self.key_id is not None:
            return f"key id {self.key_id.hex()}"
        return f"{Name(self.issuer).text}, {self.serial:x}" if self.issuer else self.kind


def read_recipients(element: Element) -> Iterator[Recipient]:
    """The recipients of one RecipientInfo: several where a key agreement serves several."""
    try:
        yield from _READERS.get(element.tag, _other)(element)
    except (Asn1Error, CryptoError, IndexError, ValueError) as error:
        yield Recipient("unreadable", problem=str(error) if isinstance(error, Asn1Error) else "parts are missing")


_Rid = tuple[bytes, int, bytes | None]


def _rid(element: Element) -> _Rid:
    """RecipientIdentifier: issuer and serial number, or [0] subject key identifier."""
    if element.tag == SEQUENCE:
        return *issuer_and_serial(element), None
    return b"", 0, read_octet_string(element, 0x80)


def _key_transport(element: Element) -> Iterator[Recipient]:
    _, rid, algorithm, key = element.children()[:4]
    issuer, serial, key_id = _rid(rid)
    yield Recipient("key-transport", issuer, serial, key_id, _algorithm(algorithm), read_octet_string(key))


def _algorithm(element: Element) -> bytes:
    return element.expect(SEQUENCE, "AlgorithmIdentifier").encoding


def _key_agreement(element: Element) -> Iterator[Recipient]:
    parts = element.children()[1:]
    originator = parts.pop(0).expect(0xA0, "originator").only("originator")
    spki: bytes | None = None
    if originator.tag == 0xA1:
        # OriginatorPublicKey [1] IMPLICIT is a SubjectPublicKeyInfo under another tag.
        spki = b"\x30" + originator.encoding[1:] if originator.definite else None
    ukm: bytes | None = None
    if parts[0].tag == 0xA1:
        ukm = read_octet_string(parts.pop(0).only("ukm"))
    algorithm = _algorithm(parts[0])
    for member in parts[1].expect(SEQUENCE, "recipientEncryptedKeys").children():
        rid, key = member.expect(SEQUENCE, "RecipientEncryptedKey").children()[:2]
        if rid.tag == 0xA0:
            # rKeyId [0] IMPLICIT RecipientKeyIdentifier: its first part is the subject key identifier.
            rid = rid.children()[0].expect(OCTET_STRING, "subjectKeyIdentifier")
            named: _Rid = (b"", 0, rid.content)
        else:
            named = _rid(rid)
        yield Recipient(
            "key-agreement", *named, algorithm, read_octet_string(key), originator=spki, ukm=ukm,
            problem="" if spki is not None else "the originator's key is not in the message",
        )  # fmt: skip


def _key_encryption_key(element: Element) -> Iterator[Recipient]:
    _, kekid, algorithm, key = element.children()[:4]
    key_id = kekid.expect(SEQUENCE, "kekid").children()[0].expect(OCTET_STRING, "keyIdentifier").content
    yield Recipient("key-encryption-key", key_id=key_id, algorithm=_algorithm(algorithm), encrypted_key=read_octet_string(key))


def _password(element: Element) -> Iterator[Recipient]:
    parts = element.children()[1:]
    derivation = b""
    if parts[0].tag == 0xA0:
        derivation = b"\x30" + parts.pop(0).encoding[1:]
    yield Recipient("password", algorithm=_algorithm(parts[0]), encrypted_key=read_octet_string(parts[1]), derivation=derivation)


def _other(element: Element) -> Iterator[Recipient]:
    if element.tag != 0xA4:
        raise Asn1Error(f"tag 0x{element.tag:02x} where a RecipientInfo is expected")
    kind, value = element.children()[:2]
    if read_oid(kind) != ID_ORI_KEM:
        yield Recipient("other", problem=f"recipient info {read_oid(kind)} is not known")
        return
    # RFC 9629 §3: KEMRecipientInfo.
    parts = value.expect(SEQUENCE, "KEMRecipientInfo").children()[1:]
    issuer, serial, key_id = _rid(parts.pop(0))
    kem, ciphertext, derivation, length = parts[:4]
    rest = parts[4:]
    ukm = read_octet_string(rest.pop(0).only("ukm")) if rest[0].tag == 0xA0 else None
    yield Recipient(
        "kem",
        issuer,
        serial,
        key_id,
        _algorithm(rest[0]),
        read_octet_string(rest[1]),
        ukm=ukm,
        derivation=_algorithm(derivation),
        ciphertext=read_octet_string(ciphertext),
        kem=algorithm_of(kem)[0],
        kek_length=read_integer(length),
    )


_READERS = {SEQUENCE: _key_transport, 0xA1: _key_agreement, 0xA2: _key_encryption_key, 0xA3: _password}
