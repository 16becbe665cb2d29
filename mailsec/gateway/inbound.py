"""The inbound path: what arrives is checked and passed on octet for octet, with a verdict on top (docs/flow.md).

The one invariant (promises 3 and 4): the verdict is over the octets as received; nothing of a signed part is touched, and a verdict that
somebody else has written under our name never arrives.
"""

from __future__ import annotations

from dataclasses import replace

from mailsec.gateway.annotation import annotate, check_first_line, names_of
from mailsec.gateway.explanation import Steps, note
from mailsec.gateway.groups import split_groups, transaction_for
from mailsec.gateway.learning import sightings_of
from mailsec.gateway.outcomes import LATER
from mailsec.gateway.seal import sealed
from mailsec.gateway.settling import DELIVER, settle
from mailsec.gateway.stripping import strip
from mailsec.gateway.tools import Tools
from mailsec.interfaces import KeyHandle, Outcome
from mailsec.mime.index import index_message
from mailsec.model.octets import Octets, Segments
from mailsec.model.session import Origin, Transaction
from mailsec.model.verdict import SmimeResult, Verdict

__all__ = ["handle_inbound"]


async def handle_inbound(tools: Tools, received: Transaction, steps: Steps | None = None, *, resumed: bool = False) -> list[Outcome]:
    """The outcomes of one transaction of `internet`, by groups of recipients. Raise MailsecError: nothing is accepted."""
    transaction = strip(tools, received)
    everybody = tuple(recipient.address for recipient in received.envelope.recipients)

    keys: list[KeyHandle] = []
    if resumed:
        keys = await tools.keys.keys_to_open(everybody) if tools.keys.stores else []
    result, verdict = await tools.evidence.examine(transaction.message, keys)
    note(steps, "verdict", describe(verdict), reason=verdict.reasons[0] if verdict.reasons else None)
    if result.encrypted and not resumed and steps is None and received.session.origin is Origin.INTERNET:
        # promise 6: answered before anything inside is looked at, so that no reply depends on what is inside
        return [Outcome(everybody, DELIVER, None, None, need=LATER)]

    findings = await tools.plugins.findings(
        tools.runtime, tools.limits, transaction=transaction, original=received.message.octets, smime=result
    )
    chosen = [
        settle(tools.plugins, transaction_for(transaction, recipient), verdict, findings) for recipient in received.envelope.recipients
    ]
    message = transaction.message
    outcomes: list[Outcome] = []
    for decision, recipients in split_groups(received.envelope.recipients, chosen):
        note(steps, "decision", f"{decision.action}{': ' + decision.reason if decision.reason else ''}", decision.rule)
        if decision.action != "deliver":
            outcomes.append(Outcome(recipients, decision, None, verdict, findings, secret=result.encrypted, rule=decision.rule))
            continue
        # what was opened is delivered open; everything else exactly as it came
        segments = Segments.of(message.octets if result.clear is None else without_forged_results(tools, received, result.clear))
        segments = await annotate(tools, transaction, recipients, verdict, segments, names_of(message))
        if tools.seals is not None and steps is None:
            arguments = segments, await tools.seals.current(), tools.runtime.now(), tools.settings.authserv_id, tools.limits
            large = len(segments) > tools.limits.bulk_threshold
            segments = await tools.runtime.in_thread(sealed, *arguments, lane="bulk") if large else sealed(*arguments)
        outcomes.append(
            Outcome(
                recipients,
                decision,
                segments,
                verdict,
                findings,
                secret=is_secret(result),
                rule=decision.rule,
                sightings=sightings_of(transaction, result, verdict),
            )
        )
    return outcomes


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
