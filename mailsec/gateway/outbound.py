"""The outbound path: from a message that somebody may send to copies that are signed and encrypted (docs/flow.md).

The one invariant (promises 2 and 8): no copy leaves that is protected less than its plan says, and nothing is signed for anybody but the
one From address that the identity may use.
"""

from __future__ import annotations

from dataclasses import replace

from mailsec.gateway.already import Already, already_protected
from mailsec.gateway.annotation import names_of
from mailsec.gateway.copies import Copies
from mailsec.gateway.correspondents import DIRECTORY, Correspondent
from mailsec.gateway.explanation import Steps, note
from mailsec.gateway.groups import fan_out, transaction_for, visible_recipients
from mailsec.gateway.identity import author
from mailsec.gateway.keyring import NO_SIGNERS, Signers
from mailsec.gateway.protection import choose_protection
from mailsec.gateway.rounds import tell_rounds
from mailsec.gateway.settling import refusal_of, settle, stricter
from mailsec.gateway.stripping import strip
from mailsec.gateway.telling import describe_candidates, describe_correspondent
from mailsec.gateway.tools import Tools
from mailsec.interfaces import Outcome
from mailsec.model.address import Address
from mailsec.model.partner import NOTHING_AGREED
from mailsec.model.protection import Candidates, EncryptionRecipient, ProtectionPlan
from mailsec.model.session import Recipient, Transaction
from mailsec.model.verdict import Decision, Finding

__all__ = ["handle_outbound"]


async def handle_outbound(tools: Tools, received: Transaction, steps: Steps | None = None) -> list[Outcome]:
    """The outcomes of one transaction of `submission` or `trusted`, by groups of recipients. Raise MailsecError: nothing is accepted."""
    limits = tools.limits
    sender = author(received, limits)
    note(steps, "identity", f"From {sender}" if sender else "nobody may be signed for: relayed as it is")
    await tell_rounds(tools, received, steps)
    transaction = strip(tools, received)
    findings = await tools.plugins.findings(tools.runtime, limits, transaction=transaction, original=received.message.octets, smime=None)

    signers = NO_SIGNERS if sender is None else await tools.evidence.usable(await tools.keys.signers(sender))
    already = await already_protected(tools, transaction.message)
    if sender is None:
        already = replace(already, signed=False)
    if steps is not None:
        note(steps, "candidates", describe_candidates(signers, already))

    planning = _Planning(tools, transaction, sender, signers, already, findings, steps)
    chosen = [await planning.choose(recipient) for recipient in received.envelope.recipients]
    copies = Copies(tools, transaction, names_of(transaction.message), signers, planning.recipients, findings, steps)
    # who is shown matters only where somebody could count for whom a copy is encrypted
    visible = visible_recipients(transaction.message, limits) if any(plan.encrypt for plan, _ in chosen) else frozenset()
    groups = fan_out(received.envelope.recipients, chosen, visible)
    return [outcome for (plan, decision), recipients in groups for outcome in await copies.make(plan, decision, recipients)]


class _Planning:
    """Plan and decision for one recipient after the other."""

    def __init__(
        self,
        tools: Tools,
        transaction: Transaction,
        sender: Address | None,
        signers: Signers,
        already: Already,
        findings: tuple[Finding, ...],
        steps: Steps | None,
    ) -> None:
        self._tools = tools
        self._transaction = transaction
        self._sender = sender
        self._signers = signers
        self._already = already
        self._findings = findings
        self._steps = steps
        self._own: Correspondent | None = None
        self.recipients: dict[str, EncryptionRecipient] = {}
        """Everybody who may be encrypted to, by fingerprint."""

    async def choose(self, recipient: Recipient) -> tuple[ProtectionPlan, Decision]:
        tools, single = self._tools, transaction_for(self._transaction, recipient)
        # Nobody is asked for certificates before it is known that the message is to be encrypted, and nobody elsewhere before this machine.
        found = Correspondent(recipient.address, wait=DIRECTORY, unasked=True)
        plan = await self._plan(single, found)
        for everywhere in (False, True):
            if plan.wait and plan.wait == found.wait and found.unasked:
                found = await tools.correspondents.find(recipient.address, everywhere=everywhere)
                plan = await self._plan(single, found)
        if self._steps is not None and (plan.encrypt or any(level[0] == "encrypt" and level[1] != "never" for level in plan.levels)):
            note(self._steps, "certificate", describe_correspondent(found), reason=None if found.chosen else found.missing)
        decision = settle(tools.plugins, single, None, self._findings)
        return plan, decision if plan.refusal is None else stricter(decision, refusal_of(plan))

    async def _plan(self, single: Transaction, found: Correspondent) -> ProtectionPlan:
        tools, signers = self._tools, self._signers
        own = await self._own_certificates() if found.chosen else None
        for known in (found, own):
            if known is not None:
                self.recipients.update(known.recipients())
        missing = signers.missing if found.missing is None else (*signers.missing, found.missing)
        candidates = Candidates(
            self._sender,
            found.address,
            signers.names,
            found.certificates,
            self._already.signed,
            self._already.encrypted,
            missing,
            signers.wait,
            found.wait,
            NOTHING_AGREED if tools.partners is None else await tools.partners.agreed(found.address),
            () if own is None else own.certificates,
            found.profiles if own is None else {**own.profiles, **found.profiles},
        )
        return choose_protection(tools.plugins, single, candidates, self._findings)

    async def _own_certificates(self) -> Correspondent | None:
        if self._own is None and self._sender is not None:
            self._own = await self._tools.correspondents.find(self._sender)
        return self._own
