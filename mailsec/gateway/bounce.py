"""Delivery status notifications: how a sender learns what became of a message (RFC 3461, RFC 3464 in RFC 6522).

The one invariant: a report holds nothing of the message but its outer header as it was received, and goes to nobody where the
reverse path is null (RFC 5321 §4.5.5). A quiet report (about a message that had something encrypted inside when it came from
outside) has fixed words and quotes no reply: what was inside changes nothing that its sender can see (promise 6).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import NamedTuple

from mailsec.model.address import Address
from mailsec.model.octets import Segments
from mailsec.model.queue import NewEntry, QueueEntry, State
from mailsec.model.session import Envelope, Origin, Recipient

__all__ = [
    "About",
    "ReportedRecipient",
    "delay_report",
    "failure_report",
    "overdue_report",
    "postmaster_letter",
    "postmaster_report",
    "success_report",
    "wants_report",
]

_HEADER_OCTETS = 64 * 1024
_REPLY_CHARACTERS = 700
_MOST_SHOWN = 100
_UNSAFE = re.compile(r"[^\x20-\x7e]+")
_LONG_LINE = re.compile(rb"[^\n]{998}")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """One recipient of a message, and what became of it there."""

    recipient: Recipient
    status: str
    """An enhanced status code (RFC 3463): "5.1.1"."""
    reason: str
    """For people, in our words."""
    reply: str = ""
    """What the next hop said: "550 5.1.1 no such user"; "" where nobody said anything."""
    remote: str = ""
    """The host that said it."""


class _Kind(NamedTuple):
    """What a report says (RFC 3464 §2.3.3), and how it says it to people."""

    action: str
    subject: str
    opening: str
    asked: str
    """The word of NOTIFY that asks for it (RFC 3461 §4.1)."""


_FAILED = _Kind("failed", "Undelivered mail: your message did not arrive", "Your message could not be delivered to:", "FAILURE")
_DELAYED = _Kind("delayed", "Delayed mail: your message has not arrived yet", "Your message could not be delivered yet to:", "DELAY")
_DELIVERED = _Kind("delivered", "Delivered mail: your message has arrived", "Your message was delivered to:", "SUCCESS")
_RELAYED = _Kind(
    "relayed",
    "Relayed mail: your message has left here",
    "Your message was handed to a mail server that sends no reports of its own, for:",
    "SUCCESS",
)


def wants_report(recipient: Recipient, event: str = "FAILURE") -> bool:
    """True where an event ("FAILURE", "DELAY", "SUCCESS") may be reported."""
    # RFC 3461 §4.1: NOTIFY=NEVER asks for silence, and so does a NOTIFY without the event; without NOTIFY failures and delays are reported.
    notify = recipient.notify.upper()
    return event in notify.split(",") if notify else event != "SUCCESS"


@dataclass(frozen=True, slots=True)
class About:
    """The message that a report is about, and who reports."""

    reverse_path: Address | None
    header: bytes
    """The outer header as it was received."""
    received_at: datetime
    origin: Origin
    listener: str
    hostname: str
    postmaster: str
    envelope_id: str = ""


def failure_report(
    *,
    id: str,
    about: About,
    failed: Sequence[ReportedRecipient],
    at: datetime,
    random: Callable[[int], bytes],
    quiet: bool = False,
) -> NewEntry | None:
    """A row with the report for the sender of a message; None where nobody is to be told."""
    return _status_report(_FAILED, id, about, failed, at, random, quiet=quiet)


def delay_report(
    *, id: str, about: About, delayed: Sequence[ReportedRecipient], until: datetime, at: datetime, random: Callable[[int], bytes]
) -> NewEntry | None:
    """The same about a message that is still tried, `until` that instant."""
    return _status_report(_DELAYED, id, about, delayed, at, random, until=until)


def success_report(
    *, id: str, about: About, served: Sequence[ReportedRecipient], final: bool, at: datetime, random: Callable[[int], bytes]
) -> NewEntry | None:
    """The same for a sender who asked to be told of success. `final`: it lies in the mailbox (LMTP); else whoever has it reports no more."""
    return _status_report(_DELIVERED if final else _RELAYED, id, about, served, at, random)


def _status_report(
    kind: _Kind,
    id: str,
    about: About,
    recipients: Sequence[ReportedRecipient],
    at: datetime,
    random: Callable[[int], bytes],
    *,
    quiet: bool = False,
    until: datetime | None = None,
) -> NewEntry | None:
    told = [one for one in recipients if wants_report(one.recipient, kind.asked)]
    if about.reverse_path is None or not told:
        return None
    lines = [f"This is the mail gateway at {about.hostname}.", "", kind.opening, ""]
    for one in told:
        lines.append(f"    {_ascii_address(one.recipient.address)}")
        if not quiet:
            lines += [f"        {line}" for line in _wrapped(one.reason)]
            if one.reply:
                said = f"{one.remote} said: {one.reply}" if one.remote else f"the next mail server said: {one.reply}"
                lines += [f"        {line}" for line in _wrapped(said)]
        lines.append("")
    if until is not None:
        lines += [f"It is tried again until {until:%Y-%m-%d %H:%M} UTC.", "You need not send it again.", ""]
    lines.append("Only the header of your message is returned with this report.")
    status = [f"Reporting-MTA: dns; {_printable(about.hostname)}"]
    if about.envelope_id:
        # RFC 3461 §6.3: the ENVID of the sender, its xtext decoded, where one was given.
        status.insert(0, f"Original-Envelope-Id: {_printable(_xtext(about.envelope_id))}")
    status.append(f"Arrival-Date: {format_datetime(about.received_at)}")
    for one in told:
        status.append("")
        if one.recipient.original:
            # RFC 3464 §2.3.1: as the sender gave it.
            status.append(f"Original-Recipient: {_printable(_xtext(one.recipient.original))}")
        # RFC 3464 §2.3: Final-Recipient, Action and Status stand for each recipient.
        status.append(f"Final-Recipient: {_typed_address(one.recipient.address)}")
        status.append(f"Action: {kind.action}")
        status.append(f"Status: {'5.0.0' if quiet else one.status}")
        if one.reply and not quiet:
            if one.remote:
                status.append(f"Remote-MTA: dns; {_printable(one.remote)}")
            status.append(f"Diagnostic-Code: smtp; {_printable(one.reply)[:_REPLY_CHARACTERS]}")
        if until is not None:
            # RFC 3464 §2.3.9
            status.append(f"Will-Retry-Until: {format_datetime(until)}")
    return _report(
        id=id,
        recipient=about.reverse_path,
        subject=kind.subject,
        text=lines,
        status=status,
        header=about.header,
        at=at,
        hostname=about.hostname,
        postmaster=about.postmaster,
        random=random,
        origin=about.origin,
        listener=about.listener,
    )


def postmaster_report(
    *,
    id: str,
    about: str,
    reason: str,
    header: bytes,
    at: datetime,
    hostname: str,
    postmaster: str,
    random: Callable[[int], bytes],
    origin: Origin,
    listener: str,
) -> NewEntry:
    """A row that tells the postmaster of a message that waits for a person. `about` is its id, as `mailsec queue` shows it."""
    text = [
        f"This is the mail gateway at {hostname}.",
        "",
        f"The message {about} is on hold:",
        "",
        *(f"    {line}" for line in _wrapped(reason)),
        "",
        "See it:       mailsec queue show " + about,
        "Try again:    mailsec queue release " + about,
        "Throw it away: mailsec queue delete " + about,
        "",
        "Its header follows.",
    ]
    return _report(
        id=id,
        recipient=Address.parse(postmaster),
        subject=f"Mail on hold: {about}",
        text=text,
        status=None,
        header=header,
        at=at,
        hostname=hostname,
        postmaster=postmaster,
        random=random,
        origin=origin,
        listener=listener,
    )


def overdue_report(
    overdue: Sequence[QueueEntry],
    *,
    id: str,
    at: datetime,
    hostname: str,
    postmaster: str,
    random: Callable[[int], bytes],
) -> NewEntry:
    """A row that reminds the postmaster of messages that have waited for a person for long. Nothing in it comes from inside a message."""
    shown = overdue[:_MOST_SHOWN]
    text = [f"This is the mail gateway at {hostname}.", "", "These messages are on hold, and nobody has looked after them for days:", ""]
    for entry in shown:
        text += [f"    {entry.id}, since {entry.received_at:%Y-%m-%d}, from <{entry.reverse_path}>"]
        text += [f"        {line}" for line in _wrapped(entry.reason)]
    if len(overdue) > len(shown):
        text.append(f"    and {len(overdue) - len(shown)} more")
    text += [
        "",
        "See them:       mailsec queue list",
        "Try again:      mailsec queue release ID",
        "Throw away:     mailsec queue delete ID",
    ]
    subject = f"Mail on hold for long: {len(overdue)}"
    return postmaster_letter(subject, text, id=id, at=at, hostname=hostname, postmaster=postmaster, random=random)


def postmaster_letter(
    subject: str,
    text: Sequence[str],
    *,
    id: str,
    at: datetime,
    hostname: str,
    postmaster: str,
    random: Callable[[int], bytes],
) -> NewEntry:
    """A row with something that the postmaster should know."""
    return _report(
        id=id,
        recipient=Address.parse(postmaster),
        subject=_printable(subject),
        text=text,
        status=None,
        header=b"",
        at=at,
        hostname=hostname,
        postmaster=postmaster,
        random=random,
        origin=Origin.TRUSTED,
        listener="",
    )


def _report(
    *,
    id: str,
    recipient: Address,
    subject: str,
    text: Sequence[str],
    status: Sequence[str] | None,
    header: bytes,
    at: datetime,
    hostname: str,
    postmaster: str,
    random: Callable[[int], bytes],
    origin: Origin,
    listener: str,
) -> NewEntry:
    boundary = f"report-{random(12).hex()}"
    message_id = f"<{id}.{random(6).hex()}@{hostname}>"
    kind = "multipart/report; report-type=delivery-status;" if status is not None else "multipart/mixed;"
    top = [
        f"Date: {format_datetime(at)}",
        f"From: Mail Delivery System <{postmaster}>",
        f"To: <{_ascii_address(recipient)}>",
        f"Subject: {subject}",
        f"Message-ID: {message_id}",
        # RFC 3834 §3.1.7: nobody answers this by itself.
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: {kind}\r\n boundary="{boundary}"',
    ]
    parts = [
        "Content-Type: text/plain; charset=us-ascii\r\nContent-Description: What happened\r\n\r\n"
        + "\r\n".join(map(_printable, text))
        + "\r\n"
    ]
    if status is not None:
        # RFC 6522 §3: the explanation, then the machine-readable part, then what is returned.
        parts.append("Content-Type: message/delivery-status\r\nContent-Description: Delivery report\r\n\r\n" + "\r\n".join(status) + "\r\n")
    returned, encoding = _returned_header(header)
    if header or status is not None:
        parts.append(
            "Content-Type: text/rfc822-headers\r\nContent-Description: Header of the message\r\n"
            + (f"Content-Transfer-Encoding: {encoding}\r\n" if encoding else "")
            + "\r\n"
        )
    outer = ("\r\n".join(top) + "\r\n").encode("ascii")
    octets = (
        outer
        + b"\r\n"
        + "".join(f"--{boundary}\r\n{part}\r\n" for part in parts[:-1]).encode("ascii")
        + f"--{boundary}\r\n{parts[-1]}".encode("ascii")
        + returned
        + f"\r\n--{boundary}--\r\n".encode("ascii")
    )
    return NewEntry(
        id=id,
        state=State.READY,
        # RFC 3464 §2: a DSN has the null reverse path.
        envelope=Envelope(None, (Recipient(recipient, notify="NEVER"),), smtputf8=not recipient.is_ascii),
        segments=Segments.of(octets),
        received_at=at,
        origin=origin,
        listener=listener,
        header=outer,
        message_id=message_id,
        rule="report",
    )


def _returned_header(header: bytes) -> tuple[bytes, str]:
    """The header to return, and the transfer encoding that it needs: what came with octets that no line may hold is base64."""
    if len(header) > _HEADER_OCTETS:
        cut = header.rfind(b"\r\n", 0, _HEADER_OCTETS)
        header = header[: cut + 2 if cut > 0 else _HEADER_OCTETS]
    lines = header.count(b"\r\n")
    clean = header.isascii() and header.count(b"\r") == lines == header.count(b"\n") and b"\0" not in header
    if clean and _LONG_LINE.search(header) is None and not header.startswith(b"--") and b"\r\n--" not in header:
        return header, ""
    encoded = binascii.b2a_base64(header, newline=False)
    return b"".join(encoded[start : start + 76] + b"\r\n" for start in range(0, len(encoded), 76)), "base64"


def _printable(text: str) -> str:
    """ASCII on one line: nothing that a next hop says can begin a field or a part of ours."""
    return _UNSAFE.sub("?", text)


def _wrapped(text: str) -> list[str]:
    """Lines of at most about 70 characters."""
    lines = [""]
    for word in _printable(text)[:_REPLY_CHARACTERS].split():
        if lines[-1] and len(lines[-1]) + len(word) > 69:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines


def _xtext(text: str) -> str:
    # RFC 3461 §4: xtext has "+" and two upper-case hexadecimal digits for what is not printable.
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)


def _typed_address(address: Address) -> str:
    # RFC 6533 §3: an address that is not ASCII has the type utf-8, and in ASCII surroundings its characters are written \x{...}.
    return f"rfc822; {address}" if address.is_ascii else f"utf-8; {_ascii_address(address)}"


def _ascii_address(address: Address) -> str:
    return "".join(character if " " <= character <= "~" else f"\\x{{{ord(character):04X}}}" for character in str(address))
