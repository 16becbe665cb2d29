"""A token in this process, honest until it is told otherwise, and signatures to ask it about."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from mailsec.errors import KeyUnavailable
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey, load_public_key
from mailsec.model.mechanism import SignatureMechanism
from mailsec.x509.issue import make_key

RSA, PSS = SignatureMechanism("rsassa-pkcs1-v1_5", "sha256"), SignatureMechanism("rsassa-pss", "sha256", "sha256", 32)
P256, P384 = SignatureMechanism("ecdsa", "sha256"), SignatureMechanism("ecdsa", "sha384")
_DIGESTS = {32: "sha256", 48: "sha384", 64: "sha512"}


class Token:
    """The two methods of an `interfaces.TokenHost` that are asked. `mood`: "honest", "yes", "no", "garbage", "echo", "away"."""

    def __init__(self) -> None:
        self.mood = "honest"
        self.asked = 0
        self.told: tuple[bytes, bytes] | None = None

    def encrypt(self, token, public_key, operation, data, *, seconds=None) -> bytes:
        assert operation == "CKM_RSA_X_509"
        self.told = (public_key, data)
        self._begin()
        if self.mood == "garbage":
            return os.urandom(len(data))
        if self.mood == "echo":
            return data
        numbers = load_public_key(public_key).public_numbers()
        return pow(int.from_bytes(data, "big"), numbers.e, numbers.n).to_bytes(len(data), "big")

    def verify(self, token, public_key, operation, data, signature, *, seconds=None) -> bool:
        assert operation == "CKM_ECDSA"
        self._begin()
        if self.mood in ("yes", "no"):
            return self.mood == "yes"
        half = len(signature) // 2
        der = encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
        return SoftwareBackend().verify(public_key, SignatureMechanism("ecdsa", _DIGESTS[len(data)], prehashed=True), der, data)

    def _begin(self) -> None:
        self.asked += 1
        if self.mood == "away":
            raise KeyUnavailable("the token host does not answer")


@pytest.fixture
def token() -> Token:
    return Token()


@pytest.fixture(scope="module")
def shared() -> Token:
    """One for many examples."""
    return Token()


@pytest.fixture(scope="session")
def signed() -> dict[str, SimpleNamespace]:
    """A key of each kind, and what it has signed."""
    made = {}
    for name, kind, mechanism in (
        ("rsa", "rsa-2048", RSA),
        ("pss", "rsa-2048", PSS),
        ("p256", "ec-p256", P256),
        ("p384", "ec-p384", P384),
        ("ed25519", "ed25519", SignatureMechanism("ed25519")),
    ):
        key, data = SoftwareKey(name, make_key(kind)), os.urandom(100)
        made[name] = SimpleNamespace(key=key.public_key, mechanism=mechanism, data=data, signature=run_now(key.sign(mechanism, data)))
    return made
