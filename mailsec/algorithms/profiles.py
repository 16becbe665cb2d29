"""Profiles: which algorithms we write, which we accept, and what we tell others that we can read (RFC 8551 §2.5.2).

A profile never makes a signature intact or broken; it says whether an intact one is good enough (stage "policy"). `docs/profiles.md` says
what each chooses and why. Invariant: what a profile writes, the same profile accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from mailsec.algorithms.ciphers import CIPHERS, transport_identifier
from mailsec.algorithms.table import DIGESTS
from mailsec.asn1 import writer
from mailsec.errors import CryptoError
from mailsec.interfaces import KeyHandle
from mailsec.model.mechanism import SignatureMechanism, TransportMechanism
from mailsec.model.verdict import Reason

__all__ = ["OAEP_SHA256", "PKCS1_V1_5", "PROFILES", "Profile"]

# RFC 5754 §3.3, RFC 5753 §7: the digest is about as strong as the curve.
_CURVE_DIGEST: Final = {
    "secp256r1": "sha256",
    "secp384r1": "sha384",
    "secp521r1": "sha512",
    "secp256k1": "sha256",
    "brainpoolP256r1": "sha256",
    "brainpoolP384r1": "sha384",
    "brainpoolP512r1": "sha512",
}
_NIST: Final = frozenset(("ec:secp256r1", "ec:secp384r1", "ec:secp521r1"))
_BRAINPOOL: Final = frozenset(("ec:brainpoolP256r1", "ec:brainpoolP384r1", "ec:brainpoolP512r1"))
_EDWARDS: Final = frozenset(("ed25519", "ed448"))
_ML_DSA: Final = frozenset(("ml-dsa-44", "ml-dsa-65", "ml-dsa-87"))
_ML_KEM: Final = frozenset(("ml-kem-768", "ml-kem-1024"))
_RSA: Final = frozenset(("rsa", "rsa-pss"))
_EVERY: Final = _RSA | _NIST | _BRAINPOOL | _EDWARDS | _ML_DSA | {"ec:secp256k1"}

PKCS1_V1_5: Final = TransportMechanism("rsaes-pkcs1-v1_5")
OAEP_SHA256: Final = TransportMechanism("rsaes-oaep", "sha256", "sha256")
# One object for each: what is kept by mechanism is found by identity.
_mechanism = lru_cache(maxsize=64)(SignatureMechanism)


def _capabilities(*ciphers: str) -> bytes:
    """Members of sMIMECapabilities: content ciphers that we can read, best first (RFC 8551 §2.5.2, §2.7)."""
    return b"".join(writer.sequence(writer.oid(CIPHERS[cipher].oid)) for cipher in ciphers)


@dataclass(frozen=True, slots=True)
class Profile:
    """A set of choices with a name."""

    name: str
    key_types: frozenset[str] = _EVERY
    """Keys that sign, as `KeyHandle.key_type`."""
    rsa_kind: str = "rsassa-pkcs1-v1_5"
    """How RSA keys sign: "rsassa-pkcs1-v1_5", which every reader knows, or "rsassa-pss"."""
    rsa_digest: str = "sha256"
    rsa_bits: int = 2048
    """RSA keys with fewer bits are not accepted (RFC 8551 §4.2)."""
    signing_bits: int = 2048
    """RSA keys with fewer bits do not sign."""
    digest_strength: int = 112
    """Bits of collision resistance that a digest must have."""
    mask_strength: int = 0
    """The same of the hash in MGF1, where the source of a profile asks for it. What a mask needs, also SHA-1 has (RFC 8017 §8.1, Appendix B.2)."""
    cipher: str = "aes-256-cbc"
    """How content is encrypted where nothing is known of the recipient."""
    transport: TransportMechanism = PKCS1_V1_5
    """How content keys are wrapped for RSA keys."""
    recipient_keys: frozenset[str] = frozenset()
    """Keys that are encrypted to; empty for every kind."""
    allow_legacy: bool = False
    """SHA-1, MD5, DSA and short RSA keys are accepted: for mail of long ago, never by default."""
    kem_digest: str = "sha256"
    """The hash of the key derivation for ML-KEM keys (RFC 9936 §2.2.1)."""
    ciphers_read: bytes = _capabilities("aes-256-gcm", "aes-128-gcm", "aes-256-cbc", "aes-128-cbc")
    """DER of the members of sMIMECapabilities that are content ciphers."""

    def capabilities(self, key: KeyHandle) -> bytes:
        """DER of sMIMECapabilities: what the holder of `key`, which signs, can read (RFC 8551 §2.5.2)."""
        # RFC 3560 §3, for keys that can: a token that knows OAEP with SHA-1 only could never open what it has asked for.
        oaep = key.key_type == "rsa" and self.transport == OAEP_SHA256 and key.can(OAEP_SHA256)
        return writer.sequence(self.ciphers_read, transport_identifier(OAEP_SHA256) if oaep else b"")

    def signature_for(self, key_type: str, bits: int, bound: SignatureMechanism | None = None) -> SignatureMechanism:
        """How a key of this type signs; raise CryptoError for keys that do not sign, or not under this profile.

        `bound`: the parameters within an RSASSA-PSS key, where it has some.
        """
        if key_type not in self.key_types:
            does = "under the profile" if key_type in _EVERY else ""
            raise CryptoError(f"a key of type {key_type} does not sign {does} {self.name if does else ''}".strip())
        if key_type in _RSA:
            if bits < self.signing_bits:
                raise CryptoError(
                    f"an RSA key of {bits} bits is too short to sign with", hint=f"use one of {self.signing_bits} bits or more"
                )
            if bound is not None:
                # RFC 4055 §3.3: the key's own hash and mask, and a salt at least as long as it says.
                salt = max(bound.salt_length, DIGESTS[bound.digest].size)
                mechanism = _mechanism("rsassa-pss", bound.digest, bound.mgf_digest, salt)
                refused = self.accepts(mechanism, key_type, bits)
                if refused is not None:
                    raise CryptoError(f"the key signs with its own parameters only: {refused.message}", hint="use another key")
                return mechanism
            if self.rsa_kind == "rsassa-pss" or key_type == "rsa-pss":
                # RFC 8017 §9.1, RFC 4056 §3: MGF1 with the same hash, the salt as long as the digest.
                return _mechanism("rsassa-pss", self.rsa_digest, self.rsa_digest, DIGESTS[self.rsa_digest].size)
            return _mechanism(self.rsa_kind, self.rsa_digest)
        curve = key_type.removeprefix("ec:")
        if curve in _CURVE_DIGEST:
            return _mechanism("ecdsa", _CURVE_DIGEST[curve])
        return _mechanism(key_type)

    def accepts(self, mechanism: SignatureMechanism, key_type: str, bits: int) -> Reason | None:
        """None where a signature by this mechanism and key is strong enough, else why not."""
        if "unknown:" in key_type:
            return Reason("key-unsupported", "policy", f"a key of type {key_type} is not computed with")
        if self.allow_legacy:
            return None
        if mechanism.digest and (reason := self.accepts_digest(mechanism.digest)) is not None:
            return reason
        if mechanism.mgf_digest and DIGESTS[mechanism.mgf_digest].strength < self.mask_strength:
            message = f"RSASSA-PSS with MGF1 and {mechanism.mgf_digest}, which the profile {self.name} does not accept"
            return Reason("weak-mask", "policy", message, "the sender should use one hash for both", "RFC 4055 §3.1")
        if mechanism.kind == "dsa":
            return Reason("weak-algorithm", "policy", "a DSA signature", "allow legacy algorithms to accept it", "RFC 8551 §2.2")
        if key_type in _RSA and bits < self.rsa_bits:
            return Reason("weak-key", "policy", f"an RSA key of {bits} bits", f"keys need {self.rsa_bits} bits or more", "RFC 8551 §4.2")
        if key_type.startswith("ec:") and bits < 224:
            return Reason("weak-key", "policy", f"an elliptic curve of {bits} bits", "curves need 224 bits or more", "RFC 8551 §4.2")
        if key_type not in self.key_types and self.key_types is not _EVERY:
            return Reason("key-type-not-accepted", "policy", f"a key of type {key_type}, which the profile {self.name} does not accept")
        return None

    def accepts_digest(self, name: str) -> Reason | None:
        """None where a digest is strong enough, else why not."""
        strength = DIGESTS[name].strength
        if self.allow_legacy or strength >= self.digest_strength:
            return None
        if strength:
            return Reason(
                "weak-digest", "policy", f"{name} is weaker than the profile {self.name} asks for", "the sender should use SHA-384 or more"
            )
        return Reason(
            "weak-digest",
            "policy",
            f"{name} is broken: others can make the same digest",
            "the sender should use SHA-256; allow legacy algorithms to accept it",
            "RFC 8551 §2.1",
        )


_PROFILES = (
    Profile("default"),
    # Programs of twenty years: nothing newer than AES-128-CBC and PKCS #1 v1.5.
    Profile("compatible", cipher="aes-128-cbc", ciphers_read=_capabilities("aes-128-cbc", "aes-256-cbc")),
    Profile("pss", rsa_kind="rsassa-pss", transport=OAEP_SHA256),
    # The rules of the German energy market for mail: RSASSA-PSS, RSAES-OAEP, AES-128-GCM.
    Profile(
        "edi-energy",
        rsa_kind="rsassa-pss",
        mask_strength=128,
        cipher="aes-128-gcm",
        transport=OAEP_SHA256,
        ciphers_read=_capabilities("aes-128-gcm", "aes-256-gcm", "aes-128-cbc"),
    ),
    # BSI TR-02102-1: RSA from 3000 bits with PSS and OAEP, curves from 250 bits, AES in GCM.
    Profile(
        "bsi-tr-02102",
        key_types=_RSA | _NIST | _BRAINPOOL | {"ml-dsa-65", "ml-dsa-87"},
        rsa_kind="rsassa-pss",
        mask_strength=128,
        rsa_bits=3000,
        signing_bits=3000,
        digest_strength=128,
        recipient_keys=frozenset({"rsa"}) | _NIST | _BRAINPOOL | _ML_KEM,
        cipher="aes-256-gcm",
        transport=OAEP_SHA256,
        ciphers_read=_capabilities("aes-256-gcm", "aes-128-gcm"),
    ),
    # FIPS 186-5, FIPS 204, SP 800-131A: no brainpool curves. The algorithms only: this build is no validated module.
    Profile(
        "fips-algorithms",
        key_types=_RSA | _NIST | _EDWARDS | _ML_DSA,
        rsa_kind="rsassa-pss",
        mask_strength=112,
        transport=OAEP_SHA256,
        recipient_keys=frozenset({"rsa"}) | _NIST | _ML_KEM,
        cipher="aes-256-gcm",
    ),
    # CNSA 2.0: ML-DSA-87, ML-KEM-1024, AES-256, SHA-384 and up.
    Profile(
        "cnsa2",
        key_types=frozenset(("ml-dsa-87",)),
        digest_strength=192,
        recipient_keys=frozenset(("ml-kem-1024",)),
        kem_digest="sha384",
        cipher="aes-256-gcm",
        transport=OAEP_SHA256,
        ciphers_read=_capabilities("aes-256-gcm"),
    ),
    Profile("legacy", rsa_bits=512, digest_strength=0, allow_legacy=True),
)
PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _PROFILES})
"""Every profile by name. "legacy" accepts what is broken; it writes what "default" writes."""
