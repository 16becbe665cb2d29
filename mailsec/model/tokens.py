"""What a PKCS#11 module shows: tokens, and the certificates and keys that lie on them. No secret is in any of these values."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailsec.model.trust import TrustFlags

__all__ = ["ModuleEntry", "TokenCertificate", "TokenInfo", "TokenKey", "TokenMechanism"]


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token in a slot (PKCS#11 §3.2, CK_TOKEN_INFO)."""

    module: str
    """The name of its `[[module]]`."""
    label: str
    """CKA label, trailing blanks removed: what stands before the colon in "HSM 1:mail-2026"."""
    serial: str
    manufacturer: str = ""
    model: str = ""
    slot: int = 0
    present: bool = True
    initialised: bool = True
    login_required: bool = True
    logged_in: bool = False
    pin_pad: bool = False
    """CKF_PROTECTED_AUTHENTICATION_PATH: the PIN is typed at the reader."""
    read_only: bool = False
    pin_state: str = ""
    """ "" (nothing wrong), "low", "final-try" or "locked" (CKF_USER_PIN_*)."""
    marked: bool = False
    """An earlier login ended without a verdict: nobody logs in until `mailsec token login`."""
    problem: str = ""
    """Why it is out of service; empty: it is not."""


@dataclass(frozen=True, slots=True)
class TokenCertificate:
    """A certificate on a token. `id` is CKA_ID: it joins certificate and key."""

    token: str
    label: str
    id: bytes
    der: bytes
    has_key: bool = False
    trust: TrustFlags = field(default_factory=TrustFlags)
    """Trust objects of an NSS database; empty elsewhere, and where they could not be checked."""
    problem: str = ""
    """Why its trust is not believed (the database was changed by something else than NSS); empty: nothing is wrong."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A private key on a token."""

    token: str
    label: str
    id: bytes
    key_type: str
    """As `KeyHandle.key_type`."""
    bits: int
    public_key: bytes = b""
    """DER of the SubjectPublicKeyInfo where it is known."""
    always_authenticate: bool = False
    extractable: bool = False


@dataclass(frozen=True, slots=True)
class TokenMechanism:
    """One row of C_GetMechanismInfo."""

    name: str
    """ "CKM_RSA_PKCS_PSS" and so on; unknown ones in hexadecimal."""
    smallest: int = 0
    largest: int = 0
    hardware: bool = False
    uses: tuple[str, ...] = ()
    """ "sign", "verify", "decrypt", "derive", "generate" …"""


@dataclass(frozen=True, slots=True)
class ModuleEntry:
    """A PKCS#11 module that the certificate database knows."""

    name: str
    library: str
    parameters: str = ""
    defaults: tuple[str, ...] = ()
    """Kinds of keys that are made on its token where no other is named: "rsa", "ec", "eddsa", "ml-dsa", "ml-kem"."""
    enabled: bool = True
    verified: bool = True
    """False where the row was not written by mailsec: its library is not loaded."""
