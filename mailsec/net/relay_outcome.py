"""What becomes of a row after an attempt: who is served, who is tried again, who is told.

The one invariant: a recipient ends as delivered, or in a report to the sender, or in a row that a person sees (promise 1); and where
something inside was encrypted when the message came from outside, in nothing that its sender could tell apart (promise 6).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from mailsec.errors import Reply
from mailsec.gateway.bounce import About, ReportedRecipient, delay_report, failure_report, postmaster_report, success_report, wants_report
from mailsec.model.queue import NewEntry, RecipientState, SpooledEntry
from mailsec.model.settings import GatewaySettings

__all__ = ["Answer", "Outcome", "conclude", "reply_text", "wants_success"]

_EXPIRED = "4.4.7"
"""RFC 3463 §3.5: X.4.7, the delivery time is over; of a delay: it passes."""
_REPLY_CHARACTERS = 500
_PORT = re.compile(r":[0-9]+\Z")


class Answer(NamedTuple):
    """What was said about one recipient in one attempt."""

    reply: Reply
    where: str
    """Who said it; "" for ourselves."""
    dsn: bool = False
    """True where the next hop tells the sender from now on what they asked for (RFC 3461 §5.2.1)."""
    final: bool = False
    """True where it lies in the mailbox (LMTP)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be written into the spool."""

    progress: tuple[tuple[RecipientState, str], ...]
    waiting: bool
    """True where a recipient is to be tried again."""
    reports: tuple[NewEntry, ...] = ()
    hold: str = ""
    """Why a person has to see the row, where nobody could be told."""
    delayed: bool = False
    """True where one of the reports tells the sender that it takes long."""


def reply_text(reply: Reply) -> str:
    """A reply on one line."""
    text = " ".join(reply.text.split())[:_REPLY_CHARACTERS]
    return f"{reply.code} {reply.enhanced} {text}" if reply.enhanced else f"{reply.code} {text}"


def conclude(
    entry: SpooledEntry,
    answers: Sequence[Answer | None],
    *,
    at: datetime,
    settings: GatewaySettings,
    random: Callable[[int], bytes],
    patient: bool = False,
) -> Outcome:
    """Judge the answers of one attempt, one for each recipient that was tried, None for the others. `patient`: nothing is too old."""
    new = entry.entry
    age = 0.0 if patient else (at - new.received_at).total_seconds()
    expired = age >= settings.relay.give_up_after
    progress: list[tuple[RecipientState, str]] = []
    failed: list[ReportedRecipient] = []
    late: list[ReportedRecipient] = []
    served: dict[bool, list[ReportedRecipient]] = {False: [], True: []}
    for position, recipient in enumerate(new.envelope.recipients):
        before = entry.progress[position] if entry.progress else (RecipientState.WAITING, "")
        answer = answers[position]
        if answer is None:
            progress.append(before)
            continue
        reply, where = answer.reply, answer.where
        text = reply_text(reply)
        if reply.code < 300:
            progress.append((RecipientState.DELIVERED, text))
            if not answer.dsn:
                served[answer.final].append(ReportedRecipient(recipient, "2.0.0", "it was taken", text if where else "", _host(where)))
        elif reply.temporary and not expired:
            progress.append((RecipientState.WAITING, text))
            late.append(ReportedRecipient(recipient, _EXPIRED, "it is tried again", text if where else "", _host(where)))
        else:
            progress.append((RecipientState.FAILED, text))
            # What we say ourselves of a connection names hosts that are nobody's business outside; what a next hop says is quoted.
            why = (
                "it could not be delivered for too long" if reply.temporary else "the next mail server refused it" if where else reply.text
            )
            status = _EXPIRED if reply.temporary else reply.enhanced if reply.enhanced.startswith("5") else "5.0.0"
            failed.append(ReportedRecipient(recipient, status, why, text if where else "", _host(where)))
    waiting = any(state is RecipientState.WAITING for state, _ in progress)
    reports = list(_reports(entry, failed, at, settings, random)) if failed else []
    delayed = False
    if not _only_people(new):
        about = _about(new, settings)
        for final, recipients in served.items():
            told = success_report(
                id=f"{new.id}.{'s' if final else 'r'}{entry.attempts}", about=about, served=recipients, final=final, at=at, random=random
            )
            reports += [] if told is None else [told]
        if late and not entry.delayed and 0 < settings.relay.warn_after <= age:
            until = new.received_at + timedelta(seconds=settings.relay.give_up_after)
            told = delay_report(id=f"{new.id}.w{entry.attempts}", about=about, delayed=late, until=until, at=at, random=random)
            reports += [] if told is None else [told]
            delayed = told is not None
    hold = ""
    if not waiting and _only_people(new):
        # Also those who failed in an earlier attempt: while others were waiting the row could not go on hold.
        unserved = [text for state, text in progress if state is RecipientState.FAILED]
        hold = f"{_why_held(new)}: {unserved[0]}" if unserved else ""
    return Outcome(tuple(progress), waiting, tuple(reports), hold, delayed)


def wants_success(new: NewEntry) -> bool:
    """True where somebody is to be told that it arrived (RFC 3461 §4.1), and may be."""
    return not _only_people(new) and any(wants_report(recipient, "SUCCESS") for recipient in new.envelope.recipients)


def _about(new: NewEntry, settings: GatewaySettings) -> About:
    return About(
        reverse_path=new.envelope.reverse_path,
        header=new.header,
        received_at=new.received_at,
        origin=new.origin,
        listener=new.listener,
        hostname=settings.hostname,
        postmaster=settings.postmaster,
        envelope_id=new.envelope.envid,
    )


def _only_people(new: NewEntry) -> bool:
    """True where a failure is for a person to see, and in no report to the sender."""
    return new.sensitive or new.envelope.reverse_path is None


def _why_held(new: NewEntry) -> str:
    if new.sensitive:
        return "it had something encrypted inside and cannot be delivered"
    return "it cannot be delivered, and has no sender to tell"


def _reports(
    entry: SpooledEntry, failed: Sequence[ReportedRecipient], at: datetime, settings: GatewaySettings, random: Callable[[int], bytes]
) -> tuple[NewEntry, ...]:
    new = entry.entry
    # RFC 5321 §6.1: no report about a report.
    if not _only_people(new):
        report = failure_report(id=f"{new.id}.d{entry.attempts}", about=_about(new, settings), failed=failed, at=at, random=random)
        return (report,) if report is not None else ()
    if any(str(recipient.address).lower() == settings.postmaster.lower() for recipient in new.envelope.recipients):
        return ()  # a report that the postmaster cannot get is not reported to the postmaster
    told = postmaster_report(
        id=f"{new.id}.p{entry.attempts}",
        about=new.id,
        reason=f"{_why_held(new)}: {failed[0].reply or failed[0].reason}",
        header=new.header,
        at=at,
        hostname=settings.hostname,
        postmaster=settings.postmaster,
        random=random,
        origin=new.origin,
        listener=new.listener,
    )
    return (told,)


def _host(where: str) -> str:
    """ "192.0.2.1" of "192.0.2.1:25"; a unix socket has no name that others know."""
    return "" if where.startswith("unix:") else _PORT.sub("", where)
