"""The plugin "socketmap": what `[[listener]] service` may name, and its settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from mailsec.errors import AddressError
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Conversation, Gateway, ProtocolCore, TcpService
from mailsec.model.address import Address
from mailsec.model.session import Session
from mailsec_socketmap.netstrings import LookUp, SocketmapServer

__all__ = ["SocketmapPlugin", "SocketmapSettings"]


class SocketmapSettings(BaseModel):
    """`[plugin.socketmap]`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    certificate: str = "OK"
    """What the map "certificate" says of an address that mail can be encrypted for."""


class Maps:
    """Who answers look-ups: a `Conversation`."""

    def __init__(self, gateway: Gateway, settings: SocketmapSettings) -> None:
        self._gateway = gateway
        self._settings = settings

    async def ask(self, question: object) -> str:
        """What a map says of a key."""
        assert isinstance(question, LookUp)
        if question.name != "certificate":
            return f"PERM there is no map {question.name}"
        try:
            found = await self._gateway.certificates(Address.parse(question.key))
        except AddressError:
            return "NOTFOUND "
        return f"OK {self._settings.certificate}" if found else "NOTFOUND "

    def body(self, chunk: bytes | memoryview) -> None:
        """No messages come this way."""

    def end_of_body(self) -> None:
        """No messages come this way."""

    def closed(self) -> None:
        """Nothing is held."""


class SocketmapService:
    """The `TcpService` "socketmap"."""

    name = "socketmap"

    def __init__(self, gateway: Gateway, settings: SocketmapSettings) -> None:
        self._gateway = gateway
        self._settings = settings

    def open(self, session: Session) -> tuple[ProtocolCore, Conversation]:
        return SocketmapServer(), Maps(self._gateway, self._settings)


class SocketmapPlugin:
    """What the entry point names."""

    @hookimpl
    def register_config_models(self) -> Mapping[str, type]:
        return {"socketmap": SocketmapSettings}

    @hookimpl
    def register_tcp_services(self, gateway: Gateway) -> Iterable[TcpService]:
        settings = gateway.settings.plugins["socketmap"]
        assert isinstance(settings, SocketmapSettings)
        return [SocketmapService(gateway, settings)]
