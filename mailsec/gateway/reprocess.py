"""Mail that is sent back to be opened and judged again: attached to a message to `reprocess_address`, by somebody who has logged in.

The one invariant (promise 8): what is attached takes the inbound path as if it arrived now for one address of whoever sent it, one that is
theirs by name and in our domains; it is opened with that address's keys and goes to that address, whatever the message itself says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from mailsec.errors import MimeError, Refused, Reply
from mailsec.gateway.admission import Domains
from mailsec.gateway.mailbox import owned_addresses
from mailsec.interfaces import Scratch
from mailsec.mime.index import index_message
from mailsec.mime.parts import read_parts
from mailsec.mime.spans import span_of
from mailsec.mime.transfer import IDENTITY, decode
from mailsec.model.address import Address
from mailsec.model.message import Part
from mailsec.model.octets import Octets
from mailsec.model.session import Envelope, Identity, Origin, Recipient, Transaction
from mailsec.model.settings import GatewaySettings

__all__ = ["Reprocessing"]

_TYPES = frozenset({"message/rfc822", "message/global"})
_NOBODY = Reply(550, "5.1.1", "no such recipient here")
_ALONE = Reply(550, "5.5.0", "send mail to be processed again to that address alone")
_NO_MAILBOX = Reply(550, "5.7.1", "you have no mailbox here that it could come back to")
_NOTHING = Reply(550, "5.6.0", "no message is attached: forward it as an attachment")


class Reprocessing:
    """What belongs to `reprocess_address`. Without one nothing does."""

    def __init__(self, settings: GatewaySettings, scratch: Callable[[], Scratch]) -> None:
        self._address = Address.parse(settings.reprocess_address).key if settings.reprocess_address else ""
        self._domains = Domains(settings.domains)
        self._limits = settings.limits
        self._scratch = scratch

    def refuses(self, origin: Origin, recipient: Address) -> Reply | None:
        """Nobody but who has logged in reaches it: no stranger has mail opened, and none is passed on to a mailbox that does not exist."""
        return _NOBODY if self._address and origin is not Origin.SUBMISSION and recipient.key == self._address else None

    def concerns(self, transaction: Transaction) -> bool:
        """True for a message to that address."""
        if not self._address or transaction.session.origin is not Origin.SUBMISSION:
            return False
        return any(recipient.address.key == self._address for recipient in transaction.envelope.recipients)

    def transactions(self, transaction: Transaction) -> list[Transaction]:
        """One for each attached message, as if it arrived now. Raise Refused where there is none, or nobody to send it to."""
        if len(transaction.envelope.recipients) != 1:
            raise Refused("mail to be processed again was sent to others too", reply=_ALONE, stage="reprocess")
        owner = self._mailbox(transaction.session.identity)
        message = transaction.message
        attached = list(_attached(read_parts(message, self._limits)))
        if not attached:
            raise Refused("no message is attached", reply=_NOTHING, stage="reprocess")
        # Whoever logged in is not the author of what is attached: no identity, no trust, no results that are kept.
        session = replace(transaction.session, origin=Origin.INTERNET, identity=None, behind_own_mta=False)
        envelope = Envelope(None, (Recipient(owner),), body="8BITMIME")
        return [
            Transaction(
                f"{transaction.id}.{number}",
                session,
                envelope,
                index_message(self._octets(message.octets, part), self._limits),
                transaction.received_at,
            )
            for number, part in enumerate(attached, 1)
        ]

    def _mailbox(self, identity: Identity | None) -> Address:
        for address in owned_addresses(identity):
            if address in self._domains:
                return address
        raise Refused("nobody knows a mailbox of whoever sent it", reply=_NO_MAILBOX, stage="reprocess")

    def _octets(self, octets: Octets, part: Part) -> Octets:
        if part.encoding in IDENTITY:
            return span_of(octets, part.body_start, part.end)
        # RFC 2046 §5.2.1 forbids it; some programs do it all the same, and nothing else can be meant.
        scratch = self._scratch()
        try:
            for block in decode(part.encoding, octets.blocks(part.body_start, part.end)):
                scratch.append(block)
        except MimeError as error:
            raise Refused(f"the attached message cannot be read: {error.message}", reply=_NOTHING, stage="reprocess") from error
        return scratch.seal()


def _attached(part: Part) -> Iterator[Part]:
    if part.content_type.name in _TYPES:
        yield part
    for child in part.children:
        yield from _attached(child)
