"""The fields that a relay and a submission server add: Received, Date, Message-ID (RFC 5321 §4.4, RFC 3848, RFC 6409 §8).

The one invariant: what a peer said of itself (HELO) is written only where it cannot end a line, a comment, or pass for something else.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from mailsec.gateway.tls_words import tls_comment
from mailsec.model.address import Address
from mailsec.model.session import Origin, Session, Transaction

__all__ = ["date_time", "message_id", "received"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MESSAGE_ID = 250
"""Characters of a Message-ID that are kept."""
_HELO = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,253}[A-Za-z0-9])?\Z|\[[A-Za-z0-9.:]{1,60}\]\Z")


def date_time(at: datetime) -> str:
    """`at` as RFC 5322 §3.3 writes it, in UTC."""
    return _date_time(int(at.timestamp()))


@lru_cache(maxsize=64)
def _date_time(seconds: int) -> str:
    # strftime would follow the locale; RFC 5322 §3.3 has English names only
    at = datetime.fromtimestamp(seconds, UTC)
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    return f"{day}, {at.day} {month} {at.year:04d} {at.hour:02d}:{at.minute:02d}:{at.second:02d} +0000"


def message_id(transaction: Transaction) -> str:
    """The Message-ID that the message has; on `submission` the one that it gets where it has none; else "".

    RFC 5322 §3.6.4: no other message has it. Our own id is unique, and its right side is our name. What is longer than any program makes
    it is cut: it stands in the row of each copy and in the log line of each recipient.
    """
    found = transaction.message.first("message-id")
    if found is None and transaction.session.origin is Origin.SUBMISSION:
        return f"<{transaction.id}@{transaction.session.hostname}>"
    return (found or "")[:_MESSAGE_ID]


def received(session: Session, transaction_id: str, at: datetime, recipients: tuple[Address, ...], *, smtputf8: bool = False) -> bytes:
    """The Received field of this hop, folded, with its CRLF.

    RFC 5321 §4.4: from, by, with, id and for; `for` only where there is one recipient, so that a hidden one stays hidden (§7.2).
    """
    tls = session.tls
    # RFC 6531 §4.3: UTF8SMTP or UTF8LMTP, with S and A as without, for a transaction with SMTPUTF8
    protocol = "UTF8" + session.protocol.removeprefix("E") if smtputf8 else session.protocol
    begin = _begin(session.helo, session.peer, session.hostname, protocol, tls_comment(tls, at) if tls is not None else "")
    ends = ""
    if len(recipients) == 1 and recipients[0].is_ascii:
        ends = f"\r\n\tfor <{recipients[0]}>"
    return f"{begin}{transaction_id}{ends}; {date_time(at)}\r\n".encode("ascii", "replace")


@lru_cache(maxsize=512)
def _begin(helo: str, peer: str, hostname: str, protocol: str, secured: str) -> str:
    # RFC 5321 §4.1.3: an address literal; RFC 5321 §4.4: TCP-info holds the address that we saw, beside the name that was claimed
    literal = "" if peer.startswith("unix:") else f"[IPv6:{peer}]" if ":" in peer else f"[{peer}]"
    claimed = helo if _HELO.match(helo) else ""
    source = claimed or literal or "localhost"
    comment = f" ({literal})" if literal and claimed else "" if literal else " (local socket)"
    if secured:
        secured = f"\r\n\t{secured}"
    return f"Received: from {source}{comment}\r\n\tby {hostname} with {protocol}{secured}\r\n\tid "
