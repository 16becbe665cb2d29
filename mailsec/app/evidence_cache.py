"""The evidence in the database as the gateway asks for it: shared by all workers, judged again by whoever reads it.

The one invariant: a database that is out costs evidence, never a message: nothing is raised, and what is not there is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from mailsec.asn1 import writer
from mailsec.asn1.reader import read_single
from mailsec.errors import MailsecError
from mailsec.interfaces import Evidence, EvidenceRequest, Runtime
from mailsec.pki.ocsp import OcspRules, is_about
from mailsec.store.evidence import EvidenceStore, KeptEvidence, fingerprint
from mailsec.x509.certificate import load_certificate
from mailsec.x509.crl import load_crl
from mailsec.x509.ocsp import read_ocsp_response

__all__ = ["DatabaseEvidence", "certificates_of", "kept_response"]

_log = structlog.get_logger("mailsec.revocation")

_ASKED_FOR = timedelta(days=7)
"""How long a certificate is asked after beside the mail, after a message needed its status."""
_MOST_LIST_OCTETS = 128 * 1024 * 1024
"""Octets of lists that stay in memory."""


def kept_response(certificate: bytes, issuer: bytes, octets: bytes, source: str, at: datetime) -> KeptEvidence | None:
    """A response as the database keeps it; None where it says nothing about the certificate, or has ended."""
    subject, authority = load_certificate(certificate), load_certificate(issuer)
    for single in read_ocsp_response(octets).responses:
        if is_about(single, subject, authority):
            until = single.next_update or single.this_update + OcspRules().age_without_end
            return KeptEvidence("ocsp", fingerprint(certificate), octets, source, at, until) if until > at else None
    return None


def certificates_of(asked: KeptEvidence) -> tuple[bytes, bytes] | None:
    """The certificate and its issuer's, of a row that says what was asked."""
    try:
        first, second = read_single(asked.octets, 0x30).children()
        return bytes(first.encoding), bytes(second.encoding)
    except (MailsecError, ValueError):
        return None


class DatabaseEvidence:
    """A `gateway.inquiry.EvidenceCache`."""

    def __init__(self, store: EvidenceStore, runtime: Runtime, *, grace: timedelta = timedelta()) -> None:
        """`grace`: how long after their end responses are still of use (`[revocation] grace_days`)."""
        self._grace = grace
        self._store = store
        self._runtime = runtime
        self._lists: dict[bytes, Evidence] = {}

    async def known(self, requests: Sequence[EvidenceRequest]) -> Sequence[Evidence]:
        """Responses about these certificates, and lists of their issuers."""
        try:
            return await self._runtime.in_thread(self._known, requests, self._runtime.now(), lane="database")
        except MailsecError as error:
            _log.warning("evidence cannot be read", error=error.message)
            return ()

    def _known(self, requests: Sequence[EvidenceRequest], at: datetime) -> Sequence[Evidence]:
        subjects = {fingerprint(request.certificate) for request in requests}
        issuers = {load_certificate(request.certificate).issuer.der for request in requests}
        urls = {url for request in requests if request.kind == "crl" for url in request.urls}
        found = [
            Evidence(item.kind, item.octets, item.source, item.fetched_at) for item in self._store.about(subjects, at=at - self._grace)
        ]
        wanted = dict(self._store.lists_of(issuers, urls))
        # Lists are large: each is read once a worker.
        missing = {number for digest, number in wanted.items() if digest not in self._lists}
        for octets in self._store.list_octets(missing) if missing else ():
            self._lists[load_crl(octets).fingerprint] = Evidence("crl", octets, "database", at)
        found += [self._lists[digest] for digest in wanted if digest in self._lists]
        while len(self._lists) > 1 and sum(len(item.data) for item in self._lists.values()) > _MOST_LIST_OCTETS:
            self._lists.pop(next(iter(self._lists)), None)
        return found

    async def keep(self, found: Sequence[tuple[EvidenceRequest, Evidence]]) -> None:
        """Keep what was of use."""
        try:
            await self._runtime.in_thread(self._keep, found, lane="database")
        except MailsecError as error:
            _log.warning("evidence cannot be kept", error=error.message)

    def _keep(self, found: Sequence[tuple[EvidenceRequest, Evidence]]) -> None:
        rows = []
        for request, item in found:
            at = item.fetched_at
            if item.kind == "ocsp" and request.issuer is not None:
                row = kept_response(request.certificate, request.issuer, item.data, item.source, at)
                if row is not None:
                    asked = writer.sequence(request.certificate, request.issuer)
                    rows += [row, KeptEvidence("asked", row.subject, asked, item.source, at, at + _ASKED_FOR)]
            elif item.kind == "issuer":
                rows.append(KeptEvidence("issuer", fingerprint(request.certificate), item.data, item.source, at, at + _ASKED_FOR))
            elif item.kind == "crl" and "://" in item.source:
                self._store.keep_list(item.data, url=item.source, at=at)
        if rows:
            self._store.keep(rows)
