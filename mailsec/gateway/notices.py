"""Who is told where a part of a message was refused after another part was taken: the sender, or our postmaster.

The one invariant (promise 6): a stranger is told nothing that depends on what was inside encryption; our own postmaster is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from mailsec.errors import Reply
from mailsec.gateway.bounce import About, ReportedRecipient, delay_report, failure_report, postmaster_report
from mailsec.interfaces import Runtime
from mailsec.model.address import Address
from mailsec.model.queue import NewEntry
from mailsec.model.session import Transaction
from mailsec.model.settings import GatewaySettings

__all__ = ["Notices"]


class Notices:
    """Makes the rows that carry them."""

    def __init__(self, settings: GatewaySettings, runtime: Runtime) -> None:
        self._settings = settings
        self._runtime = runtime

    def refused(
        self, transaction: Transaction, refused: Sequence[tuple[Address, Reply]], row_id: str, *, header: bytes | None = None
    ) -> NewEntry | None:
        """The DSN about refused recipients; None where the sender wants none. `header` is what it quotes, where that is less than all."""
        replies = dict(refused)
        return failure_report(
            id=row_id,
            about=self._about(transaction, header),
            failed=[
                ReportedRecipient(recipient, replies[recipient.address].enhanced or "5.7.1", replies[recipient.address].text)
                for recipient in transaction.envelope.recipients
                if recipient.address in replies
            ],
            at=self._runtime.now(),
            random=self._runtime.random,
        )

    def delayed(self, transaction: Transaction, reason: str, row_id: str) -> NewEntry | None:
        """The DSN about a message that waits for something here; None where the sender wants none."""
        until = transaction.received_at + timedelta(seconds=self._settings.relay.give_up_after)
        return delay_report(
            id=row_id,
            about=self._about(transaction),
            # RFC 3463 §3.5: X.4.7, the delivery time; 4: it is not over yet
            delayed=[ReportedRecipient(recipient, "4.4.7", reason) for recipient in transaction.envelope.recipients],
            until=until,
            at=self._runtime.now(),
            random=self._runtime.random,
        )

    def _about(self, transaction: Transaction, header: bytes | None = None) -> About:
        message, envelope, settings = transaction.message, transaction.envelope, self._settings
        return About(
            reverse_path=envelope.reverse_path,
            header=bytes(message.octets.view(0, message.header_end)) if header is None else header,
            received_at=transaction.received_at,
            origin=transaction.session.origin,
            listener=transaction.session.listener,
            hostname=settings.hostname,
            postmaster=settings.postmaster,
            envelope_id=envelope.envid,
        )

    def held(self, transaction: Transaction, held_id: str, reason: str, row_id: str) -> NewEntry:
        """The report to the postmaster about a message that waits for a person and whose sender is not told."""
        message, settings = transaction.message, self._settings
        return postmaster_report(
            id=row_id,
            about=held_id,
            reason=reason,
            header=bytes(message.octets.view(0, message.header_end)),
            at=self._runtime.now(),
            hostname=settings.hostname,
            postmaster=settings.postmaster,
            random=self._runtime.random,
            origin=transaction.session.origin,
            listener=transaction.session.listener,
        )
