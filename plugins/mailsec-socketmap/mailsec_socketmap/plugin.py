"""The plugin "socketmap": the services "socketmap" and "policy", which `[[listener]] service` may name."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping

from mailsec.errors import ConfigurationError
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Conversation, Gateway, ProtocolCore, TcpService
from mailsec.model.session import Session
from mailsec.model.settings import ListenerSettings
from mailsec_socketmap.answers import Answers
from mailsec_socketmap.netstrings import SocketmapServer
from mailsec_socketmap.policy import PolicyServer
from mailsec_socketmap.settings import SocketmapSettings

__all__ = ["SocketmapPlugin"]


class Service:
    """A `TcpService`."""

    def __init__(self, name: str, core: Callable[[], ProtocolCore], answers: Answers) -> None:
        self.name = name
        self._core = core
        # They hold nothing of a connection: one serves all.
        self._answers = answers

    def open(self, session: Session) -> tuple[ProtocolCore, Conversation]:
        """A core of its own for each connection."""
        return self._core(), self._answers


class SocketmapPlugin:
    """What the entry point names."""

    @hookimpl
    def register_config_models(self) -> Mapping[str, type]:
        return {"socketmap": SocketmapSettings}

    @hookimpl
    def register_tcp_services(self, gateway: Gateway) -> Iterable[TcpService]:
        settings = gateway.settings.plugins["socketmap"]
        assert isinstance(settings, SocketmapSettings)
        answers = Answers(gateway, settings)
        services = [Service("socketmap", SocketmapServer, answers), Service("policy", PolicyServer, answers)]
        for listener in gateway.settings.listeners:
            if listener.service in ("socketmap", "policy") and not _for_ourselves(listener):
                # Attack: strangers who ask which addresses exist, who may send as whom, and whose mail is encrypted.
                raise ConfigurationError(
                    f"anybody who reaches {listener.address} could ask who our people are",
                    hint='listen on 127.0.0.1 or a unix socket, or set peers = ["192.0.2.7"]',
                )
        return services


def _for_ourselves(listener: ListenerSettings) -> bool:
    if listener.peers or listener.address.startswith("unix:"):
        return True
    return ipaddress.ip_address(listener.address.rpartition(":")[0].strip("[]")).is_loopback
