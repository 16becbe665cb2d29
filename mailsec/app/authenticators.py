"""`[[authenticator]]` as a plugin: who checks logins, in the order of the configuration; the users of the database where none is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mailsec.app.config.people import Authenticator as AuthenticatorModel
from mailsec.app.config.people import parse_server
from mailsec.builtin.passwd_file import PasswdFile
from mailsec.builtin.password_servers import DovecotLogins, UpstreamLogins
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Authenticator, Runtime
from mailsec.model.settings import GatewaySettings

__all__ = ["AuthenticatorsPlugin"]


class AuthenticatorsPlugin:
    """Brings them."""

    def __init__(self, configured: Sequence[AuthenticatorModel], database: Authenticator) -> None:
        self._configured = tuple(configured)
        self._database = database

    @hookimpl
    def register_authenticators(self, settings: GatewaySettings, runtime: Runtime) -> Iterable[Authenticator]:
        if not self._configured:
            return [self._database]
        return [self._made(one, settings, runtime) for one in self._configured]

    def _made(self, one: AuthenticatorModel, settings: GatewaySettings, runtime: Runtime) -> Authenticator:
        domains = tuple(one.domains)
        if one.kind == "dovecot":
            return DovecotLogins(one.socket, domains, runtime)
        if one.kind == "upstream":
            host, port, implicit_tls = parse_server(one.server)
            return UpstreamLogins(host, port, domains, runtime, hostname=settings.hostname, implicit_tls=implicit_tls)
        return PasswdFile(one.file, runtime) if one.kind == "passwd-file" else self._database
