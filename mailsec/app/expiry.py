"""Certificates that end: told 30, 14, 7 and 1 days before, and when they have ended, by the one worker that holds the lease; in the log, and in
a letter to the postmaster.

The one invariant: each threshold of a certificate is told once, also over restarts and reloads; a certificate whose nickname has a newer one
with a key is not told of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from mailsec.app.letters import Told
from mailsec.app.own_certificates import OwnCertificates
from mailsec.errors import MailsecError
from mailsec.interfaces import Runtime
from mailsec.model.verdict import Event
from mailsec.store.certdb import CertDb
from mailsec.store.evidence import EvidenceStore
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["THRESHOLDS", "ExpiryWatch"]

_log = structlog.get_logger("mailsec.tls")

THRESHOLDS = (1, 7, 14, 30)
"""Days before the end."""
EVERY = 600.0
LEASE = 1800.0
_RENEWED = "renew it: it is replaced without a restart, in the database or in its directory"
_MOST = 100


class _Own(NamedTuple):
    name: str
    certificate: Certificate
    end: datetime
    use: str


class ExpiryWatch:
    """Tells `record` (record_event), so that the log has it and others can send it on; and `write`, which sends a letter."""

    def __init__(
        self,
        certificates: OwnCertificates,
        database: CertDb,
        runtime: Runtime,
        record: Callable[[Event], None],
        write: Callable[[str, Sequence[str]], Awaitable[None]],
        told: Told,
    ) -> None:
        self._certificates = certificates
        self._database = database
        self._store = EvidenceStore(database)
        self._runtime = runtime
        self._record = record
        self._write = write
        self._holder = runtime.random(8).hex()
        self._told = told

    async def watch(self) -> None:
        """Look again and again until the worker ends."""
        while True:
            try:
                if await self._runtime.in_thread(self._take_lease, self._runtime.now(), lane="database"):
                    await self.look()
            except MailsecError as error:
                _log.warning("whether certificates end cannot be told", error=error.message, hint=error.hint)
            await self._runtime.sleep(EVERY)

    def ends_of_keys(self) -> list[datetime]:
        """When the certificates end that we have keys for; of those with one nickname, the latest. Blocks."""
        return [own.end for own in self._of_keys()]

    async def look(self) -> None:
        """Tell of each certificate that has come nearer to its end than it was when it was told of before."""
        now = self._runtime.now()
        shown = [
            _Own(own.name, own.certificate, own.certificate.not_after, "TLS")
            for own in self._certificates.all()
            if own.certificate.not_after is not None
        ]
        mail = await self._runtime.in_thread(self._of_keys, lane="database")
        by_print = {own.certificate.fingerprint.hex(): own for own in (*mail, *shown)}
        new: dict[str, int] = {}
        for fingerprint, own in by_print.items():
            left = own.end - now
            threshold = next((days for days in (0, *THRESHOLDS) if left <= timedelta(days=days)), None)
            if threshold is None or self._told.get(fingerprint, THRESHOLDS[-1] + 1) <= threshold:
                continue
            new[fingerprint] = threshold
            fields = {
                "certificate": own.name,
                "subject": own.certificate.subject.text,
                "fingerprint": fingerprint,
                "not_after": f"{own.end:%Y-%m-%d %H:%M}",
                "days_left": left.days,
                "threshold": threshold,
                "hint": _RENEWED,
            }
            self._record(Event("certificate expired" if threshold == 0 else "certificate expires", now, fields))
        if new:
            # The letter first: one that is told twice is better than one that nobody gets.
            await self._write(*_letter([by_print[fingerprint] for fingerprint in new], now))
        self._told.keep(new, list(by_print))

    def _take_lease(self, at: datetime) -> bool:
        return self._store.take_lease("expiry", self._holder, at=at, seconds=LEASE)

    def _of_keys(self) -> list[_Own]:
        """The certificates of our keys in the database, the latest of each nickname."""
        keys = [key.key_id for key in self._database.stored_keys() if key.verified and key.nicknames]
        latest: dict[str, _Own] = {}
        for start in range(0, len(keys), _MOST):
            for entry in self._database.of_keys(keys[start : start + _MOST]):
                certificate = load_certificate(entry.der)
                end = certificate.not_after
                if end is not None and (entry.nickname not in latest or end > latest[entry.nickname].end):
                    latest[entry.nickname] = _Own(entry.nickname, certificate, end, "S/MIME")
        return list(latest.values())


def _letter(ending: Sequence[_Own], now: datetime) -> tuple[str, list[str]]:
    """Subject and lines, the first to end first."""
    ending = sorted(ending, key=lambda own: own.end)
    first = (ending[0].end - now).days
    when = "has expired" if ending[0].end <= now else "expires today" if first < 1 else f"expires in {first} day{'s' if first > 1 else ''}"
    others = f", and {len(ending) - 1} more" if len(ending) > 1 else ""
    lines = ["These certificates end soon, or have ended:", ""]
    for own in ending[:_MOST]:
        lines += [f"    {own.end:%Y-%m-%d %H:%M} UTC  {own.name} ({own.use})", f"        {own.certificate.subject.text}"]
    if len(ending) > _MOST:
        lines.append(f"    and {len(ending) - _MOST} more")
    lines += ["", "What is renewed is used without a restart:", "    mailsec cert import, mailsec p12 import, mailsec cert issue"]
    return f"Certificate {ending[0].name} {when}{others}", lines
