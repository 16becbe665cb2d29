"""Delivery status notifications: how a sender learns that a message did not arrive (RFC 3464 in RFC 6522).

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

from mailsec.model.address import Address
from mailsec.model.octets import Segments
from mailsec.model.queue import NewEntry, QueueEntry, State
from mailsec.model.session import Envelope, Origin, Recipient

__all__ = ["FailedRecipient", "failure_report", "overdue_report", "postmaster_report", "wants_report"]

_HEADER_OCTETS = 64 * 1024
_REPLY_CHARACTERS = 700
_MOST_SHOWN = 100
_UNSAFE = re.compile(r"[^\x20-\x7e]+")
_LONG_LINE = re.compile(rb"[^\n]{998}")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")


@dataclass(frozen=True, slots=True)
class FailedRecipient:
    """One recipient that a message did not reach, and why."""

    recipient: Recipient
    status: str
    """An enhanced status code (RFC 3463): "5.1.1"."""
    reason: str
    """For people, in our words."""
    reply: str = ""
    """What the next hop said: "550 5.1.1 no such user"; "" where nobody said anything."""
    remote: str = ""
    """The host that said it."""


def wants_report(recipient: Recipient) -> bool:
    """True where a failure may be reported."""
    # RFC 3461 §4.1: NOTIFY=NEVER and a NOTIFY without FAILURE ask for silence; without NOTIFY failures are reported.
    notify = recipient.notify.upper()
    return not notify or "FAILURE" in notify.split(",")


def failure_report(
    *,
    id: str,
    reverse_path: Address | None,
    failed: Sequence[FailedRecipient],
    header: bytes,
    received_at: datetime,
    at: datetime,
    hostname: str,
    postmaster: str,
    random: Callable[[int], bytes],
    origin: Origin,
    listener: str,
    envelope_id: str = "",
    quiet: bool = False,
) -> NewEntry | None:
    """A row with the report for the sender of a message; None where nobody is to be told.

    `header` is the outer header as it was received.
    """
    told = [one for one in failed if wants_report(one.recipient)]
    if reverse_path is None or not told:
        return None
    lines = [f"This is the mail gateway at {hostname}.", "", "Your message could not be delivered to:", ""]
    for one in told:
        lines.append(f"    {_ascii_address(one.recipient.address)}")
        if not quiet:
            lines += [f"        {line}" for line in _wrapped(one.reason)]
            if one.reply:
                said = f"{one.remote} said: {one.reply}" if one.remote else f"the next mail server said: {one.reply}"
                lines += [f"        {line}" for line in _wrapped(said)]
        lines.append("")
    lines.append("Only the header of your message is returned with this report.")
    status = [f"Reporting-MTA: dns; {_printable(hostname)}"]
    if envelope_id:
        # RFC 3461 §6.3: the ENVID of the sender, its xtext decoded, where one was given.
        status.insert(0, f"Original-Envelope-Id: {_printable(_xtext(envelope_id))}")
    status.append(f"Arrival-Date: {format_datetime(received_at)}")
    for one in told:
        status.append("")
        if one.recipient.original:
            # RFC 3464 §2.3.1: as the sender gave it.
            status.append(f"Original-Recipient: {_printable(_xtext(one.recipient.original))}")
        # RFC 3464 §2.3: Final-Recipient, Action and Status stand for each recipient.
        status.append(f"Final-Recipient: {_typed_address(one.recipient.address)}")
        status.append("Action: failed")
        status.append(f"Status: {'5.0.0' if quiet else one.status}")
        if one.reply and not quiet:
            if one.remote:
                status.append(f"Remote-MTA: dns; {_printable(one.remote)}")
            status.append(f"Diagnostic-Code: smtp; {_printable(one.reply)[:_REPLY_CHARACTERS]}")
    return _report(
        id=id,
        recipient=reverse_path,
        subject="Undelivered mail: your message did not arrive",
        text=lines,
        status=status,
        header=header,
        at=at,
        hostname=hostname,
        postmaster=postmaster,
        random=random,
        origin=origin,
        listener=listener,
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
    return _report(
        id=id,
        recipient=Address.parse(postmaster),
        subject=f"Mail on hold for long: {len(overdue)}",
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
