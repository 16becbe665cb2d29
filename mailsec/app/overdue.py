"""Mail that is on hold for long: once a day the postmaster is reminded of it, so that what was accepted is not forgotten (promise 1).

One worker does it for all spools of the directory. A reminder is a message like every other report: it is committed, and delivered.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import structlog

from mailsec.errors import MailsecError
from mailsec.gateway.bounce import overdue_report
from mailsec.interfaces import Runtime, Spool
from mailsec.model.queue import QueueEntry, State
from mailsec.model.settings import GatewaySettings
from mailsec.store.spool_queue import list_queue

__all__ = ["Overdue"]

_log = structlog.get_logger("mailsec.overdue")

_AFTER_START: Final = 300.0
_EVERY: Final = 86_400.0


class Overdue:
    """Looks after what is on hold in the spools of `directory`."""

    def __init__(self, directory: str, spool: Spool, runtime: Runtime, settings: GatewaySettings) -> None:
        self._directory = directory
        self._spool = spool
        self._runtime = runtime
        self._settings = settings

    async def watch(self) -> None:
        """Once a day, for ever."""
        await self._runtime.sleep(_AFTER_START)
        while True:
            try:
                await self.remind()
            except MailsecError as error:
                _log.warning("mail on hold cannot be looked over", error=error.message)
            await self._runtime.sleep(_EVERY)

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
