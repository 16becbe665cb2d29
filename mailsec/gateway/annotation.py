"""The fields that are added on top of a message as it leaves: plugins' fields, Authentication-Results, Received, Date, Message-ID.

The one invariant (promise 3): fields are only put in front; not an octet of what follows is changed.
"""

from __future__ import annotations

from functools import lru_cache, partial

from mailsec.errors import MimeError
from mailsec.gateway.tools import Tools
from mailsec.gateway.trace import date_time, message_id, received
from mailsec.mime.fields import encode_field
from mailsec.model.address import Address
from mailsec.model.message import Message
from mailsec.model.octets import Segments
from mailsec.model.session import Origin, Transaction
from mailsec.model.verdict import Verdict

__all__ = ["annotate", "check_first_line", "names_of"]


def names_of(message: Message) -> frozenset[str]:
    """The names of the outer fields."""
    return frozenset([field.name for field in message.fields])


async def annotate(
    tools: Tools,
    transaction: Transaction,
    recipients: tuple[Address, ...],
    verdict: Verdict | None,
    segments: Segments,
    names: frozenset[str],
) -> Segments:
    """`segments` with our fields on top, and those of plugins above them. Raise PluginError where one fails."""
    session, settings = transaction.session, tools.settings
    added = b""
    if session.origin is not Origin.MAILBOX and not session.in_passing:  # a mailbox is read, no hop is made
        added = received(session, transaction.id, transaction.received_at, recipients, smtputf8=transaction.envelope.smtputf8)
    if verdict is not None:
        # RFC 8601 §4: results stand above the Received field of the host that found them
        added = _results_field(tools.engine.results(settings.authserv_id, verdict)) + added
    if session.origin is Origin.SUBMISSION:
        # RFC 6409 §8.3, §8.2: a submission server may add them; nobody else may say when and under which name a message was written
        if "date" not in names:
            added += f"Date: {date_time(transaction.received_at)}\r\n".encode("ascii")
        if "message-id" not in names:
            added += f"Message-ID: {message_id(transaction)}\r\n".encode("ascii")
    segments = Segments((added, *segments.pieces))
    if tools.plugins.implementations("annotate_message"):
        fields, failure = await tools.plugins.header_fields(
            tools.runtime, tools.limits, transaction=transaction, verdict=verdict, segments=segments
        )
        if failure is not None:
            raise failure
        if fields:
            segments = Segments((b"".join(encode_field(name, value) for name, value in fields), *segments.pieces))
    return segments


def _results_field(value: str) -> bytes:
    return _kept_field(value) if len(value) <= _KEPT else _field(value)


_field = partial(encode_field, "Authentication-Results")
_KEPT = 512
# What is said of one author's messages is the same each time. Only short values are kept: reasons hold what strangers have written.
_kept_field = lru_cache(maxsize=1024)(_field)


def check_first_line(message: Message) -> None:
    """Raise MimeError for a header that begins with a blank: that line would be read as the folded rest of a field of ours."""
    if message.fields and not message.fields[0].name and bytes(message.octets.view(0, 1)) in (b" ", b"\t"):
        raise MimeError("the header begins with a folded line", hint="the sending program writes no valid header", stage="admission")
