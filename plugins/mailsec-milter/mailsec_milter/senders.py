"""What a message is: whose it is, as the MTA says, and so what may happen to it (origin).

The one invariant (promise 8): a message is `submission` only with a login of its own, `trusted` only with a MAIL FROM of `senders`; all
else is `internet`, whatever its header says.
"""

from __future__ import annotations

from dataclasses import replace

from mailsec.errors import Refused, Reply, TryLater
from mailsec.interfaces import Gateway
from mailsec.model.session import Identity, Origin, Session, TlsInfo, matches_pattern
from mailsec_milter.questions import Received
from mailsec_milter.settings import MilterSettings

__all__ = ["session_of"]

_NOT_A_SENDER = Reply(550, "5.7.1", "this sender may not send here")


async def identity_of(settings: MilterSettings, gateway: Gateway, login: str) -> Identity:
    """Who `login` is: as `logins` has it, else as our own users have it, else as `login_domains` makes an address of it.

    Raise a MailsecError that is temporary where nobody can say now. Somebody whom nobody knows may use no address.
    """
    if login not in settings.logins:
        known = await gateway.identity(login)
        if known is not None:
            return replace(known, mechanism="milter")
    return Identity(login, settings.addresses_of(login), "milter")


async def session_of(settings: MilterSettings, gateway: Gateway, connection: Session, received: Received) -> Session:
    """The session of one message: the client is the MTA's, not the MTA. Raise Refused for a sender whom nobody vouches for."""
    session = replace(
        connection,
        origin=Origin.INTERNET,
        peer=received.peer or "unix:unknown",
        peer_port=received.peer_port,
        helo=received.helo,
        protocol="ESMTP",
        tls=_tls(received),
        identity=None,
        in_passing=True,
    )
    if settings.origin == "internet":
        return session
    if received.login and settings.origin == "macros":
        identity = await identity_of(settings, gateway, received.login)
        return replace(session, origin=Origin.SUBMISSION, protocol="ESMTPSA" if session.tls else "ESMTPA", identity=identity)
    if settings.origin == "trusted" or received.daemon in settings.trusted_daemons:
        if settings.origin != "trusted" and received.daemon.casefold() == received.host.casefold():
            # Attack: Postfix calls each port by its own name where nothing else is set, the one that strangers reach, too.
            raise TryLater(
                f"the port {received.daemon!r} has the mail server's own name, as any port of Postfix that has no other",
                hint="give the ports that are meant a name (milter_macro_daemon_name), and trusted_daemons of [plugin.milter] that one",
                stage="milter",
            )
        reverse_path = received.envelope.reverse_path
        if reverse_path is None:
            # a bounce of the MTA's own: nobody answers for it, and it is not signed
            return replace(session, origin=Origin.TRUSTED)
        if not any(matches_pattern(pattern, reverse_path) for pattern in settings.senders):
            raise Refused(
                f"{reverse_path} is no sender of this port",
                hint="add it to senders of [plugin.milter]",
                reply=_NOT_A_SENDER,
                stage="milter",
            )
        return replace(session, origin=Origin.TRUSTED)
    return session


def _tls(received: Received) -> TlsInfo | None:
    version = received.tls.get("tls_version", "")
    if not version:
        return None
    bits = received.tls.get("cipher_bits", "")
    return TlsInfo(version, received.tls.get("cipher", ""), int(bits) if bits.isascii() and bits.isdigit() and len(bits) < 6 else 0)
