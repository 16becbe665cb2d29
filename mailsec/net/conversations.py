"""What is spoken on a listener: the core and the conversation of a new connection.

The one invariant: what a core offers (TLS, AUTH) is what the listener's settings say, and is decided once, before anybody connects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

from mailsec.gateway.conversation import SmtpConversation
from mailsec.gateway.mailbox_conversation import MailboxConversation
from mailsec.gateway.pipeline import Pipeline
from mailsec.interfaces import Conversation, ProtocolCore, ReactorService
from mailsec.model.session import Session
from mailsec.model.settings import GatewaySettings, ListenerSettings, MailboxSettings
from mailsec.net.services import Service, find_service, opened
from mailsec.wire.pop3.offers import PopSettings
from mailsec.wire.pop3.server import PopServer
from mailsec.wire.smtp.offers import ServerSettings
from mailsec.wire.smtp.server import SmtpServer

__all__ = ["Spoken", "spoken_on"]


class Spoken(NamedTuple):
    """One listener's protocol."""

    open: Callable[[Session], tuple[ProtocolCore, Conversation]]
    too_many: bytes
    """What a client is told that has one too many; empty where it could not read it."""
    full: bytes
    """The same where all have too many together."""
    session_timeout: float | None
    """Seconds that a session may last that brings no message; None: the core sees to that."""
    reactor_service: ReactorService | None = None
    """In place of `open`."""


def spoken_on(listener: ListenerSettings, settings: GatewaySettings, pipeline: Pipeline, services: Sequence[Service] = ()) -> Spoken:
    """What is spoken on `listener`; `services` are those that plugins bring. Raise ConfigurationError for one that none brings."""
    if listener.service:
        service: Any = find_service(services, listener)
        if not hasattr(service, "open"):
            return Spoken(_no_core, b"", b"", None, service)
        make = partial(opened, service, implicit=listener.tls == "implicit", handshake=settings.limits.handshake_timeout)
        return Spoken(make, b"", b"", None)
    if listener.protocol == "pop3":
        offers = PopSettings(settings.hostname, tls=listener.tls, limits=settings.limits)
        mailbox = listener.mailbox or MailboxSettings()
        told, full = _told(listener, b"-ERR [SYS/TEMP] ")
        return Spoken(lambda session: (PopServer(offers), MailboxConversation(pipeline, session, mailbox)), told, full, None)
    server = ServerSettings(
        settings.hostname,
        tls=listener.tls,
        authenticate=listener.authenticate,
        mechanisms=pipeline.logins.offered,
        normalise=listener.normalise,
        smtputf8=True,
        dsn=True,
        chunking=True,
        lmtp=listener.protocol == "lmtp",
        xclient=listener.front.xclient,
        xclient_certificates=not listener.address.startswith("unix:"),
        xclient_login=listener.front.xclient_login,
        limits=settings.limits,
    )
    told, full = _told(listener, b"421 4.7.0 ")
    timeout = settings.limits.session_timeout
    return Spoken(lambda session: (SmtpServer(server), SmtpConversation(pipeline, session)), told, full, timeout)


def _told(listener: ListenerSettings, code: bytes) -> tuple[bytes, bytes]:
    if listener.tls == "implicit":
        return b"", b""
    return code + b"too many connections from your address\r\n", code + b"too many connections, try again later\r\n"


def _no_core(session: Session) -> NoReturn:
    raise AssertionError
