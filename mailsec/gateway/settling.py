"""What happens to each recipient's copy: the strictest decision of all plugins counts (promise 7).

The one invariant: a failure anywhere defers. No answer, late answer, wrong answer: 451, never 250.
"""

from __future__ import annotations

import re

from mailsec.errors import MailsecError, PluginError, Refused, Reply
from mailsec.model.protection import ProtectionPlan
from mailsec.model.session import Transaction
from mailsec.model.verdict import Decision, Finding, Verdict
from mailsec.plugins import PluginManager

__all__ = ["DELIVER", "decision_of", "plain_text", "refusal_of", "settle", "stricter"]

DELIVER = Decision("deliver")
_RANK = {action: rank for rank, action in enumerate(Decision.STRICTNESS)}
_UNPRINTABLE = re.compile(r"[^ -~]+")
_LONGEST_TEXT = 400


def settle(plugins: PluginManager, transaction: Transaction, verdict: Verdict | None, findings: tuple[Finding, ...]) -> Decision:
    """The strictest decision for the recipients of `transaction`; "deliver" where nobody has an opinion."""
    for finding in findings:
        if finding.severity == "failure":
            return Decision("defer", PluginError.default_reply, reason=finding.message, rule=finding.source)
    chosen = DELIVER
    for implementation in plugins.implementations("decide_message"):
        answer = plugins.ask_now(implementation, {"transaction": transaction, "verdict": verdict, "findings": findings})
        if answer.failure is not None:
            return Decision("defer", answer.failure.reply, reason=answer.failure.message, rule=answer.plugin)
        decision = answer.value
        if decision is None:
            continue
        if not isinstance(decision, Decision) or decision.action not in _RANK:
            return Decision(
                "defer", PluginError.default_reply, reason=f"plugin {answer.plugin}: decide_message: not a decision", rule=answer.plugin
            )
        if chosen is DELIVER or _RANK[decision.action] > _RANK[chosen.action]:
            chosen = _with_reply(decision)
    return chosen


def decision_of(error: MailsecError) -> Decision:
    """What an error that stopped the processing means for the message: come back, or no."""
    return _with_reply(Decision("defer" if error.temporary else "refuse", error.reply, reason=error.message, rule=error.stage))


def refusal_of(plan: ProtectionPlan) -> Decision:
    """The decision that a plan's refusal comes to: held for a person, or refused with a reason that the sender understands."""
    assert plan.refusal is not None
    why = plan.refusal.message
    if plan.failure == "hold":
        return Decision("hold", None, reason=why, rule=plan.rule)
    # RFC 3463 §3.8: X.7.1, a policy forbids it. The sender is one of ours and has shown who they are: they are told why.
    return Decision("refuse", Reply(550, "5.7.1", plain_text(why)), reason=why, rule=plan.rule)


def stricter(one: Decision, other: Decision) -> Decision:
    """The stricter of two decisions; of equal ones the second."""
    return one if _RANK[one.action] > _RANK[other.action] else other


def _with_reply(decision: Decision) -> Decision:
    """A refusal says 5yz and a deferral 4yz, whatever the plugin wrote; the text is one line of US-ASCII."""
    if decision.action in ("deliver", "hold"):
        return decision
    first, fallback = ("5", Refused.default_reply) if decision.action == "refuse" else ("4", PluginError.default_reply)
    reply = decision.reply
    if reply is None or not str(reply.code).startswith(first) or (reply.enhanced and not reply.enhanced.startswith(first + ".")):
        reply = fallback
    text = plain_text(reply.text)
    if reply is decision.reply and text == reply.text:
        return decision
    return Decision(decision.action, Reply(reply.code, reply.enhanced, text), decision.reason, decision.rule)


def plain_text(text: str) -> str:
    """`text` as it may stand in a reply: one line of printable US-ASCII (RFC 5321 §4.2: textstring), not too long."""
    return _UNPRINTABLE.sub(" ", text)[:_LONGEST_TEXT].strip() or "refused"
