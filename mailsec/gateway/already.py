"""What a message is already when it comes in to be sent: signed by its author, encrypted. Neither is done again.

The one invariant: whatever is not certainly so counts as not so. A broken signature, or a stranger's, must not keep ours away, and what is
only labelled as encrypted is encrypted.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailsec.errors import InputError, LimitExceeded
from mailsec.gateway.tools import Tools
from mailsec.model.message import Message
from mailsec.model.verdict import Verdict
from mailsec.smime.encrypted import is_encrypted

__all__ = ["Already", "already_protected"]

_LABELS = ("multipart/signed", "pkcs7", ".p7m", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Already:
    """Both are about the outermost layers."""

    signed: bool = False
    """An intact signature of a certificate that names the From address."""
    encrypted: bool = False
    """Encrypted in the words of promise 2 (`smime.encrypted`)."""


NOT_YET = Already()


async def already_protected(tools: Tools, message: Message) -> Already:
    """Look at the layers, without any key."""
    kind = (message.first("content-type") or "").lower()
    if not any(label in kind for label in _LABELS):
        return NOT_YET
    try:
        result = await tools.engine.unprotect(message, ())
        verdict = await tools.evidence.judge(result, message, revocation=False)
        signed = _is_signed_by_author(verdict) and result.layers[0].covers_all
        if not result.encrypted:
            return Already(signed)
        if len(message) <= tools.limits.bulk_threshold:
            return Already(signed, is_encrypted(message, result, tools.limits))
        return Already(signed, await tools.runtime.in_thread(is_encrypted, message, result, tools.limits, lane="bulk"))
    except (InputError, LimitExceeded):
        return NOT_YET


def _is_signed_by_author(verdict: Verdict) -> bool:
    """Whether it chains is for readers to say: what somebody's own program has signed is not ours to sign over."""
    if not verdict.layers:
        return False
    outermost = verdict.layers[0]
    return (
        outermost.type == "signed-data"
        and bool(outermost.signers)
        and all(signer.intact and signer.matches_from is True for signer in outermost.signers)
    )
