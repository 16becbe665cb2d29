"""What the two paths ask of S/MIME: protect, unprotect, assess. `SmimeEngine` binds the cores of `mailsec.smime` to a backend and a runtime.

The one invariant: nothing here decides. Plans come from `choose_protection`, verdicts from `assess`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from mailsec.gateway.inquiry import Inquiry
from mailsec.interfaces import CryptoBackend, KeyHandle, Runtime
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message
from mailsec.model.octets import Segments
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.model.settings import RevocationSettings
from mailsec.model.trust import Anchor
from mailsec.model.verdict import SmimeResult, Verdict
from mailsec.pki.anchors import anchor_set
from mailsec.pki.budget import Budget
from mailsec.pki.build import CertificatePool
from mailsec.pki.cache import PathCache
from mailsec.pki.ocsp import OcspRules
from mailsec.pki.path import DEFAULT_OPTIONS, PathOptions, PathResult, validate
from mailsec.smime.assess import assess
from mailsec.smime.protect import protect_message
from mailsec.smime.report import authentication_results
from mailsec.smime.unprotect import unprotect_message
from mailsec.x509.certificate import load_certificate

__all__ = ["Engine", "SmimeEngine"]

T = TypeVar("T")

NO_REVOCATION = RevocationSettings(mode="off")


class Engine(Protocol):
    """S/MIME, as the gateway uses it."""

    async def protect(
        self,
        message: Message,
        plan: ProtectionPlan,
        signers: Sequence[KeyHandle],
        at: datetime,
        recipients: Sequence[EncryptionRecipient] = (),
    ) -> Segments:
        """The message as `plan` wants it, one copy for all `recipients`: awaits first, octets later.

        Raise Refused, KeyUnavailable, CryptoError, InputError, LimitExceeded.
        """
        ...

    async def unprotect(self, message: Message, keys: Sequence[KeyHandle]) -> SmimeResult:
        """What the S/MIME layers show; integrity, no trust."""
        ...

    def assess(
        self,
        result: SmimeResult,
        message: Message,
        anchors: Sequence[Anchor],
        distrusted: Sequence[bytes],
        at: datetime,
        *,
        authorities: Sequence[bytes] = (),
        inquiry: Inquiry | None = None,
    ) -> Verdict:
        """The four answers (promise 4). `authorities` are certificates that may stand between a signer's and an anchor; none is believed.

        With an `inquiry` revocation is checked with its evidence, and what is lacking is left in it; without one it is not.
        """
        ...

    def status(
        self,
        certificate: bytes,
        chain: Sequence[bytes],
        anchors: Sequence[Anchor],
        distrusted: Sequence[bytes],
        at: datetime,
        *,
        authorities: Sequence[bytes] = (),
        inquiry: Inquiry | None,
        purpose: str = "email-sign",
        grace: timedelta = timedelta(),
    ) -> PathResult:
        """The path of one certificate, with `chain` at hand besides, and whether it was revoked (None: not asked).

        `purpose` is a name of `pki.purpose.PURPOSES`; `grace` is `PathOptions.evidence_grace`.
        """
        ...

    def results(self, authserv_id: str, verdict: Verdict) -> str:
        """The value of the Authentication-Results field that tells the verdict (RFC 8601, RFC 7281)."""
        ...


class SmimeEngine:
    """The engine of `mailsec.smime`, for one backend."""

    def __init__(
        self,
        backend: CryptoBackend,
        runtime: Runtime,
        limits: Limits = DEFAULT_LIMITS,
        revocation: RevocationSettings = NO_REVOCATION,
    ) -> None:
        self._revocation = revocation
        chosen = revocation.default_responder_certificate
        self._rules = OcspRules(responders=(chosen,)) if chosen else None
        self._backend = backend
        self._runtime = runtime
        self._limits = limits
        self._given: tuple[Sequence[Anchor], Sequence[bytes]] = ((), ())
        self._anchors = anchor_set(())
        self._options = DEFAULT_OPTIONS
        self._checking = replace(DEFAULT_OPTIONS, check_revocation=True, skip_sourceless=revocation.mode == "check")
        self._paths = PathCache()
        self._authorities: Sequence[bytes] = ()
        self._pool = CertificatePool(())

    async def protect(
        self,
        message: Message,
        plan: ProtectionPlan,
        signers: Sequence[KeyHandle],
        at: datetime,
        recipients: Sequence[EncryptionRecipient] = (),
    ) -> Segments:
        return await protect_message(
            message,
            plan,
            signers=signers,
            recipients=recipients,
            backend=self._backend,
            random=self._runtime.random,
            work=self.work,
            at=at,
            scratch=self._runtime.scratch,
            limits=self._limits,
        )

    async def unprotect(self, message: Message, keys: Sequence[KeyHandle]) -> SmimeResult:
        return await unprotect_message(
            message, keys=keys, backend=self._backend, scratch=self._runtime.scratch, work=self.work, limits=self._limits
        )

    def assess(
        self,
        result: SmimeResult,
        message: Message,
        anchors: Sequence[Anchor],
        distrusted: Sequence[bytes],
        at: datetime,
        *,
        authorities: Sequence[bytes] = (),
        inquiry: Inquiry | None = None,
    ) -> Verdict:
        options = self._given_trust(anchors, distrusted, authorities, inquiry)
        return assess(
            result,
            message,
            anchors=self._anchors,
            intermediates=self._helpful(inquiry),
            at=at,
            backend=self._backend,
            options=options,
            evidence=None if inquiry is None else inquiry.evidence,
            rules=self._rules,
            wanted=None if inquiry is None else inquiry.wanted,
            cache=self._paths,
            budget=None if inquiry is None else inquiry.budget,
            limits=self._limits,
        )

    def status(
        self,
        certificate: bytes,
        chain: Sequence[bytes],
        anchors: Sequence[Anchor],
        distrusted: Sequence[bytes],
        at: datetime,
        *,
        authorities: Sequence[bytes] = (),
        inquiry: Inquiry | None,
        purpose: str = "email-sign",
        grace: timedelta = timedelta(),
    ) -> PathResult:
        options = self._given_trust(anchors, distrusted, authorities, inquiry)
        result = validate(
            load_certificate(certificate),
            anchors=self._anchors,
            intermediates=self._helpful(inquiry, chain),
            at=at,
            purpose=purpose,
            backend=self._backend,
            options=replace(options, evidence_grace=grace) if grace else options,
            evidence=None if inquiry is None else inquiry.evidence,
            rules=self._rules,
            budget=Budget(self._limits) if inquiry is None else inquiry.budget,
        )
        if inquiry is not None:
            inquiry.wanted += result.missing
        return result

    def _given_trust(
        self, anchors: Sequence[Anchor], distrusted: Sequence[bytes], authorities: Sequence[bytes], inquiry: Inquiry | None
    ) -> PathOptions:
        # a trust store gives the same objects until something changes: what is made of them is kept as long
        if self._given[0] is not anchors or self._given[1] is not distrusted:
            self._anchors = anchor_set(anchors)
            plain = PathOptions(distrusted=frozenset(load_certificate(der).fingerprint for der in distrusted))
            self._options = plain
            self._checking = replace(plain, check_revocation=True, skip_sourceless=self._revocation.mode == "check")
            self._given = (anchors, distrusted)
            self._paths.clear()
        if self._authorities is not authorities:
            # accepted paths stay: more certificates make no path worse
            self._authorities, self._pool = authorities, CertificatePool(map(load_certificate, authorities))
        return self._options if inquiry is None else self._checking

    def _helpful(self, inquiry: Inquiry | None, chain: Sequence[bytes] = ()) -> CertificatePool:
        fetched = () if inquiry is None else inquiry.intermediates
        if not fetched and not chain:
            return self._pool
        return CertificatePool((*fetched, *map(load_certificate, chain)), self._pool)

    def results(self, authserv_id: str, verdict: Verdict) -> str:
        return authentication_results(verdict, authserv_id)

    async def work(self, cost: int, function: Callable[..., T], *args: Any) -> T:
        """`interfaces.Work`: inline where it is small, since a thread hop costs more than it spares; else in the lane for bulk."""
        if cost <= self._limits.bulk_threshold:
            return function(*args)
        return await self._runtime.in_thread(function, *args, lane="bulk")
