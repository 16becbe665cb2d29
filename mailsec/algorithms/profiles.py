"""Profiles: which algorithms we write, which we accept, and what we tell others that we can read (RFC 8551 §2.5.2).

A profile never makes a signature intact or broken; it says whether an intact one is good enough (stage "policy"). Invariant: what a
profile writes, the same profile accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mailsec.algorithms.table import DIGESTS
from mailsec.asn1 import writer
from mailsec.errors import CryptoError
from mailsec.model.mechanism import SignatureMechanism
from mailsec.model.verdict import Reason

__all__ = ["PROFILES", "Profile"]

# RFC 5754 §3.3, RFC 5753 §7: the digest is about as strong as the curve.
_CURVE_DIGEST = {
    "secp256r1": "sha256",
    "secp384r1": "sha384",
    "secp521r1": "sha512",
    "secp256k1": "sha256",
    "brainpoolP256r1": "sha256",
    "brainpoolP384r1": "sha384",
    "brainpoolP512r1": "sha512",
}

# RFC 8551 §2.5.2: what we can read, best first. AES-256-GCM, AES-128-GCM, AES-256-CBC and AES-128-CBC (RFC 8551 §2.7).
_CAPABILITIES = writer.sequence(
    *(
        writer.sequence(writer.oid(oid))
        for oid in ("2.16.840.1.101.3.4.1.46", "2.16.840.1.101.3.4.1.6", "2.16.840.1.101.3.4.1.42", "2.16.840.1.101.3.4.1.2")
    )
)


@dataclass(frozen=True, slots=True)
class Profile:
    """A set of choices with a name."""

    name: str
    rsa_kind: str = "rsassa-pkcs1-v1_5"
    """How RSA keys sign: "rsassa-pkcs1-v1_5", which every reader knows, or "rsassa-pss"."""
    rsa_digest: str = "sha256"
    rsa_bits: int = 2048
    """RSA keys with fewer bits are not accepted (RFC 8551 §4.2)."""
    digest_strength: int = 112
    """Bits of collision resistance that a digest must have."""
    allow_legacy: bool = False
    """SHA-1, MD5, DSA and short RSA keys are accepted: for mail of long ago, never by default."""
    capabilities: bytes = _CAPABILITIES
    """DER of sMIMECapabilities."""

    def signature_for(self, key_type: str, bits: int) -> SignatureMechanism:
        """How a key of this type signs; raise CryptoError for keys that do not sign or are too short."""
        if key_type in ("rsa", "rsa-pss"):
            if bits < self.rsa_bits:
                raise CryptoError(f"an RSA key of {bits} bits is too short to sign with", hint=f"use one of {self.rsa_bits} bits or more")
            if self.rsa_kind == "rsassa-pss" or key_type == "rsa-pss":
                # RFC 8017 §9.1, RFC 4056 §3: MGF1 with the same hash, the salt as long as the digest.
                return SignatureMechanism("rsassa-pss", self.rsa_digest, self.rsa_digest, DIGESTS[self.rsa_digest].size)
            return SignatureMechanism(self.rsa_kind, self.rsa_digest)
        curve = key_type.removeprefix("ec:")
        if curve in _CURVE_DIGEST:
            return SignatureMechanism("ecdsa", _CURVE_DIGEST[curve])
        if key_type in ("ed25519", "ed448", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"):
            return SignatureMechanism(key_type)
        raise CryptoError(f"a key of type {key_type} does not sign")

    def accepts(self, mechanism: SignatureMechanism, key_type: str, bits: int) -> Reason | None:
        """None where a signature by this mechanism and key is strong enough, else why not."""
        if self.allow_legacy:
            return None
        for name in {mechanism.digest, mechanism.mgf_digest}:
            reason = self.accepts_digest(name) if name else None
            if reason is not None:
                return reason
        if mechanism.kind == "dsa":
            return Reason("weak-algorithm", "policy", "a DSA signature", "allow legacy algorithms to accept it", "RFC 8551 §2.2")
        if key_type in ("rsa", "rsa-pss") and bits < self.rsa_bits:
            return Reason("weak-key", "policy", f"an RSA key of {bits} bits", f"keys need {self.rsa_bits} bits or more", "RFC 8551 §4.2")
        if key_type.startswith("ec:") and bits < 224:
            return Reason("weak-key", "policy", f"an elliptic curve of {bits} bits", "curves need 224 bits or more", "RFC 8551 §4.2")
        return None

    def accepts_digest(self, name: str) -> Reason | None:
        """None where a digest is strong enough, else why not."""
        if self.allow_legacy or DIGESTS[name].strength >= self.digest_strength:
            return None
        return Reason(
            "weak-digest",
            "policy",
            f"{name} is broken: others can make the same digest",
            "the sender should use SHA-256; allow legacy algorithms to accept it",
            "RFC 8551 §2.1",
        )


_PROFILES = (
    Profile("default"),
    Profile("pss", rsa_kind="rsassa-pss"),
    Profile("legacy", rsa_bits=512, digest_strength=0, allow_legacy=True),
)
PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _PROFILES})
"""Every profile by name. "legacy" is for reading."""
