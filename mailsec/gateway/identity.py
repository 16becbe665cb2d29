"""Whose name a message bears, and whether the identity behind it may use that name (RFC 6409 §6.1, RFC 5322 §3.6.2).

The one invariant (promise 8): `author` returns an address only where one single From address exists, every other name in the header that
tells who sent it is the identity's own too, and the identity is one that may be signed for. Everything else is refused, or None.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from mailsec.errors import Refused, Reply
from mailsec.interfaces import Credentials
from mailsec.mime.addresses import Mailboxes, mailboxes
from mailsec.model.address import Address
from mailsec.model.limits import Limits
from mailsec.model.message import Message
from mailsec.model.session import Identity, Origin, Session, Transaction
from mailsec.rules.conditions import Addresses

__all__ = ["author", "certified", "check_names", "identity_of", "single_author"]

# RFC 5322 §3.6.2, §3.6.6: the fields that say who wrote and who sent (or sent again)
_NAMES = frozenset({"from", "sender", "resent-from", "resent-sender"})

_NO_FROM = Reply(550, "5.6.0", "the message needs exactly one From field with exactly one address")
_UNREADABLE = Reply(550, "5.6.0", "the addresses in From, Sender, Resent-From or Resent-Sender cannot be read")
_NOT_YOURS = Reply(550, "5.7.1", "you may not use the address in From, Sender, Resent-From or Resent-Sender")


def identity_of(session: Session, reverse_path: Address | None) -> Identity | None:
    """Who is responsible: whoever logged in on `submission`, the MAIL FROM address on `trusted`, a mailbox's owner; nobody on `internet`."""
    if session.origin in (Origin.SUBMISSION, Origin.MAILBOX):
        return session.identity
    if session.origin is Origin.TRUSTED and reverse_path is not None:
        return _sender(reverse_path)
    return None


def certified(session: Session, credentials: Credentials) -> Identity | None:
    """SASL EXTERNAL: whom the client's accepted certificate names; None where there is none, or who wants to be somebody else.

    RFC 4422 §A: what is outside SASL says who is there; an authorisation identity may be given, and nobody acts as somebody else here.
    """
    identity = session.tls.peer_identity if session.tls is not None and session.tls.peer_verified else None
    if identity is None or credentials.authorisation not in ("", identity.name):
        return None
    return replace(identity, mechanism="EXTERNAL")


@lru_cache(maxsize=1024)
def _sender(reverse_path: Address) -> Identity:
    """The same object for the same address: a session that bears it already is not made again."""
    return Identity(str(reverse_path), (str(reverse_path),), "senders")


def author(transaction: Transaction, limits: Limits) -> Address | None:
    """The From address that this message may be signed for; None where nobody may be (no outbound origin, a null path on `trusted`).

    Raise Refused (550) on `submission` and `trusted` where the header bears a name that the identity may not use.
    """
    session, envelope = transaction.session, transaction.envelope
    if not session.origin.outbound:
        return None
    identity = identity_of(session, envelope.reverse_path)
    if identity is None:
        if session.origin is Origin.SUBMISSION:
            raise Refused("a submission without an identity", reply=Reply(530, "5.7.0", "authentication required"), stage="identity")
        # a bounce that our own MTA sends: relayed, never signed, for nobody answers for it
        return None
    if envelope.reverse_path is not None and not _may_use(identity, envelope.reverse_path):
        raise _refusal(identity, "MAIL FROM", envelope.reverse_path)
    return check_names(transaction.message, identity, limits)


def check_names(message: Message, identity: Identity, limits: Limits) -> Address:
    """The one From address, with every name in the header checked against `identity`; raise Refused."""
    sender: Address | None = None
    for field in message.fields:
        if field.name not in _NAMES:
            continue
        found = mailboxes(message.value(field), limits)
        if found.problems or not found.addresses:
            raise Refused(
                f"the {field.name} field cannot be read without doubt: {', '.join(found.problems) or 'no address'}",
                hint="the sending program writes a header that other programs would read differently",
                reply=_NO_FROM if field.name == "from" else _UNREADABLE,
                stage="identity",
            )
        if field.name == "from":
            # RFC 5322 §3.6.2 allows several authors; no single key could then speak for all of them
            if sender is not None or len(found.addresses) != 1:
                raise Refused("more than one From field or From address", hint="send with one author", reply=_NO_FROM, stage="identity")
            sender = found.addresses[0]
        elif len(found.addresses) != 1 and field.name != "resent-from":
            # RFC 5322 §3.6.2, §3.6.6: Sender and Resent-Sender hold one mailbox
            raise Refused(f"more than one address in {field.name}", hint="send with one sender", reply=_UNREADABLE, stage="identity")
        for address in found.addresses:
            if not _may_use(identity, address):
                raise _refusal(identity, field.name, address)
    if sender is None:
        raise Refused("there is no From field", hint="the sending program must write one", reply=_NO_FROM, stage="identity")
    return sender


def single_author(message: Message, limits: Limits) -> Address | None:
    """The one From address of a message from anybody; None where there is none, more than one, or doubt."""
    found: Mailboxes | None = None
    for field in message.fields:
        if field.name == "from":
            if found is not None:
                return None
            found = mailboxes(message.value(field), limits)
    return found.addresses[0] if found is not None and len(found.addresses) == 1 and not found.problems else None


@lru_cache(maxsize=1024)
def _patterns(addresses: tuple[str, ...]) -> Addresses:
    return Addresses(addresses)


def _may_use(identity: Identity, address: Address) -> bool:
    return _patterns(identity.addresses).match(address)


def _refusal(identity: Identity, where: str, address: Address) -> Refused:
    return Refused(
        f"{identity.name} may not use {address} in {where}",
        hint=f"give {identity.name} this address (mailsec user), or let them send with their own",
        reply=_NOT_YOURS,
        stage="identity",
    )
