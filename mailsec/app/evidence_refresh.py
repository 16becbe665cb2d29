"""Evidence is refreshed before it ends, beside the mail, by the one worker that holds the lease.

The one invariant: a response that cannot be believed never takes the place of one that can; lists are judged at every use.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from mailsec.app.evidence_cache import certificates_of, kept_response
from mailsec.builtin.asking import Asking, over_http
from mailsec.builtin.crl import read_lists
from mailsec.builtin.ocsp import OcspSource
from mailsec.errors import MailsecError
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import EvidenceRequest, Gateway, Runtime, Task
from mailsec.keys.software import SoftwareBackend
from mailsec.model.settings import RevocationSettings
from mailsec.model.verdict import Revocation
from mailsec.pki.budget import Budget
from mailsec.pki.crl import SKEW
from mailsec.pki.ocsp import OcspRules, judge_ocsp
from mailsec.pki.revocation import ocsp_urls
from mailsec.store.evidence import EvidenceStore, KeptEvidence
from mailsec.x509.certificate import load_certificate

__all__ = ["EvidenceRefresh"]

_log = structlog.get_logger("mailsec.revocation")

EVERY = 60.0
LEASE = 180.0
_AHEAD = timedelta(hours=6)
"""Responses that end sooner are looked at; those of which a quarter of their time is left are asked for again."""
_BEHIND = timedelta(hours=1)
"""Responses that ended earlier are left to the messages that need them."""
_LISTS_AHEAD = timedelta(hours=1)
_LOOKED_AT = timedelta(days=1)
"""How long evidence stands before it is asked for again, though it says that it holds for weeks: somebody may have been revoked since."""
_AT_ONCE = 4
_URLS = 2
"""Responders of one certificate that are asked: attack: one that names a thousand which do not answer."""
_MOST = 200
"""Questions of one pass."""


class EvidenceRefresh:
    """A plugin that does its work from start-up to shutdown."""

    def __init__(self, store: EvidenceStore, runtime: Runtime, settings: RevocationSettings) -> None:
        self._store = store
        self._runtime = runtime
        self._settings = settings
        self._asking = Asking(runtime)
        self._source = OcspSource(settings, runtime, self._asking)
        chosen = settings.default_responder_certificate
        self._rules = OcspRules(responders=(chosen,)) if chosen else OcspRules()
        self._backend = SoftwareBackend()
        self._holder = runtime.random(8).hex()
        self._task: Task[None] | None = None

    @hookimpl
    def startup(self, gateway: Gateway) -> None:
        """Begin."""
        if self._settings.mode != "off":
            self._task = self._runtime.start(self._run(), "refresh evidence")

    @hookimpl
    async def shutdown(self, gateway: Gateway) -> None:
        """End, and let another worker go on at once."""
        if self._task is None:
            return
        self._task.cancel()
        self._task = None
        try:
            await self._runtime.in_thread(self._store.give_lease_back, "refresh", self._holder, lane="database")
        except MailsecError as error:
            _log.warning("the lease stays until it ends", error=error.message)

    async def _run(self) -> None:
        while True:
            try:
                if await self._runtime.in_thread(self._take_lease, self._runtime.now(), lane="database"):
                    await self.refresh()
            except MailsecError as error:
                _log.warning("evidence cannot be refreshed", error=error.message, hint=error.hint)
            await self._runtime.sleep(EVERY)

    def _take_lease(self, at: datetime) -> bool:
        return self._store.take_lease("refresh", self._holder, at=at, seconds=LEASE)

    async def refresh(self) -> int:
        """One pass; return how many pieces of evidence were renewed."""
        at = self._runtime.now()
        responses, urls = await self._runtime.in_thread(self._due, at, lane="database")
        renewed = 0
        work = [*((self._response, asked) for asked in responses), *((self._list, url) for url in urls)]
        for start in range(0, len(work), _AT_ONCE):
            renewed += sum(await self._runtime.gather([job(subject) for job, subject in work[start : start + _AT_ONCE]]))  # type: ignore[operator]  # each with its own
            # Many that do not answer take longer than the lease lasts.
            if not await self._runtime.in_thread(self._take_lease, self._runtime.now(), lane="database"):
                return renewed
        await self._runtime.in_thread(self._store.expire, at, lane="database")
        return renewed

    def _due(self, at: datetime) -> tuple[Sequence[KeptEvidence], Sequence[str]]:
        ending = [
            item
            for item in self._store.ending("ocsp", at - _BEHIND, at + _AHEAD, fetched_before=at - _LOOKED_AT)
            if item.fetched_at < at - _LOOKED_AT or item.expires_at - at < (item.expires_at - item.fetched_at) / 4
        ]
        subjects = list(dict.fromkeys(item.subject for item in ending))[:_MOST]
        # A newer one may be there already.
        fresh = {item.subject for item in self._store.about(subjects, at=at, kinds=("ocsp",)) if item not in ending}
        asked = self._store.about([subject for subject in subjects if subject not in fresh], at=at, kinds=("asked",))
        known = {kept.url for kept in self._store.lists()}
        ending_lists = self._store.sources_of_lists(at + _LISTS_AHEAD, fetched_before=at - _LOOKED_AT)
        urls = dict.fromkeys([*(url for url in self._settings.crl_urls if url not in known), *ending_lists])
        # Lists from elsewhere (LDAP) are asked for again by the messages that need them.
        return asked, over_http(urls)[:_MOST]

    async def _response(self, asked: KeptEvidence) -> int:
        found = certificates_of(asked)
        if found is None:
            return 0
        certificate, issuer = found
        loaded, authority = load_certificate(certificate), load_certificate(issuer)
        try:
            brought = await self._source.evidence(EvidenceRequest("ocsp", certificate, issuer, ocsp_urls(loaded)[:_URLS]))
        except MailsecError as error:
            _log.info("a response cannot be refreshed", subject=loaded.subject.text, error=error.message)
            return 0
        for item in brought:
            at = self._runtime.now()
            status = judge_ocsp(item.data, loaded, authority, at=at, backend=self._backend, budget=Budget(), rules=self._rules)
            row = kept_response(certificate, issuer, item.data, item.source, at)
            if status.revocation in (Revocation.GOOD, Revocation.REVOKED) and row is not None:
                await self._runtime.in_thread(self._store.keep, [row], lane="database")
                return 1
        return 0

    async def _list(self, url: str) -> int:
        try:
            lists = read_lists(await self._asking.ask(url))
        except MailsecError as error:
            _log.info("a revocation list cannot be refreshed", url=url, error=error.message)
            return 0
        now = self._runtime.now()
        # Attack: a list that nobody signed, from the future, which would be the newest for ever.
        usable = [crl for crl in lists if crl.this_update is not None and crl.this_update <= now + SKEW]
        for crl in usable:
            await self._runtime.in_thread(self._keep_list, crl.der, url, now, lane="database")
        return len(usable)

    def _keep_list(self, octets: bytes, url: str, at: datetime) -> None:
        # Nobody has judged it yet: what is believed until now stays as long as it holds.
        self._store.keep_list(octets, url=url, at=at, judged=False)
