"""How content is encrypted for several recipients at once: what the profile asks for, and what all of them can read (RFC 8551 §2.7).

The one invariant: nothing weaker than the profile's floor is ever chosen, whatever the recipients say that they prefer; a key that cannot
receive, or may not, is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from mailsec.algorithms.ciphers import CIPHERS
from mailsec.algorithms.profiles import OAEP_SHA256, Profile
from mailsec.algorithms.table import algorithm_of
from mailsec.asn1.reader import SEQUENCE, read_single
from mailsec.cms.attributes import CAPABILITIES
from mailsec.errors import Asn1Error, LimitExceeded, Refused
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.mechanism import TransportMechanism
from mailsec.model.protection import EncryptionRecipient
from mailsec.pki.purpose import PURPOSES
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["Choice", "choose", "read_capabilities", "unfit"]

_OAEP_OID: Final = "1.2.840.113549.1.1.7"
_MOST_CAPABILITIES: Final = 100
_EMAIL: Final = PURPOSES["email-encrypt"]
_ANY_USAGE: Final = "2.5.29.37.0"


class Choice(NamedTuple):
    """What `cms.encrypt` is told."""

    cipher: str
    transport: TransportMechanism
    kem_digest: str = "sha256"


def read_capabilities(der: bytes | None, limits: Limits = DEFAULT_LIMITS) -> frozenset[str]:
    """The OIDs of sMIMECapabilities (RFC 8551 §2.5.2); empty for none, or for what cannot be read."""
    if der is None:
        return frozenset()
    try:
        members = read_single(der, SEQUENCE, "sMIMECapabilities", limits=limits).children()[:_MOST_CAPABILITIES]
        return frozenset(algorithm_of(member)[0] for member in members)
    except (Asn1Error, LimitExceeded):
        return frozenset()


def choose(profile: Profile, recipients: Sequence[EncryptionRecipient], limits: Limits = DEFAULT_LIMITS) -> Choice:
    """The cipher and the key transport of one copy for all of `recipients`. Raise Refused for a certificate that cannot be used."""
    known: list[frozenset[str]] = []
    rsa: list[frozenset[str]] = []
    for recipient in recipients:
        certificate = load_certificate(recipient.certificate)
        _check(certificate, profile)
        # RFC 4262 §2: a certificate may say it, too; what its holder signed later counts.
        extension = certificate.extension(CAPABILITIES)
        capabilities = read_capabilities(recipient.capabilities or (extension.value if extension is not None else None), limits)
        known.append(capabilities)
        if certificate.key_type == "rsa":
            rsa.append(capabilities)
    oaep = bool(rsa) and all(_OAEP_OID in capabilities for capabilities in rsa)
    return Choice(
        _cipher(profile, known), OAEP_SHA256 if oaep and profile.transport.kind != "rsaes-oaep" else profile.transport, profile.kem_digest
    )


def _cipher(profile: Profile, known: Sequence[frozenset[str]]) -> str:
    def all_read(name: str) -> bool:
        return bool(known) and all(CIPHERS[name].oid in capabilities for capabilities in known)

    if CIPHERS[profile.cipher].authenticated:
        # The profile asks for it; who cannot read it needs another profile.
        return profile.cipher
    size = CIPHERS[profile.cipher].key_size * 8
    # RFC 8551 §2.7.1: with GCM nobody can alter what was encrypted.
    for name in dict.fromkeys((f"aes-{size}-gcm", "aes-256-gcm", "aes-128-gcm")):
        if all_read(name):
            return name
    if not all_read(profile.cipher) and all(known) and all_read("aes-128-cbc"):
        return "aes-128-cbc"
    return profile.cipher


def unfit(certificate: Certificate, profile: Profile) -> str:
    """Why nothing is encrypted with a certificate under `profile`; "" where it can be."""
    if not certificate.readable:
        return "it cannot be read"
    if certificate.key_usage is not None and not certificate.key_usage & _EMAIL.usages(certificate.key):
        # RFC 8550 §4.4.2: a certificate for signatures is not used to encrypt.
        return "its key usage does not allow it"
    usages = certificate.extended_key_usage
    if usages is not None and _EMAIL.extended_key_usage not in usages and _ANY_USAGE not in usages:
        return "it is not for e-mail"
    if profile.recipient_keys and certificate.key_type not in profile.recipient_keys:
        return f"the profile {profile.name} does not allow keys of the type {certificate.key_type}"
    if "unknown:" in certificate.key_type or certificate.key_type == "ec:explicit":
        return f"its key, {certificate.key_type}, is none that is computed with"
    if certificate.key_type.startswith("ec:") and certificate.bits < 224:
        return f"an elliptic curve of {certificate.bits} bits"
    # RFC 8551 §4.2: shorter keys may be found by others.
    if certificate.key_type == "rsa" and certificate.bits < profile.rsa_bits:
        return f"an RSA key of {certificate.bits} bits, and the profile {profile.name} asks for {profile.rsa_bits}"
    return ""


def _check(certificate: Certificate, profile: Profile) -> None:
    why = unfit(certificate, profile)
    if why:
        name = ", ".join(map(str, certificate.addresses[:1])) or (certificate.subject.text if certificate.readable else "a recipient")
        raise Refused(
            f"nothing can be encrypted with the certificate of {name}: {why}", hint="another certificate is needed", stage="policy"
        )
