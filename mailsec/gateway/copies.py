"""The copies of an outgoing message: one for each group of recipients, made as its plan says, and looked at before it is committed.

The one invariant (promise 2): what a plan wants encrypted leaves encrypted, for exactly the certificates of the plan, or stays here. One
recipient's failure is that recipient's only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mailsec.errors import CryptoError, KeyUnavailable, LimitExceeded, Refused, TryLater
from mailsec.gateway.annotation import annotate
from mailsec.gateway.explanation import Steps, note
from mailsec.gateway.keyring import Signers, need_of
from mailsec.gateway.settling import DELIVER, refusal_of
from mailsec.gateway.telling import describe_plan, describe_settings
from mailsec.gateway.tools import Tools
from mailsec.interfaces import Outcome
from mailsec.model.address import Address
from mailsec.model.message import Message
from mailsec.model.octets import Segments
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.model.session import Transaction
from mailsec.model.verdict import Decision, Finding, Reason
from mailsec.smime.encrypted import encrypted_for

__all__ = ["Copies", "quiet_header"]

RETRY = "retry"
"""The need of a copy that could not be made now, for a reason that is nobody's token, directory or responder."""

_HIDING = ("baseline", "shy")
_MADE = {
    (sign, encrypt): {"protection": " and ".join(["signed"] * sign + ["encrypted"] * encrypt)}
    for sign in (False, True)
    for encrypt in (False, True)
}
"""What was done to a copy, for the log."""
_NOTHING_MADE: dict[str, str] = {}
_QUOTED = frozenset({"message-id", "in-reply-to", "references", "received", "mime-version"})


class Copies:
    """Makes them for one transaction; they count together (`limits.max_expansion`)."""

    def __init__(
        self,
        tools: Tools,
        transaction: Transaction,
        names: frozenset[str],
        signers: Signers,
        recipients: Mapping[str, EncryptionRecipient],
        findings: tuple[Finding, ...],
        steps: Steps | None,
    ) -> None:
        self._tools = tools
        self._transaction = transaction
        self._names = names
        self._signers = signers
        self._recipients = recipients
        self._findings = findings
        self._steps = steps
        self._octets = 0
        limits = tools.limits
        self._most = max(limits.expansion_octets, limits.max_expansion * len(transaction.message))

    async def make(self, plan: ProtectionPlan, decision: Decision, recipients: tuple[Address, ...]) -> list[Outcome]:
        """The outcome of a group; several where a copy for all of it cannot be made, and each gets one of its own."""
        if self._steps is not None:
            note(self._steps, "plan", describe_plan(plan), plan.rule, plan.refusal)
            if plan.levels:
                note(self._steps, "settings", describe_settings(plan))
        rule = plan.rule
        if decision.action != "deliver":
            note(self._steps, "decision", f"{decision.action}: {decision.reason}", decision.rule or rule)
            return [self._outcome(plan, decision, recipients, rule=decision.rule or rule)]
        if plan.wait:
            note(self._steps, "decision", f"waits for {plan.wait}", rule)
            return [self._outcome(plan, DELIVER, recipients, need=plan.wait)]
        segments = Segments.of(self._transaction.message.octets)
        if (plan.sign or plan.encrypt) and self._steps is None:
            try:
                segments = await self._protected(plan)
            except KeyUnavailable as error:
                return [self._outcome(plan, DELIVER, recipients, need=need_of(error, plan.signer))]
            except (CryptoError, Refused) as error:
                if not plan.encrypt:
                    raise TryLater(f"signing with {plan.signer} failed: {error.message}", hint=error.hint, stage="protect") from error
                return await self._one_by_one(plan, decision, recipients, error)
        segments = await annotate(self._tools, self._transaction, recipients, None, segments, self._names)
        if plan.encrypt and self._steps is None and not self._is_as_planned(plan, segments):
            return [self._outcome(plan, _NOT_ENCRYPTED, recipients)]
        self._count(segments)
        note(self._steps, "decision", decision.reason or "deliver", decision.rule or rule)
        return [self._outcome(plan, decision, recipients, segments=segments, rule=decision.rule or rule)]

    async def _protected(self, plan: ProtectionPlan) -> Segments:
        signers = [self._signers.handles[plan.signer]] if plan.sign else []
        at = self._transaction.received_at
        if not plan.encrypt:
            return await self._tools.engine.protect(self._transaction.message, plan, signers, at)
        to = [self._recipients[one] for one in plan.recipients]
        return await self._tools.engine.protect(self._transaction.message, plan, signers, at, to)

    async def _one_by_one(
        self, plan: ProtectionPlan, decision: Decision, recipients: tuple[Address, ...], error: CryptoError | Refused
    ) -> list[Outcome]:
        """One certificate that cannot receive stops one copy, not all."""
        if len(recipients) > 1:
            found: list[Outcome] = []
            for recipient in recipients:
                own = await self._tools.correspondents.find(recipient)
                certificates = tuple(one for one in plan.recipients if one in own.certificates)
                found += await self.make(replace(plan, recipients=certificates or plan.recipients), decision, (recipient,))
            return found
        if isinstance(error, Refused):
            reason = Reason("no-certificate", "policy", error.message, error.hint)
            return [self._outcome(plan, refusal_of(replace(plan, refusal=reason)), recipients)]
        waits = replace(DELIVER, reason=f"encrypting failed: {error.message}")
        return [self._outcome(plan, waits, recipients, need=RETRY)]

    def _is_as_planned(self, plan: ProtectionPlan, segments: Segments) -> bool:
        wanted = len(plan.recipients)
        return encrypted_for(segments, self._tools.limits, most=wanted) == wanted

    def _count(self, segments: Segments) -> None:
        self._octets += len(segments)
        if self._octets > self._most:
            raise LimitExceeded(
                "max_expansion",
                f"the copies of one message would have more than {self._most} octets: each hidden recipient of encrypted mail has one",
                hint="send it to fewer hidden recipients at once, or raise max_expansion",
                stage="protect",
            )

    def _outcome(
        self,
        plan: ProtectionPlan,
        decision: Decision,
        recipients: tuple[Address, ...],
        *,
        segments: Segments | None = None,
        need: str = "",
        rule: str = "",
    ) -> Outcome:
        hides = plan.header_protection in _HIDING
        return Outcome(
            recipients,
            decision,
            segments,
            None,
            self._findings,
            need=need,
            rule=rule or plan.rule,
            explanation=_MADE[plan.sign, plan.encrypt] if segments is not None else _NOTHING_MADE,
            plan=plan,
            header=quiet_header(self._transaction.message) if hides else None,
        )


_NOT_ENCRYPTED = Decision(
    "hold", None, reason="the copy that was made is not encrypted as its plan says: it does not leave (a plugin may have spoilt it)"
)


def quiet_header(message: Message) -> bytes:
    """The fields that a report may quote of a message whose header is not for everybody: by them its sender knows which one is meant."""
    return b"".join(message.raw(field) for field in message.fields if field.name in _QUOTED)
