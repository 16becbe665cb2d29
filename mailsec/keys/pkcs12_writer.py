"""PKCS#12 files (RFC 7292) that hold several keys, each with its certificate and its name, and other certificates.

Keys and certificates are encrypted with AES-256-CBC under PBKDF2-HMAC-SHA256 (PBES2, RFC 8018 §6.2), the integrity is HMAC-SHA256; the form
"legacy" is what old systems read only: three-key triple DES and SHA-1. Octets in, octets out; salts come from `random`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from mailsec.asn1 import writer
from mailsec.errors import UsageError
from mailsec.keys.files import Pkcs12Key
from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["FORMS", "write_pkcs12"]

FORMS: Final = ("modern", "legacy")

_DATA: Final = writer.oid("1.2.840.113549.1.7.1")
_ENCRYPTED_DATA: Final = writer.oid("1.2.840.113549.1.7.6")
_SHROUDED_KEY_BAG: Final = writer.oid("1.2.840.113549.1.12.10.1.2")
_CERT_BAG: Final = writer.oid("1.2.840.113549.1.12.10.1.3")
_X509_CERTIFICATE: Final = writer.oid("1.2.840.113549.1.9.22.1")
_FRIENDLY_NAME: Final = writer.oid("1.2.840.113549.1.9.20")
_LOCAL_KEY_ID: Final = writer.oid("1.2.840.113549.1.9.21")
_PBES2: Final = writer.oid("1.2.840.113549.1.5.13")
_PBKDF2: Final = writer.oid("1.2.840.113549.1.5.12")
_HMAC_SHA256: Final = writer.oid("1.2.840.113549.2.9")
_AES256_CBC: Final = writer.oid("2.16.840.1.101.3.4.1.42")
_SHA1_3DES: Final = writer.oid("1.2.840.113549.1.12.1.3")
_DIGESTS: Final = {"sha256": writer.oid("2.16.840.1.101.3.4.2.1"), "sha1": writer.oid("1.3.14.3.2.26")}
_NULL: Final = b"\x05\x00"
_BMP_STRING: Final = 0x1E

_MOST_ITERATIONS: Final = {"modern": 100_000, "legacy": 10_000}
"""Of one derivation; in files of many keys each has fewer, so that opening all of them stays within the limits, ours and others'."""

_KEY, _IV, _MAC = 1, 2, 3
"""RFC 7292 §B.3: what an octet string is derived for."""


def write_pkcs12(
    keys: Sequence[Pkcs12Key],
    certificates: Sequence[tuple[str, bytes]] = (),
    *,
    passphrase: bytes,
    random: Callable[[int], bytes],
    form: str = "modern",
    limits: Limits = DEFAULT_LIMITS,
) -> bytes:
    """A file with these keys and, beside their own, these certificates (friendlyName, DER). `passphrase` is UTF-8; an empty one is refused."""
    if form not in FORMS:
        raise UsageError(f"there is no form {form!r} of PKCS#12", hint="one of " + ", ".join(FORMS))
    if not passphrase:
        raise UsageError("a PKCS#12 file needs a pass phrase", hint="whoever gets the file would have the keys")
    try:
        text = passphrase.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError("the pass phrase is not UTF-8") from None
    # Each key is opened by itself, all certificates at once, and the integrity is checked; readers like ours derive a key's twice.
    iterations = min(_MOST_ITERATIONS[form], limits.kdf_iterations_of_file // (2 * len(keys) + 2))
    sealer = _Legacy(text, iterations, random) if form == "legacy" else _Modern(passphrase, iterations, random)
    key_bags, certificate_bags, seen = [], [], set[bytes]()
    for key in keys:
        # RFC 7292 §4.2: localKeyId ties a key to its certificate; what it holds is nobody's business, NSS and OpenSSL take this.
        identity = hashlib.sha1(key.certificate or key.private_key, usedforsecurity=False).digest()
        key_bags.append(_bag(_SHROUDED_KEY_BAG, writer.sequence(*sealer.seal(key.private_key)), key.name, identity))
        if key.certificate is not None and key.certificate not in seen:
            seen.add(key.certificate)
            certificate_bags.append(_certificate_bag(key.certificate, key.name, identity))
    certificate_bags += [_certificate_bag(der, name, b"") for name, der in certificates if der not in seen]
    contents = []
    if certificate_bags:
        algorithm, sealed = sealer.seal(writer.sequence(*certificate_bags))
        value = writer.implicit(0, sealed)
        encrypted = writer.sequence(writer.integer(0), writer.sequence(_DATA, algorithm, value))
        contents.append(writer.sequence(_ENCRYPTED_DATA, writer.explicit(0, encrypted)))
    if key_bags:
        contents.append(_data(writer.sequence(*key_bags)))
    safe = writer.sequence(*contents)
    return writer.sequence(writer.integer(3), _data(safe), _mac(safe, text, "sha1" if form == "legacy" else "sha256", iterations, random))


class _Modern:
    """PBES2: PBKDF2-HMAC-SHA256 and AES-256-CBC. The pass phrase is taken as it is (UTF-8), as OpenSSL and NSS do."""

    def __init__(self, passphrase: bytes, iterations: int, random: Callable[[int], bytes]) -> None:
        self._passphrase = passphrase
        self._iterations = iterations
        self._random = random

    def seal(self, octets: bytes) -> tuple[bytes, bytes]:
        """AlgorithmIdentifier and OCTET STRING."""
        salt, iv = self._random(16), self._random(16)
        key = hashlib.pbkdf2_hmac("sha256", self._passphrase, salt, self._iterations, 32)
        function = writer.sequence(_HMAC_SHA256, _NULL)
        derivation = writer.sequence(_PBKDF2, writer.sequence(writer.octet_string(salt), writer.integer(self._iterations), function))
        scheme = writer.sequence(_AES256_CBC, writer.octet_string(iv))
        encryptor = Cipher(AES256(key), CBC(iv)).encryptor()
        sealed = encryptor.update(_padded(octets, 16)) + encryptor.finalize()
        return writer.sequence(_PBES2, writer.sequence(derivation, scheme)), writer.octet_string(sealed)


class _Legacy:
    """pbeWithSHAAnd3-KeyTripleDES-CBC (RFC 7292 Appendix C)."""

    def __init__(self, text: str, iterations: int, random: Callable[[int], bytes]) -> None:
        self._text = text
        self._iterations = iterations
        self._random = random

    def seal(self, octets: bytes) -> tuple[bytes, bytes]:
        """AlgorithmIdentifier and OCTET STRING."""
        salt = self._random(8)
        key = _derived(self._text, salt, _KEY, self._iterations, 24, "sha1")
        iv = _derived(self._text, salt, _IV, self._iterations, 8, "sha1")
        encryptor = Cipher(TripleDES(key), CBC(iv)).encryptor()
        sealed = encryptor.update(_padded(octets, 8)) + encryptor.finalize()
        parameters = writer.sequence(writer.octet_string(salt), writer.integer(self._iterations))
        return writer.sequence(_SHA1_3DES, parameters), writer.octet_string(sealed)


def _data(octets: bytes) -> bytes:
    """A ContentInfo of type data."""
    return writer.sequence(_DATA, writer.explicit(0, writer.octet_string(octets)))


def _certificate_bag(der: bytes, name: str, identity: bytes) -> bytes:
    value = writer.sequence(_X509_CERTIFICATE, writer.explicit(0, writer.octet_string(der)))
    return _bag(_CERT_BAG, value, name, identity)


def _bag(kind: bytes, value: bytes, name: str, identity: bytes) -> bytes:
    attributes = []
    if name:
        # PKCS#9 §5.5.1: friendlyName is a BMPString; what it cannot hold (outside the basic plane) is left out.
        octets = "".join(character for character in name if ord(character) < 0x10000).encode("utf-16-be", "ignore")
        attributes.append(writer.sequence(_FRIENDLY_NAME, writer.set_of(writer.header(_BMP_STRING, len(octets)) + octets)))
    if identity:
        attributes.append(writer.sequence(_LOCAL_KEY_ID, writer.set_of(writer.octet_string(identity))))
    return writer.sequence(kind, writer.explicit(0, value), *([writer.set_of(*attributes)] if attributes else []))


def _mac(safe: bytes, text: str, digest: str, iterations: int, random: Callable[[int], bytes]) -> bytes:
    """MacData (RFC 7292 §4)."""
    salt = random(16)
    key = _derived(text, salt, _MAC, iterations, hashlib.new(digest, usedforsecurity=False).digest_size, digest)
    value = writer.sequence(writer.sequence(_DIGESTS[digest], _NULL), writer.octet_string(hmac.digest(key, safe, digest)))
    return writer.sequence(value, writer.octet_string(salt), writer.integer(iterations))


def _derived(text: str, salt: bytes, purpose: int, iterations: int, size: int, digest: str) -> bytes:
    """RFC 7292 §B.2: octets for `purpose` out of a pass phrase, in BMP characters with two zero octets behind them (§B.1)."""
    block = hashlib.new(digest, usedforsecurity=False).block_size
    passphrase = text.encode("utf-16-be") + b"\0\0"
    diversifier = bytes([purpose]) * block
    mixed = bytearray(_filled(salt, block) + _filled(passphrase, block))
    found = b""
    while len(found) < size:
        octets = diversifier + bytes(mixed)
        for _ in range(iterations):
            octets = hashlib.new(digest, octets, usedforsecurity=False).digest()
        found += octets
        addend = int.from_bytes(_filled(octets, block)[:block], "big") + 1
        for start in range(0, len(mixed), block):
            value = (int.from_bytes(mixed[start : start + block], "big") + addend) % (1 << 8 * block)
            mixed[start : start + block] = value.to_bytes(block, "big")
    return found[:size]


def _filled(octets: bytes, block: int) -> bytes:
    """Repeated to a multiple of `block`."""
    size = -(-len(octets) // block) * block
    return (octets * (size // len(octets) + 1))[:size] if octets else b""


def _padded(octets: bytes, block: int) -> bytes:
    missing = block - len(octets) % block
    return octets + bytes([missing]) * missing
