"""Whose mailbox a login is, where the upstream's settings say whose addresses its logins are: the authenticator "mailbox".

It is asked after the mailbox's server has accepted the login. The one invariant (promise 8): an address comes of it only within the
`domains` of that very upstream; a server that has none listed makes nobody anybody.
"""

from __future__ import annotations

from collections.abc import Iterable

from mailsec.builtin.login_names import address_of
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Credentials
from mailsec.model.session import Identity, Origin, Session
from mailsec.model.settings import GatewaySettings, Upstream

__all__ = ["MECHANISM", "MailboxOwners", "MailboxPlugin"]

MECHANISM = "UPSTREAM"
"""How `Credentials` are called that a mailbox's server has accepted already: the secret stays there."""


class MailboxOwners:
    """An `Authenticator` over the upstreams of all listeners."""

    name = "mailbox"
    mechanisms = frozenset({MECHANISM})

    def __init__(self, settings: GatewaySettings) -> None:
        self._upstreams: dict[tuple[str, str], Upstream] = {}
        for listener in settings.listeners:
            mailbox = listener.mailbox
            for upstream in (mailbox.upstream, *mailbox.allowed) if mailbox is not None else ():
                if upstream is not None and upstream.domains:
                    self._upstreams.setdefault((listener.name, str(upstream)), upstream)

    async def authenticate(self, credentials: Credentials, session: Session) -> Identity | None:
        """The owner; None where the upstream's settings do not say who that is."""
        if credentials.mechanism != MECHANISM or session.origin is not Origin.MAILBOX:
            return None
        upstream = self._upstreams.get((session.listener, session.upstream))
        address = address_of(credentials.login, upstream.domains) if upstream is not None else None
        return None if address is None else Identity(credentials.login, (str(address),), MECHANISM)


class MailboxPlugin:
    """Brings it."""

    @hookimpl
    def register_authenticators(self, settings: GatewaySettings) -> Iterable[MailboxOwners]:
        return [MailboxOwners(settings)]
