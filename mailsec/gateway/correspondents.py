"""Which certificates a correspondent can be encrypted for, and why each other one was not chosen.

What directories bring is judged anew, wherever it comes from: valid now, for this address, for encryption, strong enough, with a path to an
anchor for e-mail (or vouched for by the directory itself), not revoked, not waiting for a person. The one invariant: a certificate about
which any of that cannot be said is not encrypted to; what may be said later is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from mailsec.algorithms.profiles import PROFILES
from mailsec.errors import MailsecError
from mailsec.gateway.directories import Directories
from mailsec.gateway.evidence import EvidenceDesk
from mailsec.interfaces import CertificateDirectory, FoundCertificate, Runtime
from mailsec.model.address import Address
from mailsec.model.partner import PartnerSettings
from mailsec.model.protection import EncryptionRecipient
from mailsec.model.verdict import Reason, Revocation
from mailsec.pki.identity import matches
from mailsec.smime.ciphers_for import unfit
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["DIRECTORY", "EVIDENCE", "Asked", "Correspondent", "Correspondents", "Judged", "PartnerBook"]

_log = structlog.get_logger("mailsec.directories")

DIRECTORY = "directory"
"""The need of a message for whose recipient a directory cannot say anything now."""
EVIDENCE = "evidence"
"""The need of a message for whose recipient there is a certificate of which nobody can say whether it was revoked."""

_KEPT = timedelta(seconds=60)
_MOST = 10_000


class PartnerBook(Protocol):
    """What is agreed with correspondents: the database."""

    async def agreed(self, address: Address) -> PartnerSettings:
        """The settings in force for `address`. Raise StoreError where that cannot be said now."""
        ...


@dataclass(frozen=True, slots=True)
class Judged:
    """One certificate that a directory gave, and what speaks against it; nothing: it can be encrypted to."""

    found: FoundCertificate
    fingerprint: str
    profiles: frozenset[str] = frozenset()
    """The profiles that allow it."""
    reason: Reason | None = None
    wait: bool = False
    """Only evidence about revocation is lacking."""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one directory, in the order in which they are asked."""

    directory: str
    found: int | None = None
    """How many certificates it gave, good or not; None: it said nothing."""
    why: str = ""
    """Why it said nothing: it could not, or was not asked."""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Correspondent:
    """What is known of one address."""

    address: Address
    chosen: tuple[Judged, ...] = ()
    """At most one for each kind of key, of the first directory that has any."""
    others: tuple[Judged, ...] = ()
    """Each with its reason."""
    wait: str = ""
    """DIRECTORY or EVIDENCE, where nothing was chosen and that may change by itself."""
    unasked: bool = False
    """Directories elsewhere were not asked."""
    missing: Reason | None = None
    """Why nothing was chosen, in one sentence."""
    asked: tuple[Asked, ...] = ()
    """Every directory, with what came of it."""

    @property
    def certificates(self) -> tuple[str, ...]:
        return tuple(one.fingerprint for one in self.chosen)

    @property
    def profiles(self) -> Mapping[str, frozenset[str]]:
        return {one.fingerprint: one.profiles for one in self.chosen}

    def recipients(self) -> dict[str, EncryptionRecipient]:
        """What the engine is given, by fingerprint."""
        return {one.fingerprint: EncryptionRecipient(one.found.der, one.found.capabilities) for one in self.chosen}


@dataclass(frozen=True, slots=True)
class _Kept:
    found: tuple[tuple[FoundCertificate, ...], ...]
    trust: tuple[object, ...]
    until: datetime
    answer: Correspondent


class Correspondents:
    """Looks up, judges, and remembers while nothing that was looked at changes. One for each worker."""

    def __init__(self, directories: Directories, evidence: EvidenceDesk, runtime: Runtime) -> None:
        self._directories = directories
        self._evidence = evidence
        self._runtime = runtime
        self._kept: dict[str, _Kept] = {}

    async def find(self, address: Address, *, everywhere: bool = False) -> Correspondent:
        """What is known of `address`. `everywhere`: also directories elsewhere, where those on this machine do not help."""
        local, remote = self._directories.local, self._directories.remote
        answers: list[tuple[FoundCertificate, ...]] = []
        asked = [await self._ask(directory, address, answers) for directory in local]
        here = len(answers)
        answer = await self._judged(address, tuple(answers), here)
        for directory in remote:
            if answer.chosen:
                asked.append(Asked(directory.name, why="not asked: one before it has a certificate that can be used"))
            elif not everywhere:
                asked.append(Asked(directory.name, why="not asked: it is not on this machine"))
            else:
                asked.append(await self._ask(directory, address, answers))
                answer = await self._judged(address, tuple(answers), here)
        answer = replace(answer, asked=tuple(asked))
        unasked = bool(remote) and not everywhere
        out = [one.directory for one in asked if one.failed]
        if answer.chosen or not (out or unasked):
            return answer
        # A directory that cannot say may have had the certificate that the others lack.
        missing = answer.missing
        if out:
            missing = Reason(
                "directory-out",
                "policy",
                f"no directory can say now whether there is a certificate of {address}: {', '.join(out)} cannot be asked",
                hint="see that it answers; the message waits",
            )
        return replace(answer, wait=answer.wait or DIRECTORY, unasked=unasked, missing=missing)

    async def _ask(self, directory: CertificateDirectory, address: Address, answers: list[tuple[FoundCertificate, ...]]) -> Asked:
        try:
            found = await self._directories.look_up(directory, address)
        except MailsecError as error:
            _log.warning("a directory cannot say", directory=directory.name, error=error.message, hint=error.hint)
            return Asked(directory.name, why=error.message.removeprefix(f"the directory {directory.name} "), failed=True)
        answers.append(found)
        return Asked(directory.name, len(found))

    async def _judged(self, address: Address, answers: tuple[tuple[FoundCertificate, ...], ...], local: int) -> Correspondent:
        now = self._runtime.now()
        trust = await self._evidence.trusted()
        kept = self._kept.get(address.key)
        if kept is not None and now < kept.until and _same(kept.found, answers) and _same(kept.trust, trust):
            return kept.answer
        judged = [await self._judge(found, address, now) for found in _different(answers, local)]
        answer = _choose(address, judged)
        if not any(one.wait for one in judged):
            if len(self._kept) >= _MOST:
                self._kept.clear()
            ends = [one.until for one in answer.chosen if one.until is not None]
            self._kept[address.key] = _Kept(answers, trust, min([now + _KEPT, *ends]), answer)
        return answer

    async def _judge(self, found: FoundCertificate, address: Address, now: datetime) -> Judged:
        certificate = load_certificate(found.der)
        judged = Judged(found, certificate.fingerprint.hex())
        against = found.against or _alone(certificate, found, address, now)
        if against is not None:
            return replace(judged, reason=against)
        whys = {name: unfit(certificate, profile) for name, profile in PROFILES.items()}
        profiles = frozenset(name for name, why in whys.items() if not why)
        if not profiles:
            return replace(judged, reason=Reason("recipient-unfit", "policy", whys["default"], "another certificate is needed"))
        try:
            path = await self._evidence.recipient(found.der, found.chain)
        except MailsecError as error:
            reason = Reason("trust-unknown", "path", f"who is trusted cannot be read now: {error.message}", hint=error.hint)
            return replace(judged, reason=reason, wait=True)
        first = path.reasons[0] if path.reasons else None
        if path.revocation is Revocation.REVOKED:
            # RFC 5280 §5: who has the key now is not known.
            why = next((one.message for one in path.reasons if one.code == "revoked"), "revoked")
            return replace(judged, reason=Reason("recipient-revoked", "revocation", why, "ask its holder for the new one"))
        if any(one.code == "distrusted" for one in path.reasons):
            return replace(judged, reason=next(one for one in path.reasons if one.code == "distrusted"))
        if path.accepted or (not path.valid and found.trusted_binding):
            return replace(judged, profiles=profiles, until=path.valid_until or certificate.not_after)
        if path.valid:
            why = first.message if first is not None else "no evidence says whether it was revoked"
            return replace(judged, reason=Reason("revocation-unknown", "revocation", why, "the message waits for evidence"), wait=True)
        return replace(judged, reason=first or Reason("no-anchor", "path", "no trust anchor is known", "see `mailsec cert trust`"))


def _different(answers: Sequence[Sequence[FoundCertificate]], local: int) -> Iterator[FoundCertificate]:
    """Each certificate once, unless what a later directory says of it counts for more: the first `local` answers are of this machine.

    Doubt of a directory elsewhere about its own answer is less than a plain answer, and that less than one that vouches. What a person decided
    here stands against all of them.
    """
    weights: dict[bytes, int] = {}
    for number, answer in enumerate(answers):
        for found in answer:
            if found.against is not None:
                weight = 3 if number < local else 1
            else:
                weight = 3 if found.trusted_binding or found.bound else 2
            if weight > weights.get(found.der, 0):
                weights[found.der] = weight
                yield found


def _alone(certificate: Certificate, found: FoundCertificate, address: Address, now: datetime) -> Reason | None:
    """What speaks against a certificate by itself."""
    if not certificate.readable:
        return certificate.problems[0] if certificate.problems else Reason("certificate-unreadable", "parse", "it cannot be read")
    begins, ends = certificate.not_before, certificate.not_after
    if begins is None or ends is None or now < begins:
        return Reason("not-yet-valid", "path", f"not valid before {begins:%Y-%m-%d}" if begins else "it does not say when it is valid")
    if now > ends:
        return Reason("expired", "path", f"it ended {ends:%Y-%m-%d %H:%M:%S} UTC", "its holder needs a new certificate")
    # Attack: a directory that gives somebody else's certificate. Who vouches for the binding itself says so.
    if not (found.trusted_binding or found.bound or matches(certificate, address)):
        return Reason("recipient-differs", "identity", f"it does not name {address}", "ask for a certificate that names it", "RFC 8550 §3")
    return None


def _choose(address: Address, judged: Sequence[Judged]) -> Correspondent:
    # A certificate of their own comes before one that is for their whole domain, whichever directory gave it.
    usable = sorted((one for one in judged if one.reason is None), key=lambda one: bool(one.found.domain))
    others = [one for one in judged if one.reason is not None]
    if any(_pinned(one) for one in judged):
        # A person chose it: where it cannot be used now, no other takes its place.
        why = Reason("another-pinned", "policy", "another certificate of this address is pinned", "`mailsec cert list` shows it")
        others += [replace(one, reason=why) for one in usable if not _pinned(one)]
        usable = [one for one in usable if _pinned(one)]
    chosen: list[Judged] = []
    for one in usable:
        first = chosen[0].found if chosen else one.found
        if (one.found.source, one.found.domain) == (first.source, first.domain) and all(_family(one) != _family(other) for other in chosen):
            chosen.append(one)
        else:
            text = "another one comes first: newer, of a directory that is asked before, or the recipient's own"
            why = Reason("better-certificate", "policy", text)
            others.append(replace(one, reason=why))
    waits = not chosen and any(one.wait for one in others)
    missing = None if chosen else _missing(address, others)
    return Correspondent(address, tuple(chosen), tuple(others), EVIDENCE if waits else "", missing=missing)


def _pinned(judged: Judged) -> bool:
    # It was chosen for the addresses of its own: everybody else in a domain may have another one.
    return judged.found.preferred and not judged.found.domain


def _family(judged: Judged) -> str:
    """RSA, agreement, KEM: a holder of keys of two kinds reads with either, also with the program that knows only one."""
    kind = load_certificate(judged.found.der).key_type
    return "kem" if kind.startswith("ml-kem") else "rsa" if kind == "rsa" else "agreement"


def _missing(address: Address, others: Sequence[Judged]) -> Reason:
    if not others:
        return Reason(
            "no-certificate",
            "policy",
            f"no certificate of {address} is known",
            hint=f"import one with `mailsec cert import`, or ask {address} for signed mail",
        )
    first = next((one for one in others if one.wait), others[0])
    revoked = next((one for one in others if one.reason is not None and one.reason.code == "recipient-revoked"), None)
    named = revoked or first
    assert named.reason is not None
    code = "recipient-revoked" if named is revoked else "no-certificate"
    text = f"no certificate of {address} can be used: {named.reason.message}"
    return Reason(code, named.reason.stage, text, hint=named.reason.hint, rfc=named.reason.rfc)


def _same(one: Sequence[object], other: Sequence[object]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
