"""What is spoken on a listener: the core and the conversation of a new connection.

The one invariant: what a core offers (TLS, AUTH) is what the listener's settings say, and is decided once, before anybody connects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mailsec.gateway.conversation import SmtpConversation
from mailsec.gateway.mailbox_conversation import MailboxConversation
from mailsec.gateway.pipeline import Pipeline
from mailsec.interfaces import Conversation, ProtocolCore
from mailsec.model.session import Session
from mailsec.model.settings import GatewaySettings, ListenerSettings, MailboxSettings
from mailsec.wire.pop3.offers import PopSettings
from mailsec.wire.pop3.server import PopServer
from mailsec.wire.smtp.offers import ServerSettings
from mailsec.wire.smtp.server import SmtpServer

__all__ = ["Spoken", "spoken_on"]


class Spoken(NamedTuple):
    """One listener's protocol."""

    open: Callable[[Session], tuple[ProtocolCore, Conversation]]
    too_many: bytes
    """What a client is told that is one too many; empty where it could not read it."""
    session_timeout: float | None
    """Seconds that a session may last that brings no message; None: the core sees to that."""


def spoken_on(listener: ListenerSettings, settings: GatewaySettings, pipeline: Pipeline) -> Spoken:
    """What is spoken on `listener`."""
    if listener.protocol == "pop3":
        offers = PopSettings(settings.hostname, tls=listener.tls, limits=settings.limits)
        mailbox = listener.mailbox or MailboxSettings()
        told = b"" if listener.tls == "implicit" else b"-ERR [SYS/TEMP] too many connections from your address\r\n"
        return Spoken(lambda session: (PopServer(offers), MailboxConversation(pipeline, session, mailbox)), told, None)
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
        limits=settings.limits,
    )
    told = b"" if listener.tls == "implicit" else b"421 4.7.0 too many connections from your address\r\n"
    return Spoken(lambda session: (SmtpServer(server), SmtpConversation(pipeline, session)), told, settings.limits.session_timeout)
