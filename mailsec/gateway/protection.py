"""Which protection each recipient's copy gets: the rules first, then every plugin; nobody can weaken what the rules chose.

The one invariant (promise 7): the plan that comes out is `stricter_than` the rules' plan, or there is none and the message is deferred; a
plan that asks for encryption names a certificate of the recipient, or waits, or is a refusal.
"""

from __future__ import annotations

from dataclasses import replace

from mailsec.errors import PluginError
from mailsec.model.protection import Candidates, ProtectionPlan
from mailsec.model.session import Transaction
from mailsec.model.verdict import Finding, Reason
from mailsec.plugins import PluginManager

__all__ = ["choose_protection"]

_NOTHING = ProtectionPlan()


def choose_protection(
    plugins: PluginManager, transaction: Transaction, candidates: Candidates, findings: tuple[Finding, ...]
) -> ProtectionPlan:
    """The plan for `candidates.recipient`. Raise PluginError where a plugin fails, or wants less than what was chosen before it."""
    plan: ProtectionPlan | None = None
    for implementation in plugins.implementations("plan_protection"):
        answer = plugins.ask_now(implementation, {"transaction": transaction, "candidates": candidates, "findings": findings, "plan": plan})
        if answer.failure is not None:
            raise answer.failure
        value = answer.value
        if value is None:
            continue
        if not isinstance(value, ProtectionPlan):
            raise PluginError(answer.plugin, "plan_protection", f"a {type(value).__name__} in place of a ProtectionPlan")
        if plan is None or value is plan:
            plan = value
            continue
        if not value.stricter_than(plan):
            raise PluginError(answer.plugin, "plan_protection", "a plan that is weaker than the one before it", hint="return None, or more")
        # promise 8: a plugin cannot bring a key that does not belong to the sender
        if value.sign and value.refusal is None and value.signer not in candidates.signers:
            raise PluginError(answer.plugin, "plan_protection", "a signer that does not belong to the sender")
        plan = value
        if (
            value.encrypt
            and value.refusal is None
            and not set(value.recipients) <= {*candidates.certificates, *candidates.own_certificates}
        ):
            raise PluginError(answer.plugin, "plan_protection", "a certificate that is neither the recipient's nor the sender's")
    return _NOTHING if plan is None else _completed(plan, candidates)


def _completed(plan: ProtectionPlan, candidates: Candidates) -> ProtectionPlan:
    """A plan that only says "encrypt" (a plugin's) gets the certificates of the recipient; where there is none it waits, or refuses."""
    if not plan.encrypt or plan.refusal is not None or set(plan.recipients) & set(candidates.certificates):
        return plan
    fitting = candidates.fitting(plan.profile)
    if fitting:
        return replace(plan, recipients=(*fitting, *plan.recipients))
    if candidates.encryption_wait:
        return replace(plan, wait=plan.wait or candidates.encryption_wait)
    for reason in candidates.missing:
        if reason.code in ("no-certificate", "recipient-revoked"):
            return replace(plan, refusal=replace(reason, message=f"encryption is required, and {reason.message}"))
    why = f"encryption is required, and no certificate of {candidates.recipient} fits the profile {plan.profile}"
    return replace(plan, refusal=Reason("no-certificate", "policy", why, "import another certificate, or choose another profile"))
