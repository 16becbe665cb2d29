"""What becomes of a row after an attempt: who is served, who is tried again, who is told.

The one invariant: a recipient ends as delivered, or in a report to the sender, or in a row that a person sees (promise 1); and where
something inside was encrypted when the message came from outside, in nothing that its sender could tell apart (promise 6).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from mailsec.errors import Reply
from mailsec.gateway.bounce import FailedRecipient, failure_report, postmaster_report
from mailsec.model.queue import NewEntry, RecipientState, SpooledEntry
from mailsec.model.settings import GatewaySettings

__all__ = ["Outcome", "conclude", "reply_text"]

_EXPIRED = "4.4.7"
_REPLY_CHARACTERS = 500
_PORT = re.compile(r":[0-9]+\Z")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be written into the spool."""

    progress: tuple[tuple[RecipientState, str], ...]
    waiting: bool
    """True where a recipient is to be tried again."""
    reports: tuple[NewEntry, ...] = ()
    hold: str = ""
    """Why a person has to see the row, where nobody could be told."""


def reply_text(reply: Reply) -> str:
    """A reply on one line."""
    text = " ".join(reply.text.split())[:_REPLY_CHARACTERS]
    return f"{reply.code} {reply.enhanced} {text}" if reply.enhanced else f"{reply.code} {text}"


def conclude(
    entry: SpooledEntry,
    replies: Sequence[tuple[Reply, str] | None],
    *,
    at: datetime,
    settings: GatewaySettings,
    random: Callable[[int], bytes],
) -> Outcome:
    """Judge the replies of one attempt: (reply, who said it; "" for ourselves) for each recipient that was tried, None for the others."""
    new = entry.entry
    expired = (at - new.received_at).total_seconds() >= settings.relay.give_up_after
    progress: list[tuple[RecipientState, str]] = []
    failed: list[FailedRecipient] = []
    for position, recipient in enumerate(new.envelope.recipients):
        before = entry.progress[position] if entry.progress else (RecipientState.WAITING, "")
        answer = replies[position]
        if answer is None:
            progress.append(before)
            continue
        reply, where = answer
        text = reply_text(reply)
        if reply.code < 300:
            progress.append((RecipientState.DELIVERED, text))
        elif reply.temporary and not expired:
            progress.append((RecipientState.WAITING, text))
        else:
            progress.append((RecipientState.FAILED, text))
            # What we say ourselves of a connection names hosts that are nobody's business outside; what a next hop says is quoted.
            why = (
                "it could not be delivered for too long" if reply.temporary else "the next mail server refused it" if where else reply.text
            )
            status = _EXPIRED if reply.temporary else reply.enhanced if reply.enhanced.startswith("5") else "5.0.0"
            failed.append(FailedRecipient(recipient, status, why, text if where else "", _host(where)))
    waiting = any(state is RecipientState.WAITING for state, _ in progress)
    reports = _reports(entry, failed, at, settings, random) if failed else ()
    hold = ""
    if not waiting and _only_people(new):
        # Also those who failed in an earlier attempt: while others were waiting the row could not go on hold.
        unserved = [text for state, text in progress if state is RecipientState.FAILED]
        hold = f"{_why_held(new)}: {unserved[0]}" if unserved else ""
    return Outcome(tuple(progress), waiting, reports, hold)


def _only_people(new: NewEntry) -> bool:
    """True where a failure is for a person to see, and in no report to the sender."""
    return new.sensitive or new.envelope.reverse_path is None


def _why_held(new: NewEntry) -> str:
    if new.sensitive:
        return "it had something encrypted inside and cannot be delivered"
    return "it cannot be delivered, and has no sender to tell"


def _reports(
    entry: SpooledEntry, failed: Sequence[FailedRecipient], at: datetime, settings: GatewaySettings, random: Callable[[int], bytes]
) -> tuple[NewEntry, ...]:
    new = entry.entry
    # RFC 5321 §6.1: no report about a report.
    if not _only_people(new):
        report = failure_report(
            id=f"{new.id}.d{entry.attempts}",
            reverse_path=new.envelope.reverse_path,
            failed=failed,
            header=new.header,
            received_at=new.received_at,
            at=at,
            hostname=settings.hostname,
            postmaster=settings.postmaster,
            random=random,
            origin=new.origin,
            listener=new.listener,
            envelope_id=new.envelope.envid,
        )
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
