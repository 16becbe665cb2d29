"""Keys and the engine in software: pyca/cryptography behind `KeyHandle` and `CryptoBackend`.

Invariant: nothing of a private key is in a `repr`, an error or a log; verification never raises for what a peer sent, and keys that
would cost seconds (`limits.rsa_bits`, `limits.rsa_exponent_bits`) are refused before they are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, mlkem, padding, rsa, utils

from mailsec.algorithms.public_keys import PublicKeyFacts, public_key_facts
from mailsec.asn1 import writer
from mailsec.asn1.reader import SEQUENCE, read_single
from mailsec.errors import Asn1Error, CryptoError, LimitExceeded, PrivateKeyError
from mailsec.interfaces import Hash
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.mechanism import AgreementMechanism, SignatureMechanism, TransportMechanism
from mailsec.x509.certificate import load_certificate

__all__ = ["SoftwareBackend", "SoftwareKey", "load_public_key", "plain_public_key"]

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "md5": hashes.MD5(),  # noqa: S303 - read only, where a profile allows legacy
    "sha1": hashes.SHA1(),  # noqa: S303 - the same
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha512-224": hashes.SHA512_224(),
    "sha512-256": hashes.SHA512_256(),
    "sha3-224": hashes.SHA3_224(),
    "sha3-256": hashes.SHA3_256(),
    "sha3-384": hashes.SHA3_384(),
    "sha3-512": hashes.SHA3_512(),
}
_CONSTRUCTORS: dict[str, Callable[[], Hash]] = {
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha224": hashlib.sha224,
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
    "sha512-224": lambda: hashlib.new("sha512_224"),
    "sha512-256": lambda: hashlib.new("sha512_256"),
    "sha3-224": hashlib.sha3_224,
    "sha3-256": hashlib.sha3_256,
    "sha3-384": hashlib.sha3_384,
    "sha3-512": hashlib.sha3_512,
    "shake128": lambda: _Shake(hashlib.shake_128(), 32),
    "shake256": lambda: _Shake(hashlib.shake_256(), 64),
}

_HASHING_INSIDE: dict[str, Any] = {
    "ed25519": ed25519.Ed25519PublicKey,
    "ed448": ed448.Ed448PublicKey,
    "ml-dsa-44": mldsa.MLDSA44PublicKey,
    "ml-dsa-65": mldsa.MLDSA65PublicKey,
    "ml-dsa-87": mldsa.MLDSA87PublicKey,
}
# id-RSASSA-PSS as the algorithm of a SubjectPublicKeyInfo (RFC 4055 §1.2): such a key makes no other signatures.
_PSS_OID = bytes.fromhex("06092a864886f70d01010a")

_BAD_INPUT = (InvalidSignature, UnsupportedAlgorithm, InternalError, ValueError, TypeError, OverflowError)

InThread = Callable[[Callable[[], bytes]], Awaitable[bytes]]
"""Runs a function in a thread: what the runtime lends for operations that take more than about 1 ms."""

_INLINE_RSA_BITS = 3072
"""RSA keys up to this size take about 1 ms or less: inline, as a thread hop costs 30 % more CPU."""


class _Shake:
    """SHAKE with the fixed output length that it has as a message digest (RFC 8702 §3.1)."""

    __slots__ = ("_hash", "_size")

    def __init__(self, running: Any, size: int) -> None:
        self._hash = running
        self._size = size

    def update(self, data: bytes | memoryview, /) -> None:
        self._hash.update(data)

    def digest(self) -> bytes:
        result: bytes = self._hash.digest(self._size)
        return result


def _public_der(private_key: Any) -> bytes:
    der: bytes = private_key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return der


def _named_as(private_key: bytes, public_key: bytes) -> tuple[PublicKeyFacts, bytes]:
    """What kind of key it is, and its SubjectPublicKeyInfo, by the identifier and parameters that the PKCS#8 object names.

    RFC 4055 §1.2, §3.1: a key that is named id-RSASSA-PSS makes no other signatures, and only with the parameters beside that name.
    """
    if _PSS_OID in private_key[:40]:
        try:
            algorithm = read_single(private_key, SEQUENCE, "PrivateKeyInfo").children()[1]
            public_key = writer.sequence(algorithm.encoding, read_single(public_key, SEQUENCE).children()[1].encoding)
            return public_key_facts(public_key), public_key
        except (Asn1Error, CryptoError, IndexError):
            raise PrivateKeyError("a private key for RSASSA-PSS with parameters that cannot be read") from None
    return public_key_facts(public_key), public_key


def plain_public_key(spki: bytes) -> bytes:
    """A SubjectPublicKeyInfo encoded anew: points uncompressed, RSA keys for RSASSA-PSS by rsaEncryption. Raises CryptoError."""
    der: bytes = load_public_key(spki).public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return der


def load_public_key(spki: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The key object of a SubjectPublicKeyInfo; the last few hundred are kept. Raises CryptoError for what cannot be computed with."""
    # Not kept by all the limits: to hash those costs more than to look up the key.
    return _kept_key(spki, limits.rsa_bits, limits.rsa_exponent_bits)


@lru_cache(maxsize=512)
def _kept_key(spki: bytes, most_bits: int, most_exponent_bits: int) -> Any:
    try:
        facts = public_key_facts(spki)
        # A modulus of a million bits, or an exponent as long as it, costs seconds for each signature.
        if facts.key_type in ("rsa", "rsa-pss") and (facts.bits > most_bits or facts.exponent_bits > most_exponent_bits):
            raise CryptoError(f"an RSA key of {facts.bits} bits with an exponent of {facts.exponent_bits} bits is too large")
        return serialization.load_der_public_key(spki)
    except (*_BAD_INPUT, Asn1Error):
        raise CryptoError("a public key that cannot be read") from None


def _check_rsa_size(facts: PublicKeyFacts, limits: Limits) -> None:
    if facts.bits > limits.rsa_bits:
        raise LimitExceeded("rsa_bits", f"an RSA key of {facts.bits} bits, and {limits.rsa_bits} are computed with at most")
    if facts.exponent_bits > limits.rsa_exponent_bits:
        most = limits.rsa_exponent_bits
        raise LimitExceeded(
            "rsa_exponent_bits", f"an RSA key whose exponent has {facts.exponent_bits} bits, and {most} are computed with at most"
        )


@lru_cache(maxsize=64)
def _hash_argument(mechanism: SignatureMechanism) -> Any:
    algorithm = _HASHES.get(mechanism.digest)
    if algorithm is None:
        raise CryptoError(f"{mechanism.kind} with {mechanism.digest or 'no digest'} is not possible in software")
    return utils.Prehashed(algorithm) if mechanism.prehashed else algorithm


@lru_cache(maxsize=64)
def _rsa_padding(mechanism: SignatureMechanism) -> Any:
    if mechanism.kind == "rsassa-pkcs1-v1_5":
        return padding.PKCS1v15()
    mgf = _HASHES.get(mechanism.mgf_digest)
    if mgf is None:
        raise CryptoError(f"MGF1 with {mechanism.mgf_digest or 'no digest'} is not possible in software")
    return padding.PSS(padding.MGF1(mgf), mechanism.salt_length)


@lru_cache(maxsize=64)
def _transport_padding(mechanism: TransportMechanism) -> Any:
    if mechanism.kind == "rsaes-pkcs1-v1_5":
        return padding.PKCS1v15()
    digest, mgf = _HASHES.get(mechanism.digest), _HASHES.get(mechanism.mgf_digest or mechanism.digest)
    if mechanism.kind != "rsaes-oaep" or digest is None or mgf is None:
        raise CryptoError(f"{mechanism.kind} with {mechanism.digest or 'no digest'} is not possible in software")
    return padding.OAEP(padding.MGF1(mgf), digest, mechanism.label or None)


class SoftwareBackend:
    """The `CryptoBackend` that is always there."""

    name = "software"

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits

    def hash(self, digest: str) -> Hash:
        constructor = _CONSTRUCTORS.get(digest)
        if constructor is None:
            raise CryptoError(f"digest {digest!r} is not known")
        return constructor()

    def verify(self, public_key: bytes, mechanism: SignatureMechanism, signature: bytes, data: bytes) -> bool:
        try:
            key = load_public_key(public_key, self._limits)
            kind = mechanism.kind
            if kind in ("rsassa-pkcs1-v1_5", "rsassa-pss") and isinstance(key, rsa.RSAPublicKey):
                if _PSS_OID in public_key[:32] and not public_key_facts(public_key).allows(mechanism):
                    return False
                key.verify(signature, data, _rsa_padding(mechanism), _hash_argument(mechanism))
            elif kind == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, data, ec.ECDSA(_hash_argument(mechanism)))
            elif kind == "dsa" and isinstance(key, dsa.DSAPublicKey):
                key.verify(signature, data, _hash_argument(mechanism))
            elif kind in _HASHING_INSIDE and isinstance(key, _HASHING_INSIDE[kind]) and not mechanism.prehashed:
                # These hash inside: a digest instead of the octets would be another signature.
                key.verify(signature, data)
            else:
                return False
        except (*_BAD_INPUT, CryptoError, Asn1Error):
            return False
        return True

    def check_key(self, public_key: bytes, mechanism: SignatureMechanism) -> None:
        try:
            facts = public_key_facts(public_key)
            if facts.key_type in ("rsa", "rsa-pss"):
                _check_rsa_size(facts, self._limits)
        except Asn1Error:
            raise CryptoError("a public key that cannot be read") from None
        load_public_key(public_key, self._limits)
        if mechanism.digest:
            _hash_argument(mechanism)
        if mechanism.kind == "rsassa-pss":
            _rsa_padding(mechanism)

    async def wrap(self, public_key: bytes, mechanism: TransportMechanism, content_key: bytes) -> bytes:
        key = load_public_key(public_key, self._limits)
        if not isinstance(key, rsa.RSAPublicKey):
            raise CryptoError("a content key is wrapped for RSA keys only")
        try:
            return key.encrypt(content_key, _transport_padding(mechanism))
        except _BAD_INPUT:
            raise CryptoError("the content key cannot be wrapped with this key") from None

    async def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        key = load_public_key(public_key, self._limits)
        if not isinstance(key, (mlkem.MLKEM768PublicKey, mlkem.MLKEM1024PublicKey)):
            raise CryptoError("encapsulation is for ML-KEM keys only")
        secret, ciphertext = key.encapsulate()
        return ciphertext, secret


class SoftwareKey:
    """A private key in memory, as a `KeyHandle`."""

    __slots__ = ("_facts", "_in_thread", "_key", "assigned", "bits", "certificate", "chain", "key_type", "name", "public_key")

    def __init__(
        self,
        name: str,
        private_key: bytes,
        *,
        certificate: bytes | None = None,
        chain: tuple[bytes, ...] = (),
        assigned: tuple[str, ...] = (),
        in_thread: InThread | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`private_key` is PKCS#8 DER without a pass phrase; `in_thread` runs what takes more than about 1 ms (absent: all runs inline)."""
        try:
            self._key: Any = serialization.load_der_private_key(private_key, None)
        except _BAD_INPUT:
            raise PrivateKeyError(f"the private key of {name!r} cannot be read") from None
        self.name = name
        self._facts, self.public_key = _named_as(private_key, _public_der(self._key))
        self.key_type, self.bits = self._facts.key_type, self._facts.bits
        if self.key_type in ("rsa", "rsa-pss") and self.bits > limits.rsa_bits:
            raise PrivateKeyError(f"the private key of {name!r} has {self.bits} bits, more than {limits.rsa_bits}")
        if certificate is not None and not self.belongs_to(certificate):
            # Every message that it signed would be broken, and nobody would know before its readers.
            raise PrivateKeyError(
                f"the private key of {name!r} does not belong to the certificate beside it",
                hint="import the key together with its certificate",
            )
        if certificate is not None and self.key_type == "rsa" and load_certificate(certificate).key_type == "rsa-pss":
            # RFC 4055 §1.2: a key is for RSASSA-PSS alone where its certificate says so; files with a pass phrase do not keep that.
            self.public_key = load_certificate(certificate).spki
            self._facts = public_key_facts(self.public_key)
            self.key_type = "rsa-pss"
        self.certificate = certificate
        self.chain = chain
        self.assigned = assigned
        self._in_thread = in_thread

    def __repr__(self) -> str:
        return f"<software key {self.name!r}: {self.key_type}, {self.bits} bits>"

    def __reduce__(self) -> Any:
        raise TypeError("a private key is not pickled")

    def belongs_to(self, certificate: bytes) -> bool:
        """Whether it is the key of this certificate (DER), by whatever identifier and in whatever form either of them names it."""
        try:
            return plain_public_key(load_certificate(certificate).spki) == _public_der(self._key)
        except CryptoError:
            return False

    def can(self, mechanism: SignatureMechanism | TransportMechanism | AgreementMechanism) -> bool:
        key_type = self.key_type
        if isinstance(mechanism, SignatureMechanism):
            kind = mechanism.kind
            if kind in ("rsassa-pkcs1-v1_5", "rsassa-pss"):
                fits = key_type == "rsa" or (key_type == "rsa-pss" and kind == "rsassa-pss")
                fits = fits and self._facts.allows(mechanism)
                return fits and mechanism.digest in _HASHES and (kind != "rsassa-pss" or mechanism.mgf_digest in _HASHES)
            if kind == "ecdsa":
                return key_type.startswith("ec:") and mechanism.digest in _HASHES
            return kind == key_type and not mechanism.prehashed
        if isinstance(mechanism, TransportMechanism):
            return key_type == "rsa"
        return key_type.startswith("ec:") or key_type in ("x25519", "x448")

    async def sign(self, mechanism: SignatureMechanism, data: bytes) -> bytes:
        if not self.can(mechanism):
            raise CryptoError(f"the key {self.name!r} ({self.key_type}) cannot make {mechanism.kind} signatures")
        key = self._key
        try:
            if mechanism.kind == "ecdsa":
                signature: bytes = key.sign(data, ec.ECDSA(_hash_argument(mechanism)))
            elif not mechanism.digest:
                signature = key.sign(data)
            elif self.bits > _INLINE_RSA_BITS and self._in_thread is not None:
                return await self._in_thread(lambda: key.sign(data, _rsa_padding(mechanism), _hash_argument(mechanism)))
            else:
                signature = key.sign(data, _rsa_padding(mechanism), _hash_argument(mechanism))
        except _BAD_INPUT:
            raise CryptoError(f"the key {self.name!r} cannot make this signature") from None
        return signature

    async def unwrap(self, mechanism: TransportMechanism, wrapped: bytes) -> bytes:
        key = self._key
        if not self.can(mechanism):
            raise CryptoError(f"the key {self.name!r} ({self.key_type}) unwraps nothing")
        try:
            argument = _transport_padding(mechanism)
            if self.bits > _INLINE_RSA_BITS and self._in_thread is not None:
                return await self._in_thread(lambda: key.decrypt(wrapped, argument))
            plain: bytes = key.decrypt(wrapped, argument)
        except _BAD_INPUT:
            # One error whatever was wrong (RFC 3218 §2.3.2): the caller goes on with a random key.
            raise CryptoError("the content key cannot be unwrapped") from None
        return plain

    async def agree(self, mechanism: AgreementMechanism, peer_public_key: bytes) -> bytes:
        peer = load_public_key(peer_public_key)
        if not self.can(mechanism) or public_key_facts(peer_public_key).key_type != self.key_type:
            raise CryptoError(f"the key {self.name!r} ({self.key_type}) agrees on nothing with this key")
        try:
            # On the curves of the table the cofactor is 1: with and without it are the same (RFC 5753 §3.1.1).
            if self.key_type.startswith("ec:"):
                secret: bytes = self._key.exchange(ec.ECDH(), peer)
            else:
                secret = self._key.exchange(peer)
        except _BAD_INPUT:
            raise CryptoError("no agreement with this key") from None
        return secret

    async def decapsulate(self, ciphertext: bytes) -> bytes:
        if not self.key_type.startswith("ml-kem-"):
            raise CryptoError(f"the key {self.name!r} ({self.key_type}) decapsulates nothing")
        try:
            secret: bytes = self._key.decapsulate(ciphertext)
        except _BAD_INPUT:
            raise CryptoError("the secret cannot be decapsulated") from None
        return secret
