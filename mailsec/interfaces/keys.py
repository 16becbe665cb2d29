"""Private keys that can be used and not seen, and the engines that compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mailsec.model.address import Address
from mailsec.model.mechanism import AgreementMechanism, SignatureMechanism, TransportMechanism

__all__ = ["CryptoBackend", "Hash", "KeyHandle", "KeyStore"]


class Hash(Protocol):
    """A running digest."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class KeyHandle(Protocol):
    """A private key that can be used and not seen: software, token host, or another backend.

    `sign` takes the octets to be signed, not a digest, unless `mechanism.prehashed` (EdDSA and ML-DSA hash inside). A handle
    whose operations take less than about 1 ms returns without suspending. Errors: KeyUnavailable (come back), CryptoError.
    """

    @property
    def name(self) -> str:
        """How logs and plans call it: "mail-2026", "HSM 1:mail-2026"."""
        ...

    @property
    def key_type(self) -> str:
        """ "rsa", "ec:secp256r1", "ed25519", "x25519", "ml-dsa-65", "ml-kem-768" …"""
        ...

    @property
    def bits(self) -> int: ...

    @property
    def certificate(self) -> bytes | None: ...

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Certificates of its issuers, nearest first, as far as they are known; the anchor itself is left out."""
        ...

    @property
    def assigned(self) -> tuple[str, ...]:
        """Patterns of the addresses that it signs and opens for (promise 8); the certificate's own where nobody assigned any."""
        ...

    def can(self, mechanism: SignatureMechanism | TransportMechanism | AgreementMechanism) -> bool: ...

    async def sign(self, mechanism: SignatureMechanism, data: bytes) -> bytes:
        """The signature value as CMS carries it (ECDSA as DER Ecdsa-Sig-Value)."""
        ...

    async def unwrap(self, mechanism: TransportMechanism, wrapped: bytes) -> bytes: ...

    async def agree(self, mechanism: AgreementMechanism, peer_public_key: bytes) -> bytes:
        """The raw shared secret with the peer's SubjectPublicKeyInfo."""
        ...

    async def decapsulate(self, ciphertext: bytes) -> bytes: ...


class CryptoBackend(Protocol):
    """An engine for public-key and bulk operations. Verification and digests are synchronous; what may wait is async."""

    name: str

    def hash(self, digest: str) -> Hash:
        """A running digest; raise CryptoError for one it does not know."""
        ...

    def verify(self, public_key: bytes, mechanism: SignatureMechanism, signature: bytes, data: bytes) -> bool:
        """Check `signature` over `data` (a digest where `mechanism.prehashed`) with a SubjectPublicKeyInfo. Never raises for bad input."""
        ...

    def check_key(self, public_key: bytes, mechanism: SignatureMechanism) -> None:
        """Asked where `verify` said no: raise CryptoError where this key or mechanism is none that it computes with, so that nobody knows.

        Raises LimitExceeded for a key that would cost too much. Returning means that the signature is wrong.
        """
        ...

    async def wrap(self, public_key: bytes, mechanism: TransportMechanism, content_key: bytes) -> bytes: ...

    async def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        """(ciphertext, shared secret) of a KEM (RFC 9629)."""
        ...


class KeyStore(Protocol):
    """Where private keys are: the database, a token host, a remote signer."""

    name: str

    async def key(self, reference: str) -> KeyHandle | None:
        """The key called `reference` (a nickname, "token:nickname", a PKCS#11 URI); None where it is not ours."""
        ...

    async def keys_for(self, address: Address, usage: str) -> Sequence[KeyHandle]:
        """Keys assigned to `address` for `usage` ("sign", "decrypt"), best first; expired ones only for "decrypt"."""
        ...
