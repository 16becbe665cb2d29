"""Recipients who get the same copy share one outcome (design: groups).

The one invariant: two recipients are in one group only where plan and decision are equal, so nobody's copy follows another's rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from mailsec.model.address import Address
from mailsec.model.session import Envelope, Recipient, Transaction

__all__ = ["envelope_for", "split_groups", "transaction_for"]

T = TypeVar("T")


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
