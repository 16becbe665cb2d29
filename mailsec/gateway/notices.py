"""Who is told where a part of a message was refused after another part was taken: the sender, or our postmaster.

The one invariant (promise 6): a stranger is told nothing that depends on what was inside encryption; our own postmaster is.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.errors import Reply
from mailsec.gateway.bounce import FailedRecipient, failure_report, postmaster_report
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
        envelope, message, settings = transaction.envelope, transaction.message, self._settings
        replies = dict(refused)
        return failure_report(
            id=row_id,
            reverse_path=envelope.reverse_path,
            failed=[
                FailedRecipient(recipient, replies[recipient.address].enhanced or "5.7.1", replies[recipient.address].text)
                for recipient in envelope.recipients
                if recipient.address in replies
            ],
            header=bytes(message.octets.view(0, message.header_end)) if header is None else header,
            received_at=transaction.received_at,
            at=self._runtime.now(),
            hostname=settings.hostname,
            postmaster=settings.postmaster,
            random=self._runtime.random,
            origin=transaction.session.origin,
            listener=transaction.session.listener,
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
