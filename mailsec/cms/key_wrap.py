"""From a shared secret to a key-encryption key, and from there to the content key and back.

RFC 3394 (AES key wrap), RFC 3217 (triple DES, legacy), RFC 3211 (passwords), RFC 5753 §7.2 and RFC 8418 §2 (ECC-CMS-SharedInfo),
RFC 9629 §5 (KEM). Invariant: unwrapping ends in a key or one CryptoError that says nothing about why.
"""

from __future__ import annotations

from hashlib import pbkdf2_hmac, sha1
from typing import Any

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from mailsec.algorithms.ciphers import HKDFS, Agreement, Wrap, cipher_parameters
from mailsec.algorithms.table import algorithm_of
from mailsec.asn1 import writer
from mailsec.asn1.reader import INTEGER, OCTET_STRING, SEQUENCE, read_single
from mailsec.asn1.values import read_integer
from mailsec.errors import CryptoError, LimitExceeded
from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["agreed_key", "derived_content_key", "kem_key", "password_unwrap", "unwrap_key", "wrap_key"]

_HASHES: dict[str, Any] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - as a KDF's hash, which needs no collision resistance
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


def _failed() -> CryptoError:
    return CryptoError("the content key cannot be unwrapped")


def agreed_key(secret: bytes, agreement: Agreement, wrap_algorithm: bytes, size: int, ukm: bytes | None) -> bytes:
    """The key-encryption key of `size` octets out of a shared secret (RFC 5753 §3.1, RFC 8418 §2.1)."""
    # RFC 5753 §7.2: ECC-CMS-SharedInfo; keyInfo is the key wrap as it stands in the message.
    info = writer.sequence(
        wrap_algorithm,
        writer.explicit(0, writer.octet_string(ukm)) if ukm is not None else b"",
        writer.explicit(2, writer.octet_string((size * 8).to_bytes(4, "big"))),
    )
    digest = _HASHES[agreement.digest]
    if agreement.kdf == "x963":
        return X963KDF(digest, size, info).derive(secret)
    return HKDF(digest, size, None, info).derive(secret)


def kem_key(secret: bytes, derivation: bytes, wrap_algorithm: bytes, size: int, ukm: bytes | None) -> bytes:
    """The key-encryption key out of a KEM's shared secret (RFC 9629 §5)."""
    oid, _ = algorithm_of(read_single(derivation, SEQUENCE, "kdf"))
    if oid not in HKDFS:
        raise CryptoError(f"key derivation {oid} is not known")
    info = writer.sequence(wrap_algorithm, writer.integer(size), writer.explicit(0, writer.octet_string(ukm)) if ukm is not None else b"")
    return HKDF(_HASHES[HKDFS[oid]], size, None, info).derive(secret)


def derived_content_key(key: bytes, info: bytes) -> bytes:
    """The content key of RFC 9709 §2: bound to its algorithm, so that a GCM text cannot be passed off as CBC."""
    return HKDF(hashes.SHA256(), len(key), b"The Cryptographic Message Syntax", info).derive(key)


def wrap_key(wrap: Wrap, kek: bytes, key: bytes) -> bytes:
    """Wrap a content key (AES only: nothing legacy is written)."""
    if wrap.legacy:
        raise CryptoError(f"{wrap.name} is not written")
    return aes_key_wrap(kek, key)


def unwrap_key(wrap: Wrap, kek: bytes, wrapped: bytes) -> bytes:
    """Unwrap a content key."""
    if wrap.legacy:
        return _unwrap_3des(kek, wrapped)
    try:
        return aes_key_unwrap(kek, wrapped)
    except (InvalidUnwrap, ValueError):
        raise _failed() from None


def _unwrap_3des(kek: bytes, wrapped: bytes) -> bytes:
    # RFC 3217 §3.2: decrypt, reverse, decrypt; the key is followed by the first octets of its SHA-1.
    if len(wrapped) != 40 or len(kek) != 24:
        raise _failed()
    outer = BlockCipher(TripleDES(kek), modes.CBC(bytes.fromhex("4adda22c79e82105"))).decryptor()
    inner = (outer.update(wrapped) + outer.finalize())[::-1]
    last = BlockCipher(TripleDES(kek), modes.CBC(inner[:8])).decryptor()
    plain = last.update(inner[8:]) + last.finalize()
    key, check = plain[:24], plain[24:]
    if sha1(key, usedforsecurity=False).digest()[:8] != check:
        raise _failed()
    return key


_PBKDF2 = "1.2.840.113549.1.5.12"
_PWRI_KEK = "1.2.840.113549.1.9.16.3.9"
_PRFS = {
    "1.2.840.113549.2.7": "sha1",
    "1.2.840.113549.2.8": "sha224",
    "1.2.840.113549.2.9": "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
}


def password_unwrap(password: bytes, derivation: bytes, algorithm: bytes, wrapped: bytes, *, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The content key of a PasswordRecipientInfo (RFC 3211 §2.3, RFC 8018 §5.2); LimitExceeded where the derivation costs too much."""
    oid, inner = algorithm_of(read_single(algorithm, SEQUENCE, "keyEncryptionAlgorithm"))
    if oid != _PWRI_KEK or inner is None:
        raise CryptoError(f"key encryption {oid} is not known")
    parameters = cipher_parameters(inner.encoding)
    cipher = parameters.cipher
    if cipher.mode != "cbc" or cipher.algorithm not in ("aes", "3des"):
        raise CryptoError(f"a content key encrypted with {cipher.name} is not read")
    kek = _password_key(password, derivation, cipher.key_size, limits)
    block = len(parameters.nonce)
    if len(wrapped) % block or len(wrapped) < 2 * block:
        raise _failed()
    make: Any = algorithms.AES if cipher.algorithm == "aes" else TripleDES
    # RFC 3211 §2.3.2: the last block, decrypted with the one before it as IV, is the IV of all of them; then once more with the real IV.
    last = BlockCipher(make(kek), modes.CBC(wrapped[-2 * block : -block])).decryptor().update(wrapped[-block:])
    once = BlockCipher(make(kek), modes.CBC(last)).decryptor().update(wrapped)
    plain = BlockCipher(make(kek), modes.CBC(parameters.nonce)).decryptor().update(once)
    size = plain[0]
    if bytes(octet ^ 0xFF for octet in plain[4:7]) != plain[1:4] or not 8 <= size <= len(plain) - 4:
        raise _failed()
    return plain[4 : 4 + size]


def _password_key(password: bytes, derivation: bytes, size: int, limits: Limits) -> bytes:
    oid, parameters = algorithm_of(read_single(derivation, SEQUENCE, "keyDerivationAlgorithm"))
    if oid != _PBKDF2 or parameters is None:
        raise CryptoError(f"key derivation {oid} is not known")
    parts = parameters.expect(SEQUENCE, "PBKDF2-params").children()
    if len(parts) < 2:
        raise _failed()
    salt = parts[0].expect(OCTET_STRING, "salt").content
    iterations = read_integer(parts[1])
    if not 1 <= iterations <= limits.kdf_iterations:
        raise LimitExceeded("kdf_iterations", f"a key derivation of more than {limits.kdf_iterations} iterations")
    prf = "sha1"
    for part in parts[2:]:
        if part.tag == INTEGER and read_integer(part) != size:
            raise _failed()
        if part.tag == SEQUENCE:
            name = algorithm_of(part)[0]
            if name not in _PRFS:
                raise CryptoError(f"pseudorandom function {name} is not known")
            prf = _PRFS[name]
    return pbkdf2_hmac(prf, password, salt, iterations, size)
