"""What is to be done to an outgoing message for one recipient, and what was available to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mailsec.model.address import Address
from mailsec.model.partner import NOTHING_AGREED, PartnerSettings
from mailsec.model.verdict import Reason

__all__ = ["HEADER_PROTECTIONS", "Candidates", "EncryptionRecipient", "ProtectionPlan"]


HEADER_PROTECTIONS = ("no", "sign", "baseline", "shy")
"""What `header_protection` may be, from the least to the most that is kept inside."""


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
    levels: tuple[tuple[str, str, str], ...] = field(default=(), compare=False)
    """For `explain`: each setting with its value and the level that gave it: ("encrypt", "required", 'rule "all"')."""

    def stricter_than(self, other: ProtectionPlan) -> bool:
        """True where this plan may replace `other`: it drops no signature, encryption, refusal or wait of it (promise 7)."""
        return (
            (self.sign or not other.sign or self.refusal is not None)
            and (self.encrypt or not other.encrypt or self.refusal is not None)
            and (self.refusal is not None or other.refusal is None)
            and (bool(self.wait) or not other.wait or self.refusal is not None)
            and (self.refusal is not None or not other.encrypt or self._hides_as_much_as(other))
        )

    def _hides_as_much_as(self, other: ProtectionPlan) -> bool:
        """Of two that encrypt: the same algorithms, no signature around less, no field outside that the other keeps inside."""
        return (
            self.profile == other.profile
            and (self.wrap == other.wrap or other.wrap == "sign")
            and HEADER_PROTECTIONS.index(self.header_protection) >= HEADER_PROTECTIONS.index(other.header_protection)
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
    """A need ("directory", "evidence") that stands between us and a certificate of the recipient.

    Certificates are looked up where a plan wants to encrypt, or to wait for this need; it is then chosen again with what was found.
    """
    partner: PartnerSettings = NOTHING_AGREED
    """What is agreed with the recipient."""
    own_certificates: tuple[str, ...] = ()
    """Certificates of the sender, where a copy is to be readable by the sender, too."""
    profiles: Mapping[str, frozenset[str]] = field(default_factory=dict, compare=False)
    """For each certificate here the names of the profiles that allow to encrypt with it; one that is not named fits all."""

    def fitting(self, profile: str, *, own: bool = False) -> tuple[str, ...]:
        """The certificates of the recipient (`own`: of the sender) that `profile` allows."""
        certificates = self.own_certificates if own else self.certificates
        return tuple(one for one in certificates if one not in self.profiles or profile in self.profiles[one])
