"""What was found out about a message, and what was decided: reasons, findings, reports, verdicts.

Verdicts keep four answers apart (promise 4): intact, chains, not revoked, matches From. "trusted" is all four. Field names are those of the
command line's JSON (`docs/json.md`), and are stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import ClassVar

from mailsec.errors import Reply
from mailsec.model.octets import Octets

__all__ = [
    "CertificateSummary",
    "Decision",
    "Event",
    "Finding",
    "LayerReport",
    "LayerResult",
    "Reason",
    "Revocation",
    "SignerReport",
    "SignerResult",
    "SmimeResult",
    "SmimeWord",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an answer is not yes. `code` is stable and listed in `docs/reasons.md`; `message` names the thing; `hint` is what to do."""

    code: str
    stage: str
    """Where it was decided: "parse", "integrity", "path", "revocation", "identity", "policy", "limits", "plugin"; "delivery": the copy
    for the reader differs from what was covered, and nothing is wrong."""
    message: str
    hint: str = ""
    rfc: str = ""


class Revocation(str, Enum):
    """Status of a certificate at an instant; ordered from best to worst by `worst`."""

    GOOD = "good"
    NOT_CHECKED = "not-checked"
    UNKNOWN = "unknown"
    REVOKED = "revoked"

    @staticmethod
    def worst(*several: Revocation) -> Revocation:
        """The worst of several; NOT_CHECKED of none."""
        order = (Revocation.GOOD, Revocation.NOT_CHECKED, Revocation.UNKNOWN, Revocation.REVOKED)
        return max(several, key=order.index, default=Revocation.NOT_CHECKED)


class SmimeWord(str, Enum):
    """The result words of the `smime` method of Authentication-Results (RFC 7281 §3)."""

    PASS = "pass"  # noqa: S105 - a result word
    """Trusted."""
    FAIL = "fail"
    """Not intact."""
    POLICY = "policy"
    """Intact, but the chain, revocation, address or algorithm is not accepted."""
    NEUTRAL = "neutral"
    """Cannot be read."""
    TEMPERROR = "temperror"
    """Evidence that is needed is out of reach."""
    PERMERROR = "permerror"
    """Over a limit."""
    NONE = "none"
    """Not signed."""


@dataclass(frozen=True, slots=True)
class CertificateSummary:
    """What people are shown of a certificate."""

    subject: str
    issuer: str
    serial: str
    """Lower-case hexadecimal."""
    addresses: tuple[str, ...]
    not_before: datetime | None
    not_after: datetime | None
    fingerprint: str = ""
    """SHA-256 of the DER, lower-case hexadecimal."""


# -- what unprotect_message finds: integrity only, no trust -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignerResult:
    """One SignerInfo (RFC 5652 §5.3), checked against the octets."""

    intact: bool
    certificate: bytes | None
    """DER of the signer's certificate, if it was found in the message or given."""
    signer_id: str
    """ "issuer, serial" or "key id": for reports."""
    digest: str
    signature: str
    """A `SignatureMechanism.kind`."""
    signing_time: datetime | None
    """As the signer claims (RFC 5652 §11.3); never used as the time of verification."""
    reasons: tuple[Reason, ...] = ()
    capabilities: bytes | None = None
    """DER of the signed sMIMECapabilities (RFC 8551 §2.5.2)."""


@dataclass(frozen=True, slots=True)
class LayerResult:
    """One S/MIME layer, from the outside in."""

    type: str
    """ "signed-data", "enveloped-data", "auth-enveloped-data", "compressed-data" … (smime-type words, RFC 7114)."""
    detached: bool = False
    covers_all: bool = True
    """True where nothing readable lies beside this layer: it is the whole body of the layer around it."""
    signers: tuple[SignerResult, ...] = ()
    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    opened: bool | None = None
    """For encrypted layers: whether one of the keys opened it."""
    algorithm: str = ""
    reasons: tuple[Reason, ...] = ()
    cms: Octets | None = field(default=None, repr=False, compare=False)
    """The CMS object of the layer, its transfer encoding undone: for `mailsec smime inspect`."""


@dataclass(frozen=True, slots=True)
class SmimeResult:
    """What `smime.unprotect_message` found. Nothing in it speaks of trust."""

    signed: bool
    encrypted: bool
    layers: tuple[LayerResult, ...] = ()
    content: Octets | None = None
    """The innermost entity (header and body) that the layers cover, canonical as it was signed; None where nothing was peeled off."""
    clear: Octets | None = None
    """The whole message as the reader should get it, where a layer was removed (decrypted); None: deliver the original octets."""
    plaintext: Octets | None = field(default=None, repr=False, compare=False)
    """The content of the innermost encrypted layer that was opened, octet for octet."""
    protected_fields: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    reasons: tuple[Reason, ...] = ()


# -- what assess() makes of it: trust ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignerReport:
    """The four answers about one signer; None: does not apply or cannot be said."""

    intact: bool
    chains: bool | None
    revocation: Revocation
    matches_from: bool | None
    certificate: CertificateSummary | None
    digest: str
    signature: str
    signing_time: datetime | None
    reasons: tuple[Reason, ...] = ()
    chain: tuple[CertificateSummary, ...] = ()

    @property
    def trusted(self) -> bool:
        """All four. NOT_CHECKED stands only where somebody chose not to check."""
        return (
            self.intact
            and self.chains is True
            and self.matches_from is not False
            and self.revocation in (Revocation.GOOD, Revocation.NOT_CHECKED)
        )


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer with its signers' reports, from the outside in."""

    type: str
    signers: tuple[SignerReport, ...] = ()
    opened: bool | None = None
    algorithm: str = ""
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be believed of a message, and why not."""

    word: SmimeWord
    signed: bool
    encrypted: bool
    signature_valid: bool | None
    chain_valid: bool | None
    revocation: Revocation
    identity_match: bool | None
    trusted: bool
    layers: tuple[LayerReport, ...] = ()
    reasons: tuple[Reason, ...] = ()
    protected_headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw: a fact with a reason. Findings never decide; `decide_message` does."""

    source: str
    """The plugin that reports it; filled in by the caller."""
    code: str
    message: str
    severity: str = "info"
    """ "info", "warning", "failure" (the plugin itself failed)."""
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one group of recipients: "deliver", "refuse" (5yz or DSN), "defer" (4yz) or "hold"."""

    action: str
    reply: Reply | None = None
    reason: str = ""
    rule: str = ""

    STRICTNESS: ClassVar[tuple[str, ...]] = ("deliver", "hold", "defer", "refuse")


@dataclass(frozen=True, slots=True)
class Event:
    """One audit event: what happened to which transaction. `fields` never hold a subject, a secret, or text from inside encryption."""

    name: str
    at: datetime
    fields: Mapping[str, object] = field(default_factory=dict)
