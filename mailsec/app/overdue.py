"""Mail that is on hold for long: its sender is told at last, or the postmaster once a day, so that what was accepted is not forgotten (promise 1).

Each worker gives up what its own spool holds of people whom we may tell: a report takes its place, in one transaction. Of the rest (from the
Internet, without a sender, kept back by a person) one worker reminds the postmaster, for all spools of the directory. Reminders and reports are
messages like every other: they are committed, and delivered.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import structlog

from mailsec.errors import MailsecError
from mailsec.gateway.bounce import About, ReportedRecipient, failure_report, overdue_report
from mailsec.gateway.settling import plain_text
from mailsec.interfaces import Runtime
from mailsec.model.queue import NewEntry, QueueEntry, SpooledEntry, State
from mailsec.model.settings import GatewaySettings
from mailsec.store.spool import SqliteSpool
from mailsec.store.spool_queue import list_queue

__all__ = ["Overdue"]

_log = structlog.get_logger("mailsec.overdue")

_AFTER_START: Final = 300.0
_AT_ONCE: Final = 32
_EVERY: Final = 3600.0
_REMINDED: Final = 86_400.0


class Overdue:
    """Looks after what is on hold in `spool`, and, if it `reminds`, in all spools of its directory."""

    def __init__(self, spool: SqliteSpool, runtime: Runtime, settings: GatewaySettings, *, reminds: bool = True) -> None:
        self._directory = spool.directory
        self._spool = spool
        self._runtime = runtime
        self._settings = settings
        self._reminds = reminds

    async def watch(self) -> None:
        """Once an hour, for ever; the postmaster is reminded once a day."""
        await self._runtime.sleep(_AFTER_START)
        reminded = float("-inf")
        while True:
            try:
                await self.give_up()
                if self._reminds and self._runtime.monotonic() >= reminded + _REMINDED:
                    await self.remind()
                    reminded = self._runtime.monotonic()
            except MailsecError as error:
                _log.warning("mail on hold cannot be looked over", error=error.message)
            await self._runtime.sleep(_EVERY)

    async def give_up(self) -> int:
        """Tell senders of what has been on hold longer than the relay would try; how many messages that were."""
        since = self._runtime.now() - timedelta(seconds=self._settings.relay.give_up_after)
        given_up = 0
        untold: set[int] = set()
        while rows := [row for row in await self._spool.expired_held(since, len(untold) + _AT_ONCE) if row.row not in untold]:
            for row in rows:
                report = self._report(row)
                # Whoever asked for silence (RFC 3461 §4.1) is told nothing: then the postmaster is.
                if report is None or not await self._spool.bounce_held(row.row, report):
                    untold.add(row.row)
                    continue
                given_up += 1
                _log.info("given up", id=row.entry.id, message_id=row.entry.message_id, reason=row.entry.reason)
        return given_up

    def _report(self, row: SpooledEntry) -> NewEntry | None:
        entry, settings = row.entry, self._settings
        why = plain_text(f"it was on hold for too long: {entry.reason}")
        return failure_report(
            id=f"{entry.id}.expired",
            about=About(
                reverse_path=entry.envelope.reverse_path,
                header=entry.header,
                received_at=entry.received_at,
                origin=entry.origin,
                listener=entry.listener,
                hostname=settings.hostname,
                postmaster=settings.postmaster,
                envelope_id=entry.envelope.envid,
            ),
            # RFC 3463 §3.5: X.4.7, it was not delivered in time.
            failed=[ReportedRecipient(recipient, "4.4.7", why) for recipient in entry.envelope.recipients],
            at=self._runtime.now(),
            random=self._runtime.random,
        )

    async def remind(self) -> int:
        """Report what has been on hold longer than the relay would try; how many messages that are."""
        now = self._runtime.now()
        overdue = await self._runtime.in_thread(self._overdue, now, lane="database")
        if overdue:
            settings = self._settings
            report = overdue_report(
                overdue,
                id=f"{int(now.timestamp() * 1_000_000):x}{self._runtime.random(5).hex()}",
                at=now,
                hostname=settings.hostname,
                postmaster=settings.postmaster,
                random=self._runtime.random,
            )
            await self._spool.commit([report])
        return len(overdue)

    def _overdue(self, now: datetime) -> list[QueueEntry]:
        since = now - timedelta(seconds=self._settings.relay.give_up_after)
        # A report that the postmaster cannot get is not reported to the postmaster.
        return [
            entry
            for entry in list_queue(self._directory)
            if (entry.state is State.HELD or entry.paused) and entry.received_at <= since and entry.rule != "report"
        ]
