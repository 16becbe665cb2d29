"""Certificates that end: told 30, 14, 7 and 1 days before, and when they have ended, by the one worker that holds the lease.

The one invariant: each threshold of a certificate is told once while a worker holds the lease; after a restart, where it stands is told
once more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from mailsec.app.own_certificates import OwnCertificates
from mailsec.errors import MailsecError
from mailsec.interfaces import Runtime
from mailsec.model.verdict import Event
from mailsec.store.evidence import EvidenceStore

__all__ = ["THRESHOLDS", "ExpiryWatch"]

_log = structlog.get_logger("mailsec.tls")

THRESHOLDS = (1, 7, 14, 30)
"""Days before the end."""
EVERY = 600.0
LEASE = 1800.0


class ExpiryWatch:
    """Tells `record` (record_event), so that the log has it and others can send it on."""

    def __init__(self, certificates: OwnCertificates, store: EvidenceStore, runtime: Runtime, record: Callable[[Event], None]) -> None:
        self._certificates = certificates
        self._store = store
        self._runtime = runtime
        self._record = record
        self._holder = runtime.random(8).hex()
        self._told: dict[bytes, int] = {}

    async def watch(self) -> None:
        """Look again and again until the worker ends."""
        while True:
            try:
                if await self._runtime.in_thread(self._take_lease, self._runtime.now(), lane="database"):
                    self.look()
            except MailsecError as error:
                _log.warning("whether certificates end cannot be told", error=error.message, hint=error.hint)
            await self._runtime.sleep(EVERY)

    def _take_lease(self, at: datetime) -> bool:
        return self._store.take_lease("expiry", self._holder, at=at, seconds=LEASE)

    def look(self) -> None:
        """Tell of each certificate that has come nearer to its end than it was when it was told of before."""
        now = self._runtime.now()
        for own in self._certificates.all():
            certificate = own.certificate
            if certificate.not_after is None:
                continue
            left = certificate.not_after - now
            threshold = next((days for days in (0, *THRESHOLDS) if left <= timedelta(days=days)), None)
            if threshold is None or self._told.get(own.der, THRESHOLDS[-1] + 1) <= threshold:
                continue
            self._told[own.der] = threshold
            fields = {
                "certificate": own.name,
                "subject": certificate.subject.text,
                "fingerprint": certificate.fingerprint.hex(),
                "not_after": f"{certificate.not_after:%Y-%m-%d %H:%M}",
                "days_left": left.days,
                "threshold": threshold,
                "hint": "renew it: it is replaced without a restart, in the database or in its directory",
            }
            self._record(Event("certificate expired" if threshold == 0 else "certificate expires", now, fields))
