"""Sans-IO protocols, and who answers their questions; the services that plugins bring."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any, Protocol

from mailsec.model.requests import Request
from mailsec.model.session import Session, TlsInfo

__all__ = ["Conversation", "ProtocolCore", "ReactorService", "TcpService"]


class ProtocolCore(Protocol):
    """A sans-IO protocol: octets and answers in, requests out (`model.requests`). It never raises for what a peer sends."""

    def connection_made(self) -> Iterable[Request]: ...

    def receive_data(self, data: bytes) -> Iterable[Request]: ...

    def answer(self, value: Any) -> Iterable[Request]:
        """The answer to the open `Ask`."""
        ...

    def streamed(self) -> Iterable[Request]:
        """The last piece of the open `Stream` was taken by the transport."""
        ...

    def tls_started(self, info: TlsInfo) -> Iterable[Request]: ...

    def deadline_passed(self) -> Iterable[Request]: ...

    def connection_lost(self, reason: str) -> Iterable[Request]:
        """The peer is gone; only `Ask` may be returned."""
        ...


class Conversation(Protocol):
    """The other half of a connection: who answers the core's questions and takes what it receives."""

    def ask(self, question: object) -> object | Awaitable[object]:
        """Answer at once, or later."""
        ...

    def body(self, chunk: bytes | memoryview) -> None:
        """A piece of a message. Raise a MailsecError to have its reply sent when the message ends."""
        ...

    def end_of_body(self) -> None: ...

    def closed(self) -> None:
        """The connection is gone; release what is held. No question is asked after this."""
        ...


class TcpService(Protocol):
    """A custom TCP protocol, as a plugin brings it: a `[[listener]]` names it in `service`."""

    name: str

    def open(self, session: Session) -> tuple[ProtocolCore, Conversation]:
        """A new connection: its core, and who answers."""
        ...


class ReactorService(Protocol):
    """A custom protocol that brings a ready Twisted factory."""

    name: str

    def factory(self) -> Any: ...
