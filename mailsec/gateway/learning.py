"""Certificates and capabilities of correspondents, learnt from their signed mail beside the mail: in batches, and only what is new.

The one invariant: only a signature that is intact, trusted and not refused by policy teaches anything, and only about its From address. What
is learnt is judged again for encryption, here and at every use; whether it may take the place of what is in use is for the store to say. That
one in use was revoked is told to the store where evidence says so that was judged here; what is unknown is not revoked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from mailsec.algorithms.profiles import PROFILES
from mailsec.errors import MailsecError
from mailsec.gateway.admission import Domains
from mailsec.gateway.evidence import EvidenceDesk
from mailsec.interfaces import Outcome, Runtime
from mailsec.model.address import Address
from mailsec.model.correspondents import Lesson, Sighting
from mailsec.model.session import Transaction
from mailsec.model.verdict import Event, Revocation, SmimeResult, SmimeWord, Verdict
from mailsec.pki.identity import matches
from mailsec.plugins import PluginManager
from mailsec.smime.ciphers_for import unfit
from mailsec.smime.identity import read_author
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["Learner", "Learning", "sightings_of"]

_log = structlog.get_logger("mailsec.learning")

_BATCH = 100
_MOST_WAITING = 1000
_AGAIN = 86_400.0
"""Seconds after which the same sighting is written down again: when a certificate was last seen is known to the day."""
_SOON = 600.0
"""Seconds after which a certificate that waits is looked at again: the one in use may have been revoked since."""
_MOST_ASKED = 8
"""Certificates in use of one address whose status is asked for; those beyond it count as in use."""
_MOST_REMEMBERED = 20_000

Mark = tuple[str, bytes, bytes]


class Learner(Protocol):
    """What keeps lessons: the database."""

    async def in_use(self, address: Address) -> Sequence[bytes]:
        """DER of the certificates in use that name `address`, or were bound to this very address. Raise StoreError as below."""
        ...

    async def learn(self, sightings: Sequence[Sighting], anchors: Sequence[bytes]) -> Sequence[Lesson]:
        """Take in what was seen; `anchors` are those for e-mail. Raise StoreError where that cannot be done now."""
        ...


def sightings_of(transaction: Transaction, result: SmimeResult, verdict: Verdict) -> tuple[Sighting, ...]:
    """What a message teaches about its author: certificates that can be encrypted to, and what their holder reads."""
    if verdict.word is not SmimeWord.PASS or not verdict.trusted:
        return ()
    author = read_author(transaction.message).address
    if author is None:
        return ()
    found: dict[bytes, Sighting] = {}
    for layer, report in zip(result.layers, verdict.layers, strict=False):
        for signer, told in zip(layer.signers, report.signers, strict=False):
            if signer.certificate is None or not told.trusted or told.matches_from is not True:
                continue
            signed_at = min(signer.signing_time or transaction.received_at, transaction.received_at)
            own = load_certificate(signer.certificate)
            # RFC 8551 §2.5.3: who has another certificate for encryption sends it along. It needs no less than the signer's own.
            for der in (signer.certificate, *layer.certificates):
                certificate = load_certificate(der)
                if der not in found and matches(certificate, author) and _receives(certificate):
                    capabilities = signer.capabilities if der == signer.certificate or _speaks_for(own, certificate) else None
                    found[der] = Sighting(author, der, layer.certificates, b"", capabilities, signed_at)
    return tuple(found.values())


def _receives(certificate: Certificate) -> bool:
    return any(not unfit(certificate, profile) for profile in PROFILES.values())


def _speaks_for(signer: Certificate, other: Certificate) -> bool:
    """Whether what `signer` reads is believed of `other`, which came along: a pair of one authority, the one for signatures alone."""
    # Attack: a certificate of another authority, and the one in use beside it, so that mail to that one gets a weaker cipher.
    return not _receives(signer) and signer.issuer.der == other.issuer.der


class Learning:
    """One for each worker. Without a `learner` nothing is learnt."""

    def __init__(
        self, learner: Learner | None, evidence: EvidenceDesk, runtime: Runtime, plugins: PluginManager, domains: Sequence[str] = ()
    ) -> None:
        self._learner = learner
        self._evidence = evidence
        self._runtime = runtime
        self._plugins = plugins
        self._own = Domains(domains)
        self._told: dict[Mark, float] = {}
        self._waiting: list[Sighting] = []
        self._working = False

    def take(self, outcomes: Iterable[Outcome]) -> None:
        """Learn from what was committed; never waits, never fails."""
        if self._learner is None:
            return
        now = self._runtime.monotonic()
        for outcome in outcomes:
            for sighting in outcome.sightings:
                # Our own people's certificates come from their administrator.
                if sighting.address in self._own or now < self._told.get(_mark(sighting), now):
                    continue
                if len(self._waiting) < _MOST_WAITING:
                    self._remember(_mark(sighting), now + _AGAIN)
                    self._waiting.append(sighting)
        if self._waiting and not self._working:
            self._working = True
            self._runtime.start(self._work(), "learn certificates")

    def _remember(self, mark: Mark, until: float) -> None:
        if len(self._told) >= _MOST_REMEMBERED:
            self._told.clear()
        self._told[mark] = until

    async def _work(self) -> None:
        """What comes while a batch is written is the next batch."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
                try:
                    await self._learn(batch)
                except MailsecError as error:
                    _log.warning("certificates cannot be learnt", error=error.message)
                    self._forget(batch)
        finally:
            self._working = False

    async def _learn(self, batch: Sequence[Sighting]) -> None:
        assert self._learner is not None
        usable = []
        for sighting in batch:
            path = await self._evidence.recipient(sighting.certificate, sighting.chain)
            if path.accepted and path.anchor is not None:
                between = tuple(one.der for one in path.chain[1:-1])
                revoked = await self._revoked(sighting)
                usable.append(replace(sighting, chain=between, anchor=path.anchor.der, revoked=revoked))
            else:
                self._forget([sighting])
        if not usable:
            return
        lessons = await self._learner.learn(usable, await self._evidence.anchors())
        waiting = {(lesson.address, lesson.fingerprint) for lesson in lessons if lesson.state == "pending"}
        for sighting in usable:
            if (sighting.address.key, load_certificate(sighting.certificate).fingerprint.hex()) in waiting:
                self._remember(_mark(sighting), self._runtime.monotonic() + _SOON)
        for lesson in lessons:
            if lesson.new:
                fields = {"address": lesson.address, "certificate": lesson.fingerprint, "state": lesson.state or "used"}
                self._plugins.record(Event("certificate learnt", self._runtime.now(), {**fields, "reason": lesson.reason}))

    async def _revoked(self, sighting: Sighting) -> tuple[bytes, ...]:
        """Which certificates in use would keep this one waiting though they were revoked."""
        assert self._learner is not None
        found = []
        for der in (await self._learner.in_use(sighting.address))[:_MOST_ASKED]:
            # RFC 5280 §5: its authority says so, in evidence with its signature, for a path that ends at an anchor here.
            if der != sighting.certificate and (await self._evidence.recipient(der)).revocation is Revocation.REVOKED:
                found.append(der)
        return tuple(found)

    def _forget(self, sightings: Iterable[Sighting]) -> None:
        for sighting in sightings:
            self._told.pop(_mark(sighting), None)


def _mark(sighting: Sighting) -> Mark:
    return (
        sighting.address.key,
        load_certificate(sighting.certificate).fingerprint,
        hashlib.sha256(sighting.capabilities or b"").digest(),
    )
