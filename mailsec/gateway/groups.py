"""Recipients who get the same copy share one outcome (design: groups).

The one invariant: two recipients are in one group only where plan and decision are equal, so nobody's copy follows another's rule; and in
one encrypted copy only where the header shows both of them, since whoever reads it can count and tell apart for whom it is.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from typing import TypeVar

from mailsec.mime.addresses import mailboxes
from mailsec.model.address import Address
from mailsec.model.limits import Limits
from mailsec.model.message import Message
from mailsec.model.protection import ProtectionPlan
from mailsec.model.session import Envelope, Recipient, Transaction
from mailsec.model.verdict import Decision

__all__ = ["envelope_for", "fan_out", "split_groups", "transaction_for", "visible_recipients"]

T = TypeVar("T")

_SHOWN = frozenset({"to", "cc", "resent-to", "resent-cc"})


def split_groups(recipients: Sequence[Recipient], chosen: Sequence[T]) -> list[tuple[T, tuple[Address, ...]]]:
    """Pairs of what was chosen and who it was chosen for, in the order of their first recipients. `chosen` compares by value."""
    if len(recipients) == 1:
        return [(chosen[0], (recipients[0].address,))]
    groups: list[tuple[T, list[Address]]] = []
    # decisions hold replies and plans hold reasons: all of them are hashable values
    index: dict[T, list[Address]] = {}
    for recipient, choice in zip(recipients, chosen, strict=True):
        members = index.get(choice)
        if members is None:
            members = index[choice] = []
            groups.append((choice, members))
        members.append(recipient.address)
    return [(choice, tuple(members)) for choice, members in groups]


def fan_out(
    recipients: Sequence[Recipient], chosen: Sequence[tuple[ProtectionPlan, Decision]], visible: Set[str]
) -> list[tuple[tuple[ProtectionPlan, Decision], tuple[Address, ...]]]:
    """The same for outgoing copies. One that is encrypted is for all whom the header shows (`visible`: `Address.key`s), with the certificates
    of all of them, or for a single one who is hidden (Bcc).
    """
    keys: list[tuple[ProtectionPlan, Decision, str]] = []
    for recipient, (plan, decision) in zip(recipients, chosen, strict=True):
        hidden = ""
        if _is_encrypted(plan, decision):
            hidden = "" if recipient.address.key in visible else str(recipient.address)
            if not hidden:
                plan = replace(plan, recipients=())
        keys.append((plan, decision, hidden))
    plans = {recipient.address: plan for recipient, (plan, _) in zip(recipients, chosen, strict=True)}
    groups: list[tuple[tuple[ProtectionPlan, Decision], tuple[Address, ...]]] = []
    for (plan, decision, _), addresses in split_groups(recipients, keys):
        if _is_encrypted(plan, decision):
            certificates = dict.fromkeys(one for address in addresses for one in plans[address].recipients)
            plan = replace(plan, recipients=tuple(certificates))
        groups.append(((plan, decision), addresses))
    return groups


def _is_encrypted(plan: ProtectionPlan, decision: Decision) -> bool:
    return plan.encrypt and plan.refusal is None and not plan.wait and decision.action == "deliver"


def visible_recipients(message: Message, limits: Limits) -> frozenset[str]:
    """The keys of all addresses that every reader of the header sees as recipients. What cannot be read shows nobody."""
    return frozenset(
        address.key for field in message.fields if field.name in _SHOWN for address in mailboxes(message.value(field), limits).addresses
    )


def transaction_for(transaction: Transaction, recipient: Recipient) -> Transaction:
    """The transaction as it concerns one recipient: hooks that decide see no other."""
    if len(transaction.envelope.recipients) == 1:
        return transaction
    return Transaction(
        transaction.id,
        transaction.session,
        _narrow(transaction.envelope, (recipient,)),
        transaction.message,
        transaction.received_at,
        transaction.attempt,
    )


def envelope_for(envelope: Envelope, recipients: Sequence[Address]) -> Envelope:
    """The envelope of one group, DSN parameters kept."""
    if len(recipients) == len(envelope.recipients):
        return envelope
    wanted = set(recipients)
    return _narrow(envelope, tuple(one for one in envelope.recipients if one.address in wanted))


def _narrow(envelope: Envelope, recipients: tuple[Recipient, ...]) -> Envelope:
    return Envelope(
        envelope.reverse_path,
        recipients,
        envelope.size,
        envelope.body,
        envelope.smtputf8,
        envelope.ret,
        envelope.envid,
        envelope.auth,
    )
