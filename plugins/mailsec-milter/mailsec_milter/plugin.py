"""The plugin: a TCP service called "milter", and the table `[plugin.milter]`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Conversation, Gateway, ProtocolCore, TcpService
from mailsec.model.session import Session
from mailsec_milter.conversation import MilterConversation
from mailsec_milter.core import MilterCore
from mailsec_milter.settings import MilterSettings

__all__ = ["MilterPlugin", "MilterService"]


class MilterService:
    """`service = "milter"` of a `[[listener]]`."""

    name = "milter"

    def __init__(self, gateway: Gateway, settings: MilterSettings) -> None:
        self._gateway = gateway
        self._settings = settings

    def open(self, session: Session) -> tuple[ProtocolCore, Conversation]:
        """The core of a new connection, and who answers it."""
        core = MilterCore(
            self._gateway.settings.hostname, self._gateway.settings.limits, stranger=not self._settings.welcomes(session.peer)
        )
        return core, MilterConversation(self._gateway, self._settings, session)


class MilterPlugin:
    """What `[plugins] enabled = ["milter"]` brings."""

    @hookimpl
    def register_config_models(self) -> Mapping[str, type]:
        """`[plugin.milter]`."""
        return {"milter": MilterSettings}

    @hookimpl
    def register_tcp_services(self, gateway: Gateway) -> Iterable[TcpService]:
        """The service."""
        settings = gateway.settings.plugins.get("milter")
        return [MilterService(gateway, settings if isinstance(settings, MilterSettings) else MilterSettings())]
