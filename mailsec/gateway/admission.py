"""Who may speak, who may begin a message, and to whom it may go: all that is known before the octets are (RFC 5321 §3.3, RFC 6409 §4).

The one invariant: `internet` takes only recipients in our own domains. No header, login or source route makes us an open relay.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from mailsec.errors import LimitExceeded, MailsecError, Reply
from mailsec.interfaces import RecipientDirectory
from mailsec.model.address import Address, normalise_domain
from mailsec.model.message import Message
from mailsec.model.session import Envelope, Origin, Recipient, Session
from mailsec.model.settings import GatewaySettings, ListenerSettings
from mailsec.rules.conditions import Addresses
from mailsec.rules.expressions import compile_expression
from mailsec.rules.session_variables import SessionFacts, is_variable

__all__ = ["Admission", "Domains"]

_log = structlog.get_logger("mailsec.directories")

# RFC 4954 §6: 530 5.7.0 where authentication is required
_AUTHENTICATE = Reply(530, "5.7.0", "authentication required")
_NOT_YOURS = Reply(550, "5.7.1", "you may not send with this address")
_NOT_A_SENDER = Reply(550, "5.7.1", "this sender may not send here")
# RFC 3463 §3.8: X.7.1, delivery not authorised
_NO_RELAY = Reply(550, "5.7.1", "relaying denied")
_ROUTED = Reply(550, "5.7.1", "addresses with routes in them are not accepted here")
# RFC 3463 §3.2: X.1.1, bad destination mailbox address
_NOBODY = Reply(550, "5.1.1", "no such recipient here")
_NOT_A_PEER = Reply(554, "5.7.1", "not accepted from this address")
# RFC 3463 §3.8: X.7.0, other security
_NO_CERTIFICATE = Reply(530, "5.7.0", "a client certificate is required here")
_REQUIRED = Reply(554, "5.7.1", "this listener asks for another TLS session or client certificate")
_NO_CERTIFICATE_TO_RELAY = Reply(550, "5.7.0", "a client certificate is required to send to other domains")
# RFC 3463 §3.5: X.4.6, routing loop detected
_LOOP = Reply(554, "5.4.6", "too many hops: this message is going in a circle")


class Domains:
    """Our own domains: "example.org", ".example.org" for all below it."""

    __slots__ = ("_below", "_exact")

    def __init__(self, domains: Sequence[str]) -> None:
        self._exact = frozenset(normalise_domain(one) for one in domains if not one.startswith("."))
        self._below = tuple("." + normalise_domain(one[1:]) for one in domains if one.startswith("."))

    def __contains__(self, address: Address) -> bool:
        domain = address.domain_key
        return domain in self._exact or (bool(self._below) and domain.endswith(self._below))


class Admission:
    """The answers to connections, MAIL and RCPT. None: welcome."""

    def __init__(
        self, settings: GatewaySettings, directories: Sequence[RecipientDirectory] = (), now: Callable[[], datetime | None] = lambda: None
    ) -> None:
        self.domains = Domains(settings.domains)
        self.directories = tuple(directories)
        self._limits = settings.limits
        self._now = now
        self._host = normalise_domain(settings.hostname)
        self._postmaster = Address.parse(settings.postmaster)
        self._senders = {one.name: Addresses(one.senders) for one in settings.listeners}
        self._certificates = {one.name: one.client_certificates for one in settings.listeners if one.client_certificates != "none"}
        self._required = {one.name: compile_expression(one.require, is_variable) for one in settings.listeners if one.require}
        self._peers = {one.name: _networks(one) for one in settings.listeners if one.peers}

    def admit_connection(self, session: Session) -> Reply | None:
        """A listener with `peers` is for them only; a unix socket's peer is whoever may open it."""
        networks = self._peers.get(session.listener)
        if networks is None or session.peer.startswith("unix:"):
            return None
        try:
            peer = ipaddress.ip_address(session.peer)
        except ValueError:
            return _NOT_A_PEER
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return None if any(peer.version == network.version and peer in network for network in networks) else _NOT_A_PEER

    def admit_sender(self, session: Session, reverse_path: Address | None) -> Reply | None:
        """MAIL FROM: an identity on `submission`, a known sender on `trusted`, anybody on `internet`."""
        demanded = self.admit_session(session)
        if demanded is not None:
            return demanded
        if session.origin is Origin.SUBMISSION:
            # RFC 6409 §4.3: submission needs authorisation
            if session.identity is None:
                return _AUTHENTICATE
            if reverse_path is not None and not session.identity.may_use(reverse_path):
                return _NOT_YOURS
        elif session.origin is Origin.TRUSTED:
            if reverse_path is not None and not self.is_trusted_sender(session.listener, reverse_path):
                return _NOT_A_SENDER
        elif session.origin is not Origin.INTERNET:
            return _NO_RELAY
        return None

    def admit_session(self, session: Session) -> Reply | None:
        """What a listener demands of whoever speaks there: a certificate, its `require`."""
        if self.lacks_certificate(session):
            return _NO_CERTIFICATE
        required = self._required.get(session.listener)
        if required is not None:
            user = session.identity.name if session.identity is not None else ""
            if not required(SessionFacts(session.tls, session.peer, user, session.hostname, self._now())):
                return _REQUIRED
        return None

    def lacks_certificate(self, session: Session) -> bool:
        """True where the listener requires a client certificate, and whoever connected shows none that was accepted. (It should not stand at all.)"""
        return self._certificates.get(session.listener) == "required" and not (session.front_certified or _is_certified(session))

    def is_trusted_sender(self, listener: str, address: Address) -> bool:
        """True where `senders` of that listener mean `address`."""
        senders = self._senders.get(listener)
        return senders is not None and senders.match(address)

    def admit_recipient(self, session: Session, recipient: Address) -> Reply | None:
        """RCPT TO, as far as it can be said without asking anybody; `recipient_exists` says the rest."""
        if session.origin is not Origin.INTERNET:
            if self._certificates.get(session.listener) == "required-for-relaying" and not _is_certified(session):
                return None if recipient in self.domains or self.is_postmaster(recipient) else _NO_CERTIFICATE_TO_RELAY
            return None
        # RFC 5321 §4.5.1: mail for postmaster is taken always
        if self.is_postmaster(recipient):
            return None
        if recipient not in self.domains:
            return _NO_RELAY
        # `user%elsewhere@ours`, `elsewhere!user@ours` and `"user@elsewhere"@ours`: the host behind us might relay them
        if any(sign in recipient.local_part for sign in "%!@"):
            return _ROUTED
        return None

    async def recipient_exists(self, recipient: Address) -> bool | None:
        """What the first directory that knows the domain says; None where none does."""
        for directory in self.directories:
            try:
                exists = await directory.exists(recipient)
            except MailsecError as error:
                _log.warning("a directory cannot say", directory=directory.name, error=error.message, hint=error.hint)
                raise
            if exists is not None:
                return exists
        return None

    async def admit_known_recipient(self, recipient: Address) -> Reply | None:
        """RCPT TO on `internet`, where directories are there to be asked."""
        if self.is_postmaster(recipient) or await self.recipient_exists(recipient) is not False:
            return None
        return _NOBODY

    def is_postmaster(self, recipient: Address) -> bool:
        """True for postmaster of one of our domains, and of this host (`RCPT TO:<postmaster>`)."""
        return recipient.local_part.lower() == "postmaster" and (recipient.domain_key == self._host or recipient in self.domains)

    def with_postmaster(self, envelope: Envelope) -> Envelope:
        """The envelope with our configured postmaster in place of this host's own, for whom there is no mailbox anywhere."""
        if not any(map(self._is_hosts_postmaster, envelope.recipients)):
            return envelope
        # RFC 5321 §4.5.1: mail for postmaster reaches somebody
        return replace(
            envelope,
            recipients=tuple(
                replace(one, address=self._postmaster) if self._is_hosts_postmaster(one) else one for one in envelope.recipients
            ),
        )

    def _is_hosts_postmaster(self, recipient: Recipient) -> bool:
        address = recipient.address
        return (
            len(address.local_part) == len("postmaster")
            and address.local_part.lower() == "postmaster"
            and address.domain_key == self._host
            and address not in self.domains
        )

    def check_message(self, message: Message) -> None:
        """What is known as soon as the octets are: size, loops, a header that others would read differently. Raise LimitExceeded or MimeError."""
        if len(message.octets) > self._limits.message_size:
            raise LimitExceeded("message_size", f"a message of {len(message.octets)} octets", stage="admission")
        # RFC 5321 §6.3: counting Received fields finds loops
        hops = [field.name for field in message.fields].count("received")
        if hops > self._limits.received_headers:
            raise LimitExceeded("received_headers", f"{hops} Received fields", reply=_LOOP, stage="admission")


def _is_certified(session: Session) -> bool:
    return session.tls is not None and session.tls.peer_verified


def _networks(listener: ListenerSettings) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(peer, strict=False) for peer in listener.peers)
