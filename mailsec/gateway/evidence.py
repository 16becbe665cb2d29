"""What a verdict rests on: anchors, what is distrusted, whether certificates were revoked, and the instant.

The one invariant: evidence is brought, never judged here; `Engine.assess` judges, at the instant that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

from mailsec.errors import InputError, LimitExceeded
from mailsec.gateway.engine import NO_REVOCATION, Engine
from mailsec.gateway.inquiry import EvidenceCache, Inquiries, Inquiry
from mailsec.gateway.keyring import Signers
from mailsec.gateway.own_keys import OwnKeys
from mailsec.interfaces import KeyHandle, RevocationSource, Runtime
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message
from mailsec.model.settings import RevocationSettings
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Event, Reason, Revocation, SmimeResult, SmimeWord, Verdict
from mailsec.pki.path import PathResult

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

    def __init__(
        self,
        engine: Engine,
        runtime: Runtime,
        trust: TrustStore | None,
        sources: Sequence[RevocationSource] = (),
        *,
        revocation: RevocationSettings = NO_REVOCATION,
        limits: Limits = DEFAULT_LIMITS,
        cache: EvidenceCache | None = None,
        alarm: Callable[[Event], None] | None = None,
    ) -> None:
        self._engine = engine
        self._runtime = runtime
        self._trust = trust
        self._checks = revocation.mode != "off" and trust is not None
        self._grace = timedelta(days=revocation.grace_days)
        self._inquiries = Inquiries(runtime, sources, revocation, limits, cache)
        self._own = OwnKeys(runtime, self._status, alarm)

    @property
    def inquiries(self) -> Inquiries:
        """Who asks for evidence, for others who judge."""
        return self._inquiries

    @property
    def sources(self) -> tuple[RevocationSource, ...]:
        """The sources in the order in which they are asked."""
        return self._inquiries.sources

    async def judge(self, result: SmimeResult, message: Message, *, revocation: bool = True) -> Verdict:
        """The verdict on what `unprotect` showed. A message without any layer costs nothing. `revocation`: whether it is asked after."""
        if not result.layers and not result.reasons:
            return _UNSIGNED
        if not result.signed or self._trust is None:
            return self._engine.assess(result, message, (), (), self._runtime.now())
        trust = await self._trust.anchors(), await self._trust.distrusted()
        authorities = await self._trust.authorities()
        if not self._checks or not revocation:
            return self._engine.assess(result, message, *trust, self._runtime.now(), authorities=authorities)

        def ask(inquiry: Inquiry) -> Verdict:
            return self._engine.assess(result, message, *trust, self._runtime.now(), authorities=authorities, inquiry=inquiry)

        signers = tuple(signer.certificate for layer in result.layers for signer in layer.signers)
        return await self._inquiries.judge(signers, ask)

    async def usable(self, signers: Signers) -> Signers:
        """The signers without keys whose certificates were revoked; the same object where there is none."""
        return await self._own.usable(signers) if self._checks else signers

    async def anchors(self) -> tuple[bytes, ...]:
        """The certificates that are anchors for e-mail. Raise Unavailable or StoreError where that cannot be said now."""
        return () if self._trust is None else tuple(anchor.der for anchor in await self._trust.anchors())

    async def trusted(self) -> tuple[object, ...]:
        """What trust rests on: the same objects until something changes. Raise Unavailable or StoreError where it cannot be read now."""
        if self._trust is None:
            return ()
        return await self._trust.anchors(), await self._trust.distrusted(), await self._trust.authorities()

    async def recipient(self, certificate: bytes, chain: Sequence[bytes] = ()) -> PathResult:
        """Whether one may encrypt for this certificate now: its path for `email-encrypt`, and its status.

        `accepted`: yes. `revocation` REVOKED: never. UNKNOWN: nothing that can be had says so now: wait, and ask again; evidence up to
        `[revocation] grace_days` past its nextUpdate has counted already (reason "evidence-overdue"). Not `valid`: no path; `reasons` say why.
        `chain` are certificates at hand besides those of the database. Raise Unavailable or StoreError where trust cannot be read now.
        """
        if self._trust is None:
            return PathResult(False)
        trust = await self._trust.anchors(), await self._trust.distrusted()
        authorities = await self._trust.authorities()

        def ask(inquiry: Inquiry | None) -> PathResult:
            now, purpose = self._runtime.now(), "email-encrypt"
            return self._engine.status(
                certificate, chain, *trust, now, authorities=authorities, inquiry=inquiry, purpose=purpose, grace=self._grace
            )

        if not self._checks:
            return ask(None)
        return await self._inquiries.judge(("recipient", certificate, tuple(chain)), ask)

    async def _status(self, handle: KeyHandle) -> PathResult | None:
        """What is known of the certificate of one of our own keys; None where it has no path to an anchor here."""
        certificate = handle.certificate
        if certificate is None or self._trust is None:
            return None
        trust = await self._trust.anchors(), await self._trust.distrusted()
        authorities = await self._trust.authorities()

        def ask(inquiry: Inquiry) -> PathResult:
            return self._engine.status(certificate, handle.chain, *trust, self._runtime.now(), authorities=authorities, inquiry=inquiry)

        return await self._inquiries.judge(("own", certificate), ask)

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
