"""Mechanisms: what a key is asked to do, as frozen values that key handles, backends and CMS share.

Names are the standards' own. `algorithms` maps them to object identifiers and says which may be read and written.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AgreementMechanism", "SignatureMechanism", "TransportMechanism"]


@dataclass(frozen=True, slots=True)
class SignatureMechanism:
    """How to sign or verify.

    `kind` is "rsassa-pkcs1-v1_5", "rsassa-pss" (RFC 8017 §8), "ecdsa" (FIPS 186-5), "dsa", "ed25519", "ed448" (RFC 8032), "ml-dsa-44",
    "ml-dsa-65" or "ml-dsa-87" (FIPS 204). `digest` is a lower-case name ("sha256"), empty for kinds that hash inside.
    """

    kind: str
    digest: str = ""
    mgf_digest: str = ""
    """PSS: the hash of MGF1."""
    salt_length: int = 0
    """PSS: octets of salt."""
    prehashed: bool = False
    """True where the operation takes a digest instead of octets (tokens; `CryptoBackend.verify` of streamed content)."""


@dataclass(frozen=True, slots=True)
class TransportMechanism:
    """How a content key is wrapped for an RSA key: "rsaes-pkcs1-v1_5" or "rsaes-oaep" (RFC 8017 §7) with its hashes and label."""

    kind: str
    digest: str = ""
    mgf_digest: str = ""
    label: bytes = b""


@dataclass(frozen=True, slots=True)
class AgreementMechanism:
    """Raw key agreement: "ecdh" (RFC 5753; also X25519 and X448, RFC 8418). The KDF is done by the caller."""

    kind: str = "ecdh"
    cofactor: bool = False
