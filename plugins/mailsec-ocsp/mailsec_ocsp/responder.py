"""The responder (RFC 6960, RFC 9919): octets of a request to octets of an answer.

The one invariant: "good" is signed only while the register, as it is now, has the certificate and does not call it
revoked; where that cannot be said, nothing is signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from mailsec.errors import ConfigurationError, InputError, KeyUnavailable, MailsecError, UsageError
from mailsec.interfaces import Gateway
from mailsec.keys.reference import parse_reference
from mailsec.model.settings import Problem
from mailsec.model.verdict import Event
from mailsec_ocsp.authorities import Authorities, Authority
from mailsec_ocsp.kept import Allowance, Answer, KeptAnswers
from mailsec_ocsp.requests import CertId, OcspRequest, read_ocsp_request
from mailsec_ocsp.responses import (
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
    TRY_LATER,
    UNAUTHORIZED,
    Standing,
    response_data,
    single_response,
)
from mailsec_ocsp.settings import OcspSettings
from mailsec_ocsp.signers import Signers

__all__ = ["Responder"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_ISSUED: Final = {
    # RFC 6960 §2.2: how a number that was never issued is called revoked.
    "revoked": Standing("revoked", _EPOCH, "certificateHold", issued=False),
    "unknown": Standing("unknown", issued=False),
    "unauthorized": Standing("unknown", issued=False),
}
_TOLD_SECONDS: Final = 60.0
_NOT_ISSUED_HOLDS: Final = timedelta(minutes=5)
"""How long it holds that a number was not issued: it may be in a minute."""


class Responder:
    """One for all connections of a worker."""

    def __init__(self, gateway: Gateway, settings: OcspSettings) -> None:
        self._gateway = gateway
        self._runtime = gateway.runtime
        self._settings = settings
        self._authorities = Authorities(gateway, settings.authorities, not_issued=_NOT_ISSUED[settings.not_issued])
        self._signers = Signers(gateway, settings.signers)
        self._kept = KeptAnswers()
        self._allowance = Allowance(settings.signatures_per_second, self._runtime.monotonic())
        self._renewing: set[bytes] = set()
        self._record = gateway.record
        self._told = float("-inf")

    async def check(self) -> None:
        """At start: whether somebody may sign for each authority. Raise ConfigurationError where there is none, or nobody may.

        A key that is out may come yet: until then the answer is "try later".
        """
        try:
            authorities = await self._authorities.all()
        except KeyUnavailable as error:
            raise ConfigurationError(f"[plugin.ocsp] authorities: {error.message}", hint=error.hint) from error
        for authority in authorities:
            try:
                await self._signers.of(authority, self._runtime.now())
            except KeyUnavailable as error:
                self._tell(error)

    async def problems(self) -> list[Problem]:
        """What `check` would raise, each at its place, and names of signers that mean no key. A key on a token that is out may come yet."""
        found = []
        for index, name in enumerate(self._settings.authorities):
            try:
                await self._gateway.authority(name)
            except KeyUnavailable as error:
                found.append(Problem(("authorities", index), error.message, error.hint))
        for index, name in enumerate(self._settings.signers):
            try:
                if await self._gateway.key(name) is None and not parse_reference(name).token:
                    hint = "`mailsec key list` shows what the database holds"
                    found.append(Problem(("signers", index), f"there is no key called {name!r}", hint))
            except KeyUnavailable:
                pass
            except UsageError as error:
                found.append(Problem(("signers", index), error.message, error.hint))
        if found:
            return found
        for authority in await self._authorities.all():
            try:
                await self._signers.of(authority, self._runtime.now())
            except ConfigurationError as error:
                found.append(Problem(("signers",) if self._settings.signers else ("authorities",), error.message, error.hint))
            except KeyUnavailable:
                pass
        return found

    async def answer(self, octets: bytes) -> Answer:
        """An answer to any octets. Raises nothing that they could cause."""
        try:
            request = read_ocsp_request(octets)
        except InputError:
            return Answer(MALFORMED_REQUEST)
        try:
            return await self._answer(request)
        except MailsecError as error:
            self._tell(error)
            return Answer(TRY_LATER if error.temporary else INTERNAL_ERROR)

    def _tell(self, error: MailsecError) -> None:
        """Have it in the log, once a minute: a client is told nothing of it."""
        now = self._runtime.monotonic()
        if now >= self._told + _TOLD_SECONDS:
            self._told = now
            self._record(Event("ocsp cannot answer", self._runtime.now(), {"reason": error.message, "hint": error.hint}))

    async def _answer(self, request: OcspRequest) -> Answer:
        authority = await self._authorities.of(request.ids[0])
        for other in request.ids[1:]:
            if authority is None or await self._authorities.of(other) != authority:
                authority = None
                break
        # RFC 6960 §2.3, RFC 9919 §3.2.3: not ours, or of two authorities, for which no one signature could speak.
        if authority is None:
            return Answer(UNAUTHORIZED)
        standings = [await self._authorities.standing(authority, one.serial) for one in request.ids]
        if self._settings.not_issued == "unauthorized" and not all(standing.issued for standing in standings):
            return Answer(UNAUTHORIZED)
        nonce = request.nonce if self._settings.nonce else None
        if len(request.ids) == 1 and standings[0].issued and nonce is None:
            return await self._everybodys(authority, request.ids[0], standings[0])
        if self._allowance.take(self._runtime.monotonic()):
            return await self._signed(authority, request.ids, standings, nonce)
        # Attack: nonces without end, each of which costs a signature. RFC 9654 §2.1: an answer may leave the nonce out.
        if len(request.ids) == 1 and standings[0].issued:
            return await self._everybodys(authority, request.ids[0], standings[0])
        return Answer(TRY_LATER)

    async def _everybodys(self, authority: Authority, cert_id: CertId, standing: Standing) -> Answer:
        """The kept answer about one certificate; a new one where that is in the second half of its life."""
        kept = self._kept.get(cert_id.der, standing, self._runtime.now())
        # While one client waits for the new answer, the others are given the old one.
        if kept is not None and (kept.is_fresh(self._runtime.now()) or cert_id.der in self._renewing):
            return kept
        if not self._allowance.take(self._runtime.monotonic()):
            return kept or Answer(TRY_LATER)
        self._renewing.add(cert_id.der)
        try:
            answer = await self._signed(authority, (cert_id,), (standing,), None)
        except (MailsecError, OSError):
            # The token is out, say: what holds is given as long as it does.
            if kept is None:
                raise
            return kept
        finally:
            self._renewing.discard(cert_id.der)
        self._kept.keep(cert_id.der, answer)
        return answer

    async def _signed(self, authority: Authority, ids: Sequence[CertId], standings: Sequence[Standing], nonce: bytes | None) -> Answer:
        at = self._runtime.now().astimezone(UTC).replace(microsecond=0)
        signer = await self._signers.of(authority, at)
        issued = all(standing.issued for standing in standings)
        until = at + (timedelta(hours=self._settings.validity) if issued else _NOT_ISSUED_HOLDS)
        # An answer that outlives the certificate of whoever signed it is believed by nobody.
        end = signer.certificate.not_after
        until = min(until, end) if end is not None and signer.appointed else until
        singles = [single_response(one.der, standing, at, until) for one, standing in zip(ids, standings, strict=True)]
        tbs = response_data(
            signer.key_hash, at, singles, nonce=nonce, extended_revoke=any(one.status == "revoked" and not one.issued for one in standings)
        )
        octets = await signer.sign(tbs)
        # The register may have changed while a token took its time.
        for one, standing in zip(ids, standings, strict=True):
            if await self._authorities.standing(authority, one.serial) != standing:
                return Answer(TRY_LATER)
        everybodys = nonce is None and len(ids) == 1 and issued
        return Answer(octets, at, until, standings[0], everybodys)
