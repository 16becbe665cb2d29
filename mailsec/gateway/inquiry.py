"""Asking for the evidence that a judgement lacks: what is kept, then the sources, in rounds, within one budget.

What is asked for comes from `pki`: OCSP and lists only for certificates on a path that ends at an anchor, so nobody makes us ask around by
sending certificates of their own making. The one invariant: whatever sources do, a message waits `limits.evidence_timeout` seconds at most
and causes `limits.fetches` look-ups at most; what is not known then is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Protocol, TypeVar

from mailsec.errors import MailsecError
from mailsec.interfaces import Evidence, EvidenceRequest, RevocationSource, Runtime, Task
from mailsec.model.breaker import Breakers
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.settings import RevocationSettings
from mailsec.pki.budget import Budget
from mailsec.pki.evidence import RevocationEvidence
from mailsec.plugins import is_cancellation
from mailsec.x509.certificate import Certificate, load_certificate
from mailsec.x509.crl import CertificateList, load_crl

__all__ = ["EvidenceCache", "Inquiries", "Inquiry"]

T = TypeVar("T")

_LOOKED_AT = timedelta(seconds=60)
"""How long an answer stands before what is kept is looked at again: an imported list, a refreshed response."""
_MOST_KEPT = 2048
_MOST_LIST_OCTETS = 256 * 1024 * 1024
"""Octets of all lists that stay in memory: attack: an authority whose every certificate names a list of its own, of 10 MiB."""
_MOST_BROUGHT = 32
"""Pieces of evidence about one message's signers that stay in memory, the newest."""
_URLS = 2
"""URLs of one certificate that are asked for one kind of evidence."""

NOTHING = RevocationEvidence()

_Question = tuple[str, str, bytes, tuple[str, ...]]
"""Whom, and what: source, kind, certificate, addresses."""


class EvidenceCache(Protocol):
    """Evidence that all workers share: the database."""

    async def known(self, requests: Sequence[EvidenceRequest]) -> Sequence[Evidence]:
        """What is kept that may help. The same octets are the same object, where that can be. Never raises for a database that is out."""
        ...

    async def keep(self, found: Sequence[tuple[EvidenceRequest, Evidence]]) -> None:
        """Keep what was of use. Never raises for a database that is out."""
        ...


@dataclass(slots=True)
class Inquiry:
    """What one judgement may use, and what it turned out to lack."""

    evidence: RevocationEvidence = NOTHING
    budget: Budget = field(default_factory=Budget)
    intermediates: tuple[Certificate, ...] = ()
    wanted: list[EvidenceRequest] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is known about the signers of one message, in this worker."""

    brought: tuple[Evidence, ...]
    evidence: RevocationEvidence
    intermediates: tuple[Certificate, ...]
    until: datetime
    complete: bool


class Inquiries:
    """Asks, and remembers for a while. One for each worker."""

    def __init__(
        self,
        runtime: Runtime,
        sources: Sequence[RevocationSource],
        settings: RevocationSettings,
        limits: Limits = DEFAULT_LIMITS,
        cache: EvidenceCache | None = None,
    ) -> None:
        place = {name: index for index, name in enumerate(settings.order)}
        self.sources = tuple(sorted(sources, key=lambda source: place.get(source.name, len(place))))
        self._runtime = runtime
        self._settings = settings
        self._limits = limits
        self._cache = cache
        self._kept: dict[object, _Kept] = {}
        self._lists: dict[bytes, CertificateList] = {}
        self._list_octets = 0
        self._flights: dict[_Question, Task[Sequence[Evidence] | MailsecError]] = {}
        self._breakers = Breakers()

    def clear(self) -> None:
        """Forget what is remembered here: trust was changed."""
        self._kept.clear()

    async def judge(self, key: object, ask: Callable[[Inquiry], T]) -> T:
        """The answer of `ask` with all the evidence that can be had. `key`: whom it is about, for remembering."""
        now = self._runtime.now()
        kept = self._kept.get(key)
        inquiry = Inquiry(budget=Budget(self._limits))
        if kept is not None:
            inquiry.evidence, inquiry.intermediates = kept.evidence, kept.intermediates
        answer = ask(inquiry)
        # Nothing is lacking, or what is lacking could not be had a moment ago.
        if kept is not None and now < kept.until and (not inquiry.wanted or not kept.complete):
            return answer
        if kept is None and not inquiry.wanted:
            return answer
        return await _Search(self, inquiry, ask, kept).run(key, answer)

    # -- for one search -------------------------------------------------------------------------------------------------------

    def remember(self, key: object, kept: _Kept) -> None:
        self._kept.pop(key, None)
        self._kept[key] = kept
        if len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    def evidence_of(self, brought: Iterable[Evidence], doubtful: Iterable[bytes]) -> RevocationEvidence:
        """Lists are read once a worker."""
        items = tuple(brought)
        return RevocationEvidence(
            [self._list(item.data) for item in items if item.kind == "crl"],
            [item.data for item in items if item.kind == "ocsp"],
            doubtful=doubtful,
            limits=self._limits,
        )

    def _list(self, data: bytes) -> CertificateList:
        crl = self._lists.pop(data, None)
        if crl is None:
            crl = load_crl(data, limits=self._limits)
            self._list_octets += len(data)
        self._lists[data] = crl
        while self._list_octets > _MOST_LIST_OCTETS and len(self._lists) > 1:
            oldest = next(iter(self._lists))
            del self._lists[oldest]
            self._list_octets -= len(oldest)
            self._kept = {key: kept for key, kept in self._kept.items() if all(item.data != oldest for item in kept.brought)}
        return crl

    async def known(self, requests: Sequence[EvidenceRequest]) -> Sequence[Evidence]:
        return () if self._cache is None else await self._cache.known(requests)

    def keep(self, found: Sequence[tuple[EvidenceRequest, Evidence]]) -> None:
        if self._cache is not None and found:
            self._runtime.start(self._cache.keep(found), "keep evidence")

    def ask(self, source: RevocationSource, request: EvidenceRequest) -> Task[Sequence[Evidence] | MailsecError] | None:
        """The question, once for all who ask it; None where the source failed a moment ago. An error is a value: several may see it."""
        key = (source.name, request.kind, request.certificate, request.urls)
        task = self._flights.get(key)
        if task is None:
            if not self._breakers.admit(self._runtime.monotonic(), source.name):
                return None
            flights = self._flights
            landed = False

            async def fly() -> Sequence[Evidence] | MailsecError:
                nonlocal landed
                try:
                    return await self._ask(source, request)
                except MailsecError as error:
                    return error
                finally:
                    landed = True
                    flights.pop(key, None)

            task = self._runtime.start(fly(), f"evidence from {source.name}")
            if not landed:
                flights[key] = task
        return task

    async def _ask(self, source: RevocationSource, request: EvidenceRequest) -> Sequence[Evidence]:
        """What the source brings; raise MailsecError where it could not say. A plugin's failure costs only the plugin."""
        try:
            found = tuple(await self._runtime.within(self._limits.evidence_timeout, source.evidence(request)))
            if not all(isinstance(item, Evidence) for item in found):
                raise TypeError(f"the source {source.name} brings something else than Evidence")
        except MailsecError:
            # It works, and says that somebody else does not.
            self._breakers.succeeded(source.name)
            raise
        except Exception as error:
            if is_cancellation(error):
                raise
            self._breakers.failed(source.name, self._runtime.monotonic())
            raise _SourceFailed(f"the source {source.name} failed ({type(error).__name__})", stage="revocation") from error
        self._breakers.succeeded(source.name)
        return found

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def parallel(self) -> bool:
        return self._settings.parallel

    @property
    def runtime(self) -> Runtime:
        return self._runtime


class _SourceFailed(MailsecError):
    """A source raised something that is no error of ours, or was late."""

    temporary = True


class _Search:
    """The rounds of one judgement."""

    def __init__(self, inquiries: Inquiries, inquiry: Inquiry, ask: Callable[[Inquiry], object], kept: _Kept | None) -> None:
        self._all = inquiries
        self._inquiry = inquiry
        self._judge = ask
        self._kept = kept
        self._brought: dict[bytes, Evidence] = {item.data: item for item in kept.brought} if kept is not None else {}
        self._of: list[tuple[EvidenceRequest, Evidence]] = []
        self._doubtful: set[bytes] = set()
        self._asked: set[_Question] = set()
        self._left = inquiries.limits.fetches
        self._deadline = inquiries.runtime.monotonic() + inquiries.limits.evidence_timeout

    async def run(self, key: object, answer: T) -> T:
        """The best answer that can be had."""
        requests = tuple(self._inquiry.wanted) or self._requests_again()
        before = len(self._brought)
        for item in (*await self._all.known(requests), *await self._local(requests)):
            self._brought.setdefault(item.data, item)
        if len(self._brought) != before or not self._inquiry.wanted:
            answer = self._again(answer)
        for _ in range(self._all.limits.evidence_rounds):
            if not self._inquiry.wanted or not await self._round():
                break
            answer = self._again(answer)
        self._remember(key)
        return answer

    def _requests_again(self) -> tuple[EvidenceRequest, ...]:
        # Nothing is lacking, but time has passed: ask as if nothing were known, to learn who is on the path.
        probe = Inquiry(budget=Budget(self._all.limits), intermediates=self._inquiry.intermediates)
        self._judge(probe)
        return tuple(probe.wanted)

    async def _local(self, requests: Sequence[EvidenceRequest]) -> Sequence[Evidence]:
        """What sources have on this machine (`local`), asked without addresses, so that nothing goes over the network."""
        found: list[Evidence] = []
        for source in self._all.sources:
            if getattr(source, "local", False):
                for request in requests:
                    try:
                        found += await source.evidence(replace(request, urls=()))
                    except MailsecError:
                        self._doubtful.add(load_certificate(request.certificate).fingerprint)
        return found

    def _again(self, answer: T) -> T:
        kept = self._kept
        inquiry = self._inquiry
        brought = tuple(item for item in self._brought.values() if item.kind != "issuer")
        if kept is not None and kept.brought == tuple(self._brought.values()) and not self._doubtful:
            inquiry.evidence = kept.evidence
        elif brought or self._doubtful:
            inquiry.evidence = self._all.evidence_of(brought, self._doubtful)
        inquiry.intermediates = tuple(load_certificate(item.data) for item in self._brought.values() if item.kind == "issuer")
        inquiry.wanted = []
        return self._judge(inquiry)  # type: ignore[return-value]  # the same function that gave `answer`

    async def _round(self) -> bool:
        """Ask for what is wanted; False where nobody is left to ask."""
        by_certificate: dict[bytes, list[EvidenceRequest]] = {}
        for request in dict.fromkeys(self._inquiry.wanted):
            by_certificate.setdefault(request.certificate, []).append(request)
        progress = await self._all.runtime.gather([self._one(requests) for requests in by_certificate.values()])
        return any(progress)

    async def _one(self, requests: Sequence[EvidenceRequest]) -> bool:
        """Ask the sources about one certificate, one after the other until one brings something, or all at once."""
        changed = False
        if self._all.parallel:
            found = await self._all.runtime.gather([self._source(source, requests) for source in self._all.sources])
            return any(found)
        for source in self._all.sources:
            brought = await self._source(source, requests)
            changed = changed or brought
            if brought and self._has_new(requests):
                return True
        return changed

    def _has_new(self, requests: Sequence[EvidenceRequest]) -> bool:
        certificates = {request.certificate for request in requests}
        return any(request.certificate in certificates for request, _ in self._of)

    async def _source(self, source: RevocationSource, requests: Sequence[EvidenceRequest]) -> bool:
        changed = False
        for request in requests:
            mark = (source.name, request.kind, request.certificate, request.urls)
            if mark in self._asked:
                continue
            self._asked.add(mark)
            changed = await self._question(source, request) or changed
        return changed

    async def _question(self, source: RevocationSource, request: EvidenceRequest) -> bool:
        # Built-in sources answer one kind each; a plugin's may answer several.
        if source.name in _KINDS and request.kind != source.name:
            return False
        remaining = self._deadline - self._all.runtime.monotonic()
        fingerprint = load_certificate(request.certificate).fingerprint
        where = getattr(source, "addresses", None)
        try:
            offered = request.urls if where is None else tuple(where(request))
        except Exception:
            # A plugin's mistake: it does not answer.
            self._doubtful.add(fingerprint)
            return True
        urls = offered[: min(_URLS, self._left)]
        if remaining <= 0 or (offered and not urls):
            self._doubtful.add(fingerprint)
            return True
        self._left -= len(urls)
        task = self._all.ask(source, replace(request, urls=urls))
        try:
            if task is None:
                raise _SourceFailed(f"the source {source.name} failed a moment ago", stage="revocation")
            found = await self._all.runtime.within(remaining, _result(task))
            if isinstance(found, MailsecError):
                raise found
        except (MailsecError, TimeoutError):
            # Somebody who should know did not answer; that is not the same as nobody being there to ask.
            if request.kind != "issuer" and not request.optional:
                self._doubtful.add(fingerprint)
            return True
        for item in found:
            self._brought.setdefault(item.data, item)
            self._of.append((request, item))
        return bool(found)

    def _remember(self, key: object) -> None:
        inquiry = self._inquiry
        lacking = {request.certificate for request in inquiry.wanted if not request.optional}
        useless = {item.data for _, item in self._of if item.kind != "issuer" and sha256(item.data).digest() not in inquiry.budget.believed}
        self._all.keep([(request, item) for request, item in self._of if request.certificate not in lacking and item.data not in useless])
        # Attack: servers that answer with 10 MiB of nothing. It is not remembered, but for there having been something.
        evidence = inquiry.evidence
        if useless:
            self._doubtful |= {load_certificate(request.certificate).fingerprint for request, item in self._of if item.data in useless}
            evidence = self._all.evidence_of((item for data, item in self._brought.items() if data not in useless), self._doubtful)
        until = self._all.runtime.now() + _LOOKED_AT
        brought = tuple(item for data, item in self._brought.items() if data not in useless)[-_MOST_BROUGHT:]
        self._all.remember(key, _Kept(brought, evidence, inquiry.intermediates, until, not inquiry.wanted))


_KINDS = frozenset({"ocsp", "crl", "issuer"})


async def _result(task: Task[T]) -> T:
    value: T = await task
    return value
