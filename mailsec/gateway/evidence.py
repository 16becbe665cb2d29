"""What a verdict rests on: anchors, what is distrusted, and the instant. Revocation is not asked for yet, and verdicts say so ("not-checked").

The one invariant: evidence is brought, never judged here; `Engine.assess` judges, at the instant that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mailsec.errors import InputError, LimitExceeded
from mailsec.gateway.engine import Engine
from mailsec.interfaces import KeyHandle, RevocationSource, Runtime
from mailsec.model.message import Message
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Reason, Revocation, SmimeResult, SmimeWord, Verdict

__all__ = ["EvidenceDesk", "TrustStore"]


_UNSIGNED = Verdict(SmimeWord.NONE, False, False, None, None, Revocation.NOT_CHECKED, None, False)


class TrustStore(Protocol):
    """Where anchors and known certificates are: the certificate database, with its cache."""

    async def anchors(self, purpose: str = "email") -> Sequence[Anchor]:
        """Anchors for `purpose`; raise Unavailable or StoreError where that cannot be said now."""
        ...

    async def distrusted(self, purpose: str = "email") -> Sequence[bytes]:
        """Certificates (DER) that no path may hold."""
        ...

    async def authorities(self) -> Sequence[bytes]:
        """Certificates (DER) of authorities at hand, for senders who leave theirs out; being here makes none of them believed."""
        ...


class EvidenceDesk:
    """Gathers evidence and has it judged."""

    def __init__(self, engine: Engine, runtime: Runtime, trust: TrustStore | None, sources: Sequence[RevocationSource] = ()) -> None:
        self.sources = tuple(sources)
        self._engine = engine
        self._runtime = runtime
        self._trust = trust

    async def judge(self, result: SmimeResult, message: Message) -> Verdict:
        """The verdict on what `unprotect` showed. A message without any layer costs nothing."""
        if not result.layers and not result.reasons:
            return _UNSIGNED
        if not result.signed or self._trust is None:
            return self._engine.assess(result, message, (), (), self._runtime.now())
        anchors = await self._trust.anchors()
        distrusted = await self._trust.distrusted()
        authorities = await self._trust.authorities()
        return self._engine.assess(result, message, anchors, distrusted, self._runtime.now(), authorities=authorities)

    async def examine(self, message: Message, keys: Sequence[KeyHandle]) -> tuple[SmimeResult, Verdict]:
        """Unprotect and judge; what cannot be read or is over a limit gets the word that says so, and is delivered with it."""
        try:
            result = await self._engine.unprotect(message, keys)
            return result, await self.judge(result, message)
        except LimitExceeded as error:
            reason = Reason(f"limit-{error.limit.replace('_', '-')}", "limits", error.message, hint=error.hint)
            word = SmimeWord.PERMERROR
        except InputError as error:
            reason = Reason("unreadable", "parse", error.message, hint=error.hint)
            word = SmimeWord.NEUTRAL
        unread = SmimeResult(signed=False, encrypted=False, reasons=(reason,))
        return unread, Verdict(word, False, False, None, None, Revocation.NOT_CHECKED, None, False, reasons=(reason,))
