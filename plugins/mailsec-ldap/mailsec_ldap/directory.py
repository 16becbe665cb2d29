"""The directory "ldap": certificates of correspondents (RFC 4523, RFC 2798), and who exists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ldap3.utils.conv import escape_filter_chars

from mailsec.errors import CertificateError
from mailsec.interfaces import FoundCertificate, Runtime
from mailsec.keys.files import load_certificates
from mailsec.model.address import Address
from mailsec.model.session import matches_pattern
from mailsec.pki.identity import matches
from mailsec.x509.certificate import load_certificate
from mailsec_ldap.client import NO_ATTRIBUTE, Entry, Login, Query
from mailsec_ldap.places import ServerAddress
from mailsec_ldap.servers import Servers
from mailsec_ldap.settings import LdapSettings

__all__ = ["LdapDirectory"]

_ATTRIBUTES = ("userCertificate", "userSMIMECertificate")
"""RFC 4523 §2.1: one certificate. RFC 2798 §2.8: a PKCS #7 SignedData, with the authorities above it."""
_MOST = 16
"""Certificates of one person that are looked at: attack: an entry with thousands."""
_KEPT_KNOWN, _KEPT_UNKNOWN = 300.0, 30.0
"""Seconds for which it is remembered that a recipient exists, or does not."""
_MOST_KEPT = 10_000


class LdapDirectory:
    """A `CertificateDirectory` and a `RecipientDirectory`."""

    name = "ldap"
    local = False

    def __init__(self, settings: LdapSettings, runtime: Runtime, servers: Servers) -> None:
        self._settings = settings
        self._runtime = runtime
        self._servers = servers
        self._places = [(one, one.host) for one in map(ServerAddress.of_setting, settings.servers)]
        self._login = Login(settings.bind_dn, settings.password_file)
        self._kept: dict[str, tuple[float, bool]] = {}

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]:
        """Certificates of whoever has this address. Raise Unavailable where no server can say."""
        settings = self._settings
        if settings.domains and not _lies_in(address, settings.domains):
            return ()
        entries = await self._ask(settings.filter, address, _ATTRIBUTES)
        return tuple(one for _, one in zip(range(_MOST), _certificates(entries, address), strict=False))

    async def exists(self, address: Address) -> bool | None:
        """Whether an entry has this address; None where its domain is not one of `recipients`. Raise Unavailable where no server can say."""
        settings = self._settings
        if not _lies_in(address, settings.recipients):
            return None
        now = self._runtime.monotonic()
        kept = self._kept.get(address.key)
        if kept is not None and now < kept[0]:
            return kept[1]
        known = bool(await self._ask(settings.recipient_filter, address, (NO_ATTRIBUTE,)))
        if len(self._kept) >= _MOST_KEPT:
            # Attack: a dictionary of names at RCPT.
            self._kept.clear()
        self._kept[address.key] = (now + (_KEPT_KNOWN if known else _KEPT_UNKNOWN), known)
        return known

    async def _ask(self, template: str, address: Address, attributes: tuple[str, ...]) -> list[Entry]:
        # RFC 4515 §3. Attack: a local part of "*", or "x)(uid=*".
        filter_ = template.replace("{address}", escape_filter_chars(address.key))
        query = Query(self._settings.base, filter_, attributes)
        return await self._servers.ask(self._places, query, tls=self._settings.tls == "starttls", login=self._login)


def _certificates(entries: Sequence[Entry], address: Address) -> Iterator[FoundCertificate]:
    """Each certificate once: those that stand alone before those in bundles, in the order of the server."""
    seen: set[bytes] = set()
    for attribute in map(str.lower, _ATTRIBUTES):
        for entry in entries:
            for value in entry.values.get(attribute, ()):
                try:
                    bundle = load_certificates(value)
                except CertificateError:
                    # A key of PGP, an empty value: it is no certificate of anybody.
                    continue
                own = [one for one in bundle if matches(load_certificate(one), address)] or [bundle[0]]
                chain = tuple(one for one in bundle if one not in own)[:_MOST]
                for der in own:
                    if der not in seen:
                        seen.add(der)
                        yield FoundCertificate(der, "ldap", chain=chain, origin=entry.name)


def _lies_in(address: Address, domains: Sequence[str]) -> bool:
    return any(matches_pattern("@" + domain, address) for domain in domains)
