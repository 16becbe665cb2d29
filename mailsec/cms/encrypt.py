"""EnvelopedData and AuthEnvelopedData as they are written (RFC 5652 §6, RFC 5083): definite-length DER around content that streams.

One content key, wrapped for each certificate by what its key can do: RSA (v1.5 or OAEP), ECDH on NIST and brainpool curves (RFC 5753),
X25519 and X448 (RFC 8418), ML-KEM (RFC 9936). Invariant: the length is known before the first octet, and iterating twice gives the same
octets; the content key leaves this module only wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x448, x25519

from mailsec.algorithms.ciphers import AGREEMENTS, CIPHERS, HKDFS, WRAPS, Agreement, Cipher, cipher_identifier, transport_identifier
from mailsec.algorithms.profiles import PKCS1_V1_5
from mailsec.asn1 import writer
from mailsec.asn1.reader import SEQUENCE, read_single
from mailsec.cms.content_cipher import encrypt, encrypted_length
from mailsec.cms.enveloped import ID_AUTH_ENVELOPED_DATA, ID_ENVELOPED_DATA
from mailsec.cms.key_wrap import agreed_key, kem_key, wrap_key
from mailsec.cms.recipients import ID_ORI_KEM
from mailsec.cms.signed import ID_DATA
from mailsec.errors import CryptoError
from mailsec.interfaces import CryptoBackend
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.mechanism import TransportMechanism
from mailsec.model.octets import BLOCK, Segments
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["encrypt_content"]


_KEM_OIDS = {"ml-kem-768": "2.16.840.1.101.3.4.4.2", "ml-kem-1024": "2.16.840.1.101.3.4.4.3"}
_AGREEMENT_BY = {(one.kdf, one.digest, one.cofactor): one for one in AGREEMENTS.values()}
_HKDF_BY_DIGEST = {digest: oid for oid, digest in HKDFS.items()}


async def encrypt_content(
    content: Segments,
    certificates: Sequence[bytes],
    *,
    backend: CryptoBackend,
    random: Callable[[int], bytes],
    cipher: str = "aes-256-cbc",
    transport: TransportMechanism = PKCS1_V1_5,
    kem_digest: str = "sha256",
    limits: Limits = DEFAULT_LIMITS,
) -> Segments:
    """Encrypt to the holders of `certificates`; GCM ciphers give AuthEnvelopedData. Raises CryptoError for a key that cannot receive.

    Whoever has one of the keys opens it: with a classical and a post-quantum certificate of one person it is as strong as the weaker one.
    """
    chosen = CIPHERS.get(cipher)
    if chosen is None or chosen.legacy or chosen.mode == "ccm":
        raise CryptoError(f"{cipher} is not written", hint="use aes-256-gcm or aes-256-cbc")
    if not certificates:
        raise CryptoError("nobody to encrypt to")
    if len(certificates) > limits.cms_recipients:
        raise CryptoError(f"more than {limits.cms_recipients} recipients of one encrypted message")
    key = random(chosen.key_size)
    # RFC 5084 §3.2: 12 octets of nonce for GCM; the key is fresh, so a random one never repeats with it.
    nonce = random(16 if chosen.mode == "cbc" else 12)
    infos = [await _recipient_info(load_certificate(der), key, chosen, transport, kem_digest, backend) for der in certificates]
    return _assemble(content, infos, chosen, key, nonce)


def _assemble(content: Segments, infos: Sequence[bytes], cipher: Cipher, key: bytes, nonce: bytes) -> Segments:
    size = encrypted_length(cipher, len(content))
    # RFC 5652 §6.1: version 0 for key transport by issuer and serial alone, 3 with an OtherRecipientInfo, else 2.
    version = 0 if all(info[:1] == b"\x30" for info in infos) else 3 if any(info[:1] == b"\xa4" for info in infos) else 2
    front = writer.integer(0 if cipher.authenticated else version) + writer.set_of(*infos)
    inner = writer.oid(ID_DATA) + cipher_identifier(cipher, nonce) + writer.header(0x80, size)
    inner = writer.header(0x30, len(inner) + size) + inner
    tail = 18 if cipher.authenticated else 0
    head = front + inner
    for tag in (0x30, 0xA0):
        head = writer.header(tag, len(head) + size + tail) + head
    head = writer.oid(ID_AUTH_ENVELOPED_DATA if cipher.authenticated else ID_ENVELOPED_DATA) + head
    head = writer.header(0x30, len(head) + size + tail) + head

    def produce() -> Iterator[bytes | memoryview]:
        if not cipher.authenticated:
            yield from encrypt(cipher, key, nonce, content)
            return
        # The last piece is the tag: it stands in mac, behind the content.
        last: bytes | memoryview = b""
        for piece in encrypt(cipher, key, nonce, content):
            if last:
                yield last
            last = piece
        yield b"\x04\x10" + bytes(last)

    if size <= BLOCK:
        return Segments((head, b"".join(produce())))
    return Segments((head, Segments.produced(size + tail, produce)))


async def _recipient_info(
    certificate: Certificate, key: bytes, cipher: Cipher, transport: TransportMechanism, kem_digest: str, backend: CryptoBackend
) -> bytes:
    kind = certificate.key_type
    # Never chosen by the size of the key: a wrap as strong as the cipher that it opens.
    wrap = WRAPS[f"aes-{cipher.key_size * 8}-wrap"]
    if kind == "rsa":
        wrapped = await backend.wrap(certificate.spki, transport, key)
        front = _transport_front(certificate.der, transport)
        wrapped = writer.header(0x04, len(wrapped)) + wrapped
        return writer.header(0x30, len(front) + len(wrapped)) + front + wrapped
    if kind.startswith("ec:") or kind in ("x25519", "x448"):
        agreement = _agreement_for(kind, certificate.bits)
        public, secret = _ephemeral(certificate.spki, kind)
        kek = agreed_key(secret, agreement, wrap.identifier, wrap.key_size, None)
        encrypted = writer.sequence(_issuer_and_serial(certificate), writer.octet_string(wrap_key(wrap, kek, key)))
        # RFC 5753 §3.1.1, RFC 8418 §3.1: the ephemeral key under [1] of OriginatorIdentifierOrKey.
        return (
            b"\xa1"
            + writer.sequence(
                writer.integer(3),
                writer.explicit(0, b"\xa1" + public[1:]),
                writer.sequence(writer.oid(agreement.oid), wrap.identifier),
                writer.sequence(encrypted),
            )[1:]
        )
    if kind in _KEM_OIDS:
        # RFC 9936 §2.2.1: HKDF, with SHA-256 where nothing else is asked for; a key wrap of at least the strength of the KEM.
        wrap = WRAPS["aes-256-wrap"]
        ciphertext, secret = await backend.encapsulate(certificate.spki)
        derivation = writer.sequence(writer.oid(_HKDF_BY_DIGEST[kem_digest]))
        kek = kem_key(secret, derivation, wrap.identifier, wrap.key_size, None)
        info = writer.sequence(
            writer.integer(0),
            _issuer_and_serial(certificate),
            writer.sequence(writer.oid(_KEM_OIDS[kind])),
            writer.octet_string(ciphertext),
            derivation,
            writer.integer(wrap.key_size),
            wrap.identifier,
            writer.octet_string(wrap_key(wrap, kek, key)),
        )
        return b"\xa4" + writer.sequence(writer.oid(ID_ORI_KEM), info)[1:]
    raise CryptoError(f"a key of type {kind} cannot receive encrypted mail", hint="use a certificate with an RSA, ECDH or ML-KEM key")


@lru_cache(maxsize=256)
def _transport_front(certificate: bytes, transport: TransportMechanism) -> bytes:
    """A KeyTransRecipientInfo up to its encryptedKey: it is the same in every message to a recipient."""
    return writer.integer(0) + _issuer_and_serial(load_certificate(certificate)) + transport_identifier(transport)


def _issuer_and_serial(certificate: Certificate) -> bytes:
    return writer.sequence(certificate.issuer.der, writer.integer(certificate.serial))


def _agreement_for(kind: str, bits: int) -> Agreement:
    # RFC 8418 §2.2: HKDF with X25519 and X448. RFC 5753 §7.1.4: X9.63 with a hash about as strong as the curve.
    if kind in ("x25519", "x448"):
        return _AGREEMENT_BY["hkdf", "sha256" if kind == "x25519" else "sha512", False]
    return _AGREEMENT_BY["x963", "sha256" if bits <= 256 else "sha384" if bits <= 384 else "sha512", False]


def _ephemeral(spki: bytes, kind: str) -> tuple[bytes, bytes]:
    """A fresh key agreed with `spki`: (its SubjectPublicKeyInfo as OriginatorPublicKey carries it, the shared secret)."""
    try:
        peer: Any = serialization.load_der_public_key(spki)
        if kind == "x25519":
            own: Any = x25519.X25519PrivateKey.generate()
            secret = own.exchange(peer)
        elif kind == "x448":
            own = x448.X448PrivateKey.generate()
            secret = own.exchange(peer)
        else:
            own = ec.generate_private_key(peer.curve)
            secret = own.exchange(ec.ECDH(), peer)
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
        raise CryptoError("a public key that cannot be agreed with") from None
    public = own.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if kind.startswith("ec:"):
        # RFC 5753 §7.1.2: ECPoint with id-ecPublicKey; the curve is the recipient's, its parameters absent.
        point = read_single(public, SEQUENCE, "SubjectPublicKeyInfo").children()[1].encoding
        public = writer.sequence(writer.sequence(writer.oid("1.2.840.10045.2.1")), point)
    return public, secret
