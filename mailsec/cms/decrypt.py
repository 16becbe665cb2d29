"""Opening encrypted content (RFC 5652 §6.3): with which key, and one answer for everything that goes wrong.

RFC 3218 §2.3.2: where a content key cannot be unwrapped, decryption goes on with a random one, so that neither answer nor time tells
why it failed. Invariant: octets come out only after tag or padding of the whole content were right; a private key is used at most
`limits.private_key_operations` times for one message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mailsec.algorithms.ciphers import AGREEMENTS, CipherParameters, transport_mechanism, wrap_of
from mailsec.algorithms.table import algorithm_of
from mailsec.asn1 import writer
from mailsec.asn1.reader import SEQUENCE, read_single
from mailsec.cms.content_cipher import decrypt_into, most_octets
from mailsec.cms.enveloped import EnvelopedData
from mailsec.cms.key_wrap import agreed_key, derived_content_key, kem_key, password_unwrap, unwrap_key
from mailsec.cms.recipients import Recipient
from mailsec.errors import Asn1Error, CryptoError, KeyUnavailable, LimitExceeded
from mailsec.interfaces import KeyHandle, Scratch, Work
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.mechanism import AgreementMechanism
from mailsec.model.octets import Octets
from mailsec.model.verdict import Reason
from mailsec.x509.certificate import load_certificate

__all__ = ["Opened", "SecretKey", "open_content"]


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A key-encryption key that two parties share (RFC 5652 §6.2.3), or the content key of EncryptedData (§8)."""

    key: bytes = field(repr=False)
    key_id: bytes | None = None
    """Its keyIdentifier; None tries it on every recipient of that kind."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What came out, or why nothing did."""

    content: Octets | None
    algorithm: str
    recipient: str = ""
    """The recipient whose key opened it, for reports."""
    reasons: tuple[Reason, ...] = ()
    """Stage "integrity": not opened. Stage "policy": opened, with an algorithm that the operator allowed as legacy."""
    attempts: int = 0
    """How often a key was used: they count for the whole message, over all its layers."""


_CANNOT = Reason("cannot-decrypt", "integrity", "the message cannot be decrypted with the keys at hand", rfc="RFC 5652 §6.3")

Attempt = tuple[Recipient, KeyHandle | SecretKey | bytes]


async def open_content(
    enveloped: EnvelopedData,
    keys: Sequence[KeyHandle] = (),
    *,
    scratch: Callable[[], Scratch],
    work: Work | None = None,
    passwords: Sequence[bytes] = (),
    secret_keys: Sequence[SecretKey] = (),
    allow_legacy: bool = False,
    operations: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Opened:
    """Decrypt into a scratch of its own, and seal it; keys are used `operations` times at most, `limits.private_key_operations` if it is None.

    Raises KeyUnavailable only: no key opened it, and one is on a token that is out.
    """
    most_attempts = limits.private_key_operations if operations is None else operations
    parameters = enveloped.parameters
    algorithm = enveloped.algorithm
    if parameters is None:
        return Opened(None, algorithm, reasons=(enveloped.problem or _CANNOT,))
    cipher = parameters.cipher
    if cipher.legacy and not allow_legacy:
        message, hint = f"encrypted with {cipher.name}, which is broken", "allow legacy algorithms to open it"
        reason = Reason("weak-cipher", "policy", message, hint, "RFC 8551 §2.7")
        return Opened(None, algorithm, reasons=(reason,))
    most = most_octets(cipher, limits)
    if most is not None and len(enveloped.content) > most:
        reason = Reason("content-too-large", "limits", f"{cipher.name} over more than {most} octets", "the sender should use AES-GCM")
        return Opened(None, algorithm, reasons=(reason,))
    attempts = _attempts(enveloped, keys, passwords, secret_keys)
    if not attempts:
        named = ", ".join(sorted({recipient.name for recipient in enveloped.recipients})[:10])
        hint = "import the key that it is encrypted to"
        return Opened(None, algorithm, reasons=(Reason("no-key", "integrity", f"no key here is among its recipients: {named}", hint),))
    out: KeyUnavailable | None = None
    for number, (recipient, key) in enumerate(attempts[:most_attempts], 1):
        try:
            content_key, counts = await _content_key(recipient, key, parameters, allow_legacy, limits)
        except KeyUnavailable as error:
            out = out or error
            continue
        target = scratch()
        size = len(enveloped.content)
        try:
            if work is None:
                right = _decrypt(target, enveloped, parameters, content_key, limits)
            else:
                right = await work(size, _decrypt, target, enveloped, parameters, content_key, limits)
        except BaseException:
            # A full disk, a cancelled task: half of a plaintext stays nowhere.
            target.discard()
            raise
        if right and counts:
            reasons = (Reason("weak-cipher", "policy", f"encrypted with {cipher.name}", rfc="RFC 8551 §2.7"),) if cipher.legacy else ()
            return Opened(target.seal(), algorithm, recipient.name, reasons, number)
        target.discard()
    if out is not None:
        raise out
    return Opened(None, algorithm, reasons=(_CANNOT,), attempts=min(len(attempts), most_attempts))


def _attempts(
    enveloped: EnvelopedData, keys: Sequence[KeyHandle], passwords: Sequence[bytes], secret_keys: Sequence[SecretKey]
) -> list[Attempt]:
    """Which key may open which recipient's wrapped key."""
    found: list[Attempt] = []
    certificates = [(key, load_certificate(key.certificate)) for key in keys if key.certificate is not None]
    for recipient in enveloped.recipients:
        if recipient.problem:
            continue
        if recipient.kind == "password":
            found += [(recipient, password) for password in passwords]
        elif recipient.kind == "key-encryption-key":
            found += [(recipient, secret) for secret in secret_keys if secret.key_id in (None, recipient.key_id)]
        elif recipient.kind == "content-key":
            found += [(recipient, secret) for secret in secret_keys]
        else:
            found += [(recipient, key) for key, certificate in certificates if recipient.is_for(certificate)]
    return found


def _decrypt(target: Scratch, enveloped: EnvelopedData, parameters: CipherParameters, content_key: bytes, limits: Limits) -> bool:
    content = enveloped.content
    return decrypt_into(
        target,
        parameters,
        content_key,
        content.blocks(),
        len(content),
        associated=enveloped.authenticated_attributes,
        tag=enveloped.tag,
        limits=limits,
    )


async def _content_key(
    recipient: Recipient, key: KeyHandle | SecretKey | bytes, parameters: CipherParameters, allow_legacy: bool, limits: Limits
) -> tuple[bytes, bool]:
    """The content key, a random one of the right length where it cannot be had or has another length; and whether what it opens counts.

    One CBC text in 256 opens with a random key, to nonsense. Of key transport that must not be told from the rest: who learnt that the
    padding of RSA was wrong could ask again until the key is known. Key wraps and passwords have a check of their own, which nobody can
    meet without the key: where that fails the same work is done, and its outcome is no answer.
    """
    size = parameters.cipher.key_size
    refused = False
    instead = AESGCM.generate_key(256)[:size]
    try:
        if isinstance(key, bytes):
            found = password_unwrap(key, recipient.derivation, recipient.algorithm, recipient.encrypted_key, limits=limits)
        elif isinstance(key, SecretKey) and recipient.kind == "content-key":
            found = key.key
        elif isinstance(key, SecretKey):
            wrap = wrap_of(recipient.algorithm)
            if len(key.key) != wrap.key_size:
                raise CryptoError("a shared key of another length than its key wrap's")
            found = unwrap_key(wrap, key.key, recipient.encrypted_key)
        elif recipient.kind == "key-transport":
            # RFC 3560 §2.2, RFC 3370 §4.2.1.
            found = await key.unwrap(transport_mechanism(recipient.algorithm), recipient.encrypted_key)
        elif recipient.kind == "key-agreement":
            found = await _agreed(recipient, key, allow_legacy)
        else:
            found = await _decapsulated(recipient, key)
    except (CryptoError, Asn1Error, LimitExceeded):
        found, refused = instead, True
    # RFC 3218 §2.3.2: another length is treated as every other failure.
    if len(found) != size:
        found, refused = instead, True
    counts = not refused or recipient.kind == "key-transport"
    return found if parameters.hkdf_info is None else derived_content_key(found, parameters.hkdf_info), counts


async def _agreed(recipient: Recipient, key: KeyHandle, allow_legacy: bool) -> bytes:
    oid, wrap_element = algorithm_of(read_single(recipient.algorithm, SEQUENCE, "keyEncryptionAlgorithm"))
    agreement = AGREEMENTS.get(oid)
    if agreement is None or wrap_element is None or recipient.originator is None or key.certificate is None:
        raise CryptoError(f"key agreement {oid} is not known")
    wrap = wrap_of(wrap_element.encoding)
    if wrap.legacy and not allow_legacy:
        raise CryptoError(f"{wrap.name} is broken")
    # RFC 5753 §7.1.1: the originator's key carries the curve, or leaves it to be the recipient's.
    own = load_certificate(key.certificate).spki
    own_algorithm = read_single(own, SEQUENCE, "SubjectPublicKeyInfo").children()[0]
    originator = read_single(recipient.originator, SEQUENCE, "originator").children()
    if algorithm_of(originator[0])[0] != algorithm_of(own_algorithm)[0]:
        raise CryptoError("an ephemeral key of another kind")
    peer = writer.sequence(own_algorithm.encoding, originator[1].encoding)
    secret = await key.agree(AgreementMechanism(cofactor=agreement.cofactor), peer)
    kek = agreed_key(secret, agreement, wrap_element.encoding, wrap.key_size, recipient.ukm)
    return unwrap_key(wrap, kek, recipient.encrypted_key)


async def _decapsulated(recipient: Recipient, key: KeyHandle) -> bytes:
    wrap = wrap_of(recipient.algorithm)
    # RFC 9629 §3: kekLength is that of the key wrap.
    if recipient.kek_length != wrap.key_size or wrap.legacy:
        raise CryptoError("a key-encryption key of another length than its key wrap's")
    secret = await key.decapsulate(recipient.ciphertext)
    return unwrap_key(
        wrap, kem_key(secret, recipient.derivation, recipient.algorithm, wrap.key_size, recipient.ukm), recipient.encrypted_key
    )
