"""The inbound path: what arrives is checked and passed on octet for octet, with a verdict on top (docs/flow.md).

The one invariant (promises 3 and 4): the verdict is over the octets as received; nothing of a signed part is touched, and a verdict that
somebody else has written under our name never arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mailsec.errors import KeyUnavailable
from mailsec.gateway.annotation import annotate, check_first_line, names_of
from mailsec.gateway.explanation import Steps, note
from mailsec.gateway.groups import envelope_for, split_groups, transaction_for
from mailsec.gateway.keyring import Openers, need_of
from mailsec.gateway.learning import sightings_of
from mailsec.gateway.outcomes import LATER
from mailsec.gateway.rounds import tell_rounds
from mailsec.gateway.seal import sealed
from mailsec.gateway.settling import DELIVER, settle
from mailsec.gateway.stripping import strip
from mailsec.gateway.tools import Tools
from mailsec.interfaces import Outcome
from mailsec.mime.index import index_message
from mailsec.model.address import Address
from mailsec.model.octets import Octets, Segments
from mailsec.model.session import Origin, Transaction
from mailsec.model.verdict import SmimeResult, Verdict

__all__ = ["handle_inbound"]


async def handle_inbound(tools: Tools, received: Transaction, steps: Steps | None = None, *, resumed: bool = False) -> list[Outcome]:
    """The outcomes of one transaction of `internet`, by groups of recipients. Raise MailsecError: nothing is accepted."""
    await tell_rounds(tools, received, steps)
    transaction = strip(tools, received)
    everybody = tuple(recipient.address for recipient in received.envelope.recipients)

    groups = [Openers(everybody)]
    if resumed and tools.keys.stores:
        groups = await tools.keys.openers(everybody)
    if len(groups) == 1 and not groups[0].wait:
        examined = await tools.evidence.examine(transaction.message, groups[0].keys)
        later = not resumed and steps is None and received.session.origin is Origin.INTERNET and not received.session.in_passing
        if examined[0].encrypted and later:
            # promise 6: answered before anything inside is looked at, so that no reply depends on what is inside
            return [Outcome(everybody, DELIVER, None, None, need=LATER)]
        return await _Group(tools, received, transaction, everybody, steps).outcomes(*examined)
    return await _for_each(tools, received, transaction, groups, steps)


async def _for_each(
    tools: Tools, received: Transaction, transaction: Transaction, groups: Sequence[Openers], steps: Steps | None
) -> list[Outcome]:
    """Promise 8: opened anew for whoever has other keys. What that comes to in octets is bounded; the rest is another row's."""
    everybody = tuple(recipient.address for recipient in received.envelope.recipients)
    unopened = await tools.evidence.examine(transaction.message, ())
    if not unopened[0].encrypted:
        return await _Group(tools, received, transaction, everybody, steps).outcomes(*unopened)
    limits, octets = tools.limits, 0
    most = max(limits.expansion_octets, limits.max_expansion * len(transaction.message))
    outcomes: list[Outcome] = []
    for number, group in enumerate(groups):
        if number and octets >= most:
            rest = tuple(address for other in groups[number:] for address in other.recipients)
            return [*outcomes, Outcome(rest, DELIVER, None, None, need=LATER)]
        try:
            examined = await tools.evidence.examine(transaction.message, group.keys) if group.keys else unopened
        except KeyUnavailable as error:
            outcomes.append(Outcome(group.recipients, DELIVER, None, unopened[1], need=need_of(error, "keys")))
            continue
        if group.wait and examined[0].clear is None:
            # No key at hand opens it, and the one that does may be on a token that is out.
            outcomes.append(Outcome(group.recipients, DELIVER, None, unopened[1], need=group.wait))
            continue
        found = await _Group(tools, received, transaction, group.recipients, steps).outcomes(*examined)
        octets += sum(len(outcome.segments) for outcome in found if outcome.segments is not None)
        outcomes += found
    return outcomes


class _Group:
    """Recipients for whom the same was found out."""

    def __init__(
        self, tools: Tools, received: Transaction, transaction: Transaction, recipients: tuple[Address, ...], steps: Steps | None
    ) -> None:
        envelope = envelope_for(transaction.envelope, recipients)
        self._tools = tools
        self._received = received
        self._transaction = transaction if envelope is transaction.envelope else replace(transaction, envelope=envelope)
        self._steps = steps

    async def outcomes(self, result: SmimeResult, verdict: Verdict) -> list[Outcome]:
        """By groups with the same decision."""
        tools, transaction = self._tools, self._transaction
        note(self._steps, "verdict", describe(verdict), reason=verdict.reasons[0] if verdict.reasons else None)
        original = self._received.message.octets
        findings = await tools.plugins.findings(tools.runtime, tools.limits, transaction=transaction, original=original, smime=result)
        chosen = [
            settle(tools.plugins, transaction_for(transaction, recipient), verdict, findings)
            for recipient in transaction.envelope.recipients
        ]
        found: list[Outcome] = []
        for decision, recipients in split_groups(transaction.envelope.recipients, chosen):
            note(self._steps, "decision", f"{decision.action}{': ' + decision.reason if decision.reason else ''}", decision.rule)
            if decision.action != "deliver":
                found.append(Outcome(recipients, decision, None, verdict, findings, secret=result.encrypted, rule=decision.rule))
                continue
            segments = await self._copy(result, verdict, recipients)
            sightings = sightings_of(transaction, result, verdict)
            secret = is_secret(result)
            found.append(Outcome(recipients, decision, segments, verdict, findings, secret=secret, rule=decision.rule, sightings=sightings))
        return found

    async def _copy(self, result: SmimeResult, verdict: Verdict, recipients: tuple[Address, ...]) -> Segments:
        tools, transaction = self._tools, self._transaction
        message = transaction.message
        # what was opened is delivered open; everything else exactly as it came
        clear = message.octets if result.clear is None else without_forged_results(tools, self._received, result.clear)
        segments = await annotate(tools, transaction, recipients, verdict, Segments.of(clear), names_of(message))
        if tools.seals is not None and self._steps is None and not transaction.session.in_passing:
            arguments = segments, await tools.seals.current(), tools.runtime.now(), tools.settings.authserv_id, tools.limits
            large = len(segments) > tools.limits.bulk_threshold
            segments = await tools.runtime.in_thread(sealed, *arguments, lane="bulk") if large else sealed(*arguments)
        return segments


def without_forged_results(tools: Tools, received: Transaction, clear: Octets) -> Octets:
    """What was opened, stripped as what was received is: a result that claims to be ours may have been encrypted with the rest."""
    message = index_message(clear, tools.limits)
    check_first_line(message)
    return strip(tools, replace(received, message=message)).message.octets


def is_secret(result: SmimeResult) -> bool:
    """True where the delivered copy holds what was encrypted on arrival."""
    return result.encrypted and result.clear is not None


def describe(verdict: Verdict) -> str:
    """One line about a verdict."""
    if verdict.reasons:
        return f"smime={verdict.word.value}: {verdict.reasons[0].message}"
    return f"smime={verdict.word.value}"
