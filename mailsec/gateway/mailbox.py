"""The mailbox path: what a reader retrieves is checked and opened on its way to them, in the session that asks for it (docs/flow.md).

The one invariant (promises 3 and 8): keys are those of the mailbox's owner, as an authenticator says who that is; and whatever cannot be
opened or believed is shown as it came, with a verdict on top. Nothing is lost here, and nothing leaves but to this reader.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from mailsec.errors import AddressError, InputError, KeyUnavailable, LimitExceeded, Unavailable
from mailsec.gateway.annotation import annotate, names_of
from mailsec.gateway.enclosure import enclosed
from mailsec.gateway.explanation import Steps, note
from mailsec.gateway.inbound import describe, is_secret, without_forged_results
from mailsec.gateway.seal import NO_SEAL, SealReading, read_seal
from mailsec.gateway.settling import DELIVER, settle
from mailsec.gateway.stripping import strip
from mailsec.gateway.tools import Tools
from mailsec.gateway.trace import message_id
from mailsec.interfaces import KeyHandle, Outcome
from mailsec.mime.fields import encode_field
from mailsec.mime.lines import to_crlf
from mailsec.model.address import Address
from mailsec.model.message import Message
from mailsec.model.octets import Octets, Segments
from mailsec.model.session import Envelope, Identity, Recipient, Session, Transaction
from mailsec.model.verdict import Event, Reason, Revocation, SmimeResult, SmimeWord, Verdict

__all__ = ["Copy", "envelope_of", "handle_mailbox", "owned_addresses", "retrieve", "retrieved"]

LOOSE = "BINARYMIME"
"""RFC 3030 §3: what the octets of a message are called that hold a bare CR, a bare LF or a NUL."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What a reader gets for one message."""

    segments: Segments
    verdict: Verdict | None
    """None for a message that this gateway has sealed: its verdict stands in it."""
    sealed: bool = False
    enclosed: bool = False
    """True where it is a notice with the original attached."""


def owned_addresses(identity: Identity | None) -> tuple[Address, ...]:
    """The addresses whose mail an identity reads: those that it has by name. A pattern means others' addresses too."""
    return _addresses(identity.addresses) if identity is not None else ()


@lru_cache(maxsize=1024)
def _addresses(texts: tuple[str, ...]) -> tuple[Address, ...]:
    """Asked twice for each message of a session: an owner's are read once."""
    found = []
    for text in texts:
        try:
            found.append(Address.parse(text))
        except AddressError:
            continue
    return tuple(found)


def envelope_of(session: Session, *, loose: bool = False) -> Envelope:
    """The envelope of a message in a mailbox: it is for the owner, where that is known."""
    owner = owned_addresses(session.identity)[:1]
    return Envelope(None, tuple(map(Recipient, owner)), body=LOOSE if loose else "8BITMIME")


async def retrieve(
    tools: Tools,
    session: Session,
    octets: Octets,
    *,
    loose: bool,
    begin: Callable[[Session, Envelope, Octets], Transaction],
    process: Callable[[Transaction], AsyncIterator[Outcome]],
) -> tuple[Copy, Transaction | None]:
    """The reader's copy of a message in a mailbox. Raise MailsecError where it cannot be made now (a plugin failed, the database is away)."""
    try:
        transaction = begin(session, envelope_of(session, loose=loose), octets)
    except LimitExceeded as error:
        # A header over the limits: nothing of it can be changed, so all of it is attached.
        verdict = _unread(SmimeWord.PERMERROR, Reason(f"limit-{error.limit.replace('_', '-')}", "limits", error.message, hint=error.hint))
        return Copy(_behind_notice(tools, octets, None, verdict, loose), verdict, enclosed=True), None
    async for outcome in process(transaction):
        if outcome.segments is None:
            reason = outcome.decision.reason or "the message cannot be shown now"
            raise Unavailable(reason, reply=outcome.decision.reply, stage="mailbox")
        marks = outcome.explanation
        return Copy(outcome.segments, outcome.verdict, "sealed" in marks, "enclosed" in marks), transaction
    raise Unavailable("the message was not processed", stage="mailbox")


def retrieved(session: Session, size: int, copy: Copy, transaction: Transaction | None, at: datetime) -> Event:
    """What is told of it. No subject, nothing from inside encryption."""
    fields = {
        "id": transaction.id if transaction is not None else "",
        "message_id": message_id(transaction) if transaction is not None else "",
        "size": size,
        "listener": session.listener,
        "peer": session.peer,
        "user": session.identity.name if session.identity is not None else "",
        "upstream": session.upstream,
        "verdict": "sealed" if copy.sealed else copy.verdict.word.value if copy.verdict is not None else "",
    }
    return Event("retrieved", at, fields)


async def handle_mailbox(tools: Tools, received: Transaction, steps: Steps | None = None) -> list[Outcome]:
    """The one outcome of a transaction of `mailbox`. Raise MailsecError where there can be none now."""
    recipients = tuple(recipient.address for recipient in received.envelope.recipients)
    loose = received.envelope.body == LOOSE
    if len(received.message.octets) > tools.limits.message_size:
        note(steps, "verdict", "too large to be looked into")
        return [await _too_large(tools, received, recipients, loose)]
    reading = await _seal(tools, received.message, loose)
    if reading.valid:
        note(steps, "seal", f"sealed by this gateway at {reading.at}: its verdict stands in it")
        if not _may_be_closed(received.message):
            return [_as_sealed(received, recipients)]
    elif reading.reason:
        note(steps, "seal", reading.reason)
    transaction = strip(tools, received)
    message = transaction.message
    result, verdict = await _examine(tools, message, received.session.identity)
    if reading.valid:
        if not result.encrypted or result.clear is None:
            return [_as_sealed(received, recipients)]
        # It was sealed closed: the key was not there when it arrived. Now it is, and the verdict of that time says nothing of what is inside.
        note(steps, "seal", "sealed while it was encrypted: opened now")
    note(steps, "verdict", describe(verdict), reason=verdict.reasons[0] if verdict.reasons else None)
    findings = await tools.plugins.findings(
        tools.runtime, tools.limits, transaction=transaction, original=received.message.octets, smime=result
    )
    decision = settle(tools.plugins, transaction, verdict, findings)
    note(steps, "decision", f"{decision.action}{': ' + decision.reason if decision.reason else ''}", decision.rule)
    if decision.action == "defer":
        return [Outcome(recipients, decision, None, verdict, findings, rule=decision.rule)]
    clear = result.clear
    if decision.action != "deliver":
        # It lies in the mailbox already, and is not kept from its reader; but it is not opened against a rule.
        clear = None
        verdict = _with(verdict, Reason("rule-refuses", "policy", decision.reason or "a rule refuses it", hint=decision.rule))
    copy: Segments | None = None
    if clear is not None:
        try:
            copy = Segments.of(without_forged_results(tools, received, clear))
        except (InputError, LimitExceeded) as error:
            clear = None
            verdict = _with(verdict, Reason("unreadable", "parse", f"what was opened: {error.message}", hint=error.hint))
    if copy is None and (_begins_folded(message) or (_failed(result, verdict, decision.action) and _wants_notice(tools, received.session))):
        segments = _behind_notice(tools, received.message.octets, received.message, verdict, loose)
        return [Outcome(recipients, DELIVER, segments, verdict, findings, rule=decision.rule, explanation={"enclosed": "yes"})]
    if copy is None:
        copy, verdict = await _as_it_is(tools, message.octets, verdict, loose)
    secret = clear is not None and is_secret(result)
    segments = await annotate(tools, transaction, recipients, verdict, copy, names_of(message))
    return [Outcome(recipients, DELIVER, segments, verdict, findings, secret=secret, rule=decision.rule)]


async def _too_large(tools: Tools, received: Transaction, recipients: tuple[Address, ...], loose: bool) -> Outcome:
    """It lies in the mailbox, and is not kept from its reader: as it is, with a verdict that says that nobody has looked into it."""
    size, most = len(received.message.octets), tools.limits.message_size
    hint = "message_size in [gateway] limits says up to which size messages are opened and judged"
    reason = Reason("limit-message-size", "limits", f"{size} octets are too large to be looked into ({most} at most)", hint=hint)
    verdict = _unread(SmimeWord.PERMERROR, reason)
    message = strip(tools, received).message
    if _begins_folded(message):
        segments = _behind_notice(tools, received.message.octets, received.message, verdict, loose)
        return Outcome(recipients, DELIVER, segments, verdict, explanation={"enclosed": "yes"})
    copy, verdict = await _as_it_is(tools, message.octets, verdict, loose)
    return Outcome(recipients, DELIVER, await annotate(tools, received, recipients, verdict, copy, names_of(message)), verdict)


async def _as_it_is(tools: Tools, octets: Octets, verdict: Verdict, loose: bool) -> tuple[Segments, Verdict]:
    """What can be sent of `octets`, which nobody has opened, with what must be said of that."""
    if not loose:
        return Segments.of(octets), verdict
    large = len(octets) > tools.limits.bulk_threshold
    copy = await tools.runtime.in_thread(_transportable, octets, lane="bulk") if large else _transportable(octets)
    return copy, _with(verdict, _NORMALISED)


_NORMALISED = Reason(
    "normalised", "delivery", "bare CR, bare LF or NUL in the message; the copy for the reader has CRLF instead", rfc="RFC 5322 §2.3"
)


async def _seal(tools: Tools, message: Message, loose: bool) -> SealReading:
    if tools.seals is None:
        return NO_SEAL
    if loose:
        # Attack: "X-Note: a<LF>Subject: b" is one field to us, which no seal covers, and two to many readers.
        return SealReading(False, "a sealed message with a bare CR, a bare LF or a NUL")
    return await read_seal(message, tools.seals, tools.runtime, tools.settings.authserv_id, tools.limits)


def _as_sealed(received: Transaction, recipients: tuple[Address, ...]) -> Outcome:
    return Outcome(recipients, DELIVER, Segments.of(received.message.octets), None, explanation={"sealed": "yes"})


def _may_be_closed(message: Message) -> bool:
    """True where the message may still be encrypted as a whole: what was opened when it arrived, and is read often, costs nothing."""
    kinds = message.values("content-type")
    return bool(kinds) and kinds[0].strip().lower().startswith("application/")


async def _examine(tools: Tools, message: Message, owner: Identity | None) -> tuple[SmimeResult, Verdict]:
    """What the layers show, opened with the owner's keys; a key that is out is a reason, and the message is shown closed."""
    lacking: Reason | None = None
    keys, out = await _keys(tools, owner)
    try:
        result, verdict = await tools.evidence.examine(message, keys)
    except KeyUnavailable as error:
        out = error
        result, verdict = await tools.evidence.examine(message, ())
    if out is not None and result.clear is None:
        lacking = Reason("key-unavailable", "policy", out.message, hint=out.hint or "retrieve the message again when the key is back")
    if result.encrypted and lacking is None and owner is None:
        text = "the message is encrypted, and nobody is known as the owner of this mailbox"
        lacking = Reason("no-mailbox-owner", "policy", text, hint="an upstream lists the domains whose addresses its logins are")
    return result, verdict if lacking is None or not result.encrypted else _with(verdict, lacking)


async def _keys(tools: Tools, owner: Identity | None) -> tuple[list[KeyHandle], KeyUnavailable | None]:
    found: dict[str, KeyHandle] = {}
    out: KeyUnavailable | None = None
    for address in owned_addresses(owner) if tools.keys.stores else ():
        handles, missing = await tools.keys.keys_to_open((address,))
        out = out or missing
        for handle in handles:
            found.setdefault(handle.name, handle)
    return list(found.values()), out


def _failed(result: SmimeResult, verdict: Verdict, action: str) -> bool:
    """True for what could not be opened, or is not accepted."""
    closed = result.encrypted and result.clear is None
    return closed or action != "deliver" or verdict.word not in (SmimeWord.PASS, SmimeWord.NONE)


def _wants_notice(tools: Tools, session: Session) -> bool:
    for listener in tools.settings.listeners:
        if listener.name == session.listener and listener.mailbox is not None:
            return listener.mailbox.on_failure == "notice"
    return False


def _begins_folded(message: Message) -> bool:
    """True where a field of ours on top would go on in the first line of the message."""
    return bytes(message.octets.view(0, 1)) in (b" ", b"\t")


def _behind_notice(tools: Tools, octets: Octets, message: Message | None, verdict: Verdict, loose: bool) -> Segments:
    settings = tools.settings
    segments = enclosed(octets, message, verdict.reasons, hostname=settings.hostname, random=tools.runtime.random, loose=loose)
    return Segments((encode_field("Authentication-Results", tools.engine.results(settings.authserv_id, verdict)), *segments.pieces))


def _transportable(octets: Octets) -> Segments:
    whole = to_crlf(octets)
    return Segments.produced(len(whole), lambda: _without_nul(whole))


def _without_nul(segments: Segments) -> Iterator[bytes]:
    for block in segments:
        yield bytes(block).replace(b"\0", b" ")


def _with(verdict: Verdict, reason: Reason) -> Verdict:
    return replace(verdict, reasons=(reason, *verdict.reasons))


def _unread(word: SmimeWord, reason: Reason) -> Verdict:
    return Verdict(word, False, False, None, None, Revocation.NOT_CHECKED, None, False, reasons=(reason,))
