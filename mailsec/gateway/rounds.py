"""A message with a seal of ours that comes in again: it went round, by a forwarding mailbox or a loop, and that is told.

The one invariant: on these ways in a seal changes nothing; what bears one is judged as any other message, and the seal is removed.
"""

from __future__ import annotations

from mailsec.gateway.explanation import Steps, note
from mailsec.gateway.seal import read_seal, seal_fields
from mailsec.gateway.tools import Tools
from mailsec.gateway.trace import message_id
from mailsec.model.session import Transaction
from mailsec.model.verdict import Event

__all__ = ["tell_rounds"]


async def tell_rounds(tools: Tools, received: Transaction, steps: Steps | None) -> None:
    """Tell of a seal on a message that came in by SMTP, before it is taken off."""
    message = received.message
    if tools.seals is None or received.attempt or not seal_fields(message):
        return
    reading = await read_seal(message, tools.seals, tools.runtime, tools.settings.authserv_id, tools.limits)
    if not reading.valid:
        note(steps, "seal", f"{reading.reason}: removed")
        return
    note(steps, "seal", f"this gateway has delivered it before, at {reading.at}: the seal is removed, and it is judged again")
    if steps is None:
        session = received.session
        fields = {
            "id": received.id,
            "message_id": message_id(received),
            "listener": session.listener,
            "peer": session.peer,
            "delivered_at": str(reading.at),
        }
        tools.plugins.record(Event("came round", received.received_at, fields))
