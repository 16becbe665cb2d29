"""What a token is asked about one signature, and what its answer proves.

The one invariant: of RSA, "yes" is our own conclusion: the token raises the signature to the public exponent, and we compare the result with
what must stand there, which the token was not told. Of ECDSA, "yes" is the token's word.
"""

from __future__ import annotations

from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mailsec.errors import CryptoError
from mailsec.interfaces import CryptoBackend, TokenHost
from mailsec.keys.mechanism import digest_info, ecdsa_concatenated, ecdsa_sequence
from mailsec.keys.raw_rsa import pad_signature
from mailsec.keys.software import load_public_key
from mailsec.model.mechanism import SignatureMechanism

__all__ = ["CURVES", "Question", "question"]

CURVES: Final = {"secp256r1": "sha256", "secp384r1": "sha384", "secp521r1": "sha512"}
"""Curves that tokens compute with, and the digest that goes with each."""
_RSA_OID: Final = bytes.fromhex("06092a864886f70d010101")


class Question(Protocol):
    """One signature, ready to be asked about."""

    kind: str
    """ "rsa" or "ec:CURVE": what is tested, trusted and left out on its own."""
    proven: bool
    """True where a yes needs no trust."""

    def ask(self, host: TokenHost, token: str, seconds: float) -> bool: ...


class _Rsa:
    kind = "rsa"
    proven = True

    def __init__(self, public_key: bytes, signature: bytes, expected: bytes) -> None:
        self._public_key = public_key
        self._signature = signature
        self._expected = expected

    def ask(self, host: TokenHost, token: str, seconds: float) -> bool:
        # RFC 8017 §8.2.2: the whole encoded message is compared, nothing of it is parsed (CVE-2006-4339).
        raised = host.encrypt(token, self._public_key, "CKM_RSA_X_509", self._signature, seconds=seconds)
        return raised.rjust(len(self._expected), b"\0") == self._expected


class _Ecdsa:
    proven = False

    def __init__(self, kind: str, public_key: bytes, signature: bytes, digest: bytes) -> None:
        self.kind = kind
        self._public_key = public_key
        self._signature = signature
        self._digest = digest

    def ask(self, host: TokenHost, token: str, seconds: float) -> bool:
        return host.verify(token, self._public_key, "CKM_ECDSA", self._digest, self._signature, seconds=seconds)


def question(public_key: bytes, mechanism: SignatureMechanism, signature: bytes, data: bytes, software: CryptoBackend) -> Question | None:
    """What a token can be asked about this signature; None where only software can say, as it does for all that is odd."""
    if mechanism.kind not in ("rsassa-pkcs1-v1_5", "ecdsa"):
        return None
    try:
        key = load_public_key(public_key)
        digest = data
        if not mechanism.prehashed:
            running = software.hash(mechanism.digest)
            running.update(data)
            digest = running.digest()
        if mechanism.kind == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
            size = (key.key_size + 7) // 8
            # PKCS #11 v3.1 §6.3.6: what is longer than the order is cut; tokens differ in how.
            if len(digest) > size:
                return None
            concatenated = ecdsa_concatenated(signature, size)
            # Another encoding of the same numbers is another signature: software says what of it is taken.
            if ecdsa_sequence(concatenated) != signature:
                return None
            return _Ecdsa(f"ec:{key.curve.name}", public_key, concatenated, digest)
        if mechanism.kind == "rsassa-pkcs1-v1_5" and isinstance(key, rsa.RSAPublicKey) and _RSA_OID in public_key[:32]:
            size = (key.key_size + 7) // 8
            # RFC 8017 §8.2.2 step 1, §5.2.2 step 1.
            if len(signature) != size or int.from_bytes(signature, "big") >= key.public_numbers().n:
                return None
            info = digest_info(mechanism.digest, digest)
            expected = pad_signature(mechanism, digest, info, key.key_size, software.hash, _no_random)
            return _Rsa(public_key, signature, expected)
    except (CryptoError, KeyError, ValueError):
        pass
    return None


def _no_random(octets: int) -> bytes:
    raise CryptoError("this padding draws nothing")
