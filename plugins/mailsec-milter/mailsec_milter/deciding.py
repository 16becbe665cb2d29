"""From the outcomes of a transaction to the one answer that a milter can give.

An MTA has one copy for all recipients, keeps it, and answers 250 itself. The one invariant: what a copy cannot be for everybody is refused
with a reason; what must wait or fails is tried again by the client; nothing leaves less protected than its plan says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mailsec.errors import Reply
from mailsec.interfaces import Outcome
from mailsec.mime.results import forged_results
from mailsec.model.limits import Limits
from mailsec.model.message import Message
from mailsec.model.session import Transaction
from mailsec_milter.edits import changes_between, fields_of, header_of, new_body
from mailsec_milter.questions import Answer, Change

__all__ = ["answer_to"]

_WAITS = Reply(451, "4.3.2", "a key, a directory or a responder is not available, try again later")
_DIFFERENT = Reply(550, "5.7.1", "the recipients need different copies of this message: send it to each of them by itself")
_NO_HOLD = Reply(550, "5.7.1", "a rule holds this message for a person, and here nothing can be held: it was not sent")
_DEFER = Reply(451, "4.3.0", "local policy error, try again later")
_REFUSE = Reply(550, "5.7.1", "refused by policy")


def answer_to(
    transaction: Transaction, outcomes: Sequence[Outcome], authserv_id: str, limits: Limits, *, quarantines: bool
) -> Answer | Reply:
    """What the MTA is told of `transaction.message`. `quarantines`: whether it can put a message on hold."""
    for outcome in outcomes:
        if outcome.decision.action == "defer":
            return outcome.decision.reply or _DEFER
    if not outcomes or any(outcome.need for outcome in outcomes):
        return _WAITS
    refusals = [outcome.decision.reply or _REFUSE for outcome in outcomes if outcome.decision.action == "refuse"]
    if refusals:
        # One refusal is for all: the MTA has one answer, and a recipient who is left out would never be missed.
        told = refusals[0]
        return told if len(refusals) == len(outcomes) else Reply(told.code, told.enhanced, f"{told.text} (one of several recipients)")
    held = [outcome for outcome in outcomes if outcome.decision.action == "hold"]
    if held:
        return _held(transaction, held[0], authserv_id, quarantines=quarantines)
    if len({_copy_of(outcome, limits) for outcome in outcomes}) > 1:
        return _DIFFERENT
    segments = outcomes[0].segments
    if segments is None:
        return _WAITS
    header = header_of(segments, limits)
    changes = changes_between(fields_of(transaction.message), fields_of(header))
    return Answer(tuple(changes), new_body(transaction.message, segments, header))


def _held(transaction: Transaction, outcome: Outcome, authserv_id: str, *, quarantines: bool) -> Answer | Reply:
    if transaction.session.origin.outbound or not quarantines:
        # Released from the MTA's queue it would leave as it is: in clear, or unsigned. Nothing here sees it again.
        return _NO_HOLD
    return Answer(tuple(without_forged_results(transaction.message, authserv_id)), quarantine=outcome.decision.reason or "held by mailsec")


def without_forged_results(message: Message, authserv_id: str) -> list[Change]:
    """The changes that take away results which claim to be ours."""
    gone = frozenset(forged_results(message, authserv_id).remove)
    kept = [field for one, field in zip(message.fields, fields_of(message), strict=True) if one not in gone]
    return changes_between(fields_of(message), kept)


def _copy_of(outcome: Outcome, limits: Limits) -> object:
    """What tells copies apart. Two that are signed by equal plans serve alike, though no signature is made twice the same."""
    plan = outcome.plan
    if plan is None:
        return header_of(outcome.segments, limits).octets.view(0, limits.header_octets) if outcome.segments is not None else b""
    if plan.encrypt:
        return id(outcome)
    if not plan.sign:
        return "as it is"
    return replace(plan, rule="", levels=(), failure="")
