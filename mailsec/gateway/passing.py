"""Proxy mode: a message that stays one copy and has nothing to wait for is passed on while its client waits, without the spool.

The one invariant (promise 1): 250 is said after the next hop's 250, or after the commit of what the next hop did not take. What was decrypted
or is to be is never passed on here: it goes by the spool, as does what becomes several copies or waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from mailsec.errors import Reply
from mailsec.gateway.outcomes import Receipt
from mailsec.model.queue import NewEntry, State

__all__ = ["Forwarder", "pass_on"]


class Forwarder(Protocol):
    """Who speaks to next hops."""

    async def forward(self, entry: NewEntry) -> Sequence[Reply] | None:
        """Hand `entry` to its next hop now; what that says to each recipient. None where it is for the spool: nothing was begun then."""
        ...


async def pass_on(forwarder: Forwarder, receipt: Receipt, *, each: bool) -> Receipt:
    """Pass on what can be, and return what is left for the spool and what the client is told. `each`: every recipient has a reply (LMTP)."""
    if len(receipt.rows) != 1 or len(receipt.replies) != len(receipt.rows[0].envelope.recipients):
        return receipt
    row = receipt.rows[0]
    if row.state is not State.READY or row.secret or row.sensitive:
        return receipt
    replies = await forwarder.forward(row)
    if replies is None:
        return receipt
    taken = [reply.positive for reply in replies]
    if all(taken):
        accepted = Reply(250, "2.0.0", f"passed on as {row.id}: {replies[0].text}"[:400])
        return Receipt((), accepted, tuple(replies) if each else (accepted,) * len(replies))
    # What passes by itself comes first: a client that is told 5yz forgets them all.
    refused = next((reply for reply in replies if reply.temporary), next(reply for reply in replies if not reply.positive))
    if each or not any(taken):
        return Receipt((), receipt.reply if any(taken) else refused, tuple(replies))
    # Some were taken, and one reply must do for all: the others are the relay's from now on, which tries again or tells the sender.
    left = tuple(recipient for recipient, reply in zip(row.envelope.recipients, replies, strict=True) if not reply.positive)
    return Receipt((replace(row, envelope=replace(row.envelope, recipients=left)),), receipt.reply, receipt.replies)
