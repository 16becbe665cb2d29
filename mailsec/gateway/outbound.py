"""The outbound path: from a message that somebody may send to copies that are signed (docs/flow.md).

The one invariant (promises 2 and 8): no copy leaves that is protected less than its plan says, and nothing is signed for anybody but the
one From address that the identity may use.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.errors import CryptoError, InputError, KeyUnavailable, LimitExceeded, Reply, TryLater
from mailsec.gateway.annotation import annotate, names_of
from mailsec.gateway.explanation import Steps, note
from mailsec.gateway.groups import split_groups, transaction_for
from mailsec.gateway.identity import author
from mailsec.gateway.keyring import NO_SIGNERS, Signers, need_of
from mailsec.gateway.protection import choose_protection
from mailsec.gateway.settling import DELIVER, plain_text, settle
from mailsec.gateway.stripping import strip
from mailsec.gateway.tools import Tools
from mailsec.interfaces import Outcome
from mailsec.model.address import Address
from mailsec.model.message import Message
from mailsec.model.octets import Segments
from mailsec.model.protection import Candidates, ProtectionPlan
from mailsec.model.session import Transaction
from mailsec.model.verdict import Decision, Finding, Reason

__all__ = ["handle_outbound"]

# Encryption comes with the full engine; until then what requires it is refused or held, and never leaves in clear (promise 2).
_NO_ENCRYPTION = Reason(
    "no-encryption",
    "policy",
    "encryption is required here, and this gateway cannot encrypt yet",
    hint='take encrypt = "required" out of the rule, or send by another way',
)


async def handle_outbound(tools: Tools, received: Transaction, steps: Steps | None = None) -> list[Outcome]:
    """The outcomes of one transaction of `submission` or `trusted`, by groups of recipients. Raise MailsecError: nothing is accepted."""
    limits = tools.limits
    sender = author(received, limits)
    note(steps, "identity", f"From {sender}" if sender else "nobody may be signed for: relayed as it is")
    transaction = strip(tools, received)
    findings = await tools.plugins.findings(tools.runtime, limits, transaction=transaction, original=received.message.octets, smime=None)

    signers = NO_SIGNERS if sender is None else await tools.evidence.usable(await tools.keys.signers(sender))
    already_signed = sender is not None and await is_signed_by_author(tools, transaction.message)
    note(steps, "candidates", _describe(signers, already_signed))

    chosen: list[tuple[ProtectionPlan, Decision]] = []
    for recipient in received.envelope.recipients:
        single = transaction_for(transaction, recipient)
        candidates = Candidates(
            sender,
            recipient.address,
            signers.names,
            (),
            already_signed,
            False,
            (*signers.missing, _NO_ENCRYPTION),
            signers.wait,
        )
        plan = choose_protection(tools.plugins, single, candidates, findings)
        decision = settle(tools.plugins, single, None, findings)
        if plan.refusal is not None:
            decision = _stricter(decision, refusal_of(plan))
        chosen.append((plan, decision))

    names = names_of(transaction.message)
    outcomes: list[Outcome] = []
    for (plan, decision), recipients in split_groups(received.envelope.recipients, chosen):
        note(steps, "plan", _describe_plan(plan), plan.rule, plan.refusal)
        outcomes.append(await _protect_group(tools, transaction, names, plan, decision, recipients, signers, findings, steps))
    return outcomes


async def _protect_group(
    tools: Tools,
    transaction: Transaction,
    names: frozenset[str],
    plan: ProtectionPlan,
    decision: Decision,
    recipients: tuple[Address, ...],
    signers: Signers,
    findings: tuple[Finding, ...],
    steps: Steps | None,
) -> Outcome:
    rule = plan.rule
    if decision.action != "deliver":
        note(steps, "decision", f"{decision.action}: {decision.reason}", decision.rule or rule)
        return Outcome(recipients, decision, None, None, findings, rule=decision.rule or rule)
    if plan.wait:
        note(steps, "decision", f"waits for {plan.wait}", rule)
        return Outcome(recipients, DELIVER, None, None, findings, need=plan.wait, rule=rule)
    message = transaction.message
    segments = Segments.of(message.octets)
    if plan.sign or plan.encrypt:
        if plan.encrypt:
            # promise 2: a plan that asks for what this engine does not do ends here
            return Outcome(recipients, refusal_of(ProtectionPlan(refusal=_NO_ENCRYPTION)), None, None, findings, rule=rule)
        if steps is None:
            try:
                segments = await tools.engine.protect(message, plan, [signers.handles[plan.signer]], transaction.received_at)
            except KeyUnavailable as error:
                return Outcome(recipients, DELIVER, None, None, findings, need=need_of(error, plan.signer), rule=rule)
            except CryptoError as error:
                raise TryLater(f"signing with {plan.signer} failed: {error.message}", hint=error.hint, stage="protect") from error
    segments = await annotate(tools, transaction, recipients, None, segments, names)
    note(steps, "decision", decision.reason or "deliver", decision.rule or rule)
    return Outcome(recipients, decision, segments, None, findings, rule=rule)


async def is_signed_by_author(tools: Tools, message: Message) -> bool:
    """True where the outermost entity is a signature that is intact, by a certificate that names the From address.

    Whether it chains is for readers to say: what somebody's own program has signed is not ours to sign over. Anything less counts as
    unsigned: a broken signature, or a stranger's, must not keep ours away.
    """
    kind = message.first("content-type")
    if kind is None:
        return False
    kind = kind.lower()
    if "multipart/signed" not in kind and "pkcs7" not in kind:
        return False
    try:
        result = await tools.engine.unprotect(message, ())
        verdict = await tools.evidence.judge(result, message, revocation=False)
    except (InputError, LimitExceeded):
        return False
    if not verdict.layers or not result.layers or not result.layers[0].covers_all:
        return False
    outermost = verdict.layers[0]
    return (
        outermost.type == "signed-data"
        and bool(outermost.signers)
        and all(signer.intact and signer.matches_from is True for signer in outermost.signers)
    )


def refusal_of(plan: ProtectionPlan) -> Decision:
    """The decision that a plan's refusal comes to: held for a person, or refused with a reason that the sender understands."""
    assert plan.refusal is not None
    why = plan.refusal.message
    if plan.failure == "hold":
        return Decision("hold", None, reason=why, rule=plan.rule)
    # RFC 3463 §3.8: X.7.1, a policy forbids it. The sender is one of ours and has shown who they are: they are told why.
    return Decision("refuse", Reply(550, "5.7.1", plain_text(why)), reason=why, rule=plan.rule)


def _stricter(one: Decision, other: Decision) -> Decision:
    order = Decision.STRICTNESS
    return one if order.index(one.action) > order.index(other.action) else other


def _describe(signers: Signers, already_signed: bool) -> str:
    if already_signed:
        return "signed by its author already"
    if signers.names:
        return f"keys that may sign: {', '.join(signers.names)}"
    return f"no key at hand, waits for {signers.wait}" if signers.wait else "no key that may sign"


def _describe_plan(plan: ProtectionPlan) -> str:
    if plan.refusal is not None:
        return f"{plan.failure}: {plan.refusal.message}"
    if plan.wait:
        return f"wait for {plan.wait}"
    done: Sequence[str] = [*(["encrypt"] if plan.encrypt else []), *([f"sign ({plan.form}) with {plan.signer}"] if plan.sign else [])]
    return ", ".join(done) or "relay as it is"
