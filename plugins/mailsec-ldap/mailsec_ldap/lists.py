"""The revocation source "ldap": lists whose address is an `ldap:` URL (RFC 5280 §4.2.1.13, RFC 4516).

The one invariant: a certificate sends us nowhere but to a server that the settings name: our own as they say, another's at a public address,
and that address is the one connected to.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.errors import MailsecError, Unavailable
from mailsec.interfaces import Evidence, EvidenceRequest, Runtime
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec_ldap.client import Login, Query
from mailsec_ldap.places import ListAddress, ServerAddress
from mailsec_ldap.servers import Servers
from mailsec_ldap.settings import LdapSettings

__all__ = ["LdapLists"]

_MOST_LISTS = 16
_NOBODY = Login()


class LdapLists:
    """A `RevocationSource`."""

    name = "ldap"

    def __init__(self, settings: LdapSettings, runtime: Runtime, servers: Servers, limits: Limits = DEFAULT_LIMITS) -> None:
        self._settings = settings
        self._runtime = runtime
        self._servers = servers
        self._octets = limits.fetch_octets
        self._own = [ServerAddress.of_setting(one) for one in settings.servers] if settings.lists else []
        self._others = {ServerAddress.of_setting(f"ldap://{one}") for one in settings.list_servers}

    def addresses(self, request: EvidenceRequest) -> Sequence[str]:
        """Those of its `ldap:` URLs that lead to a server of the settings."""
        return tuple(url for url in request.urls if request.kind == "crl" and self._place(url) is not None)

    async def evidence(self, request: EvidenceRequest) -> Sequence[Evidence]:
        """The lists at these addresses; none where there are none of ours. Raise Unavailable where a list cannot be had."""
        if request.kind != "crl":
            return ()
        found: list[Evidence] = []
        error: MailsecError | None = None
        for url in request.urls:
            place = self._place(url)
            if place is None:
                continue
            try:
                found += [Evidence("crl", data, url, self._runtime.now()) for data in await self._lists(place)]
            except MailsecError as caught:
                error = caught
        if error is not None and not found:
            raise Unavailable(error.message, hint=error.hint, stage="revocation")
        return found

    def _place(self, url: str) -> ListAddress | None:
        """What a URL asks for; None where it is none of ours to ask."""
        place = ListAddress.of_url(url)
        if place is None:
            return None
        if not place.host:
            return place if self._own else None
        known = place.host in {one.host for one in self._own} or ServerAddress(place.host, place.port) in self._others
        return place if known else None

    async def _lists(self, place: ListAddress) -> Sequence[bytes]:
        settings = self._settings
        query = Query(place.entry, "(objectClass=*)", (place.attribute,), subtree=False, entries=1, octets=self._octets)
        own = [one for one in self._own if place.host in ("", one.host)]
        if own:
            login = Login(settings.bind_dn, settings.password_file)
            entries = await self._servers.ask([(one, one.host) for one in own], query, tls=settings.tls == "starttls", login=login)
        else:
            # Attack: DNS of somebody else's name that leads to a machine of ours.
            server = ServerAddress(place.host, place.port)
            targets = [(server, address) for address in await self._runtime.public_addresses(place.host)]
            entries = await self._servers.ask(targets, query, tls=False, login=_NOBODY)
        lists = [value for entry in entries for value in entry.values.get(place.attribute.lower(), ())][:_MOST_LISTS]
        if not lists:
            raise Unavailable(f"there is no revocation list in {place.entry!r}", stage="revocation")
        return lists
