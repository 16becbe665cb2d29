"""Whose mailbox a login is, where the upstream's settings say whose addresses its logins are: the authenticator "mailbox".

It is asked after the mailbox's server has accepted the login. The one invariant (promise 8): an address comes of it only within the
`domains` of that very upstream; a server that has none listed makes nobody anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from string import ascii_lowercase, ascii_uppercase

from mailsec.errors import AddressError
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Credentials
from mailsec.model.address import Address, normalise_domain
from mailsec.model.session import Identity, Origin, Session
from mailsec.model.settings import GatewaySettings, Upstream

__all__ = ["MECHANISM", "MailboxOwners", "MailboxPlugin"]

MECHANISM = "UPSTREAM"
"""How `Credentials` are called that a mailbox's server has accepted already: the secret stays there."""

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


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
        address = _address_of(credentials.login, upstream.domains) if upstream is not None else None
        return None if address is None else Identity(credentials.login, (str(address),), MECHANISM)


class MailboxPlugin:
    """Brings it."""

    @hookimpl
    def register_authenticators(self, settings: GatewaySettings) -> Iterable[MailboxOwners]:
        return [MailboxOwners(settings)]


def _says_what_it_means(login: str) -> bool:
    """True where no two logins that differ in more than the case of ASCII letters lead to one address."""
    if '"' in login:
        return False
    plain = login.translate(_LOWER)
    local_part, _, domain = plain.rpartition("@") if "@" in plain else (plain, "", "")
    if local_part.lower() != local_part:
        return False
    try:
        return domain.isascii() or normalise_domain(domain).encode("ascii").decode("idna") == domain
    except UnicodeError:
        return False


def _address_of(login: str, domains: tuple[str, ...]) -> Address | None:
    # Attack: an account called "alice" with the quotes, alice@exam<soft hyphen>ple.org, or Kate with a KELVIN SIGN: somebody else to a
    # server, and the same person as alice or kate to whoever compares addresses.
    if not _says_what_it_means(login):
        return None
    try:
        if "@" not in login:
            # A plain name is one in the first domain: in another it may be somebody else's.
            return Address.parse(f"{login}@{domains[0]}") if not domains[0].startswith(".") else None
        address = Address.parse(login)
    except AddressError:
        return None
    within = address.domain_key
    for domain in domains:
        if within.endswith("." + normalise_domain(domain[1:])) if domain.startswith(".") else within == normalise_domain(domain):
            return address
    return None
