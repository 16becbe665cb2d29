"""From outcomes to rows of the spool and one reply: all or nothing (promise 1).

The one invariant: what gets a 250 is in a row; what gets a 4yz or 5yz is in none. Where a part is refused after another part was taken, the
refusal becomes a DSN (`submission`, `trusted`) or a held row (`internet`), never silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mailsec.errors import Refused, Reply
from mailsec.gateway.bounce import wants_report
from mailsec.gateway.groups import envelope_for
from mailsec.gateway.notices import Notices
from mailsec.gateway.trace import message_id
from mailsec.gateway.waiting import write_session
from mailsec.interfaces import Outcome
from mailsec.model.address import Address
from mailsec.model.octets import Segments
from mailsec.model.queue import NewEntry, State
from mailsec.model.session import Transaction
from mailsec.model.verdict import Decision

__all__ = ["LATER", "Receipt", "is_told", "must_report", "receipt_of", "rows_of", "waiting_on"]

LATER = "process"
"""The need of an outcome that is committed raw and processed at once by `Pipeline.resume`; the row itself then needs nothing."""

REFUSED = Refused.default_reply

_DELIVER = Decision("deliver")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is committed, and what the client is told: one reply, or one for each recipient (LMTP, RFC 2033 §4.2)."""

    rows: tuple[NewEntry, ...]
    reply: Reply
    replies: tuple[Reply, ...]


def receipt_of(transaction: Transaction, outcomes: Sequence[Outcome], notices: Notices, *, each: bool = False) -> Receipt:
    """Rows and replies for outcomes of a fresh transaction. `each`: every recipient gets a reply of its own."""
    accepted = Reply(250, "2.0.0", f"accepted as {transaction.id}")
    if len(outcomes) == 1:
        outcome = outcomes[0]
        reply = outcome.decision.reply
        if reply is not None and outcome.decision.action in ("refuse", "defer"):
            return Receipt((), reply, (reply,) * len(outcome.recipients))
        return Receipt(rows_of(transaction, outcomes, notices), accepted, (accepted,) * len(outcome.recipients))
    own: dict[Address, Reply] = {}
    for outcome in outcomes:
        negative = outcome.decision.reply if outcome.decision.action in ("refuse", "defer") else None
        own.update(dict.fromkeys(outcome.recipients, negative or accepted))
    replies = tuple(own[recipient.address] for recipient in transaction.envelope.recipients)
    if each:
        taken = [outcome for outcome in outcomes if outcome.decision.action in ("deliver", "hold")]
        reply = accepted if taken else replies[0]
        return Receipt(rows_of(transaction, taken, notices), reply, replies)
    if transaction.session.origin.outbound and any(outcome.decision.action in ("deliver", "hold") for outcome in outcomes):
        # Whom it cannot be made for now waits here: the sender can still be told if that comes to nothing, and the others need not wait.
        outcomes = [waiting_on(outcome) for outcome in outcomes]
    # From the Internet one recipient that must be tried again makes the client try all again: whoever is refused later could not be told.
    # Nothing of it is kept, so nobody gets it twice.
    for outcome in outcomes:
        if outcome.decision.action == "defer" and outcome.decision.reply is not None:
            return Receipt((), outcome.decision.reply, (outcome.decision.reply,) * len(replies))
    if all(outcome.decision.action == "refuse" for outcome in outcomes):
        return Receipt((), replies[0], replies)
    return Receipt(rows_of(transaction, outcomes, notices), accepted, (accepted,) * len(replies))


def rows_of(transaction: Transaction, outcomes: Sequence[Outcome], notices: Notices, *, resumed: bool = False) -> tuple[NewEntry, ...]:
    """The rows for outcomes that are answered with 250, or that a resumed row becomes (under new ids). None is deferred."""
    if len(outcomes) == 1 and not resumed and outcomes[0].decision.action != "refuse":
        return (_row(transaction, outcomes[0], transaction.id),)
    rows: list[NewEntry] = []
    refused: list[Outcome] = []
    for outcome in outcomes:
        if outcome.decision.action == "refuse" and is_told(transaction):
            refused.append(outcome)
            continue
        row = _row(transaction, outcome, _next_id(transaction, rows))
        rows.append(row)
        if row.state is State.HELD and must_report(transaction, outcome):
            rows.append(notices.held(transaction, row.id, row.reason, _next_id(transaction, rows)))
    if refused:
        # RFC 3461 §4.1: whose NOTIFY asks for silence gets no report; then a person looks at it, for nothing accepted is forgotten
        silent = {recipient.address for recipient in transaction.envelope.recipients if not wants_report(recipient)}
        told = [(address, one.decision.reply or REFUSED) for one in refused for address in one.recipients if address not in silent]
        quiet = next((outcome.header for outcome in refused if outcome.header is not None), None)
        report = notices.refused(transaction, told, _next_id(transaction, rows), header=quiet) if told else None
        if report is not None:
            rows.append(report)
        for outcome in refused:
            untold = outcome.recipients if report is None else tuple(one for one in outcome.recipients if one in silent)
            if untold:
                rows.append(_row(transaction, replace(outcome, recipients=untold), _next_id(transaction, rows)))
    return tuple(rows)


def waiting_on(outcome: Outcome) -> Outcome:
    """Where one group of several is deferred, it becomes a raw row of its own that is tried again by itself."""
    if outcome.decision.action == "defer":
        return replace(outcome, decision=replace(_DELIVER, reason=outcome.decision.reason), need="retry")
    return outcome


def is_told(transaction: Transaction) -> bool:
    """True where the sender may be told of a refusal after the 250.

    RFC 5321 §4.5.5: not where the reverse path is null. Not on `internet` either: who is written there may never have sent anything.
    """
    return transaction.session.origin.outbound and transaction.envelope.reverse_path is not None


def must_report(transaction: Transaction, outcome: Outcome) -> bool:
    """True where our postmaster is told: what was encrypted on arrival is held without a word to its sender (promise 6)."""
    return not transaction.session.origin.outbound and outcome.verdict is not None and outcome.verdict.encrypted


def _next_id(transaction: Transaction, rows: Sequence[NewEntry]) -> str:
    return f"{transaction.id}.{len(rows) + 1}"


def _row(transaction: Transaction, outcome: Outcome, row_id: str) -> NewEntry:
    session, message = transaction.session, transaction.message
    envelope = envelope_for(transaction.envelope, outcome.recipients)
    identity = session.identity.name if session.identity is not None else ""
    state = State.READY
    need = ""
    if outcome.decision.action != "deliver":
        state = State.HELD
    elif outcome.need:
        state, need = State.RAW, "" if outcome.need == LATER else outcome.need
    elif outcome.segments is None:
        # a copy that was not made does not leave: a person looks at it
        state = State.HELD
    ready = state is State.READY and outcome.segments is not None
    return NewEntry(
        row_id,
        state,
        envelope,
        outcome.segments if ready and outcome.segments is not None else Segments.of(message.octets),
        transaction.received_at,
        session.origin,
        session.listener,
        outcome.secret or not ready,
        identity,
        need,
        outcome.decision.reason,
        bytes(message.octets.view(0, message.header_end)) if outcome.header is None else outcome.header,
        message_id(transaction),
        outcome.rule,
        outcome.verdict.word.value if outcome.verdict is not None else "",
        (outcome.verdict is not None and outcome.verdict.encrypted) or outcome.need == LATER,
        b"" if ready else write_session(session),
    )
