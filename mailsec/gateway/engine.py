"""What the two paths ask of S/MIME: protect, unprotect, assess. `SmimeEngine` binds the cores of `mailsec.smime` to a backend and a runtime.

The one invariant: nothing here decides. Plans come from `choose_protection`, verdicts from `assess`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from mailsec.interfaces import KeyHandle
from mailsec.model.message import Message
from mailsec.model.octets import Segments
from mailsec.model.protection import ProtectionPlan
from mailsec.model.trust import Anchor
from mailsec.model.verdict import SmimeResult, Verdict

__all__ = ["Engine"]


class Engine(Protocol):
    """S/MIME, as the gateway uses it."""

    async def protect(self, message: Message, plan: ProtectionPlan, signers: Sequence[KeyHandle], at: datetime) -> Segments:
        """The message as `plan` wants it: awaits first, octets later. Raise KeyUnavailable, CryptoError, InputError, LimitExceeded."""
        ...

    async def unprotect(self, message: Message, keys: Sequence[KeyHandle]) -> SmimeResult:
        """What the S/MIME layers show; integrity, no trust."""
        ...

    def assess(
        self, result: SmimeResult, message: Message, anchors: Sequence[Anchor], distrusted: Sequence[bytes], at: datetime
    ) -> Verdict:
        """The four answers (promise 4)."""
        ...

    def results(self, authserv_id: str, verdict: Verdict) -> str:
        """The value of the Authentication-Results field that tells the verdict (RFC 8601, RFC 7281)."""
        ...
