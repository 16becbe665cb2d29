"""The plugin "ldap": what it registers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mailsec.errors import Unavailable
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import CertificateDirectory, Gateway, RecipientDirectory, RevocationSource, Runtime
from mailsec.model.settings import GatewaySettings, Problem
from mailsec_ldap.client import read_password
from mailsec_ldap.directory import LdapDirectory
from mailsec_ldap.lists import LdapLists
from mailsec_ldap.servers import Servers, trusting
from mailsec_ldap.settings import LdapSettings

__all__ = ["LdapPlugin"]


class LdapPlugin:
    """What the entry point names."""

    def __init__(self) -> None:
        self._servers: Servers | None = None

    @hookimpl
    def register_config_models(self) -> Mapping[str, type]:
        return {"ldap": LdapSettings}

    @hookimpl
    def register_certificate_directories(self, settings: GatewaySettings, runtime: Runtime) -> Iterable[CertificateDirectory]:
        chosen = _chosen(settings)
        return [LdapDirectory(chosen, runtime, self._shared(chosen, runtime))] if chosen.servers and chosen.base else []

    @hookimpl
    def register_recipient_directories(self, settings: GatewaySettings, runtime: Runtime) -> Iterable[RecipientDirectory]:
        chosen = _chosen(settings)
        return [LdapDirectory(chosen, runtime, self._shared(chosen, runtime))] if chosen.recipients else []

    @hookimpl
    def register_revocation_sources(self, settings: GatewaySettings, runtime: Runtime) -> Iterable[RevocationSource]:
        chosen = _chosen(settings)
        lists = chosen.lists or chosen.list_servers
        return [LdapLists(chosen, runtime, self._shared(chosen, runtime), settings.limits)] if lists else []

    @hookimpl
    def check_configuration(self, gateway: Gateway) -> Iterable[Problem]:
        """Whether the files hold what they should."""
        chosen = _chosen(gateway.settings)
        if chosen.ca_file:
            try:
                trusting(chosen.ca_file)
            except Unavailable as error:
                yield Problem(("ca_file",), error.message, "one or more CA certificates in PEM")
        if chosen.password_file:
            try:
                read_password(chosen.password_file)
            except OSError as error:
                yield Problem(("password_file",), (error.strerror or str(error)).lower(), "the password is the first line of the file")

    @hookimpl
    def shutdown(self, gateway: Gateway) -> None:
        if self._servers is not None:
            self._servers.close()

    def _shared(self, chosen: LdapSettings, runtime: Runtime) -> Servers:
        """One for all: connections, breakers, and the number of questions that are out."""
        if self._servers is None:
            self._servers = Servers(runtime, seconds=chosen.timeout, connections=chosen.connections, ca_file=chosen.ca_file)
        return self._servers


def _chosen(settings: GatewaySettings) -> LdapSettings:
    chosen = settings.plugins["ldap"]
    assert isinstance(chosen, LdapSettings)
    return chosen
