"""The plugin "ocsp": the service "ocsp", which `[[listener]] service` may name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mailsec.errors import ConfigurationError
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Conversation, Gateway, ProtocolCore, TcpService
from mailsec.model.session import Session
from mailsec.model.settings import Problem
from mailsec_ocsp.answers import Answers
from mailsec_ocsp.http import HttpServer
from mailsec_ocsp.requests import MOST_OCTETS
from mailsec_ocsp.responder import Responder
from mailsec_ocsp.settings import OcspSettings

__all__ = ["OcspPlugin"]


class OcspService:
    """A `TcpService`."""

    name = "ocsp"

    def __init__(self, gateway: Gateway, settings: OcspSettings) -> None:
        self.responder = Responder(gateway, settings)
        self._runtime = gateway.runtime
        self._answers = Answers(self.responder, gateway.runtime, settings.path)

    def open(self, session: Session) -> tuple[ProtocolCore, Conversation]:
        """A core of its own for each connection."""
        return HttpServer(self._runtime.now, most=MOST_OCTETS), self._answers


class OcspPlugin:
    """What the entry point names."""

    def __init__(self) -> None:
        self._service: OcspService | None = None

    @hookimpl
    def register_config_models(self) -> Mapping[str, type]:
        """`[plugin.ocsp]`."""
        return {"ocsp": OcspSettings}

    @hookimpl
    def register_tcp_services(self, gateway: Gateway) -> Iterable[TcpService]:
        """The service. Raise ConfigurationError where a listener has it, and there is nobody to answer for."""
        settings = gateway.settings.plugins.get("ocsp")
        settings = settings if isinstance(settings, OcspSettings) else OcspSettings()
        if not settings.authorities and any(listener.service == "ocsp" for listener in gateway.settings.listeners):
            raise ConfigurationError(
                "an OCSP responder for nobody", hint='[plugin.ocsp] authorities = ["My CA"]; `mailsec cert list` shows names'
            )
        self._service = OcspService(gateway, settings)
        return [self._service]

    @hookimpl
    async def check_configuration(self) -> list[Problem]:
        """Whether the database has each authority, and somebody may sign for it."""
        return [] if self._service is None else await self._service.responder.problems()

    @hookimpl
    async def startup(self) -> None:
        """Whether somebody may sign for each authority. Raise ConfigurationError where nobody may."""
        if self._service is not None:
            await self._service.responder.check()
