"""Makers of the values that hooks and the pipeline are given, with sensible defaults: one line for a whole transaction.

The one invariant: what a maker leaves out is the harmless choice (an `internet` session, nobody logged in).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mailsec.mime.index import index_message
from mailsec.model.address import Address
from mailsec.model.message import Message
from mailsec.model.octets import octets_of
from mailsec.model.session import Envelope, Identity, Origin, Recipient, Session, TlsInfo, Transaction

__all__ = ["envelope", "identity", "message", "session", "transaction"]


def identity(name: str = "alice", *addresses: str) -> Identity:
    """An identity that may use `addresses` (default: name@example.org)."""
    return Identity(name, addresses or (f"{name}@example.org",), "PLAIN")


def session(origin: Origin = Origin.INTERNET, *, who: Identity | None = None, **changes: Any) -> Session:
    """A session on the listener named after its origin; on `submission`, alice has logged in under TLS unless `who` says otherwise."""
    values: dict[str, Any] = {
        "id": "s1",
        "listener": origin.value,
        "origin": origin,
        "peer": "192.0.2.7",
        "peer_port": 40000,
        "hostname": "gw.example.org",
        "helo": "client.example.net",
        "protocol": "ESMTP",
        "identity": who,
    }
    if origin is Origin.SUBMISSION:
        values |= {"identity": who or identity(), "protocol": "ESMTPSA", "tls": TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)}
    return Session(**values | changes)


def envelope(sender: str | None, *recipients: str, **changes: Any) -> Envelope:
    """An envelope; None is the null reverse path."""
    return Envelope(
        None if sender is None else Address.parse(sender), tuple(Recipient(Address.parse(one)) for one in recipients), **changes
    )


def message(text: str | bytes, *fields: str) -> Message:
    """Index a message: `fields` ("Name: value") go in front, LF becomes CRLF in a `str`."""
    octets = text.replace("\r\n", "\n").replace("\n", "\r\n").encode() if isinstance(text, str) else text
    return index_message(octets_of("".join(f"{field}\r\n" for field in fields).encode() + octets))


def transaction(
    octets: str | bytes | Message,
    sender: str | None = "alice@example.org",
    *recipients: str,
    in_session: Session | None = None,
    **changes: Any,
) -> Transaction:
    """A transaction of `octets` for `recipients` (default: bob@example.net)."""
    values: dict[str, Any] = {
        "id": "t1",
        "session": in_session or session(),
        "envelope": envelope(sender, *(recipients or ("bob@example.net",))),
        "message": octets if isinstance(octets, Message) else message(octets),
        "received_at": datetime(2026, 1, 1, 12, 0, tzinfo=UTC),
    }
    return Transaction(**values | changes)
