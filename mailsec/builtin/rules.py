"""The rules of the configuration as a plugin: they choose protection and decide through the same hooks as everybody else.

The one invariant: where something is required and cannot be done, the plan holds a refusal (or a wait); never a weaker plan.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.errors import Reply
from mailsec.hookspecs import hookimpl
from mailsec.mime.addresses import mailboxes
from mailsec.mime.fields import decode_words
from mailsec.model.address import Address
from mailsec.model.message import Message
from mailsec.model.protection import Candidates, ProtectionPlan
from mailsec.model.session import Transaction
from mailsec.model.verdict import Decision, Reason, Verdict
from mailsec.rules.conditions import Facts
from mailsec.rules.ruleset import Rule, RuleSet

__all__ = ["RulesPlugin"]


class RulesPlugin:
    """`plan_protection` and `decide_message` from a `RuleSet`."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules

    # asked before all others, so that every plugin is shown what the rules chose
    @hookimpl(tryfirst=True)
    def plan_protection(self, transaction: Transaction, candidates: Candidates) -> ProtectionPlan:
        """The plan of the first rules that have an opinion about signing and about encryption."""
        facts = _facts(transaction, candidates.sender, candidates.recipient)
        signing = self.rules.choose("sign", facts)
        encryption = self.rules.choose("encrypt", facts)
        name = signing.name if signing is encryption or encryption is self.rules.default else f"{signing.name}, {encryption.name}"

        signer, wait, refusal, failure = "", "", None, signing.failure
        if signing.sign != "never" and candidates.sender is not None and not candidates.already_signed:
            signer = _signer(signing, candidates)
            if not signer and signing.sign == "required":
                wait = candidates.wait
                refusal = None if wait else _no_key(signing, candidates)

        recipients: tuple[str, ...] = ()
        if encryption.encrypt != "never" and not candidates.already_encrypted:
            recipients = candidates.certificates
            if not recipients and encryption.encrypt == "required" and refusal is None:
                refusal, failure = _no_certificate(candidates), encryption.failure
        return ProtectionPlan(
            sign=bool(signer),
            encrypt=bool(recipients),
            signer=signer,
            form=signing.form,
            profile=signing.profile if not recipients else encryption.profile,
            recipients=recipients,
            refusal=refusal,
            failure=failure,
            wait="" if refusal else wait,
            rule=name,
        )

    @hookimpl
    def decide_message(self, transaction: Transaction, verdict: Verdict | None) -> Decision | None:
        """Inbound: what is required to be trusted and is not meets the rule's `failure`."""
        if verdict is None or not self.rules.has_opinion("inbound"):
            return None
        decision: Decision | None = None
        sender = _author(transaction.message) or transaction.envelope.reverse_path
        for recipient in transaction.envelope.recipients:
            rule = self.rules.choose("inbound", _facts(transaction, sender, recipient.address))
            if rule.inbound == "required" and not verdict.trusted:
                if rule.failure == "refuse":
                    return _untrusted(rule, verdict)
                decision = _untrusted(rule, verdict)
            elif decision is None:
                decision = Decision("deliver", rule=rule.name)
        return decision


def _facts(transaction: Transaction, sender: Address | None, recipient: Address) -> Facts:
    session, message = transaction.session, transaction.message

    def header(name: str) -> Sequence[str]:
        return [decode_words(value) for value in message.values(name)]

    return Facts(session.listener, session.origin, session.identity.name if session.identity is not None else "", sender, recipient, header)


def _author(message: Message) -> Address | None:
    """The one From address; None where there is none or more than one."""
    values = message.values("from")
    if len(values) != 1:
        return None
    found = mailboxes(values[0])
    return found.addresses[0] if len(found.addresses) == 1 and not found.problems else None


def _signer(rule: Rule, candidates: Candidates) -> str:
    if rule.signer == "from":
        return candidates.signers[0] if candidates.signers else ""
    return rule.signer if rule.signer in candidates.signers else ""


def _no_key(rule: Rule, candidates: Candidates) -> Reason:
    for reason in candidates.missing:
        if reason.code == "no-signing-key" or (reason.code == "key-revoked" and (rule.signer == "from" or rule.signer in reason.message)):
            return reason
    named = "" if rule.signer == "from" else f" called {rule.signer}"
    return Reason(
        "no-signing-key",
        "policy",
        f"rule {rule.name!r} requires a signature, and there is no signing key{named} for {candidates.sender}",
        hint=f"import or issue a certificate with its key for {candidates.sender}, or assign one to it",
    )


def _no_certificate(candidates: Candidates) -> Reason:
    for reason in candidates.missing:
        if reason.code in ("no-certificate", "no-encryption"):
            return reason
    return Reason(
        "no-certificate",
        "policy",
        f"encryption is required, and there is no valid certificate of {candidates.recipient}",
        hint=f"import a certificate of {candidates.recipient}",
    )


def _untrusted(rule: Rule, verdict: Verdict) -> Decision:
    why = verdict.reasons[0].message if verdict.reasons else f"smime={verdict.word.value}"
    action = "hold" if rule.failure == "hold" else "refuse"
    # RFC 3463 §3.8: X.7.1 is a policy that forbids delivery. The words are fixed: a reason could quote what was inside encryption.
    reply = Reply(550, "5.7.1", "a trusted S/MIME signature is required here")
    return Decision(action, reply if action == "refuse" else None, reason=why, rule=rule.name)
