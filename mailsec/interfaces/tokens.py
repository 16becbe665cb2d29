"""A PKCS#11 module, as those see it who manage what lies on its tokens. Keys are used through `KeyHandle`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mailsec.model.tokens import TokenCertificate, TokenInfo, TokenKey, TokenMechanism
from mailsec.model.trust import TrustFlags

__all__ = ["TokenHost"]


class TokenHost(Protocol):
    """One loaded PKCS#11 module: in the process of a command, or in a token host behind a socket.

    A token host for mail does the raw operations and lists what there is; what changes a token is refused there and done by commands.

    Blocking: call it through a thread, or from a command; one question at a time. `token` is a label, "" where the module has one token
    only, or a label and a serial as a PKCS#11 URI where two tokens have one label. Errors: KeyUnavailable (`stage` "token:LABEL"; come
    back), TokenError.
    """

    name: str

    def tokens(self) -> Sequence[TokenInfo]: ...

    def mechanisms(self, token: str) -> Sequence[TokenMechanism]: ...

    def login(self, token: str, pin: bytes | None) -> None:
        """Log in; None: at the reader's pin pad. Raise TokenError where a mark stands, or the PIN is not right: it is never tried twice."""
        ...

    def certificates(self, token: str) -> Sequence[TokenCertificate]: ...

    def keys(self, token: str) -> Sequence[TokenKey]: ...

    def sign(self, token: str, key_id: bytes, operation: str, data: bytes) -> bytes:
        """The raw operation of `keys.mechanism` ("CKM_RSA_PKCS_PSS:sha256:32" …) over data that is already prepared for it."""
        ...

    def decrypt(self, token: str, key_id: bytes, operation: str, data: bytes) -> bytes:
        """The raw operation ("CKM_RSA_PKCS", "CKM_RSA_PKCS_OAEP:sha256:sha256" …) over a wrapped key. CryptoError whatever is wrong with it."""
        ...

    def derive(self, token: str, key_id: bytes, operation: str, point: bytes) -> bytes:
        """The shared secret with a peer's public point ("CKM_ECDH1_DERIVE"), without KDF."""
        ...

    def decapsulate(self, token: str, key_id: bytes, operation: str, ciphertext: bytes) -> bytes:
        """The shared secret in a ciphertext of a KEM ("CKM_ML_KEM"); CryptoError whatever is wrong with it."""
        ...

    def encrypt(self, token: str, public_key: bytes, operation: str, data: bytes, *, seconds: float | None = None) -> bytes:
        """The raw operation ("CKM_RSA_X_509") with a public key (SubjectPublicKeyInfo) that is not on the token; nobody need be logged in.

        A host behind a socket is waited for no longer than `seconds`; then KeyUnavailable.
        """
        ...

    def verify(self, token: str, public_key: bytes, operation: str, data: bytes, signature: bytes, *, seconds: float | None = None) -> bool:
        """What the token says of a raw signature ("CKM_ECDSA": r and s over a digest) by such a key."""
        ...

    def generate_key(self, token: str, kind: str, label: str) -> TokenKey:
        """Make a key pair there; `kind` as in `mailsec key generate` ("rsa-3072", "p256", "ed25519", "ml-dsa-65", "ml-kem-768")."""
        ...

    def import_certificate(self, token: str, der: bytes, label: str) -> TokenCertificate: ...

    def import_key(self, token: str, private_key: bytes, label: str) -> TokenKey:
        """Put a key (PKCS#8 DER) there, with its public key object."""
        ...

    def export_key(self, token: str, key_id: bytes) -> bytes:
        """PKCS#8 DER of a private key that the token gives away (NSS's does); TokenError for one that stays there."""
        ...

    def set_pin(self, token: str, old: bytes | None, new: bytes | None) -> None:
        """Change the PIN of whoever uses the token; None: at the reader's pin pad."""
        ...

    def set_trust(self, token: str, der: bytes, trust: TrustFlags) -> None:
        """Trust of a certificate in an NSS database; TokenError for a token that keeps none."""
        ...

    def rename(self, token: str, der: bytes, label: str) -> None: ...

    def delete_certificate(self, token: str, der: bytes) -> None: ...

    def delete_key(self, token: str, key_id: bytes) -> None: ...

    def revocation_lists(self, token: str) -> Sequence[bytes]:
        """DER of the lists in an NSS database; none elsewhere."""
        ...

    def import_revocation_list(self, token: str, der: bytes, url: str = "") -> None:
        """Put a list into an NSS database in the place of older ones of its issuer; TokenError for a token that keeps none.

        `url` is where it came from.
        """
        ...

    def revocation_list_url(self, token: str, der: bytes) -> str:
        """Where a list in an NSS database came from; empty where nobody said so."""
        ...

    def delete_revocation_list(self, token: str, der: bytes) -> None: ...
