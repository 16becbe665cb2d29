"""Who a message says it is from, and whether a certificate is theirs (RFC 8550 §3, RFC 5322 §3.6.2).

The one invariant: there is a match only where every reader sees the same one From address, and the certificate names it. Whatever is
doubtful (two From fields, several mailboxes, groups, encoded words in an address) matches nobody, with a reason.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mailsec.errors import LimitExceeded
from mailsec.mime.addresses import mailboxes
from mailsec.mime.index import disguised_name
from mailsec.model.address import Address
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message
from mailsec.model.verdict import Reason
from mailsec.pki.identity import matches
from mailsec.x509.certificate import Certificate

__all__ = ["Author", "matches_author", "read_author"]

_RFC = "RFC 8550 §3"
_LINE_WITHIN = re.compile(rb"(?:\r(?!\n)|(?<!\r)\n)[ \t\x00]*from[ \t\x00]*:", re.IGNORECASE)
_PROBLEMS = {
    "bad-syntax": "it cannot be read as an address",
    "bad-address": "it holds something that is no address",
    "group": "it holds a group",
    "route": "its address has a route",
    "encoded-word": "its address holds an encoded word, which some readers decode",
    "empty": "it is empty",
}


class Author(NamedTuple):
    """The one address of From, or why there is none; and the address of Sender."""

    address: Address | None
    sender: Address | None
    reasons: tuple[Reason, ...]
    has_sender: bool = False
    """A Sender field is there, also one that names no address or several."""


def _one(message: Message, name: str, limits: Limits) -> tuple[Address | None, list[Reason]]:
    """The one address of the one field called `name`."""
    values = message.values(name)
    title = name.capitalize()

    def doubt(code: str, text: str, hint: str = "") -> tuple[None, list[Reason]]:
        return None, [Reason(f"{name}-{code}", "identity", text, hint, "RFC 5322 §3.6.2")]

    if not values:
        return doubt("missing", f"the message has no {title} field")
    raw = bytes(message.octets.view(0, message.header_end))
    bare = len({raw.count(b"\n"), raw.count(b"\r"), raw.count(b"\r\n")}) > 1
    if bare and name == "from" and _LINE_WITHIN.search(raw):
        # Readers to whom a bare CR or LF ends a line find another From field there.
        return doubt("repeated", "a bare CR or LF hides a second From field: readers show different ones", "it may be forged")
    count = len(values) + sum(not field.name and disguised_name(message.octets, field) == name for field in message.fields)
    if count > 1:
        return doubt("repeated", f"the message has {count} {title} fields: readers show different ones", "it may be forged")
    try:
        found = mailboxes(values[0], limits)
    except LimitExceeded as error:
        return doubt("unreadable", f"{title}: {error.message}")
    if found.problems:
        why = "; ".join(_PROBLEMS.get(problem, problem) for problem in found.problems)
        return doubt("unreadable", f"{title} does not name one address: {why}", "it may be made to show another author than it names")
    if len(found.addresses) != 1:
        return doubt("several", f"{title} names {len(found.addresses)} addresses; a signature is by one of them at most")
    return found.addresses[0], []


def read_author(message: Message, limits: Limits = DEFAULT_LIMITS) -> Author:
    """Read From and Sender."""
    address, reasons = _one(message, "from", limits)
    has_sender = any((field.name or disguised_name(message.octets, field)) == "sender" for field in message.fields)
    sender = _one(message, "sender", limits)[0] if has_sender else None
    return Author(address, sender, tuple(reasons), has_sender)


def _of_sender(certificate: Certificate, author: Author) -> tuple[Reason, ...]:
    # What From says is proved, so that it is a match (promise 4); but programs show "Mallory on behalf of Alice", and of that nothing is.
    # Mailing lists write a Sender of their own, so that to refuse it would make all their signed mail untrusted.
    if not author.has_sender or (author.sender is not None and matches(certificate, author.sender)):
        return ()
    named = "something that is no single address" if author.sender is None else str(author.sender)
    message = f"the Sender field names {named}, which the signer's certificate does not: only From, {author.address}, is proved"
    return (Reason("sender-differs", "identity", message, "believe From; a mailing list may have sent it on", _RFC),)


def matches_author(certificate: Certificate, author: Author) -> tuple[bool, tuple[Reason, ...]]:
    """Compare a signer's certificate with From.

    RFC 8550 §3: the address in From or Sender must be one of the certificate's. Readers show From, so a certificate that names only the
    Sender does not make From true: that is told, and is no match.
    """
    if author.address is None:
        return False, author.reasons
    if not certificate.addresses:
        return False, (
            Reason("no-address", "identity", "the signer's certificate names no mail address", "ask the sender for one that does", _RFC),
        )
    if matches(certificate, author.address):
        return True, _of_sender(certificate, author)
    if author.sender is not None and matches(certificate, author.sender):
        return False, (
            Reason(
                "sender-only",
                "identity",
                f"signed by the Sender, {author.sender}, not by {author.address}, who From says wrote it",
                "somebody may send for somebody else; only the Sender is proved",
                _RFC,
            ),
        )
    named = ", ".join(str(address) for address in certificate.addresses[:3])
    return False, (
        Reason(
            "from-differs",
            "identity",
            f"signed with a certificate of {named}, but From is {author.address}",
            "believe the certificate, not From",
            _RFC,
        ),
    )
