"""What is to be done to an outgoing message for one recipient, and what was available to choose from."""

from __future__ import annotations

from dataclasses import dataclass

from mailsec.model.address import Address
from mailsec.model.partner import NOTHING_AGREED, PartnerSettings
from mailsec.model.verdict import Reason

__all__ = ["Candidates", "EncryptionRecipient", "ProtectionPlan"]


@dataclass(frozen=True, slots=True)
class ProtectionPlan:
    """How a message is protected. Recipients with equal plans share one copy, unless it is encrypted and they are hidden.

    `signer` and `recipients` are references (names of key handles, SHA-256 of certificates): plans compare, and hold no secret.
    """

    sign: bool = False
    encrypt: bool = False
    signer: str = ""
    """The reference of the key handle that signs: `KeyHandle.name`."""
    form: str = "detached"
    """ "detached" (multipart/signed, RFC 8551 §3.5.3) or "opaque" (application/pkcs7-mime, §3.5.2)."""
    wrap: str = "sign"
    """Where it is encrypted, too: "sign" (signed, then encrypted) or "triple" (and signed once more around that, RFC 2634 §1.1)."""
    compress: bool = False
    """Compressed inside the encryption (RFC 8551 §3.6)."""
    header_protection: str = "no"
    """ "no"; "sign", "baseline" or "shy": RFC 9788 with hcp_no_confidentiality, hcp_baseline or hcp_shy."""
    profile: str = "default"
    recipients: tuple[str, ...] = ()
    refusal: Reason | None = None
    """Why something that is required cannot be done; the plan's other fields then mean nothing."""
    failure: str = "refuse"
    """What happens on a refusal: "refuse" or "hold"."""
    wait: str = ""
    """A need ("token:HSM 1"): the message waits as `raw` until it is met."""
    rule: str = ""
    """The rule that chose this, for logs and `explain`."""

    def stricter_than(self, other: ProtectionPlan) -> bool:
        """True where this plan may replace `other`: it drops no signature, encryption, refusal or wait of it (promise 7)."""
        return (
            (self.sign or not other.sign or self.refusal is not None)
            and (self.encrypt or not other.encrypt or self.refusal is not None)
            and (self.refusal is not None or other.refusal is None)
            and (bool(self.wait) or not other.wait or self.refusal is not None)
        )


@dataclass(frozen=True, slots=True)
class EncryptionRecipient:
    """Somebody to encrypt to: a certificate, and what its holder is known to read."""

    certificate: bytes
    """DER."""
    capabilities: bytes | None = None
    """DER of the sMIMECapabilities that the holder signed last (RFC 8551 §2.5.2); None where none are known."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is at hand for one recipient: keys that may sign for the sender, certificates that may be encrypted to."""

    sender: Address | None
    recipient: Address
    signers: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    already_signed: bool = False
    """The outermost signature is intact and matches From: it is not signed again."""
    already_encrypted: bool = False
    missing: tuple[Reason, ...] = ()
    wait: str = ""
    """A need ("token:HSM 1") that stands between the sender and a signing key: it may be met later, without anybody writing again."""
    encryption_wait: str = ""
    """A need ("directory", "evidence") that stands between us and a certificate of the recipient."""
    partner: PartnerSettings = NOTHING_AGREED
    """What is agreed with the recipient."""
    own_certificates: tuple[str, ...] = ()
    """Certificates of the sender, where a copy is to be readable by the sender, too."""
